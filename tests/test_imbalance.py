"""Class counts, subsets, class weights and margins."""

import collections
import math
from fractions import Fraction

import numpy as np
import oracles
import pytest

from tf_mmloss import imbalance
from tf_mmloss.imbalance import (
    check_counts,
    check_labels,
    class_counts,
    class_weight,
    class_weights,
    effective_number_weights,
    imbalanced_counts,
    inverse_frequency_weights,
    ldam_margins,
    subset_indices,
)

TOTALS = {
    (5000, 10, "longtail", 100): 12406,
    (5000, 10, "longtail", 10): 20431,
    (5000, 10, "step", 100): 25250,
    (5000, 10, "step", 10): 27500,
    (500, 100, "longtail", 100): 10847,
    (500, 100, "longtail", 10): 19573,
    (500, 100, "step", 100): 25250,
    (500, 100, "step", 10): 27500,
}
COUNTS = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@pytest.mark.parametrize(("setting", "total"), TOTALS.items())
def test_totals_of_the_eight_settings(setting, total):
    n_max, classes, _, ratio = setting
    counts = imbalanced_counts(*setting)
    assert counts.sum() == total
    assert counts.shape == (classes,)
    assert counts.max() == n_max
    assert counts.min() == n_max // ratio
    assert np.all(np.diff(counts) <= 0)


def test_published_counts():
    assert imbalanced_counts(5000, 10, "longtail", 100).tolist() == COUNTS
    assert imbalanced_counts(12, 5, "step", 4).tolist() == [12, 12, 3, 3, 3]


@pytest.mark.parametrize("kind", ["longtail", "step"])
def test_ratio_one_is_balanced(kind):
    assert imbalanced_counts(30, 4, kind, 1).tolist() == [30] * 4


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99, 0.9999, 0.999999])
def test_effective_number_weights(beta):
    weights = effective_number_weights(COUNTS, beta)
    np.testing.assert_allclose(weights, oracles.effective_number_weights(COUNTS, beta), rtol=1e-11)
    assert math.fsum(weights) == pytest.approx(len(COUNTS), rel=1e-12)


def test_effective_number_weights_without_overlap_are_equal():
    np.testing.assert_array_equal(effective_number_weights(COUNTS, 0.0), np.ones(10))
    np.testing.assert_allclose(effective_number_weights(COUNTS, 1e-9), np.ones(10), rtol=1e-8)


