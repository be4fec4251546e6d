"""The statistics of a comparison, on simulated methods whose truth is known."""

import json

import numpy as np
import pytest
from scipy import stats

from tf_mmloss.comparison import MEASURES, _Design, _p_value, _parts, _quantile, _unstable, chance, compare, points
from tf_mmloss.methods import METHODS

FEW = np.arange(10) >= 7


def simulate(rng, methods, seeds, sizes, gain=(), seed_sd=0.3, image_sd=1.0):
    """Labels and predictions: images, methods on images, seeds, and seeds on classes are more or less difficult."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    ease = np.linspace(1, -1, len(sizes))[labels] + image_sd * rng.normal(size=len(labels))
    ease = ease + 0.7 * image_sd * rng.normal(size=(methods, 1, len(labels)))
    ease = ease + seed_sd * rng.normal(size=(methods, seeds, 1))
    ease = ease + seed_sd * rng.normal(size=(methods, seeds, len(sizes)))[:, :, labels]
    ease = ease + np.array(gain or [0.0] * methods)[:, None, None]
    right = rng.random(ease.shape) < 1 / (1 + np.exp(-ease))
    return labels, np.where(right, labels, (labels + 1) % len(sizes))


def named(count):
    return [f"m{i}" for i in range(count)]


@pytest.mark.parametrize(
    ("methods", "seeds", "per_class", "seed_sd"),
    [(2, 3, 12, 0.3), (2, 3, 12, 0.0), (4, 3, 12, 0.3), (4, 3, 12, 0.0), (2, 2, 50, 0.3), (2, 3, 100, 0.3)],
)
def test_names_of_one_method_are_told_apart_in_one_of_twenty_tries_at_most(methods, seeds, per_class, seed_sd):
    rng, tries = np.random.default_rng(0), 200
    wrong = 0
    for _ in range(tries):
        labels, predictions = simulate(rng, methods, seeds, [per_class] * 10, seed_sd=seed_sd)
        found = compare(labels, predictions, named(methods), few=FEW)
        wrong += any(pair["p_corrected"] < 0.05 for pair in found["pairs"])
    assert wrong <= tries // 20


def test_decisions_of_one_training_are_told_apart_in_one_of_twenty_tries_at_most():
    """Two methods that are one, each with decisions that change some answers by chance."""
    rng, tries = np.random.default_rng(0), 100
    names = ["a", "b", "a+x", "b+x", "a+y", "b+y"]
    wrong = 0
    for _ in range(tries):
        labels, two = simulate(rng, 2, 3, [12] * 10)
        others = simulate(rng, 2, 3, [12] * 10)[1]
        answers = [two, *(np.where(rng.random(two.shape) < 0.1, others, two) for _ in "xy")]
        found = compare(labels, np.concatenate(answers), names, few=FEW)
        wrong += any(pair["p_corrected"] < 0.05 for pair in found["pairs"])
    assert wrong <= tries // 20


def test_intervals_hold_the_truth():
    rng, tries = np.random.default_rng(0), 200
    labels, predictions = simulate(rng, 4, 50, [4000] * 10)
    truth = np.mean(predictions == labels)
    held = 0
    for _ in range(tries):
        labels, predictions = simulate(rng, 4, 3, [12] * 10)
        rows = compare(labels, predictions, named(4), few=FEW)["methods"]
        low, high = next(row["balanced_accuracy"]["interval"] for row in rows if row["name"] == "m0")
        held += low <= truth <= high
    assert held >= 0.93 * tries


def test_a_real_gain_is_found():
    rng, found = np.random.default_rng(0), []
    for _ in range(50):
        labels, predictions = simulate(rng, 4, 3, [100] * 10, gain=[0, 0, 0, 1.2], seed_sd=0.1)
        found.append(compare(labels, predictions, ["erm", "ldam", "mm", "mm-drw"], few=FEW))
    assert sum(one["choice"] == "mm-drw" for one in found) >= 45
    answer = next(one["answer"][0] for one in found if one["choice"] == "mm-drw")
    assert answer.startswith("Take mm-drw. Its balanced accuracy is the highest, and it is told apart from every other")


def test_the_simplest_is_taken_where_nothing_is_told_apart():
    labels, predictions = simulate(np.random.default_rng(3), 4, 3, [12] * 10)
    for names in (["ldam-drw", "erm", "mm", "mm-drw"], ["ldam-drw-ssp", "mm-drw", "mm", "ldam"]):
        found = compare(labels, predictions, names, few=FEW, additions=[METHODS[name].additions for name in names])
        assert {found["best"], *found["equal"]} == set(names)
        assert found["choice"] == ("erm" if "erm" in names else "mm")
        assert compare(labels, predictions, names, few=FEW)["choice"] == names[0]
        assert found["answer"][0].startswith("Not told apart")
        choice, best = found["choice"], found["best"]
        worse = "" if choice == best else f", which may be worse than {best} by up to {points(found['at_most_worse'])}"
        assert f"Take the simplest of them, {choice}{worse}." in found["answer"]
        assert f"two methods differ by chance by up to {points(found['least_difference'])}" in found["answer"][-1]
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_equal_predictions_are_no_difference():
    labels, predictions = simulate(np.random.default_rng(0), 1, 3, [5] * 10)
    pair = compare(labels, np.repeat(predictions, 2, axis=0), named(2), few=FEW)["pairs"][0]
    assert (pair["difference"], pair["p"], pair["p_corrected"]) == (0, 1, 1)


def test_all_right_is_no_certainty():
    """Nothing varies, yet another image could be wrong."""
    labels = np.repeat(np.arange(10), 5)
    row = compare(labels, np.tile(labels, (2, 3, 1)), named(2), few=FEW)["methods"][0]
    assert row["error"]["value"] == 0
    assert row["error"]["interval"][1] > 0.02
    assert row["balanced_accuracy"]["interval"][0] < 0.98
    assert row["balanced_accuracy"]["interval"][1] == 1


def test_values_are_those_of_the_measures():
    labels, predictions = simulate(np.random.default_rng(0), 2, 3, [20, 10, 4], gain=[0, 1])
    found = compare(labels, predictions, ["a", "b"], few=[False, False, True], measure="error")
    assert [row["name"] for row in found["methods"]] == ["b", "a"]
    right = predictions == labels
    recalls = np.stack([right[:, :, labels == c].mean(axis=2) for c in range(3)])
    expected = {"error": 1 - right.mean(axis=2), "balanced_accuracy": recalls.mean(axis=0), "few_accuracy": recalls[2]}
    assert set(expected) == set(MEASURES)
    for m, row in enumerate(reversed(found["methods"])):
        for name, values in expected.items():
            np.testing.assert_allclose(row[name]["by_seed"], values[m], rtol=1e-12)
            np.testing.assert_allclose(row[name]["value"], values[m].mean(), rtol=1e-12)
    pair = found["pairs"][0]
    assert (pair["better"], pair["worse"]) == ("b", "a")
    np.testing.assert_allclose(pair["difference"], (expected["error"][1] - expected["error"][0]).mean(), rtol=1e-12)


def test_the_parts_of_the_variance_are_those_of_a_crossed_analysis_of_variance():
    """One class: of seeds and of images, mean squares as in a two-way table without repeats."""
    z = np.random.default_rng(0).normal(size=(3, 12)) + np.arange(12)
    parts = _parts(z, _Design(np.zeros(12, int), None), np.ones(1))
    rows, columns = z.mean(axis=1), z.mean(axis=0)
    residual = z - rows[:, None] - columns + z.mean()
    mean_square = (residual**2).sum() / (2 * 11)
    of_images = columns.var(ddof=1) - mean_square / 3  # the variance of an image's own effect
    np.testing.assert_allclose(parts["of_images"], 12 * of_images, rtol=1e-12)
    np.testing.assert_allclose(parts["of_seeds"], z.sum(axis=1).var(ddof=1) / 3, rtol=1e-12)


@pytest.mark.parametrize("ratio", [0.01, 1.0, 3.0, 30.0])
def test_p_values_are_students_where_one_part_is_all(ratio):
    np.testing.assert_allclose(_p_value(ratio, [(0.0, 9.0), (2.0, 4.0)]), 2 * stats.t.sf(ratio, 4), rtol=1e-6)
    mixed = _p_value(ratio, [(1.0, 9.0), (1.0, 4.0)])
    assert 2 * stats.t.sf(ratio, 9) < mixed < 2 * stats.t.sf(ratio, 4)
    np.testing.assert_allclose(_quantile(mixed / 2, [(1.0, 9.0), (1.0, 4.0)]), ratio, rtol=1e-6)


def test_p_values_are_students_at_any_degrees_of_freedom():
    """SciPy's quantile of 1e-152 has the wrong sign at this number of them, which few images give."""
    assert _p_value(2.5, [(1.0, 2.000000000000001)]) == pytest.approx(2 * stats.t.sf(2.5, 2), rel=1e-6)
    assert _p_value(1e9, [(1.0, 990.0)]) < 1e-99


