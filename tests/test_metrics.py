"""The metrics, against NumPy."""

import functools
import math

import keras
import numpy as np
import pytest
from helpers import BACKEND, to_numpy
from sklearn import metrics as sklearn_metrics

import tf_mmloss
from tf_mmloss import BalancedAccuracy, LDAMLoss, ShotAccuracy
from tf_mmloss.losses import base
from tf_mmloss.metrics import expected_calibration_error, per_class_error, reliability, shot_masks

COUNTS = [500, 101, 100, 20, 19, 3]
SHOTS = {"many": [0, 1], "medium": [2, 3], "few": [4, 5]}


def batches(seed=0):
    """Three batches of different size; class 3 never occurs."""
    rng = np.random.default_rng(seed)
    return [(rng.choice([0, 1, 2, 4, 5], n), rng.normal(size=(n, 6)).astype("float32")) for n in (7, 1, 30)]


def class_accuracies(batches, weights=None):
    labels = np.concatenate([y for y, _ in batches])
    hits = np.concatenate([u.argmax(axis=1) for _, u in batches]) == labels
    weights = np.ones(len(labels)) if weights is None else np.concatenate(weights)
    return {c: np.average(hits[labels == c], weights=weights[labels == c]) for c in np.unique(labels)}


def mean_over(accuracies, classes=range(6)):
    return np.mean([accuracies[c] for c in classes if c in accuracies])


METRICS = (
    {"balanced": (lambda: BalancedAccuracy(6), range(6))}
    | {shot: (lambda shot=shot: ShotAccuracy(COUNTS, shot), classes) for shot, classes in SHOTS.items()}
    | {"moved": (lambda: ShotAccuracy(COUNTS, "medium", many=400, few=20, name="moved"), [1, 2, 3])}
)
METRICS_OF_CLASSES = [
    functools.partial(ShotAccuracy, COUNTS, "medium"),
    *(
        functools.partial(value, 6)
        for value in vars(tf_mmloss.metrics).values()
        if isinstance(value, type) and issubclass(value, BalancedAccuracy) and value is not ShotAccuracy
    ),
]
each_metric = pytest.mark.parametrize(("build", "classes"), METRICS.values(), ids=METRICS)


@each_metric
def test_streaming_against_numpy(build, classes):
    metric, seen = build(), []
    for batch in batches():
        metric.update_state(*batch)
        seen.append(batch)
        accuracies = class_accuracies(seen)
        if any(c in accuracies for c in classes):
            assert float(metric.result()) == pytest.approx(mean_over(accuracies, classes), rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0
    metric.update_state(*seen[2])
    assert float(metric.result()) == pytest.approx(mean_over(class_accuracies(seen[2:]), classes), rel=1e-6)


@each_metric
@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: y.astype("float32"), lambda y: np.eye(6)[y]])
def test_forms_of_labels_agree(build, classes, form):
    y, u = batches()[2]
    assert float(build()(form(y), u)) == pytest.approx(mean_over(class_accuracies([(y, u)]), classes), rel=1e-6)


@each_metric
def test_sample_weight(build, classes):
    weights = [np.random.default_rng(1).uniform(0.1, 2, len(y)) for y, _ in batches()]
    metric = build()
    for batch, weight in zip(batches(), weights, strict=True):
        metric.update_state(*batch, sample_weight=weight.astype("float32"))
    assert float(metric.result()) == pytest.approx(mean_over(class_accuracies(batches(), weights), classes), rel=1e-5)
    with pytest.raises(ValueError, match=r"^`sample_weight` must have one weight for each example of `y_pred`, shape"):
        metric.update_state(*batches()[0], sample_weight=np.ones(2, "float32"))


@each_metric
def test_soft_targets_of_outputs_that_are_whole_numbers(build, classes):
    y, u = batches()[2]
    soft = 0.6 * np.eye(6)[y] + 0.4 / 6
    assert float(build()(soft, np.eye(6, dtype="int32")[u.argmax(axis=1)])) == float(build()(y, u))