def test_effective_number_weights_approach_the_inverse():
    inverse = inverse_frequency_weights(COUNTS)
    gaps = [np.abs(effective_number_weights(COUNTS, beta) / inverse - 1).max() for beta in (0.9999, 1 - 1e-6, 1 - 1e-9)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-5


def test_inverse_frequency_weights():
    weights = inverse_frequency_weights(COUNTS)
    np.testing.assert_allclose(weights, oracles.inverse_frequency_weights(COUNTS), rtol=1e-12)
    np.testing.assert_allclose(weights * COUNTS, (weights * COUNTS)[0], rtol=1e-12)
    assert math.fsum(weights) == pytest.approx(len(COUNTS), rel=1e-12)


def test_schemes():
    np.testing.assert_array_equal(class_weights(COUNTS), effective_number_weights(COUNTS, 0.9999))
    np.testing.assert_array_equal(class_weights(COUNTS, beta=0.9), effective_number_weights(COUNTS, 0.9))
    np.testing.assert_array_equal(class_weights(COUNTS, "inverse"), inverse_frequency_weights(COUNTS))


def test_ldam_margins():
    margins = ldam_margins(COUNTS, 0.4)
    np.testing.assert_allclose(margins, oracles.ldam_margins(COUNTS, 0.4), rtol=1e-12)
    assert margins.max() == margins[-1] == pytest.approx(0.4, rel=1e-12)
    assert ldam_margins(COUNTS).max() == pytest.approx(0.5, rel=1e-12)


def labels():
    return np.random.default_rng(0).permutation(np.repeat(np.arange(4), [40, 30, 20, 10]))


def test_subsets_have_the_wanted_counts():
    y, counts = labels(), [30, 30, 5, 1]
    chosen = subset_indices(y, counts, seed=3)
    assert np.bincount(y[chosen]).tolist() == counts
    assert np.all(np.diff(chosen) > 0)


def test_subsets_follow_from_the_seed():
    y, counts = labels(), [20, 15, 10, 5]
    np.testing.assert_array_equal(subset_indices(y, counts, 1), subset_indices(y, counts, 1))
    np.testing.assert_array_equal(subset_indices(y, counts), subset_indices(y, counts, 0))
    assert not np.array_equal(subset_indices(y, counts, 1), subset_indices(y, counts, 2))
    np.testing.assert_array_equal(subset_indices(y[:, None], counts, 1), subset_indices(y, counts, 1))


def test_subsets_are_drawn_from_everywhere():
    """Each of 40 images of class 0 is chosen with probability 1/2: in 200 seeds 100 times, +- 5 standard deviations."""
    y = labels()
    chosen = np.concatenate([subset_indices(y, [20, 1, 1, 1], seed) for seed in range(200)])
    times = np.bincount(chosen, minlength=len(y))[y == 0]
    assert times.sum() == 20 * 200
    assert np.all(np.abs(times - 100) < 5 * np.sqrt(50))


def test_class_counts():
    assert class_counts(labels()).tolist() == [40, 30, 20, 10]
    assert class_counts(labels(), 6).tolist() == [40, 30, 20, 10, 0, 0]
    assert class_counts([[0.0], [2.0]]).tolist() == [1, 0, 1]


def test_checks_return_integers():
    for counts in ([3, 1], (3.0, 1.0), np.array([3, 1], "uint8")):
        checked = check_counts(counts)
        assert checked.dtype == np.int64
        assert checked.tolist() == [3, 1]
    assert check_labels(np.array([[1.0], [0.0]], "float32"), 2).dtype == np.int64


BAD_COUNTS = [[], [5], [[5, 3], [2, 1]], [5, 0], [5, -1], [5, 2.5], [5, math.nan], ["5", "3"], [True, False], None, 7]


@pytest.mark.parametrize("counts", BAD_COUNTS, ids=repr)
@pytest.mark.parametrize(
    "function", [check_counts, effective_number_weights, inverse_frequency_weights, class_weights, ldam_margins]
)
def test_bad_counts_are_refused(function, counts):
    with pytest.raises(ValueError, match="cls_counts"):
        function(counts)


@pytest.mark.parametrize("bad", [[0, 4], [-1, 0], [0.5, 1], [[0, 1]], [[[0]]], ["a"], [True, False], [math.nan, 0.0]])
def test_bad_labels_are_refused(bad):
    for function in (lambda y: check_labels(y, 4), lambda y: class_counts(y, 4), lambda y: subset_indices(y, [1] * 4)):
        with pytest.raises(ValueError, match="labels"):
            function(np.array(bad))


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("n_max", (0, 10, "longtail", 10)),
        ("n_max", (50.5, 10, "longtail", 10)),
        ("num_classes", (50, 1, "longtail", 10)),
        ("num_classes", (50, 2.0, "step", 10)),
        ("imbalance", (50, 10, "long-tail", 10)),
        ("ratio", (50, 10, "longtail", 0.5)),
        ("ratio", (50, 10, "longtail", math.nan)),
        ("ratio", (50, 10, "longtail", 51)),
        ("ratio", (50, 10, "step", 100)),
    ],
)
def test_bad_imbalances_are_refused(argument, arguments):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        imbalanced_counts(*arguments)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("beta", lambda: effective_number_weights([3, 1], 1.0)),
        ("beta", lambda: effective_number_weights([3, 1], -0.1)),
        ("beta", lambda: class_weights([3, 1], beta=math.nan)),
        ("scheme", lambda: class_weights([3, 1], "efective")),
        ("max_margin", lambda: ldam_margins([3, 1], 0.0)),
        ("max_margin", lambda: ldam_margins([3, 1], math.inf)),
        ("seed", lambda: subset_indices(labels(), [1] * 4, -1)),
        ("seed", lambda: subset_indices(labels(), [1] * 4, 0.5)),
        ("cls_counts", lambda: subset_indices(labels(), [1, 1, 1, 11])),
        ("labels", lambda: subset_indices(labels(), [1] * 3)),
    ],
)
def test_other_bad_arguments_are_refused(argument, call):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        call()


