"""What several test files share: gradients and jit on every backend, a new process, the published code's outputs."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_mmloss
from tf_mmloss import backbones

BACKEND = keras.backend.backend()
DATA = Path(__file__).parent / "data"

needs_jit = pytest.mark.skipif(BACKEND == "torch", reason="jit_compile is tested on TensorFlow and JAX")
once = pytest.mark.skipif(BACKEND == "jax", reason="the same code, and every run compiles anew")


def to_numpy(x):
    if isinstance(x, keras.Variable):
        x = keras.ops.convert_to_tensor(x)
    return np.asarray(keras.ops.convert_to_numpy(x) if keras.ops.is_tensor(x) else x)


def assert_close(actual, expected, rel):
    """All within `rel` of the largest magnitude of `expected`."""
    actual, expected = to_numpy(actual).astype(np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    error = np.max(np.abs(actual - expected)) / np.max(np.abs(expected))
    assert error <= rel, f"relative error {error:.3g} > {rel:g}"


def value_and_gradient(function, x):
    """Return the tensors `function(x)` and the gradient of its sum."""
    x = keras.ops.convert_to_tensor(x)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return value, tape.gradient(value, x)
    if BACKEND == "jax":
        import jax

        value, pull_back = jax.vjp(function, x)
        return value, pull_back(jax.numpy.ones_like(value))[0]
    x = x.detach().requires_grad_()
    value = function(x)
    value.sum().backward()
    return value, x.grad


def jitted(function):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import jax

    return jax.jit(function)


@contextlib.contextmanager
def float64():
    """Let the backend compute in float64, and make it the default of layers, optimizers and metrics."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    with contextlib.ExitStack() as stack:
        if BACKEND == "jax":
            import jax

            stack.enter_context(jax.enable_x64(True))
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        try:
            yield
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)


def in_new_process(code, *arguments):
    """Run Python `code` on the same backend; return the JSON of its last line."""
    here = [str(Path(tf_mmloss.__file__).parents[1]), str(Path(__file__).parent)]
    path = os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@contextlib.contextmanager
def copied_at_renames(folder, copies, monkeypatch, after=None):
    """Copy `folder` into `copies` as a kill before each rename would leave it, and after it; give the list of copies.

    `after(name)` says after which targets it is copied too. Default: all.
    """
    taken, rename = [], os.replace

    def copy():
        if folder.exists():
            taken.append(copies / f"killed-{len(taken):02d}")
            shutil.copytree(folder, taken[-1])

    def replace(source, target):
        copy()
        rename(source, target)
        if after is None or after(Path(target).name):
            copy()

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(os, "rename", replace)
        yield taken


def files_of(folder):
    """What a folder holds, by name."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def savefig(figure, target, **options):
    """For `Figure.savefig`, which is slow; to a path or a buffer."""
    axes = figure.axes[0]
    shown = [line.get_xydata().tolist() for line in axes.lines], [bar.get_height() for bar in axes.patches[:10]]
    text = f"{axes.get_title()} {shown}".encode()
    target.write(text) if hasattr(target, "write") else Path(target).write_bytes(text)


def epochs_done(folder):
    """Complete epochs in a run folder."""
    latest = folder / "checkpoint" / "latest.json"
    return len(json.loads(latest.read_text())["history"]) if latest.exists() else 0


def wait_for_epoch(folder, epoch, process):
    """Wait until a process has that many in a run folder."""
    deadline = time.monotonic() + 300
    while epochs_done(folder) < epoch:
        alive = process.is_alive() if hasattr(process, "is_alive") else process.poll() is None
        assert alive, "the run ended early"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextlib.contextmanager
def interrupts(handler=signal.default_int_handler):
    """Handle SIGINT as Python does by default: a shell's background jobs ignore it, and pass that on."""
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, previous)


def augmented_by_hand(images, rows, pad):
    """Images in [0, 1] as rows of `tf_mmloss.sampling.draw_rows` say: cropped, mirrored, rotated."""
    out = []
    for position, top, left, mirrored, turns in rows:
        padded = np.pad(images[position], ((pad, pad), (pad, pad), (0, 0)))
        crop = padded[top : top + images.shape[1], left : left + images.shape[2]]
        out.append(np.rot90(crop[:, ::-1] if mirrored else crop, turns) / 255)
    return np.array(out)


def use_backbone(build, monkeypatch):
    """Make `backbone` tiny the network that `build(spec, shape, weights)` returns, which comes with any weights."""
    kind = types.SimpleNamespace(
        FORM="tiny",
        matches=lambda spec: spec == "tiny",
        check=lambda spec, weights: None,
        statistics=lambda spec, channels: None,
        build=build,
    )
    monkeypatch.setattr(backbones, "_KINDS", (*backbones._KINDS, kind))


def official(name="official_code"):
    """Outputs of the published PyTorch code on random inputs."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def keras_name(name):
    """Layer and variable for a PyTorch name: 'layer2.0.bn1.bias' -> 'stage2_block1_1_bn', 'beta'."""
    module, variable = name.rsplit(".", 1)
    if module == "linear":
        return "head", "kernel"
    match = re.fullmatch(r"(?:layer(\d)\.(\d+)\.)?(conv|bn)(\d)", module)
    stage, block, kind, index = match.groups()
    layer = f"stage{stage}_block{int(block) + 1}_{index}_{kind}" if stage else f"stem_{kind}"
    names = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    return layer, names.get(variable, "kernel" if kind == "conv" else "gamma")


def carry_weights(model, state):
    """Assign a published ResNet's state to this package's: convolutions go from OIHW to HWIO."""
    assigned = []
    for name, array in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        layer, attribute = keras_name(name)
        variable = getattr(model.get_layer(layer), attribute)
        variable.assign(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)
        assigned.append(id(variable))
    assert sorted(assigned) == sorted(id(variable) for variable in model.weights)


def model_in(dtype, model):
    """Clone a model with all its layers in `dtype`: the package's heads stay in float32 otherwise."""

    def clone(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": dtype})

    return keras.models.clone_model(model, clone_function=clone)
