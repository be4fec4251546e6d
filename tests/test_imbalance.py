"""Class counts, subsets, class weights and margins."""

import math

import numpy as np
import oracles
import pytest

from tf_mmloss import imbalance
from tf_mmloss.imbalance import (
    check_counts,
    check_labels,
    class_counts,
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
