"""The checks of arguments, on values of every kind."""

import datetime
import itertools
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_mmloss import _validation
from tf_mmloss._validation import choice, flag, function, integer, number, path, sequence, shown, text


class Raises:
    """An object all of whose own methods fail."""

    ndim = 0

    def _fail(self, *args, **kwargs):
        raise KeyError("of the object")

    __array__ = __index__ = __float__ = __int__ = __bool__ = __len__ = __iter__ = __repr__ = __str__ = __fspath__ = (
        _fail
    )
    __eq__ = __lt__ = __gt__ = __getitem__ = __format__ = _fail
    __hash__ = None
    dtype = property(_fail)


NO_NUMBERS = [
    None,
    True,
    np.True_,
    np.array(True),
    "3",
    b"3",
    np.array("3"),
    np.array(["a", "b"]),
    1j,
    np.complex64(1),
    datetime.date(2020, 1, 1),
    np.datetime64("2020"),
    np.timedelta64(3, "s"),
    10**5000,
    [3],
    [1, [2]],
    np.array([3]),
    np.array(None),
    {},
    itertools.count(),
    object,
    Raises(),
    [Raises()] * 1000,
    math.nan,
    math.inf,
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_refused_in_our_words(value):
    for check, expected in ((number, "a finite number"), (integer, "an integer >= 0")):
        with pytest.raises(ValueError, match=f"`rate` must be {expected}.*Received: rate=") as raised:
            check("rate", value)
        assert len(str(raised.value)) < 250


@pytest.mark.parametrize("make", [int, float, np.float32, np.array, np.int8, keras.ops.convert_to_tensor])
def test_numbers_of_every_library(make):
    assert number("rate", make(3), above=0) == 3.0
    assert type(number("rate", make(3))) is float


@pytest.mark.parametrize("make", [int, np.array, np.uint8, keras.ops.convert_to_tensor])
def test_whole_numbers_of_every_library(make):
    assert integer("depth", make(3)) == 3
    assert type(integer("depth", make(3))) is int


def test_numbers_are_those_of_float32():
    """In it 1e39 is infinite, and 1e-46 is zero, which matters where zero is excluded."""
    for value in (1e39, -1e39, 10**400):
        with pytest.raises(ValueError, match="`scale` must be a finite number"):
            number("scale", value)
    assert number("decay", 1e-46, at_least=0) == 1e-46
    with pytest.raises(ValueError, match="> 0 that float32 can hold"):
        number("scale", 1e-46, above=0)


def test_bounds_stand_in_the_message():
    with pytest.raises(ValueError, match=r"`x` must be a finite number > 0 and <= 2\. Received: x=3"):
        number("x", 3, above=0, at_most=2)
    with pytest.raises(ValueError, match=r"`x` must be an integer >= 1 and <= 5\. Received: x=6"):
        integer("x", 6, at_least=1, at_most=5)
    with pytest.raises(ValueError, match=r"`x` must be an integer >= 0 and <= 9223372036854775807\. Received: x=1000"):
        integer("x", 10**400)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_choices_are_strings(value):
    with pytest.raises(ValueError, match="`head` must be one of cosine, dense"):
        choice("head", value, ("cosine", "dense"))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (flag, [True, np.False_], [0, 1.0, None, "True", np.array([True]), Raises()]),
        (text, ["a", "ä b"], ["", "a\0", "\ud800", b"a", None, 3, Raises()]),
        (path, ["a", Path("a")], ["", "a\0", 0.5, None, b"a", ["a"], "~nobody-of-that-name/a", Raises()]),
        (function, [len], [None, "len", 3, Raises()]),
        (
            sequence,
            [[1], (1, 2), np.arange(3)],
            [None, 3, "abc", {1}, {}, itertools.count(), np.ones((2, 2)), Raises()],
        ),
        (_validation.array, [[1], 3], [[1, [2]], Raises(), range(10**15)]),
        (_validation.numeric, [[1, 2.5], [True]], [["a"], [1j], [math.nan], [None], [[1], [1, 2]], Raises()]),
        (lambda argument, value: _validation.name(value), [None, "loss"], ["", "a/b", 3, Raises()]),
    ],
    ids=["flag", "text", "path", "function", "sequence", "array", "numeric", "name"],
)
def test_other_checks(check, good, bad):
    for value in good:
        check("name", value)
    for value in bad:
        with pytest.raises(ValueError, match="`name` must"):
            check("name", value)


def test_a_path_below_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert path("folder", "~/run") == Path("/somewhere/run")


@pytest.mark.parametrize("value", ["x" * 10**6, list(range(10**6)), 10**400, np.zeros((100, 100)), Raises()])
def test_a_shown_value_is_short(value):
    assert len(shown(value)) <= 100
    assert "\n" not in shown(value)
