"""Odd arguments to every public name: a sensible result, or an error of ours that names an argument.

What is public is found, so a new name is covered by being public. Objects are made, and called once where that is
cheap; nothing is trained.
"""

import collections
import contextlib
import datetime
import decimal
import fractions
import importlib
import inspect
import itertools
import math
import numbers
import random
import re
import signal
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_mmloss
from tf_mmloss._validation import shown
from tf_mmloss.data import DataError
from tf_mmloss.layers.features import KeepFeatures

PACKAGE = str(Path(tf_mmloss.__file__).parent)
TRIES = 200
SLOW, OF_SLOW = ("tf_mmloss.resnet", "models.resnet", "evaluation"), 40  # what builds a network or draws, its tries
SECONDS = 20  # of one call, on a busy machine
MEMORY = 4 * 2**30  # more than any of these calls may take

# Modules all of whose own functions and classes are public, beside what `__all__` lists.
MODULES = ("imbalance", "sampling", "metrics", "models", "schedules", "optimizers", "pipeline", "device_input", "sam")
MODULES += ("evaluation", "resampled_dataset", "methods.base", "export")
MODULES += ("mix.cutmix", "mix.mixup", "mix.remix", "mix.cmo")
PACKAGES = ("losses", "layers", "callbacks", "decide", "mix", "augment", "backbones", "data", "train")


def public():
    found = {f"tf_mmloss.{name}": getattr(tf_mmloss, name) for name in tf_mmloss.__all__}
    for package in PACKAGES:
        module = importlib.import_module(f"tf_mmloss.{package}")
        found |= {f"{package}.{name}": getattr(module, name) for name in module.__all__}
    for name in MODULES:
        module = importlib.import_module(f"tf_mmloss.{name}")
        own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        found |= {f"{name}.{key}": value for key, value in own.items() if not key.startswith("_")}
    names = {}
    for name, value in found.items():
        exception = isinstance(value, type) and issubclass(value, BaseException)
        if callable(value) and not exception and not inspect.isabstract(value) and value not in names.values():
            names[name] = value
    return names


class Raises:
    """An object all of whose own methods fail."""

    ndim = 1

    def _fail(self, *args, **kwargs):
        raise KeyError("of the object")

    __array__ = __index__ = __float__ = __int__ = __bool__ = __len__ = __iter__ = __repr__ = __str__ = __fspath__ = (
        _fail
    )
    __eq__ = __lt__ = __gt__ = __getitem__ = __format__ = _fail
    __hash__ = None
    dtype = shape = property(_fail)


class Hostile(collections.abc.Mapping):
    """A mapping that fails when it is read."""

    def __getitem__(self, key):
        raise KeyError(key)

    def __iter__(self):
        raise OSError("of the object")

    def __len__(self):
        return 3


NUMBERS = [
    0,
    -1,
    1,
    3,
    2**31,
    2**53,
    2**63,
    2**64,
    10**400,
    0.5,
    -0.5,
    1e30,
    1e38,
    1e300,
    -1e300,
    1e-30,
    1e-300,
    5e-324,
]
NUMBERS += [math.nan, math.inf, -math.inf, True, 1j, np.float16(3), np.int8(3), np.True_, np.complex64(1), np.str_("3")]
NUMBERS += [fractions.Fraction(1, 3), decimal.Decimal("0.3"), datetime.date(2020, 1, 1), np.datetime64("2020")]
NUMBERS += [np.timedelta64(3, "s"), np.array(3), np.array("3"), np.array(None)]
TEXTS = [
    "",
    "3",
    "effective",
    "a/b",
    "a\0b",
    "\ud800",
    "x" * 10**5,
    "/dev/null/a",
    b"",
    b"few",
    bytearray(b"a"),
    Path("a"),
]
ARRAYS = [[], (), [[]], [1], [1, 2], [1, 2, 3], (3, 2, 1), [0, 0, 0], [5, 0, 3], [-1, 1, 2], [0.5, 1.5, 2], [True] * 3]
ARRAYS += [
    [math.nan] * 3,
    [math.inf] * 3,
    [2**63] * 3,
    [1e30] * 3,
    [10**400] * 3,
    [10**10, 0, 1],
    [[1], [1, 2]],
    [None] * 3,
]
ARRAYS += [["a", "b", "c"], ["a", None, 1], [b"a", "b"], [1j] * 3, [[1, 0, 0]] * 4, [[0.5, 0.5, 0]] * 4, np.zeros(0)]
ARRAYS += [
    np.zeros((2, 3, 4)),
    np.zeros((3, 0)),
    np.zeros(3, "complex64"),
    np.zeros(3, "datetime64[s]"),
    np.eye(3, dtype=bool),
]
ARRAYS += [np.array([1, None, "a"], object), np.zeros(3, [("a", "f4")]), np.zeros((1,) * 40), [[[[[[1]]]]]]]
OTHERS = [None, {}, {0: 3, 1: 2}, {"a": 3, "b": 2}, {0: 3, "a": 2}, {0: [1], 1: {}}, {1, 2}, collections.Counter("aab")]
OTHERS += [
    object(),
    lambda *args: None,
    range(3),
    range(10**15),
    memoryview(b"abc"),
    slice(3),
    ...,
    NotImplemented,
]
ODD = [*NUMBERS, *TEXTS, *ARRAYS, *OTHERS]
MAKE = [Raises, Hostile, lambda: [Raises()] * 3, lambda: {0: Raises()}, itertools.count, lambda: (i for i in range(3))]