def test_p_values_are_corrected_by_holm():
    labels, predictions = simulate(np.random.default_rng(0), 3, 3, [50] * 10, gain=[0, 0.3, 1], seed_sd=0.05)
    pairs = sorted(compare(labels, predictions, named(3), few=FEW)["pairs"], key=lambda pair: pair["p"])
    expected = np.maximum.accumulate([pair["p"] * left for pair, left in zip(pairs, (3, 2, 1), strict=True)])
    np.testing.assert_allclose([pair["p_corrected"] for pair in pairs], np.minimum(expected, 1), rtol=1e-12)


def test_one_seed_gives_no_certainty():
    labels, predictions = simulate(np.random.default_rng(0), 2, 1, [200] * 10, gain=[0, 3])
    found = compare(labels, predictions, ["erm", "mm-drw"], few=FEW)
    pair = found["pairs"][0]
    assert (pair["better"], pair["p"], pair["p_corrected"], found["least_difference"]) == ("mm-drw", None, None, None)
    assert (found["best"], found["choice"], found["equal"]) == ("mm-drw", "erm", ["erm"])
    assert "one seed" in found["answer"][0]
    assert "unknown" in found["answer"][0]
    assert pair["interval"][0] > 0  # of the images alone


def test_a_class_without_images_is_named_and_left_out():
    labels, predictions = simulate(np.random.default_rng(0), 2, 3, [20, 10, 0, 5])
    found = compare(labels, predictions, ["a", "b"], few=[False, False, True, True], class_names="wxyz")
    assert found["not_evaluated"] == ["y"]
    assert found["few"] == ["z"]
    assert found["answer"][-1] == "Classes without evaluated images are in no number: y."
    only_missing = compare(labels, predictions, ["a", "b"], few=[False, False, True, False])
    assert [row["few_accuracy"] for row in only_missing["methods"]] == [None, None]
    with pytest.raises(ValueError, match="`measure` few_accuracy has no images"):
        compare(labels, predictions, ["a", "b"], few=[False, False, True, False], measure="few_accuracy")


