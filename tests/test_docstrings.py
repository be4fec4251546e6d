"""The examples of all docstrings are run, in a folder of their own and with the names that they take for granted."""

import doctest
import importlib
import pkgutil
import warnings

import keras
import numpy as np
import pytest
from helpers import BACKEND

import tf_mmloss

# Examples that are not run, with the reason.
NOT_RUN = {
    "tf_mmloss.export.export": "takes seconds, and test_export.py does the same",
    "tf_mmloss.device_input.SeveralRuns": "needs JAX and a program around it, see test_device_input.py",
    "tf_mmloss.device_input.EpochModel": "needs JAX, see test_device_input.py",
}
NEED_TENSORFLOW = ("tf_mmloss.pipeline.", "tf_mmloss.callbacks.deferred_resampling.")
MODULES = sorted(m.name for m in pkgutil.walk_packages(tf_mmloss.__path__, "tf_mmloss.") if "__main__" not in m.name)


class Short(keras.Model):
    """Trains for one epoch, however many an example asks for."""

    def fit(self, *arguments, epochs=1, steps_per_epoch=None, **more):
        more = {"verbose": 0, **more} | ({"steps_per_epoch": 1} if steps_per_epoch else {})
        return super().fit(*arguments, epochs=more.get("initial_epoch", 0) + 1, **more)


class Batch(keras.utils.PyDataset):
    """One batch, as a data set."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.arrays


def names():
    """What the examples take for granted: a compiled model, images and labels."""
    x, y = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype("uint8"), np.arange(20) % 10
    ages, kinds, cls_counts = [30, 10], [20, 15, 5], [29] + [10] * 9
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    model = Short(inputs, tf_mmloss.CosineDense(10, name="head")(features))
    model.compile(tf_mmloss.SGD(0.1), tf_mmloss.MaxMarginLoss(cls_counts))
    heads = {"kind": tf_mmloss.CosineDense(3, name="kind"), "age": tf_mmloss.CosineDense(2, name="age")}
    mean, std = (0.5,) * 3, (0.25,) * 3
    return {
        **{"keras": keras, "np": np, "x": x, "y": y, "cls_counts": cls_counts, "ages": ages, "kinds": kinds},
        **{name: getattr(tf_mmloss, name) for name in tf_mmloss.__all__},
        "model": model,
        "network": model,
        "two_outputs": Short(inputs, {name: head(features) for name, head in heads.items()}),
        "data": Batch(x.astype("float32"), y),
        "kinds_and_ages": Batch(x.astype("float32"), {"kind": y % 3, "age": y % 2}),
        "mean": mean,
        "std": std,
        "normalize": tf_mmloss.normalization(mean, std),
        "names": [f"class {c}" for c in range(10)],
    }


class Checker(doctest.OutputChecker):
    """An example that shows no output promises none."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def examples(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"not installed: {error.name}")
    tests = [t for t in doctest.DocTestFinder().find(module, name) if t.examples and t.name not in NOT_RUN]
    if BACKEND == "torch":  # its environment has no TensorFlow
        tests = [t for t in tests if not t.name.startswith(NEED_TENSORFLOW)]
    return tests


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failures, tests = [], examples(name)
    given = names() if tests else {}
    runner = doctest.DocTestRunner(
        Checker(), verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    for test in tests:
        assert not any(e.options.get(doctest.SKIP) for e in test.examples), "name it in NOT_RUN, with the reason"
        if "tf_mmloss.pipeline" not in name and "DeferredResampling" in test.name:
            test.globs["train_dataset"] = importlib.import_module("tf_mmloss.pipeline").train_dataset
        test.globs = {**given, **test.globs}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one epoch is too short for what they schedule
            runner.run(test, out=failures.append)
    assert not failures, "".join(failures)