def images():
    return np.zeros((6, 8, 8, 1), "uint8")


# A value that is right, by the name of the argument; what has a default has one.
LABELS = np.array([0, 0, 1, 2, 0, 1])  # as many of each class as `cls_counts`
GOOD = {
    "cls_counts": lambda: [3, 2, 1],
    "labels": lambda: LABELS,
    "labels_or_counts": lambda: LABELS,
    "predictions": lambda: LABELS,
    "probabilities": lambda: np.full((6, 4), 0.25),
    "y_true": lambda: LABELS,
    "y_pred": lambda: np.linspace(-1, 1, 18, dtype="float32").reshape(6, 3),
    "logits": lambda: np.linspace(-1, 1, 18, dtype="float32").reshape(6, 3),
    "model_or_loss": lambda: tf_mmloss.MaxMarginLoss([3, 2, 1]),
    "num_classes": lambda: 3,
    "n_max": lambda: 50,
    "imbalance": lambda: "longtail",
    "ratio": lambda: 10,
    "mean": lambda: (0.5,),
    "std": lambda: (0.2,),
    "depth": lambda: 8,
    "input_shape": lambda: (8, 8, 1),
    "units": lambda: 3,
    "filters": lambda: 4,
    "start_epoch": lambda: 1,
    "folder": lambda: "no-such-folder",
    "images": images,
    "features": lambda: keras.Input((4,)),
    "normalize": lambda: tf_mmloss.normalization((0.5,), (0.2,)),
    "seed": lambda: 0,
    "epoch": lambda: 1,
    "n": lambda: 6,
    "batch_size": lambda: 4,
    "num_examples": lambda: 6,
    "positions": lambda: LABELS,
    "pad": lambda: 1,
    "resampling": lambda: None,
    "x": images,
    "y": lambda: LABELS,
    "num_replicas": lambda: 1,
    "rank": lambda: 0,
    "right": lambda: [True, False],
    "confidence": lambda: [0.9, 0.4],
    "many": lambda: 2,
    "few": lambda: 2,
}

# Tensors: of any shape and value, but of numbers, and NaN may come of NaN.
DATA = {"y_true", "y_pred", "logits"}
SHAPES = [(), (0,), (1,), (3,), (6,), (0, 3), (6, 1), (6, 2), (6, 3), (3, 6), (6, 3, 1), (1, 1, 1, 1)]
TENSORS = [np.full(shape, value, "float32") for shape in SHAPES for value in (0, 1, 2, -1, 255, 0.5, 1e38, math.nan)]

# What an argument is called in messages, where that is another name: that of the loss's, or of the command line's.
ALIASES = (("labels", "y_true"), ("logits", "y_pred"), ("spec", "decide"), ("name", "mix"), ("names", "augment"))
ALIASES += (("spec", "backbone"), ("name", "loss"), ("spec", "dataset"))

# Faults that are known, and mended elsewhere: arguments by name.
KNOWN: dict[str, set[str]] = {}

# Names that take a model, or nothing that can be odd.
LEFT_OUT = {"device_input.EpochModel", "device_input.SeveralRuns", "sampling.Epoch"}
# Between modules of the package: they take what those have checked.
LEFT_OUT |= {"device_input.pixel_index", "sampling.announce", "sampling.as_resampling"}
LEFT_OUT |= {"evaluation.cross_fitted", "evaluation.summary"}
# What functions return.
LEFT_OUT |= {"decide.Decided", "data.Images", "data.Dirt"}
LEFT_OUT |= {"data.Source"}  # what a kind of source is made of: its errors are about the data
PUBLIC = {name: value for name, value in public().items() if name not in LEFT_OUT}


class TooLong(BaseException):
    """A call does not end."""


@contextlib.contextmanager
def limited():
    """Limit what the calls take: their memory on Linux."""

    def stop(*args):
        raise TooLong

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
    except (ImportError, OSError, ValueError):
        resource = None
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if resource:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def parameters(target):
    named = inspect.signature(target).parameters.values()
    return {p.name: p for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and not p.name.startswith("_")}


