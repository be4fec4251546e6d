"""Several devices and several processes, against one: losses, weights, statistics, and runs that are killed."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from helpers import BACKEND, epochs_done, in_new_process, wait_for_epoch

from tf_mmloss.cli import fit
from tf_mmloss.runs.folder import read_history
from tf_mmloss.train import experiment, strategy
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import resolve
from tf_mmloss.train.strategy import Accelerator

HERE = {"tensorflow": "mirrored", "jax": "data-parallel"}.get(BACKEND)
SMALL = Config(dataset="digits", ratio=20, depth=8, epochs=2, batch_size=128, learning_rate=0.1, input="device")

on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="data-parallel needs JAX")
with_a_strategy = pytest.mark.skipif(HERE is None, reason="there is no strategy for PyTorch")

TWO_CPUS = """
import json, os, sys
if os.environ["KERAS_BACKEND"] == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
else:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import keras
import numpy as np
"""

SHARES = """
from tf_mmloss import LDAMLoss

def of(values):
    return replicas.experimental_distribute_values_from_function(lambda c: values[c.replica_id_in_sync_group])

replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
cosines, labels = rng.uniform(-1, 1, (8, 3)).astype("float32"), np.array([0, 0, 1, 2, 0, 2, 1, 0])
given, found = rng.uniform(0.1, 3, 8).astype("float32"), []
for reduction in ("mean_with_sample_weight", "sum_over_batch_size", "sum"):
    for weights in (None, given):
        for rows in (4, 5, 8):  # of the first replica: as many, more, all
            loss = LDAMLoss([20, 10, 5], reduction=reduction)
            loss.enable_class_weights(3)
            loss.class_weights.weight.assign([0.2, 0.8, 2.0])

            def value_and_gradient(u, y, w):
                with tf.GradientTape() as tape:
                    tape.watch(u)
                    value = loss(y, u, w if weights is not None else None)
                return value, tape.gradient(value, u)

            whole, gradient = value_and_gradient(tf.constant(cosines), labels, given)
            shards = [of([tf.constant(a[:rows]), tf.constant(a[rows:])]) for a in (cosines, labels, given)]
            values, gradients = tf.function(lambda *a: replicas.run(value_and_gradient, a))(*shards)
            gradients = np.concatenate([g.numpy() for g in gradients.values])
            error = np.abs(gradients - gradient).max() / np.abs(gradient).max()
            if reduction != "sum":  # Keras logs the mean over replicas of the value times 2
                error = max(error, *(abs(2 * v.numpy() - whole.numpy()) / whole.numpy() for v in values.values))
            found.append([reduction, weights is not None, rows, float(error)])
print(json.dumps(found))
"""

STATISTICS = """
from tf_mmloss import BatchNormalization

replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).normal(2, 3, (6, 5, 5, 4)).astype("float32")
found = []
for rows in (3, 4, 6):
    with replicas.scope():
        layer = BatchNormalization()
        layer.build((None, 5, 5, 4))
    shards = [tf.constant(x[:rows]), tf.constant(x[rows:])]
    shards = replicas.experimental_distribute_values_from_function(lambda c: shards[c.replica_id_in_sync_group])
    outputs = tf.function(lambda a: replicas.run(lambda b: layer(b, training=True), (a,)))(shards)
    outputs = np.concatenate([o.numpy() for o in outputs.values])
    exact = x.astype("float64")
    mean, biased = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    errors = [outputs - (exact - mean) / np.sqrt(biased + 1e-5)]
    for variable, start, batch in ((layer.moving_mean, 0, mean), (layer.moving_variance, 1, biased * 150 / 149)):
        errors += [copy.numpy() - (0.9 * start + 0.1 * batch) for copy in variable.value.values]
    found.append([rows, max(float(np.abs(e).max()) for e in errors)])
print(json.dumps(found))
"""

FITS = """
from tf_mmloss import SAM, SGD, BatchNormalization, CosineDense, DeferredReweighting, MaxMarginLoss
counts = [24, 12, 4]
rng = np.random.default_rng(0)
images, labels = rng.normal(size=(33, 8, 8, 3)).astype("float32"), rng.permutation(np.repeat([0, 1, 2], counts))[:33]

def network():
    inputs = keras.Input((8, 8, 3))
    x = BatchNormalization(name="bn")(keras.layers.Conv2D(8, 3, use_bias=False)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, CosineDense(3)(x))

