"""The draw of an epoch."""

import numpy as np
import pytest

from tf_mmloss.sampling import draw_epoch, draw_rotations, draw_rows, resampling_weights

LABELS = np.repeat(np.arange(3), [900, 90, 10])
DRAWS = 40


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("weights", [None, np.array([0.1, 1.0, 5.0])], ids=["uniform", "weighted"])
def test_an_epoch_follows_from_seed_and_epoch(weights):
    first = [draw_epoch(LABELS, 3, epoch, class_weights=weights) for epoch in range(4)]
    np.random.default_rng(0).random(5)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    for epoch in (2, 0, 3, 1):
        assert_same(draw_epoch(LABELS, 3, epoch, class_weights=weights), first[epoch])
    others = [*first[1:], draw_epoch(LABELS, 4, 0, class_weights=weights)]
    for other in others:
        for mine, theirs in zip(first[0], other, strict=True):
            assert not np.array_equal(mine, theirs)


def test_seed_and_epoch_are_not_interchangeable():
    assert not np.array_equal(draw_epoch(LABELS, 1, 2).position, draw_epoch(LABELS, 2, 1).position)


def test_uniform_epochs_are_permutations():
    for epoch in range(3):
        position = draw_epoch(LABELS, 0, epoch).position
        np.testing.assert_array_equal(np.sort(position), np.arange(len(LABELS)))


