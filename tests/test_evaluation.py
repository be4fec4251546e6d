"""Evaluation against scikit-learn and by hand."""

import json

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import metrics as oracle

from tf_mmloss import evaluation
from tf_mmloss.evaluation import by_predictions, calibrated, drawn_from, evaluate, fit_temperature, summary


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [60, 25, 10, 5])
    logits = rng.normal(size=(100, 4)) + 1.5 * np.eye(4)[labels]
    return labels, softmax(logits)


def test_equals_scikit_learn(case):
    labels, p = case
    found, predicted = evaluate(labels, p, draws=0), p.argmax(axis=1)
    value = found["value"]
    assert found["confusion"] == oracle.confusion_matrix(labels, predicted).tolist()
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for row, *expected in zip(found["per_class"], precision, recall, f1, strict=True):
        np.testing.assert_allclose([row["precision"], row["recall"], row["f1"]], expected, rtol=1e-12)
    assert value["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(labels, predicted))
    assert value["macro_f1"] == pytest.approx(f1.mean())
    assert value["macro_precision"] == pytest.approx(precision.mean())
    assert value["g_mean"] == pytest.approx(recall.prod() ** 0.25)
    assert value["top_1_accuracy"] == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert "top_5_accuracy" not in value
    assert value["macro_auroc"] == pytest.approx(oracle.roc_auc_score(labels, p, multi_class="ovr", average="macro"))
    top_2 = evaluate(labels, p, draws=0, top_k=(2,))["value"]["top_2_accuracy"]
    assert top_2 == pytest.approx(oracle.top_k_accuracy_score(labels, p, k=2))


def test_equal_probabilities_are_ranked_as_argmax_takes_them():
    found = evaluate([1, 1, 0], [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [1 / 3] * 3], draws=0, top_k=(1, 2))
    assert found["value"]["top_1_accuracy"] == np.trace(found["confusion"]) / 3 == pytest.approx(2 / 3)
    assert found["value"]["top_2_accuracy"] == 1


@pytest.mark.parametrize("at_once", [1, 250, 10**6])
def test_auroc_of_each_class_is_scikit_learns(case, at_once, monkeypatch):
    """Also of equal probabilities, and of as many classes at once as there is memory for."""
    monkeypatch.setattr(evaluation, "_AT_ONCE", at_once)
    labels, p = case
    p = np.round(p, 1) + 1e-9
    p /= p.sum(axis=1, keepdims=True)
    assert len(np.unique(p[:, 0])) < len(p) / 2
    expected = [oracle.roc_auc_score(labels == c, p[:, c]) for c in range(4)]
    np.testing.assert_allclose([row["auroc"] for row in evaluate(labels, p, draws=0)["per_class"]], expected)


def test_predictions_alone_have_the_same_numbers(case):
    labels, p = case
    predicted = p.argmax(axis=1)
    whole = evaluate(labels, np.eye(4)[predicted], cls_counts=[200, 50, 5, 5], top_k=(1,), draws=20, seed=3)
    value, interval = by_predictions(labels, predicted, [200, 50, 5, 5], draws=20, seed=3)
    assert interval == whole["interval"]
    assert value == {name: whole["value"][name] for name in value}
    with pytest.raises(ValueError, match="`predictions` must be one for each label"):
        by_predictions(labels, predicted[:3], [200, 50, 5, 5])


def test_classes_without_test_images_are_left_out_and_named(case):
    labels, p = case
    kept = labels != 2
    found = evaluate(labels[kept], p[kept], class_names=list("abcd"), cls_counts=[200, 50, 5, 5], draws=20)
    whole = evaluate(labels, p, draws=0)
    assert found["not_evaluated"] == ["c"]
    recalls = [row["recall"] for row in whole["per_class"]]
    assert found["value"]["balanced_accuracy"] == pytest.approx(np.mean([recalls[c] for c in (0, 1, 3)]))
    assert found["value"]["few_accuracy"] == pytest.approx(recalls[3])  # of c and d
    row = found["per_class"][2]
    assert (row["recall"], row["f1"], row["auroc"], row["images"]) == (None, None, None, 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "left out of the means: c" in summary(found)
    assert "too narrow to rely on, as there are fewer than 10 test images of d" in summary(found)
    enough = evaluate(labels[:95], p[:95], draws=5)
    assert "too narrow" not in summary(enough)

    alone = evaluate(labels[kept], p[kept], cls_counts=[200, 50, 5, 50], draws=5)
    assert alone["value"]["few_accuracy"] is None
    assert "few_accuracy" not in alone["interval"]


def test_one_class_alone_has_no_auroc(case):
    labels, p = case
    found = evaluate(labels[:60], p[:60], draws=3)
    assert found["value"]["macro_auroc"] is None
    json.dumps(found, allow_nan=False)


def test_intervals_are_the_bootstraps(case):
    """Of one class, accuracy is a binomial share: the interval is that of its normal approximation."""
    rng = np.random.default_rng(1)
    right = rng.random(400) < 0.8
    p = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    found = evaluate(np.zeros(400, int), p, draws=2000)
    share, (low, high) = right.mean(), found["interval"]["top_1_accuracy"]
    deviation = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert (low, high) == pytest.approx((share - deviation, share + deviation), abs=0.006)
    labels, p = case
    assert evaluate(labels, p, draws=50) == evaluate(labels, p, draws=50)
    assert evaluate(labels, p, draws=50)["interval"] != evaluate(labels, p, draws=50, seed=1)["interval"]


def test_groups_are_drawn_instead_of_images(case):
    """Ten copies of each image in a group say no more than one of each, and make no interval narrower."""
    labels, p = case
    copies = np.repeat(np.arange(100), 10)
    alone, grouped = evaluate(labels, p, draws=300), evaluate(labels[copies], p[copies], draws=300, groups=copies)
    for name, (low, high) in alone["interval"].items():
        assert grouped["interval"][name] == pytest.approx((low, high), abs=1e-12)
        assert alone["value"][name] == pytest.approx(grouped["value"][name])
    low, high = evaluate(labels[copies], p[copies], draws=300)["interval"]["balanced_accuracy"]
    assert high - low < 0.5 * np.diff(alone["interval"]["balanced_accuracy"])
    assert (alone["groups"], grouped["groups"], grouped["few"]) == (None, 100, ["3"])
    assert "95 % intervals over the 100 groups of 1,000 test images, not over training runs" in summary(grouped)
    assert "fewer than 10 groups of test images of 3" in summary(grouped)
    kept = by_predictions(labels[copies], p[copies].argmax(axis=1), [9] * 4, draws=300, groups=copies)[1]
    assert kept["balanced_accuracy"] == grouped["interval"]["balanced_accuracy"]


def test_groups_with_images_of_several_classes():
    """Drawn as one, of its rarest class; a class that a draw has no image of is left out of its means."""
    labels, predictions = np.array([0] * 40 + [1] * 20), np.array([0] * 40 + [1] * 10 + [0] * 10)
    groups = np.r_[np.arange(40), 0, 0, 0, 0, 0, np.arange(1, 16)]
    value, interval = by_predictions(labels, predictions, [5, 5], draws=400, groups=groups)
    assert value["balanced_accuracy"] == 0.75
    drawn_of_1 = np.random.default_rng(0).multinomial(16, [1 / 16] * 16, 4000)
    sizes, right = np.array([5] + [1] * 15), np.array([5] + [1] * 5 + [0] * 10)
    recall = (drawn_of_1 @ right) / (drawn_of_1 @ sizes)
    assert interval["balanced_accuracy"] == pytest.approx((1 + np.percentile(recall, [2.5, 97.5])) / 2, abs=0.03)
    names = np.array(["one", "two", "one", "one"])  # drawn twice, "two" has no image of class 1
    _, interval = by_predictions([0, 0, 1, 1], [0, 0, 1, 0], [5, 5], draws=50, groups=names)
    assert interval["balanced_accuracy"] == [0.75, 1.0]
    assert drawn_from(labels, 3, groups).tolist() == [40, 16, 0]


def test_temperature_is_the_most_likely():
    rng = np.random.default_rng(0)
    true = softmax(rng.normal(size=(20_000, 3)))
    labels = (rng.random((20_000, 1)) > true.cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(labels, np.log(true)) == pytest.approx(1, abs=0.05)
    assert fit_temperature(labels, 7 * np.log(true)) == pytest.approx(7, rel=0.05)


def test_calibrated_by_the_other_half():
    rng = np.random.default_rng(0)
    true = softmax(rng.normal(size=(4_000, 3)))
    labels = (rng.random((4_000, 1)) > true.cumsum(axis=1)).sum(axis=1)
    after = calibrated(labels, 7 * np.log(true))
    np.testing.assert_allclose(after, true, atol=0.05)
    np.testing.assert_allclose(calibrated(labels, 7 * np.log(true), seed=1), true, atol=0.05)
    alone = calibrated(np.array([0, 1, 1]), np.eye(2)[[0, 1, 1]])  # a half may lack a class
    np.testing.assert_allclose(alone.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1, 4]}, r"`labels` must lie in \[0, 3\)"),
        ({"labels": [0, 1]}, "`labels` must be one for each of 3 rows. Received: 2 labels"),
        ({"probabilities": np.eye(3) * 2}, "`probabilities` must be >= 0, in rows that sum to 1"),
        ({"probabilities": np.ones(3)}, r"`probabilities` must have shape \(N, C\)"),
        ({"class_names": ["a"]}, "`class_names` must be 3 names. Received: 1 names"),
        ({"cls_counts": [1, 2]}, "`cls_counts` must be 3 counts. Received: 2 counts"),
        ({"draws": -1}, "`draws` must be an integer >= 0"),
        ({"top_k": (0,)}, "`top_k` must be an integer >= 1"),
        ({"groups": [0, 1]}, r"`groups` must be one of each of 3 images. Received: shape=\(2,\)"),
        ({"groups": [{}, "a", 1]}, "`groups` must be keys of one type"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**{"labels": [0, 1, 2], "probabilities": np.eye(3), **changes})


@pytest.mark.parametrize(("labels", "logits"), [([0], np.eye(2)), ([0, 5], np.eye(2)), ([0], np.ones(2))])
def test_bad_arguments_of_the_temperature(labels, logits):
    with pytest.raises(ValueError, match=r"`(labels|logits)` must"):
        fit_temperature(labels, logits)