def train(scope, sam=None):
    keras.utils.set_random_seed(0)
    with scope:
        model = network()
        model = model if sam is None else SAM(model, sam)
        model.compile(SGD(0.01), MaxMarginLoss(counts), metrics=["accuracy"])
    history = model.fit(
        images, labels, batch_size=16, epochs=4, shuffle=False, verbose=0, validation_data=(images, labels),
        validation_batch_size=30, callbacks=[DeferredReweighting(2, counts, "inverse")],
    )
    return history.history, np.concatenate([np.ravel(w) for w in model.get_weights()])

replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
batches = tf.data.Dataset.from_tensor_slices(images).batch(16)
shards = [[len(s) for s in batch.values] for batch in replicas.experimental_distribute_dataset(batches)]
one, two = train(tf.device("CPU:0")), train(replicas.scope())
sharp = [train(tf.device("CPU:0"), 0.5)[1], train(replicas.scope(), 0.5)[1]]
sharp = [float(np.abs(sharp[0] - sharp[1]).max()), float(np.abs(sharp[0] - one[1]).max())]

# Frozen statistics have gradients too.
with replicas.scope():
    model = network()
    for layer in model.layers:
        layer.trainable = "bn" not in layer.name
    model.compile(SGD(0.01), MaxMarginLoss(counts))
model.fit(images, labels, batch_size=16, verbose=0)
answer = model.predict(images, batch_size=16, verbose=0)
weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
frozen = [list(answer.shape), bool(np.isfinite(answer).all() and np.isfinite(weights).all())]
print(json.dumps([shards, one[0], two[0], float(np.abs(one[1] - two[1]).max()), sharp, frozen]))
"""


@on_tensorflow
def test_the_shares_of_replicas_are_the_mean_over_the_global_batch():
    """However the rows are split, with a replica without rows too: gradients, and the value that Keras logs."""
    found = in_new_process(TWO_CPUS + SHARES)
    assert len(found) == 18
    for *case, error in found:
        assert error < 1e-6, case


@on_tensorflow
def test_batch_statistics_are_those_of_the_global_batch():
    for rows, error in in_new_process(TWO_CPUS + STATISTICS):
        assert error < 1e-5, rows


@on_tensorflow
def test_a_plain_fit_in_the_scope_of_mirrored_equals_one_device():
    """Re-weighting starts in the middle, and one replica has no row of the last batch."""
    shards, one, two, difference, (of_sam, from_plain), frozen = in_new_process(TWO_CPUS + FITS)
    assert shards == [[8, 8], [8, 8], [1, 0]]
    assert difference < 1e-5
    assert of_sam < 1e-4 < 1e-3 < from_plain
    assert frozen == [[33, 3], True]
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-5), name


OF_KERAS = """
import helpers, pytest
from pathlib import Path
from tf_mmloss.runs.folder import read_history
from tf_mmloss.train import Config, run

def build(spec, shape, weights):
    images = keras.Input(shape)
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8)(keras.layers.Flatten()(images)))
    return keras.Model(images, keras.layers.ReLU()(x))

helpers.use_backbone(build, pytest.MonkeyPatch())
found = []
for strategy in ("none", "mirrored"):
    folder = Path(sys.argv[1], strategy)
    # Of 417 images 17 are left over, which the devices do not share evenly.
    how = {"backbone": "tiny", "epochs": 2, "batch_size": 100, "learning_rate": 0.01}
    run(Config(dataset="digits", ratio=20, method="erm", strategy=strategy, **how), folder)
    layers = keras.saving.load_model(folder / "last.keras", compile=False)._flatten_layers()
    saved = [layer.synchronized for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    found.append([[[row[name] for name in ("loss", "val_loss")] for row in read_history(folder)], saved])
print(json.dumps(found))
"""


@on_tensorflow
def test_batch_statistics_of_layers_of_keras_are_those_of_the_global_batch(tmp_path):
    """And the saved network can be opened on other backends, which know nothing of `synchronized`."""
    (one, saved), (two, saved_two) = in_new_process(TWO_CPUS + OF_KERAS, tmp_path)
    assert saved == saved_two == [False]
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


SEESAW = """
from tf_mmloss import SGD, SeesawCounts, SeesawLoss
rng = np.random.default_rng(0)
x, y = rng.normal(size=(33, 6)).astype("float32"), rng.integers(0, 3, 33)

def train(scope, attached):
    keras.utils.set_random_seed(0)
    counts = SeesawCounts()
    with scope:
        inputs = keras.Input((6,))
        model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
        model.compile(SGD(0.5), SeesawLoss([20, 10, 5]))
        if attached:  # as variables of the strategy
            counts.attach(model)
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[counts])
    return np.concatenate([np.ravel(w) for w in model.get_weights()]), model.seesaw_counts_0.seen.numpy().tolist()