def test_counts_with_seven_digits():
    """Truncation in `int()` must not lose one where the product is whole."""
    for n_max in (1000, 123_456, 10_000_000):
        assert imbalanced_counts(n_max, 3, "longtail", 100).tolist() == [n_max, n_max // 10, n_max // 100]
        assert imbalance.imbalanced_counts(n_max, 3, "step", 10).tolist() == [n_max, n_max // 10, n_max // 10]


class Series:
    """What a pandas Series is to us."""

    ndim = 1

    def __init__(self, values, index=None, name=None):
        self.values, self.name = np.asarray(values), name
        self.index = range(len(self.values)) if index is None else index

    def to_numpy(self):
        return self.values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def value_counts(labels):
    """As pandas counts: the most frequent first, a Series called "count"."""
    keys, counts = zip(*collections.Counter(labels).most_common(), strict=True)
    return Series(counts, list(keys), "count")


LABELS = [2] * 50 + [0] * 10 + [1] * 5
NAMES = ["dog"] * 50 + ["ant"] * 10 + ["cat"] * 5
WITH_KEYS = {
    "value_counts": value_counts(LABELS),
    "value_counts of names": value_counts(NAMES),
    "float index": Series([50, 10, 5], [2.0, 0.0, 1.0], "count"),
    "dict": {2: 50, 0: 10, 1: 5},
    "dict of names": {"dog": 50, "ant": 10, "cat": 5},
    "counter": collections.Counter(LABELS),
    "counter of names": collections.Counter(NAMES),
    "counter of NumPy's": collections.Counter(np.array(LABELS)),
}


@pytest.mark.parametrize("counts", WITH_KEYS.values(), ids=WITH_KEYS)
def test_counts_with_keys_are_read_by_them(counts):
    """In the order of value_counts() they would be [50, 10, 5]."""
    assert check_counts(counts).tolist() == [10, 5, 50]
    assert class_counts(counts).tolist() == [10, 5, 50]
    np.testing.assert_array_equal(ldam_margins(counts), ldam_margins([10, 5, 50]))
    np.testing.assert_array_equal(class_weights(counts), class_weights([10, 5, 50]))


def test_a_series_in_the_order_of_its_classes():
    assert check_counts(Series([10, 5, 50])).tolist() == [10, 5, 50]
    assert check_counts(Series(np.array([10, 5, 50], object))).tolist() == [10, 5, 50]


LABELS_IN_EVERY_FORM = {
    "ints": LABELS,
    "column": np.array(LABELS)[:, None],
    "floats": np.array(LABELS, "float32"),
    "objects": np.array(LABELS, object),
    "series": Series(LABELS, index=range(1000, 1065)),
    "names": NAMES,
    "array of names": np.array(NAMES),
    "column of names": [[name] for name in NAMES],
    "bytes": [name.encode() for name in NAMES],
    "series of names": Series(np.array(NAMES, object)),
    "one-hot": np.eye(3)[LABELS],
    "one-hot of ints": np.eye(3, dtype=int)[LABELS].tolist(),
    "one-hot of bools": np.eye(3, dtype=bool)[LABELS],
}


@pytest.mark.parametrize("labels", LABELS_IN_EVERY_FORM.values(), ids=LABELS_IN_EVERY_FORM)
def test_labels_in_every_form(labels):
    for counts in (class_counts(labels), class_counts(labels, 3)):
        assert counts.dtype == np.int64
        assert counts.tolist() == [10, 5, 50]
    assert class_weight(labels) == class_weight([10, 5, 50])


@pytest.mark.parametrize("form", ["alone", "of numbers", "of dicts", "of pairs", "weighted"])
def test_batches_of_labels_that_look_like_one_hot_rows(form):
    """Every batch has one 1 and zeros else."""
    tf = pytest.importorskip("tensorflow")
    x, y = np.ones((8, 3), "float32"), np.tile([0, 1], 4)
    parts = {
        "alone": y,
        "of numbers": (x[:, 0], y),
        "of dicts": ({"a": x, "b": x[:, 0]}, y),
        "of pairs": ((x, x), y),
        "weighted": ({"a": x}, y, x[:, 0]),
    }
    data = tf.data.Dataset.from_tensor_slices(parts[form])
    np.testing.assert_array_equal(imbalance.class_counts(data.batch(2)), [4, 4])
    np.testing.assert_array_equal(imbalance.class_indices(data.batch(2)), y)


def test_labels_of_tf_data():
    tf = pytest.importorskip("tensorflow")
    x, y = np.zeros((65, 4, 4, 1), "uint8"), np.array(LABELS)
    one_hot = np.eye(3)[y]
    for labels in (y, np.array(NAMES), y[:, None], one_hot):
        data = tf.data.Dataset.from_tensor_slices((x, labels))
        weighted = tf.data.Dataset.from_tensor_slices(({"image": x}, labels, np.ones(65)))
        alone = tf.data.Dataset.from_tensor_slices(labels)
        for each in (data, data.batch(13), data.batch(16), data.batch(5, drop_remainder=True), weighted, alone):
            assert class_counts(each).tolist() == [10, 5, 50]
    assert class_weight(data) == class_weight(y)
    with pytest.raises(ValueError, match="`labels` must be a set that ends"):
        class_counts(data.repeat())
    with pytest.raises(ValueError, match="`labels` must be a set of labels or of"):
        class_counts(data.map(lambda x, y: {"image": x, "label": y}))
    with pytest.raises(ValueError, match=r"`imbalance\.class_counts` counts labels"):
        check_counts(data)


def test_real_pandas():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(LABELS)
    for labels in (series, pandas.Series(NAMES), series.astype("Int64"), pandas.Series(NAMES, dtype="category")):
        assert class_counts(labels).tolist() == [10, 5, 50]
        assert check_counts(labels.value_counts()).tolist() == [10, 5, 50]
    with pytest.raises(ValueError, match="labels"):
        class_counts(pandas.Series([0, 1, None]))


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ([5, 0, 3], "class 1"),
        ({"ant": 5, "cat": 0}, "class 'cat'"),
        ({0: 5, 2: 3}, "class 1"),
        (Series([5, 3], [3, 0]), "class 1"),
    ],
)
def test_a_class_without_examples_is_named(counts, name):
    with pytest.raises(ValueError, match=f"`cls_counts` must be positive: {name} has no example. Give it one, or"):
        check_counts(counts)
    assert 0 in class_counts(counts) or not isinstance(counts, dict)


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {0: 5},
        {0: 5, "a": 3},
        {-1: 5, 0: 3},
        {0.5: 5, 0: 3},
        {True: 5, False: 3},
        {None: 5, 0: 3},
        {math.nan: 5, 0: 3},
        {math.inf: 5, 0: 3},
        {10**12: 5, 0: 3},
        {10**400: 5, 0: 3},
        {(0, 1): 5, (1, 1): 3},
        {"a": "5", "b": "3"},
        {"a": [5], "b": [3]},
        Series([5, 3], [0, 0]),
        Series(["a", "b"]),
        [2**63, 1],
        [1e30, 1],
        [2**53, 1],
        [10**400, 1],
        [None, 1],
        [1j, 1],
        [[1], [1, 2]],
        np.array(["2020", "2021"], "datetime64[Y]"),
        np.broadcast_to(1, 10_000_001),
    ],
    ids=lambda counts: repr(counts)[:30],
)
def test_other_bad_counts_are_refused(counts):
    for function in (check_counts, class_weights, ldam_margins):
        with pytest.raises(ValueError, match="`cls_counts` must") as raised:
            function(counts)
        assert len(str(raised.value)) < 400