def good(target, name):
    """A right value of an argument; the targets of a multi-label function are rows."""
    if name == "y_true" and target in (tf_mmloss.losses.asymmetric, tf_mmloss.losses.distribution_balanced):
        return np.eye(3, dtype="float32")[LABELS]
    if name == "features" and target is tf_mmloss.losses.influence_balanced:
        return np.ones((6, 4), "float32")
    return GOOD[name]()


def good_arguments(target):
    """Arguments that are right; None where one has no known value."""
    required = [p for p in parameters(target).values() if p.default is p.empty]
    if any(p.name not in GOOD for p in required):
        return None
    return {p.name: good(target, p.name) for p in required}


def odd_arguments(target, rng):
    """Right arguments but for one or two, and the names of those."""
    chosen = parameters(target)
    arguments = {name: good(target, name) for name, p in chosen.items() if p.default is p.empty and name in GOOD}
    missing = [name for name, p in chosen.items() if p.default is p.empty and name not in GOOD]
    odd = {*missing, *rng.sample(sorted(chosen), min(len(chosen), rng.choice((1, 1, 1, 2))))}
    for name in sorted(odd):
        if name in DATA or (name == "labels" and "logits" in chosen):
            arguments[name] = rng.choice(TENSORS)
        else:
            arguments[name] = rng.choice(MAKE)() if rng.random() < 0.15 else rng.choice(ODD)
    return arguments, odd


def use(result):
    """What comes of a result: its numbers, and those that it gives when it is called."""
    module = type(result).__module__
    values = (
        list(vars(result).values()) if module.startswith(("tf_mmloss", "keras")) and hasattr(result, "__dict__") else []
    )
    if isinstance(result, keras.losses.Loss) and type(result) is not tf_mmloss.LongTailLoss:
        width = len(getattr(result, "cls_counts", None) or [0] * 3)
        y_pred = np.linspace(-1, 1, 4 * width, dtype="float32").reshape(4, width)
        labels = np.arange(4) % width
        multi_label = isinstance(result, (tf_mmloss.AsymmetricLoss, tf_mmloss.DistributionBalancedLoss))
        if isinstance(result, tf_mmloss.LongTailLoss) and result.needs_features:
            y_pred = KeepFeatures()([keras.ops.convert_to_tensor(y_pred)] * 2)
        values.append(result(np.eye(width, dtype="float32")[labels] if multi_label else labels, y_pred))
    if isinstance(result, tf_mmloss.WarmupStepSchedule):
        values += [result(epoch) for epoch in (0, 10**6)]
    return [result, *values]


def assert_finite(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            assert_finite(each)
    elif isinstance(value, (numbers.Real, np.ndarray)) or keras.ops.is_tensor(value):
        array = np.asarray(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)
        if array.dtype.kind in "fc":
            assert np.isfinite(array).all(), array


def assert_ours(error, target, arguments):
    """The error was raised by the package, in a message that names an argument."""
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    assert frame.tb_frame.f_code.co_filename.startswith(PACKAGE), f"raised elsewhere: {error!r}"
    if isinstance(error, DataError):  # about what lies on the disk
        return
    named = arguments.get("argument")  # what the caller calls it
    words = set(re.findall(r"\w+", str(error)))
    words |= {alias for alias, name in ALIASES if name in words}
    assert words & set(parameters(target)) or (isinstance(named, str) and named in str(error)), (
        f"names no argument: {error!r}"
    )
    assert len(str(error)) < 1000


def call(target, arguments, odd):
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        result = target(**arguments)
    except (ValueError, TypeError) as error:
        assert_ours(error, target, arguments)
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if not odd & DATA:
        assert_finite(use(result))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLIC)
def test_odd_arguments(name):
    target = PUBLIC[name]
    if not parameters(target):
        return
    if name.startswith(("pipeline.", "export.")):
        pytest.importorskip("tensorflow")
    rng = random.Random(zlib.crc32(name.encode()))
    with limited():
        right = good_arguments(target)
        if right is not None:
            assert_finite(use(target(**right)))
        for _ in range(OF_SLOW if name.startswith(SLOW) else TRIES):
            arguments, odd = odd_arguments(target, rng)
            if odd & KNOWN.get(name, set()):
                continue
            try:
                call(target, arguments, odd)
            except (Exception, TooLong) as error:
                given = ", ".join(f"{key}={shown(arguments[key])}" for key in sorted(odd))
                pytest.fail(f"{name}({given}): {type(error).__name__}: {shown(str(error), 500)}", pytrace=False)