one, _ = train(tf.device("CPU:0"), False)
replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
two = [train(replicas.scope(), attached) for attached in (False, True)]
print(json.dumps([np.bincount(y).tolist(), *([float(np.abs(w - one).max()), seen] for w, seen in two)]))
"""


@on_tensorflow
def test_seesaw_counts_the_labels_of_all_replicas():
    counts, *found = in_new_process(TWO_CPUS + SEESAW)
    assert len(found) == 2
    for difference, seen in found:
        assert difference < 1e-5
        assert seen == [2 * n for n in counts]


RUN = (
    TWO_CPUS
    + """
from tf_mmloss.cli import fit
for arguments in json.loads(sys.argv[1]):
    assert fit.main(arguments) == 0
"""
)


def command(folder, *more, input="device"):
    small = ["--dataset", "digits", "--ratio", "20", "--depth", "8", "--epochs", "12", "--eval-every", "4"]
    # Of 417 images 17 are left over. The rate is small, for training amplifies rounding: at 0.001 the fused and the
    # plain batch normalisation of one device differ by 1e-3 after twelve epochs.
    recipe = ["--batch-size", "100", "--learning-rate", "0.0001", "--start-epoch", "6"]
    return [*small, *recipe, "--out", str(folder), "--input", input, *more]


def start(commands, process=None, port=None, code=RUN):
    """Begin runs on two devices, or on one of each of two processes."""
    compiled = Path(commands[0][commands[0].index("--out") + 1]).parents[1] / "compiled"  # once for a test session
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "JAX_COMPILATION_CACHE_DIR": str(compiled)}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    if process is not None:
        address = {"JOB_ADDRESSES": f"localhost:{port}", "NUM_PROCESSES": "2", "PROCESS_ID": str(process)}
        environment |= {f"KERAS_DISTRIBUTION_{name}": value for name, value in address.items()}
        code = code.replace("device_count=2", "device_count=1")
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(commands)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(first, second, code=RUN):
    """Begin the runs of two processes, with the commands of each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [start(commands, i, port, code) for i, commands in enumerate((first, second))]


def finish(*processes):
    try:
        printed = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text[-3000:]
    return printed


def kill(folder, *processes):
    """After some epochs, but before the last."""
    try:
        wait_for_epoch(folder, 2, processes[0])
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert 2 <= epochs_done(folder) < 12