@pytest.mark.parametrize("sizes", [[1, 1, 5, 3], [1, 4, 3], [1, 1], [2, 2], [0, 1, 7], [1, 1, 1], [20, 1], [9, 11]])
def test_small_classes_share_one_variance(sizes):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    design = _Design(labels, None)
    assert sorted(design.order.tolist()) == list(range(len(labels)))
    there = [size for size in sizes if size]
    assert design.images.tolist() == design.groups.tolist() == there
    freedoms = np.array(there) - 1
    assert design.one == (freedoms.sum() < 10)
    assert design.small.tolist() == [size < 10 for size in there]
    assert design.one or freedoms[design.shared].sum() >= 10
    assert design.one or set(np.flatnonzero(design.small)) <= set(design.shared)
    found = compare(labels, np.zeros((2, 3, len(labels)), int), ["a", "b"], few=np.arange(len(sizes)) < 1)
    assert found["pairs"][0]["p"] == 1


@pytest.mark.parametrize("sizes", [[50] * 9 + [1], [50] * 8 + [1, 1], [50] * 8 + [2, 2], [50, 20, 10, 5, 3, 2, 2]])
def test_a_real_gain_is_found_beside_classes_of_one_image(sizes):
    rng, names = np.random.default_rng(3), ["erm", "ldam", "mm-drw"]
    few, right, wrong = np.arange(len(sizes)) > 6, 0, 0
    for _ in range(40):
        right += (
            compare(*simulate(rng, 3, 3, sizes, gain=[0, 0, 2.5], seed_sd=0.1), names, few=few)["choice"] == names[2]
        )
        pairs = compare(*simulate(rng, 3, 3, sizes, seed_sd=0.1), names, few=few)["pairs"]
        wrong += any(pair["p_corrected"] < 0.05 for pair in pairs)
    assert right >= 24
    assert wrong <= 2


def test_one_method_that_differs_by_seed_does_not_hide_the_others():
    rng, names, found = np.random.default_rng(2), ["erm", "ldam", "mm-drw", "cb-rs"], []
    for _ in range(30):
        labels, predictions = simulate(rng, 4, 3, [100] * 10, gain=[0, 0, 1.2, 0], seed_sd=0.1)
        predictions[3, 0] = 0  # a seed that predicts one class
        found.append(compare(labels, predictions, names, few=FEW))
    assert sum(one["unstable"] == ["cb-rs"] for one in found) >= 28
    # Its own differences are the least certain, so it is not told apart itself, and is the least simple.
    assert sum(pair_of(one, "mm-drw", "erm")["p_corrected"] < 0.05 for one in found) >= 27
    assert "By seed cb-rs differs far more than the other methods." in found[0]["answer"]
    assert found[0]["least_difference"] < 0.1