@each_metric
def test_positions_are_examples(build, classes):
    y, u = batches()[2]
    weight = np.random.default_rng(1).uniform(0.1, 2, len(y)).astype("float32")
    expected = float(build()(y, u, weight))
    labels, logits = y.reshape(5, 3, 2), u.reshape(5, 3, 2, 6)
    for form in (labels, labels[..., None], np.eye(6, dtype="float32")[labels]):
        assert float(build()(form, logits, weight.reshape(5, 3, 2))) == pytest.approx(expected, rel=1e-6)
    by_image = np.repeat(weight[:5], 6)
    assert float(build()(labels, logits, weight[:5])) == pytest.approx(float(build()(y, u, by_image)), rel=1e-6)


@pytest.mark.parametrize("metric", METRICS_OF_CLASSES)
@pytest.mark.parametrize("ignore_class", [255, -1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_positions_do_not_count(metric, ignore_class, weighted):
    """Nor do what is predicted there and their weights, whatever they are."""
    y, u = batches()[2]
    counts = y != 2
    labels = np.where(counts, y, ignore_class)
    weight = np.random.default_rng(1).uniform(0.1, 2, len(y)).astype("float32") if weighted else None
    expected = float(metric()(y[counts], u[counts], weight[counts] if weighted else None))
    u, weight = np.where(counts[:, None], u, np.nan), np.where(counts, weight, np.nan) if weighted else None
    ignoring = metric(ignore_class=ignore_class)
    rows = np.eye(6)[y] if ignore_class == 2 else np.eye(6)[y] * counts[:, None]
    for form in (labels, labels[:, None], labels.astype("float32"), rows):
        ignoring.reset_state()
        assert float(ignoring(form, u, weight)) == pytest.approx(expected, rel=1e-6)
    ignoring = keras.metrics.deserialize(keras.metrics.serialize(ignoring))
    by_position = None if weight is None else weight.reshape(5, 3, 2)
    assert float(ignoring(labels.reshape(5, 3, 2), u.reshape(5, 3, 2, 6), by_position)) == pytest.approx(expected, 1e-6)


def test_balanced_accuracy_of_a_constant_guess():
    """One class in six is right, however common it is."""
    labels = np.repeat(np.arange(6), [500, 101, 100, 20, 19, 3])
    guess = np.tile(np.eye(6, dtype="float32")[0], (len(labels), 1))
    assert float(BalancedAccuracy(6)(labels, guess)) == pytest.approx(1 / 6, rel=1e-6)
    assert [float(ShotAccuracy(COUNTS, shot)(labels, guess)) for shot in SHOTS] == [pytest.approx(0.5), 0, 0]


@each_metric
def test_config_round_trip(build, classes):
    metric = build()
    restored = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(restored) is type(metric)
    assert restored.get_config() == metric.get_config()
    assert float(restored(*batches()[2])) == float(metric(*batches()[2]))


NOT_LABELS = {
    "-1": -1,
    "C": 6,
    "0.9": 0.9,
    "nan": np.nan,
    "zeros": np.zeros(6),
    "multi-hot": [1, 0, 0, 1, 0, 0],
    "row of nan": np.full(6, np.nan),
}


@each_metric
@pytest.mark.parametrize("bad", NOT_LABELS.values(), ids=NOT_LABELS)
@pytest.mark.parametrize("way", ["seen", "hidden", "compiled"])
def test_what_is_no_label_is_not_left_out(build, classes, bad, way, monkeypatch):
    """Refused where it can be seen, else NaN, also in the groups of other classes."""
    metric, (labels, guesses) = build(), batches()[2]
    labels = np.eye(6)[labels] if np.ndim(bad) else labels
    labels = np.concatenate([np.asarray(bad, "float32")[None], labels[1:].astype("float32")])
    update = metric.update_state
    if way == "seen":
        with pytest.raises(ValueError, match=r"`y_true`.*\(1 of 30 are not\)"):
            update(labels, guesses)
        return
    if way == "hidden":
        monkeypatch.setattr(base, "seen", lambda x: None)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        update = tf.function(metric.update_state)
    else:
        pytest.skip("a plain compiled call with state is TensorFlow's")
    update(*(keras.ops.convert_to_tensor(a) for a in (labels, guesses)))
    assert np.isnan(float(metric.result()))


@each_metric
def test_of_soft_targets_the_largest_counts(build, classes, monkeypatch):
    y, u = batches()[2]
    soft = 0.7 * np.eye(6, dtype="float32")[y] + 0.05
    for _ in range(2):
        assert float(build()(soft, u)) == pytest.approx(mean_over(class_accuracies([(y, u)]), classes), rel=1e-6)
        monkeypatch.setattr(base, "seen", lambda x: None)


def test_in_a_saved_model(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(6)(inputs))
    metrics = [build() for build, _ in METRICS.values()]
    model.compile("sgd", LDAMLoss(COUNTS), metrics=metrics)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype("float32"), rng.integers(0, 6, 40)
    accuracies = class_accuracies([(y, to_numpy(model(x)))])
    found = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    for metric, (_, classes) in zip(metrics, METRICS.values(), strict=True):
        assert found[metric.name] == pytest.approx(mean_over(accuracies, classes), rel=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, batch_size=16, verbose=0, return_dict=True) == pytest.approx(found, rel=1e-6)


def test_names():
    assert [build().name for build, _ in METRICS.values()] == [
        "balanced_accuracy",
        "many_shot_accuracy",
        "medium_shot_accuracy",
        "few_shot_accuracy",
        "moved",
    ]
    assert BalancedAccuracy(3, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("policy", "floatx"), [("float32", "float32"), ("mixed_bfloat16", "float32"), ("float32", "bfloat16")]
)
def test_counting_beyond_what_halves_can_count(policy, floatx):
    """bfloat16 cannot count past 256, whether it is the policy's or Keras' default type."""
    keras.config.set_dtype_policy(policy)
    default = keras.config.floatx()
    try:
        keras.config.set_floatx(floatx)
        metric = BalancedAccuracy(2)
    finally:
        keras.config.set_floatx(default)
    labels = np.repeat([0, 1], [3000, 1000])
    right = np.arange(4000) % 4 > 0
    guess = np.eye(2, dtype="float32")[np.where(right, labels, 1 - labels)]
    for rows in np.array_split(np.arange(4000), 8):
        metric.update_state(labels[rows], guess[rows])
    assert float(metric.result()) == pytest.approx(0.75, rel=1e-6)


def test_shot_masks():
    masks = shot_masks(COUNTS)
    assert {shot: np.flatnonzero(mask).tolist() for shot, mask in masks.items()} == SHOTS
    assert np.flatnonzero(shot_masks(COUNTS, many=400, few=101)["medium"]).tolist() == [1]


def test_per_class_error():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 5, 200), rng.integers(0, 6, 200)
    errors = per_class_error(labels, guesses, 6)
    for c in range(5):
        assert errors[c] == pytest.approx(np.mean(guesses[labels == c] != c), rel=1e-12)
    assert np.isnan(errors[5])


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("num_classes", lambda: BalancedAccuracy(1)),
        ("num_classes", lambda: BalancedAccuracy(2.0)),
        ("cls_counts", lambda: ShotAccuracy([5, 0])),
        ("num_classes", lambda: BalancedAccuracy(2).update_state([0], np.zeros((1, 3)))),
        ("cls_counts", lambda: ShotAccuracy(COUNTS).update_state([0], np.zeros((1, 3)))),
        ("shot", lambda: ShotAccuracy(COUNTS, "fewer")),
        ("shot", lambda: ShotAccuracy([5000, 50], "few")),
        ("few", lambda: ShotAccuracy(COUNTS, many=10)),
        ("few", lambda: shot_masks(COUNTS, many=10, few=20)),
        ("many", lambda: shot_masks(COUNTS, many=math.inf)),
        ("few", lambda: shot_masks(COUNTS, few="20")),
        ("few", lambda: ShotAccuracy(COUNTS, few=-1)),
        ("name", lambda: BalancedAccuracy(3, name=3)),
        ("dtype", lambda: BalancedAccuracy(3, dtype="int32")),
        ("ignore_class", lambda: BalancedAccuracy(3, ignore_class=1.5)),
        ("num_classes", lambda: BalancedAccuracy(10**10)),
        ("num_classes", lambda: per_class_error([0], [0], 10**10)),
        ("predictions", lambda: per_class_error([0, 1], [0, 1, 1], 3)),
        ("labels", lambda: per_class_error([0, 3], [0, 1], 3)),
        ("predictions", lambda: per_class_error([0, 1], [0, 3], 3)),
        ("y_true", lambda: BalancedAccuracy(3).update_state([0], np.zeros((1, 2, 3)))),
        ("y_pred.*yes-or-no output", lambda: BalancedAccuracy(2).update_state([0], np.zeros((1, 1)))),
        ("y_pred.*yes-or-no output", lambda: BalancedAccuracy(2).update_state([[0, 0]], np.zeros((1, 2, 1)))),
        ("y_true", lambda: BalancedAccuracy(3).update_state(np.zeros((1, 2)), np.zeros((1, 3)))),
    ],
)
def test_bad_arguments_are_refused(argument, call):
    with pytest.raises(ValueError, match=argument):
        call()


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.3, 0.7], [0.45, 0.55]])
    # With two bins all four are in the upper one: accuracy 0.5, mean confidence 0.775.
    assert expected_calibration_error([0, 1, 0, 1], probabilities, bins=2) == pytest.approx(0.275)
    # With ten each has its own bin, 0.9 as the upper edge of one: |1 - 0.9|, |0 - 0.95|, |0 - 0.7|, |1 - 0.55|.
    expected = (0.1 + 0.95 + 0.7 + 0.45) / 4
    assert expected_calibration_error([0, 1, 0, 1], probabilities, bins=10) == pytest.approx(expected)
    shares, accuracy, confidence = reliability([True, False, True, True], [0.9, 0.95, 0.3, 0.25], bins=10)
    np.testing.assert_allclose([shares, accuracy], [[0.5, 0.25, 0.25], [1, 1, 0]])
    np.testing.assert_allclose(confidence, [0.275, 0.9, 0.95])
    rng = np.random.default_rng(0)
    calibrated = rng.dirichlet(np.ones(5), 50_000)
    labels = (rng.random((50_000, 1)) > calibrated.cumsum(axis=1)).sum(axis=1).clip(max=4)
    assert expected_calibration_error(labels, calibrated) < 0.02
    assert expected_calibration_error((labels + 1) % 5, calibrated) > 0.2


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[1.0, 0.0]], "`probabilities` must have shape"),
        ([0], [[0.7, 0.7]], "each row must sum to 1"),
        ([0], [[1.5, -0.5]], "must not be negative"),
        ([2], [[1.0, 0.0]], "`labels` must lie in"),
        ([], np.zeros((0, 2)), "`probabilities` must have shape"),
        (3, [[1.0, 0.0]], "`labels` must be"),
        ([0], [["a", "b"]], "`probabilities` must be numbers"),
        ([0], [[np.nan, 1.0]], "`probabilities` must be finite"),
        ([0], [[1.0], [1.0, 0.0]], "`probabilities` must be an array"),
    ],
)
def test_calibration_error_refuses(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(labels, probabilities)
    for right, confidence, said in (([True], [1.1], "`confidence` must be in"), ([True], [0.5, 0.5], "one shape")):
        with pytest.raises(ValueError, match=said):
            reliability(right, confidence)
    for bins in (0, 2.5, 10**12, None):
        with pytest.raises(ValueError, match="`bins` must be an integer"):
            expected_calibration_error([0], [[1.0, 0.0]], bins)


def test_shots_of_counts_with_keys():
    by_key = ShotAccuracy({1: 50, 0: 500}, "many")
    assert by_key.get_config() == ShotAccuracy([500, 50], "many").get_config()
    assert shot_masks({"b": 50, "a": 500})["many"].tolist() == [True, False]


@each_metric
def test_a_batch_without_rows_changes_nothing(build, classes):
    metric = build()
    metric.update_state(*batches()[2])
    before = float(metric.result())
    metric.update_state(np.zeros(0, "int32"), np.zeros((0, 6), "float32"))
    metric.update_state(np.zeros((0, 6), "float32"), np.zeros((0, 6), "float32"))
    assert float(metric.result()) == before


def recalls(labels, guesses, sample_weight=None):
    return sklearn_metrics.recall_score(
        labels, guesses, labels=np.unique(labels), average=None, sample_weight=sample_weight
    )


def macro(score):
    return lambda *arrays, sample_weight=None: score(
        *arrays, average="macro", zero_division=0, sample_weight=sample_weight
    )


SCORES = {
    "GMean": lambda *arrays, **weights: np.exp(np.log(recalls(*arrays, **weights)).mean()),
    "WorstClassAccuracy": lambda *arrays, **weights: recalls(*arrays, **weights).min(),
    "MacroF1Score": macro(sklearn_metrics.f1_score),
    "MacroPrecision": macro(sklearn_metrics.precision_score),
    "CohenKappa": sklearn_metrics.cohen_kappa_score,
    "MatthewsCorrelation": sklearn_metrics.matthews_corrcoef,
}
each_score = pytest.mark.parametrize(("name", "score"), SCORES.items(), ids=SCORES)


def guessed(n, seed=0):
    """Labels without class 3 and logits that are often right, of which no largest is class 3 or 5."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 2, 4], rng.choice([0, 1, 2, 4], n - 4)])
    logits = rng.normal(size=(n, 6)) + 2 * np.eye(6)[labels]
    logits[:4] += 9 * np.eye(6)[labels[:4]]  # each class once right
    logits[:, [3, 5]] = -9
    return labels, logits.astype("float32")


@each_score
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_scores_stream_as_scikit_learn_scores_all(name, score, weighted):
    metric, (labels, logits) = getattr(tf_mmloss, name)(6), guessed(60)
    labels[-1] = 5  # seen and never predicted
    if name in ("GMean", "WorstClassAccuracy"):
        labels[-1] = 4
    weights = np.random.default_rng(1).uniform(0.1, 2, 60).astype("float32") if weighted else None
    for rows in np.split(np.arange(60), [7, 8, 40]):
        metric.update_state(labels[rows], logits[rows], None if weights is None else weights[rows])
    expected = score(labels, logits.argmax(axis=1), sample_weight=weights)
    assert 0.1 < expected < 0.95
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 0


@each_score
def test_scores_are_made_nan_by_what_is_no_label(name, score, monkeypatch):
    labels, logits = guessed(20)
    labels[-1] = -1
    with pytest.raises(ValueError, match="`y_true`"):
        getattr(tf_mmloss, name)(6).update_state(labels, logits)
    monkeypatch.setattr(base, "seen", lambda x: None)
    assert np.isnan(float(getattr(tf_mmloss, name)(6)(labels, logits)))


def test_scores_of_a_constant_guess():
    labels, guess = np.array([0, 0, 0, 1]), np.eye(3, dtype="float32")[[0, 0, 0, 0]]
    found = {name: float(getattr(tf_mmloss, name)(3)(labels, guess)) for name in SCORES}
    expected = {"MacroF1Score": 3 / 7, "MacroPrecision": 3 / 8}
    assert found == pytest.approx({name: expected.get(name, 0) for name in SCORES})


def test_scores_in_a_fit():
    """Compiled; one fit of all."""
    labels, logits = guessed(40)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(loss=LDAMLoss(COUNTS), metrics=[getattr(tf_mmloss, name)(6) for name in SCORES])
    found = model.evaluate(logits, labels, batch_size=16, verbose=0, return_dict=True)
    for name, score in SCORES.items():
        assert found[getattr(tf_mmloss, name)(6).name] == pytest.approx(score(labels, logits.argmax(1)), rel=1e-5)