def result(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on one device, and the same on two by both inputs."""
    root = tmp_path_factory.mktemp("runs")
    two = [command(root / input, "--strategy", HERE, input=input) for input in ("host", "device")]
    printed = finish(start([command(root / "one"), *two]))[0]
    assert printed.count(f"{HERE}: 2 device(s), 1 process(es)") == 2
    return root


@with_a_strategy
@pytest.mark.parametrize("input", ["host", "device"])
def test_a_run_on_two_devices_equals_one_on_one(runs, input):
    one, two = read_history(runs / "one"), read_history(runs / input)
    for name in ("loss", "val_loss", "reweighting", "learning_rate"):
        theirs = [row[name] for row in one if name in row]
        assert [row[name] for row in two if name in row] == pytest.approx(theirs, rel=1e-5), name
    assert result(runs / input)["error"] == pytest.approx(result(runs / "one")["error"], abs=0.01)
    begun = json.loads((runs / input / "environment.json").read_text())["starts"]
    assert [(s["devices"], s["processes"]) for s in begun] == [(2, 1)]


@with_a_strategy
def test_a_killed_run_on_two_devices_ends_like_an_uninterrupted_one(runs, tmp_path):
    arguments = command(tmp_path / "run", "--strategy", HERE, "--resume", input="host")
    kill(tmp_path / "run", start([arguments]))
    finish(start([arguments]))
    assert result(tmp_path / "run")["checksum"] == result(runs / "host")["checksum"]


@on_jax
def test_two_processes_that_are_killed_equal_one(runs, tmp_path):
    folder = tmp_path / "run"
    arguments = command(folder, "--strategy", "data-parallel", "--resume")
    kill(folder, *start_two([arguments], [arguments]))
    first, second = finish(*start_two([arguments], [arguments]))
    assert "data-parallel: 2 device(s), 2 process(es)" in first
    assert "epoch  12/12" in first
    assert "epoch" not in second
    assert result(folder)["checksum"] == result(runs / "device")["checksum"]
    begun = json.loads((folder / "environment.json").read_text())["starts"]
    assert [(s["devices"], s["processes"]) for s in begun] == [(2, 2)] * 2


@on_jax
def test_processes_that_do_not_agree_all_stop_at_once(tmp_path):
    refused = RUN.replace("assert fit.main(arguments) == 0", "assert fit.main(arguments) == 2")
    alike = command(tmp_path / "run", "--strategy", "data-parallel")
    others = [[*alike, "--seed", "1"], [*alike, "--batch-size", "101"]]
    first, second = finish(*start_two([alike, alike], others, code=refused))
    assert "All processes must be given the same options" in first
    assert "All processes must be given the same options" in second
    assert "All processes must be able to begin. Received: an error in [1]" in first
    assert "`batch_size` must be a multiple of the 2 devices" in second
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", strategy.NEEDS)
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_strategy_that_the_backend_lacks_is_refused(name, backend, monkeypatch, tmp_path):
    if strategy.NEEDS[name] == backend:
        pytest.skip("it has it")
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    works = {"tensorflow": "--strategy mirrored runs on it", "jax": "--strategy data-parallel runs on it"}
    said = works.get(backend, "it has one device a run")
    with pytest.raises(ValueError, match=f"`strategy` {name} needs the .* backend. Received: {backend}; {said}"):
        experiment.run(dataclasses.replace(SMALL, strategy=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@with_a_strategy
def test_batches_that_the_devices_cannot_share_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(strategy, "num_devices", lambda config: 3)
    with pytest.raises(ValueError, match=r"`batch_size` must be a multiple of the 3 devices .*=128"):
        experiment.run(dataclasses.replace(SMALL, strategy=HERE), tmp_path / "run")
    if HERE == "mirrored":
        monkeypatch.setattr(strategy, "num_devices", lambda config: 4)
        with pytest.raises(ValueError, match=r"`batch_size` must not exceed the 417 training images"):
            experiment.run(dataclasses.replace(SMALL, strategy=HERE, batch_size=420), tmp_path / "run")
        with pytest.raises(ValueError, match="`batch_size` must leave every device an image of the last batch of 417"):
            experiment.run(dataclasses.replace(SMALL, strategy=HERE, batch_size=12), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_strategies_are_refused(capsys):
    assert fit.main(["--strategy", "miror"]) == 2
    assert "Did you mean 'mirrored'" in capsys.readouterr().err


@on_jax
def test_half_of_the_variables_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match=r"takes all of KERAS_DISTRIBUTION_JOB_ADDRESSES, .*NUM_PROCESSES'\]"):
        experiment.run(dataclasses.replace(SMALL, strategy="data-parallel"), tmp_path / "run")


def test_a_precision_that_the_devices_lack_is_refused(monkeypatch, tmp_path):
    a100, t4, other = Accelerator("A100", (8, 0)), Accelerator("T4", (7, 5)), Accelerator("of another maker")
    monkeypatch.setattr(strategy, "accelerators", lambda: [a100, other, t4])
    with pytest.raises(ValueError, match=r"`precision` bfloat16 needs GPUs .* Received: T4, 7\.5"):
        experiment.run(dataclasses.replace(SMALL, precision="bfloat16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for precision in ("float16", "float32"):
        strategy.check(resolve(dataclasses.replace(SMALL, precision=precision)))
    monkeypatch.setattr(strategy, "accelerators", lambda: [a100, other])
    strategy.check(resolve(dataclasses.replace(SMALL, precision="bfloat16")))


def test_processors_are_no_accelerators():
    assert not [found for found in strategy.accelerators() if "cpu" in found.name.lower()]


@on_jax
def test_what_jax_says_of_its_devices(monkeypatch):
    import jax

    found = [
        SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0"),
        SimpleNamespace(platform="gpu", device_kind="MI250", compute_capability="gfx90a"),
        SimpleNamespace(platform="tpu", device_kind="TPU v5"),
        SimpleNamespace(platform="cpu", device_kind="cpu"),
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: found)
    assert strategy.accelerators() == [Accelerator("NVIDIA H100", (9, 0)), Accelerator("MI250"), Accelerator("TPU v5")]


@on_jax
def test_a_config_is_checked_before_jax_starts():
    """Or several processes could not meet any more: `jax.distributed.initialize` must come first."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from tf_mmloss.methods import METHODS
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import resolve
for method in METHODS:
    resolve(Config(method=method))
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parents[1])]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