def test_a_decision_that_differs_by_seed_is_found_in_any_order_of_the_methods():
    rng, names = np.random.default_rng(0), ["erm", "ldam", "mm", "erm+x"]
    labels, right = np.repeat(np.arange(10), 50), rng.random((4, 3, 500)) < 0.7
    right[3, 0] = rng.random(500) < 0.2
    answers = np.where(right, labels, (labels + 1) % 10)
    found = []
    for order in ([0, 1, 2, 3], [3, 1, 2, 0]):
        found.append(compare(labels, answers[order], [names[m] for m in order], few=FEW))
    assert [sorted(one["unstable"]) for one in found] == [["erm", "erm+x"]] * 2
    assert found[0]["least_difference"] == pytest.approx(found[1]["least_difference"])


def pair_of(found, better, worse):
    return next(pair for pair in found["pairs"] if (pair["better"], pair["worse"]) == (better, worse))


def test_methods_alike_are_called_unstable_in_one_of_a_hundred_tries():
    rng = np.random.default_rng(0)
    for methods, seeds in ((3, 3), (4, 3), (8, 2), (8, 5)):
        flagged = sum(bool(_unstable({str(m): rng.normal(size=seeds) for m in range(methods)})) for _ in range(1000))
        assert 2 <= flagged <= 22
    assert not _unstable({"a": np.zeros(3), "b": np.arange(3.0)})


def test_the_choice_is_no_method_that_another_is_told_apart_from():
    rng, differing = np.random.default_rng(4), 0
    names = ["erm", "ldam", "balanced-softmax", "mm-drw", "ldam-drw"]
    for _ in range(150):
        labels, predictions = simulate(rng, 5, 3, [100] * 10, gain=[0, 0.3, 0.4, 0.5, 0.4], seed_sd=0.15)
        found = compare(labels, predictions, names, few=FEW)
        apart = [pair for pair in found["pairs"] if pair["p_corrected"] < 0.05]
        assert found["choice"] not in {pair["worse"] for pair in apart}
        beaten = [pair for pair in apart if pair["worse"] in found["equal"]]
        differing += bool(beaten)
        said = " ".join(found["answer"])
        assert bool(beaten) == ("of them from which no better one is told apart" in said)
    assert differing


def test_what_is_not_told_apart_has_an_interval_with_zero():
    rng = np.random.default_rng(0)
    for _ in range(30):
        found = compare(*simulate(rng, 4, 3, [30] * 10, gain=[0, 0.3, 0.6, 1.2], seed_sd=0.1), named(4), few=FEW)
        for pair in found["pairs"]:
            assert pair["p_corrected"] < 0.05 or pair["interval"][0] < 0 < pair["interval"][1]
    worse = pair_of(found, found["best"], found["choice"])["interval"][1] if found["choice"] != found["best"] else 0
    assert found["at_most_worse"] == worse