def test_permutations_are_uniform():
    """Chi-square of which fifth of the images comes in the first fifth of an epoch."""
    firsts = np.concatenate([draw_epoch(LABELS, 0, epoch).position[:200] for epoch in range(DRAWS)])
    assert chi_square(np.bincount(firsts // 200, minlength=5), np.full(5, 200 * DRAWS / 5)) < bound(4)


def chi_square(found, expected):
    return np.sum(np.square(found - expected) / expected)


def bound(freedom):
    """Mean and six standard deviations of chi-square."""
    return freedom + 6 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("weights", [[1 / 900, 1 / 90, 1 / 10], [1.0, 1.0, 1.0], [0.2, 0.5, 3.0]], ids=str)
def test_weighted_drawing(weights):
    """Classes are drawn as n_c w_c, the images of a class alike, with replacement."""
    draws = [draw_epoch(LABELS, 0, epoch, class_weights=np.array(weights)).position for epoch in range(DRAWS)]
    assert all(len(draw) == len(LABELS) for draw in draws)
    times = np.bincount(np.concatenate(draws), minlength=len(LABELS))
    mass = np.bincount(LABELS) * weights
    expected = DRAWS * len(LABELS) * mass / mass.sum()
    assert chi_square(np.bincount(LABELS, weights=times), expected) < bound(2)
    for of_class in np.split(times, np.flatnonzero(np.diff(LABELS)) + 1):
        assert chi_square(of_class, np.full(len(of_class), of_class.mean())) < bound(len(of_class) - 1)
    assert all(len(np.unique(draw)) < len(draw) for draw in draws)


def test_a_class_of_weight_zero_is_never_drawn():
    for weights in ([0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]):
        drawn = [LABELS[draw_epoch(LABELS, 0, epoch, class_weights=np.array(weights)).position] for epoch in range(5)]
        assert set(np.concatenate(drawn)) == set(np.flatnonzero(weights))


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_crops(pad):
    """Each of the 2 pad + 1 corners alike, top and left apart from each other."""
    draws = [draw_epoch(LABELS, 0, epoch, pad=pad) for epoch in range(DRAWS)]
    top, left = (np.concatenate([getattr(draw, side) for draw in draws]) for side in ("top", "left"))
    corners = 2 * pad + 1
    for side in (top, left):
        assert side.min() == 0
        assert side.max() == 2 * pad
    cells = np.bincount(top * corners + left, minlength=corners**2)
    assert chi_square(cells, np.full(corners**2, len(top) / corners**2)) <= bound(corners**2 - 1)


def test_flips():
    flips = np.concatenate([draw_epoch(LABELS, 0, epoch).flip for epoch in range(DRAWS)])
    assert flips.dtype == bool
    assert abs(flips.sum() - len(flips) / 2) < 5 * np.sqrt(len(flips) / 4)
    assert not draw_epoch(LABELS, 0, 0, flip=False).flip.any()


def test_switching_flips_off_changes_nothing_else():
    assert_same(draw_epoch(LABELS, 0, 0, flip=False)[:3], draw_epoch(LABELS, 0, 0)[:3])


def test_types():
    epoch = draw_epoch(LABELS, 0, 0, class_weights=np.ones(3))
    assert [a.dtype for a in epoch] == [np.int32, np.int32, np.int32, bool]
    assert [a.shape for a in epoch] == [LABELS.shape] * 4


@pytest.mark.parametrize(
    "weights",
    [
        [0, 0, 0],
        [np.nan, 1, 1],
        [np.inf, 1, 1],
        [1e308, 1e308, 1e308],
        [-1, 2, 2],
        [1, 1],
        [],
        [[1, 1, 1]],
        1.0,
        ["a", "b", "c"],
        [1j, 1, 1],
        {"a": 1},
    ],
    ids=str,
)
def test_weights_that_cannot_be_drawn_with_are_refused(weights):
    with pytest.raises(ValueError, match=r"`class_weights` must be|`labels` must lie in"):
        draw_epoch(LABELS, 0, 0, class_weights=weights)
    with pytest.raises(ValueError, match="`resampling` must"):
        resampling_weights(lambda epoch: weights, 0, 3)


def test_weights_of_more_classes_are_refused_where_their_number_is_known():
    with pytest.raises(ValueError, match=r"one weight for each of 3 classes\. Received: shape=\(4,\)"):
        resampling_weights(lambda epoch: np.ones(4), 0, 3)


def test_weights_that_are_zero_for_all_labels_are_refused():
    with pytest.raises(ValueError, match="`class_weights` must be positive for a class that `labels` has"):
        draw_epoch(np.zeros(4, int), 0, 0, class_weights=[0, 1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pad", -1),
        ("pad", 2**40),
        ("pad", 0.5),
        ("flip", "no"),
        ("rotate_batch", 0),
        ("rotate_batch", 1.5),
        ("labels", np.zeros((2, 2))),
        ("labels", []),
        ("labels", 3),
    ],
)
def test_other_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        draw_rows(**{"labels": LABELS, "seed": 0, "epoch": 0, name: value})


@pytest.mark.parametrize(
    ("argument", "seed", "epoch"), [("seed", -1, 0), ("seed", 0.5, 0), ("epoch", 0, -1), ("epoch", 0, 1.0)]
)
def test_bad_arguments_are_refused(argument, seed, epoch):
    with pytest.raises(ValueError, match=argument):
        draw_epoch(LABELS, seed, epoch)


def test_rotations_are_balanced_in_every_batch_and_shuffled():
    epochs = np.array([draw_rotations(202, 64, 0, epoch) for epoch in range(400)])
    for start in range(0, 202, 64):
        counts = [np.bincount(turns[start : start + 64], minlength=4) for turns in epochs]
        assert np.ptp(counts, axis=1).max() <= 1
    mean = epochs[:, :64].mean(axis=0)  # of 0, 1, 2, 3 at each place: 1.5, variance 1.25
    assert np.abs(mean - 1.5).max() < 5 * (1.25 / 400) ** 0.5
    np.testing.assert_array_equal(epochs[3], draw_rotations(202, 64, 0, 3))
    assert not np.array_equal(epochs[0], draw_rotations(202, 64, 1, 0))
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        draw_rotations(4, 0, 0, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 16, 100])
def test_rotations_are_balanced_in_the_epoch_whatever_the_batch(batch_size):
    turns = draw_rotations(48, batch_size, 0, 0)
    assert np.bincount(turns).tolist() == [12] * 4
    for start in range(0, 48, batch_size):
        assert np.ptp(np.bincount(turns[start : start + batch_size], minlength=4)) <= 1