def test_missing_labels_are_named():
    for labels in ([0, 1, math.nan], [0, 1, None], np.array([[0], [1], [np.nan]])):
        with pytest.raises(ValueError, match=r"`labels` must be whole.*missing \(NaN\).*labels\[2\]=nan"):
            class_counts(labels)
    for labels in (["a", "b", math.nan], ["a", "b", None], np.array(["a", "b", None], object), ["a", "b", 3]):
        with pytest.raises(ValueError, match=r"`labels` must all be names.*labels\[2\]="):
            class_counts(labels)


@pytest.mark.parametrize(
    ("labels", "num_classes"),
    [
        ([10**10, 0], None),
        ([10**400, 0], None),
        ([-1, 0], None),
        ([], None),
        ([[0.6, 0.4], [1, 0]], None),
        ([[1, 1, 0], [0, 1, 0]], None),
        ([[0, 0, 0], [0, 1, 0]], None),
        (np.zeros((0, 3)), None),
        ([True, False], None),
        ([[0], [1, 2]], None),
        ([1j], None),
        (np.array(["2020"], "datetime64[Y]"), None),
        (None, None),
        ("ant", None),
        (3, None),
        (object(), None),
    ],
    ids=lambda value: "an object" if type(value) is object else repr(value)[:30],
)
def test_other_bad_labels_are_refused(labels, num_classes):
    with pytest.raises(ValueError, match="`labels` must"):
        class_counts(labels, num_classes)