@pytest.mark.parametrize("size", [5, 20])
def test_images_that_belong_together_count_as_groups(size):
    """Two methods that are equally good, each better on some groups of images."""
    rng, tries = np.random.default_rng(5), 60
    alone = together = 0
    for _ in range(tries):
        groups = np.arange(1000) // size
        ease = rng.normal(size=1000 // size)[groups] + 1.5 * rng.normal(size=(2, 1, 1000 // size))[:, :, groups]
        right = rng.random((2, 3, 1000)) < 1 / (1 + np.exp(-np.broadcast_to(ease, (2, 3, 1000))))
        labels = np.repeat(np.arange(10), 100)
        answers = np.where(right, labels, (labels + 1) % 10)
        for key in (None, groups):
            found = compare(labels, answers, ["a", "b"], few=FEW, groups=key)
            told = found["pairs"][0]["p_corrected"] < 0.05
            alone, together = alone + (told and key is None), together + (told and key is not None)
    assert together <= 5
    assert size == 5 or alone >= 10
    assert found["groups"] == 1000 // size
    assert f"images in {1000 // size} groups" in " ".join(found["answer"])


def test_groups_with_images_of_several_classes_count_once():
    """Two methods that are equally good, each better on some groups, of which each has an image of every class."""
    rng, tries, classes, count = np.random.default_rng(6), 60, 10, 60
    labels, groups = np.tile(np.arange(classes), count), np.repeat(np.arange(count), classes)
    wrong = held = 0
    for _ in range(tries):
        ease = 4 * rng.normal(size=(2, 1, count))[:, :, groups]
        right = rng.random((2, 3, len(labels))) < 1 / (1 + np.exp(-np.broadcast_to(ease, (2, 3, len(labels)))))
        found = compare(labels, np.where(right, labels, (labels + 1) % classes), ["a", "b"], few=FEW, groups=groups)
        wrong += found["pairs"][0]["p_corrected"] < 0.05
        low, high = next(row for row in found["methods"] if row["name"] == "a")["balanced_accuracy"]["interval"]
        held += low <= 0.5 <= high
    assert wrong <= 5
    assert held >= 0.9 * tries
    assert found["groups"] == count


def test_groups_of_one_image_are_images():
    labels, predictions = simulate(np.random.default_rng(0), 3, 3, [30, 10, 4], gain=[0, 1, 2])
    alone = compare(labels, predictions, named(3), few=[False, False, True])
    keyed = compare(labels, predictions, named(3), few=[False, False, True], groups=np.arange(44)[::-1])
    for one, other in zip(alone["pairs"], keyed["pairs"], strict=True):
        np.testing.assert_allclose(one["interval"], other["interval"], rtol=1e-9)
        np.testing.assert_allclose(one["p"], other["p"], rtol=1e-6)


def test_error_is_of_the_classes_as_often_as_they_are_to_come():
    labels, predictions = simulate(np.random.default_rng(0), 2, 3, [10, 10, 10], gain=[0, 1])
    found = compare(labels, predictions, ["a", "b"], few=[False, False, True], shares=[6, 3, 1], measure="error")
    wrong = np.stack([(predictions != labels)[:, :, labels == c].mean(axis=2) for c in range(3)])
    expected = np.average(wrong, axis=0, weights=[6, 3, 1]).mean(axis=1)
    values = {row["name"]: row["error"]["value"] for row in found["methods"]}
    np.testing.assert_allclose([values["a"], values["b"]], expected, rtol=1e-12)
    as_evaluated = compare(labels, predictions, ["a", "b"], few=[False, False, True], shares=[7, 7, 7])
    assert as_evaluated == compare(labels, predictions, ["a", "b"], few=[False, False, True])


@pytest.mark.parametrize(("images", "said"), [(200, "is below 0.1 % for each"), (5, "is 0.7 % or less for each")])
def test_the_largest_chance_is_said(images, said):
    predictions = np.repeat([0, 1], 2 * images).reshape(2, 2, images)
    assert said in compare(np.zeros(images, int), predictions, ["erm", "ldam"], few=[True, False])["answer"][0]


def test_chance():
    assert [chance(p) for p in (None, 0.0001, 0.034, 0.5)] == ["unknown", "below 0.1 %", "3.4 %", "50 %"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["a"]}, "`methods` must be two or more, each once"),
        ({"methods": ["a", "a"]}, "`methods` must be two or more, each once"),
        ({"measure": "balanced"}, "Did you mean 'balanced_accuracy'"),
        ({"additions": [1]}, "`additions` must be 2 numbers"),
        ({"additions": [1, -1]}, "`additions` must be an integer >= 0"),
        ({"shares": [1]}, "`shares` must be 2 numbers"),
        ({"shares": [1, -1]}, "`shares` must be 2 numbers"),
        ({"shares": [0, 0], "measure": "error"}, "`measure` error has no images"),
        ({"groups": [1]}, "`groups` must be one of each of 2 images"),
        ({"groups": [1, 1], "labels": [0, 0]}, "`groups` must be two or more"),
        ({"groups": [1, 1]}, "`groups` must be two or more"),
        ({"level": 0}, "`level` must be a finite number > 0 and < 1"),
        ({"labels": [0]}, "`labels` must be of two images or more"),
        ({"labels": [0, 9]}, "`labels`"),
        ({"predictions": np.zeros((2, 2))}, "`predictions` must have shape"),
        ({"predictions": np.zeros((2, 0, 2))}, "`predictions` must have shape"),
        ({"class_names": ["x"]}, "`class_names` must be 2 names"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    good = {"labels": [0, 1], "predictions": np.zeros((2, 2, 2), int), "methods": ["a", "b"], "few": [True, False]}
    compare(**good)
    with pytest.raises(ValueError, match=message):
        compare(**{**good, **change})