@pytest.mark.parametrize("bad", [0, -1, 2.0, None, "3", 10**10, 10_000_001, math.nan])
def test_the_number_of_classes_is_checked(bad):
    with pytest.raises(ValueError, match="`num_classes` must be an integer"):
        check_labels([0], bad)
    if bad is not None:
        with pytest.raises(ValueError, match="`num_classes` must be an integer"):
            class_counts([0], bad)


@pytest.mark.parametrize("labels", [["a", "b", "b"], np.eye(2), {0: 3, 1: 2}])
def test_the_number_of_classes_is_that_of_names_and_of_columns(labels):
    with pytest.raises(ValueError, match="`num_classes` must be the number of classes in `labels`, 2"):
        class_counts(labels, 1)
    if not isinstance(labels, dict):
        with pytest.raises(ValueError, match="`num_classes` must be the number of classes in `labels`, 2"):
            class_counts(labels, 3)


def test_labels_as_keys_may_lack_the_last_classes():
    assert class_counts({1: 2, 0: 3}, 4).tolist() == [3, 2, 0, 0]


def test_class_weight_is_what_fit_takes():
    assert class_weight([0, 0, 0, 1], "inverse") == {0: 0.5, 1: 1.5}
    assert class_weight([3, 1], "inverse") == class_weight({"b": 1, "a": 3}, "inverse") == {0: 0.5, 1: 1.5}
    weights = class_weight(COUNTS, beta=0.9)
    assert list(weights.values()) == class_weights(COUNTS, beta=0.9).tolist()
    assert {(type(label), type(weight)) for label, weight in weights.items()} == {(int, float)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0, 2, 2], "class 1 has no example"),
        ([1, 2, 2, 3], "subtract 1 of these if they are labels"),
        ([1, 1], "subtract 1 of these if they are labels"),
        ([0, 1, math.nan], "missing"),
        ([3.5, 1], "positive integers"),
        (None, "as labels"),
        (object(), "as labels"),
        ([[1], [1, 2]], "an array"),
        ({"a": 0, "b": 3}, "class 'a' has no example"),
    ],
)
def test_class_weight_refuses(given, message):
    with pytest.raises(ValueError, match=f"`labels_or_counts`.*{message}"):
        class_weight(given)
    with pytest.raises(ValueError, match="`scheme`"):
        class_weight([0, 1], "none")


@pytest.mark.parametrize("ratio", [10, 100])
@pytest.mark.parametrize(("n_max", "classes"), [(5000, 10), (500, 100)])
def test_the_published_counts_are_unchanged(n_max, classes, ratio):
    """Those of LDAM's code, get_img_num_per_cls, in its own arithmetic."""
    longtail = [int(n_max * (1 / ratio) ** (c / (classes - 1.0))) for c in range(classes)]
    step = [n_max] * (classes // 2) + [int(n_max * (1 / ratio))] * (classes // 2)
    assert imbalanced_counts(n_max, classes, "longtail", ratio).tolist() == longtail
    assert imbalanced_counts(n_max, classes, "step", ratio).tolist() == step


def test_every_ratio_that_leaves_an_example_is_taken():
    """Rounding made the last count of 540 of these 0."""
    assert imbalanced_counts(49, 10, "longtail", 49)[-1] == 1
    for n_max in range(2, 5001, 7):
        for kind in imbalance.IMBALANCES:
            assert imbalanced_counts(n_max, 3, kind, n_max)[[0, -1]].tolist() == [n_max, 1]


def exact_longtail(n_max, classes, ratio):
    """The largest k with (k / n_max)^(C-1) <= ratio^-c, by counting down from one too many."""
    counts = []
    for c in range(classes):
        k = int(n_max * float(ratio) ** (-c / (classes - 1))) + 2
        while Fraction(k, n_max) ** (classes - 1) > Fraction(ratio) ** -c:
            k -= 1
        counts.append(k)
    return counts


def test_counts_are_exact():
    rng = np.random.default_rng(0)
    for _ in range(100):
        n_max, classes = int(rng.integers(1, 10**6)), int(rng.integers(2, 20))
        for ratio in (int(rng.integers(1, n_max + 1)), float(rng.uniform(1, n_max)), 2 ** (n_max.bit_length() - 1)):
            expected = exact_longtail(n_max, classes, ratio)
            assert imbalanced_counts(n_max, classes, "longtail", ratio).tolist() == expected
    assert imbalanced_counts(2**50, 3, "longtail", 2**50).tolist() == [2**50, 2**25, 1]


def test_a_ratio_of_two_counts_gives_those_counts():
    """100 / 30 as a float is above 10 / 3, whose floor would be 29."""
    for n_max in (7, 100, 4999):
        for kind in imbalance.IMBALANCES:
            counts = [imbalanced_counts(n_max, 3, kind, n_max / k)[-1] for k in range(1, n_max, 1 + n_max // 100)]
            assert counts == list(range(1, n_max, 1 + n_max // 100))


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("num_classes", (10, 2**63, "step", 1)),
        ("num_classes", (10, 10_000_001, "longtail", 1)),
        ("n_max", (2**53, 2, "step", 1)),
        ("n_max", (10**400, 2, "step", 1)),
        ("ratio", (50, 10, "step", 10**400)),
        ("ratio", (50, 10, "step", 1e300)),
        ("imbalance", (50, 10, ["step"], 10)),
    ],
)
def test_imbalances_have_upper_bounds(argument, arguments):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        imbalanced_counts(*arguments)


def test_many_classes():
    counts = imbalanced_counts(5000, 1_000_000, "longtail", 100)
    assert counts[[0, -1]].tolist() == [5000, 50]
    assert np.all(np.diff(counts) <= 0)
