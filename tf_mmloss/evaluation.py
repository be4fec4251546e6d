"""What people ask of a classifier of imbalanced classes, with intervals over the test images. NumPy and SciPy.

A class without test images has no recall: it is left out of every mean over classes, named, and None where its own
value would stand.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_mmloss._validation import group_numbers, integer, numeric, sequence, text
from tf_mmloss.data.source import named
from tf_mmloss.imbalance import Counts, check_labels
from tf_mmloss.metrics import expected_calibration_error, shot_masks

# Sums of rounded probabilities are not exactly 1.
_SUM_TOLERANCE = 1e-3
MOST_DRAWS = 100_000
_AT_ONCE = 2**18  # numbers of a part of a large array
# Of a class with fewer test images a bootstrap interval is too narrow, and without width where all are right or wrong.
FEW = 10


def evaluate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    cls_counts: Counts | None = None,
    class_names: Sequence[str] | None = None,
    top_k: Sequence[int] = (1, 5),
    draws: int = 1000,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Evaluate probabilities on test images.

        recall_c = correct of c / images of c,    precision_c = correct of c / predicted as c
        F1_c = 2 precision_c recall_c / (precision_c + recall_c), 0 where both are
        balanced accuracy = mean_c recall_c,    G-mean = (prod_c recall_c)^(1 / C)

    Intervals are 95 % percentile bootstrap intervals over the test images, drawn within each class, so that the classes
    keep their sizes. They say how far another test set of this size could be off, and nothing of another training run.
    Classes with fewer than ten test images make them too narrow: drawn from images that are all right, all are right.
    With `groups`, of pictures of one patient say, groups are drawn instead of images, each among those that have images
    of its rarest class; a class that a draw has no image of is left out of it.

    Args:
        labels: (N,) true classes.
        probabilities: (N, C), rows that sum to 1.
        cls_counts: (C,) training examples of each class, for "many", "medium" and "few"; default: left out.
        class_names: C names, for `per_class` and `not_evaluated`; default: the class numbers.
        top_k: k of each top-k accuracy; larger than C are left out. Default 1 and 5.
        draws: of the bootstrap, 0 for none. Default 1000.
        seed: of the draws. Default 0.
        groups: (N,) keys of images that are alike, each with others of its key. Default: images stand alone.

    Returns:
        A dictionary that JSON can hold: `images` and `groups`, how many there are, of groups None without any; `value`,
        the numbers of the whole; `interval`, [low, high] of each but macro_auroc, calibration_error and
        mean_confidence, empty without draws; `per_class`: images, recall, precision, f1 and auroc of each class;
        `confusion`, C rows of true by C columns of predicted classes; `not_evaluated`, names of the classes without
        test images; `few`, of those with fewer than ten, or fewer than ten groups.

    Raises:
        ValueError: labels or probabilities of other shapes or ranges, other arguments out of range.

    Example:
        >>> found = evaluate([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], draws=0)
        >>> found["value"]["balanced_accuracy"], found["confusion"]
        (0.75, [[1, 1], [0, 1]])

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Guo et al., On Calibration of Modern Neural
        Networks, ICML 2017 (calibration error).
    """
    labels, probabilities = _labelled(labels, "probabilities", probabilities)
    if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > _SUM_TOLERANCE:
        raise ValueError("`probabilities` must be >= 0, in rows that sum to 1; pass the softmax of the logits.")
    count = probabilities.shape[1]
    names = [str(c) for c in range(count)] if class_names is None else _names(class_names)
    if len(names) != count:
        raise ValueError(f"`class_names` must be {count} names. Received: {len(names)} names")
    draws = integer("draws", draws, at_most=MOST_DRAWS)
    ks = sorted({integer("top_k", k, at_least=1) for k in sequence("top_k", top_k)})
    masks = {} if cls_counts is None else shot_masks(cls_counts)
    if masks and len(masks["many"]) != count:
        raise ValueError(f"`cls_counts` must be {count} counts. Received: {len(masks['many'])} counts")

    images = np.bincount(labels, minlength=count)
    predictions = probabilities.argmax(axis=1)
    confusion = np.bincount(labels * count + predictions, minlength=count * count).reshape(count, count)
    ranks = _ranks(labels, probabilities)
    hits = {f"top_{k}_accuracy": ranks < k for k in ks if k <= count}
    auroc = _auroc(labels, probabilities)
    units = group_numbers(groups, len(labels))
    value, interval = _measured(labels, predictions, count, hits, masks, draws, integer("seed", seed), units)
    value["macro_auroc"] = None if np.isnan(auroc).all() else float(np.nanmean(auroc))
    value["calibration_error"] = expected_calibration_error(labels, probabilities)
    value["mean_confidence"] = float(probabilities.max(axis=1).mean())
    recall, precision, f1 = _by_class(np.diag(confusion), images, confusion.sum(axis=0))
    return {
        "images": len(labels),
        "groups": None if groups is None else int(units.max()) + 1,
        "value": value,
        "interval": interval,
        "draws": draws,
        "per_class": [
            {
                "name": names[c],
                "images": int(images[c]),
                "recall": _number(recall[c], images[c]),
                "precision": _number(precision[c], confusion[:, c].sum()),
                "f1": _number(f1[c], images[c]),
                "auroc": None if np.isnan(auroc[c]) else float(auroc[c]),
            }
            for c in range(count)
        ],
        "confusion": confusion.tolist(),
        "not_evaluated": [names[c] for c in np.flatnonzero(images == 0)],
        "few": [name for name, n in zip(names, drawn_from(labels, count, groups), strict=True) if 0 < n < FEW],
    }


def by_predictions(
    labels: np.ndarray,
    predictions: np.ndarray,
    cls_counts: Counts,
    *,
    draws: int = 1000,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> tuple[dict[str, float | None], dict[str, list[float]]]:
    """What `evaluate` says without probabilities: the numbers of the whole, and their intervals.

    Args:
        labels: (N,) true classes.
        predictions: (N,) predicted classes.
        cls_counts: (C,) training examples of each class.
        draws: of the bootstrap, 0 for none. Default 1000.
        seed: of the draws. Default 0.
        groups: as for `evaluate`.

    Returns:
        `value` and `interval` of `evaluate`: top_1_accuracy, balanced_accuracy, g_mean, macro_precision, macro_f1,
        many_accuracy, medium_accuracy and few_accuracy.

    Raises:
        ValueError: labels or predictions that are no classes, none, or not as many; other arguments out of range.

    Example:
        >>> value, interval = by_predictions([0, 0, 1], [0, 1, 1], [500, 5], draws=0)
        >>> value["balanced_accuracy"], value["few_accuracy"]
        (0.75, 1.0)
    """
    masks = shot_masks(cls_counts)
    count = len(masks["many"])
    labels, predictions = check_labels(labels, count), check_labels(predictions, count, "predictions")
    if not len(labels) or len(predictions) != len(labels):
        raise ValueError(
            f"`predictions` must be one for each label, of at least one. Received: {len(labels)} labels and "
            f"{len(predictions)} predictions"
        )
    hits = {"top_1_accuracy": predictions == labels}
    draws = integer("draws", draws, at_most=MOST_DRAWS)
    units = group_numbers(groups, len(labels))
    return _measured(labels, predictions, count, hits, masks, draws, integer("seed", seed), units)


def drawn_from(labels: np.ndarray, num_classes: int, groups: np.ndarray | None = None) -> np.ndarray:
    """How many images, or groups that have some, there are of each class (C,): what a bootstrap draws from.

    Args:
        labels: (N,) true classes.
        num_classes: C.
        groups: (N,) keys of images that belong together; default: each stands alone.

    Raises:
        ValueError: labels that are no classes, groups of another number.

    Example:
        >>> drawn_from([0, 0, 1], 2, groups=[7, 7, 8])
        array([1, 1])
    """
    labels = check_labels(labels, num_classes)
    if groups is not None:  # of each group, a label of each class that it has
        labels = np.unique(group_numbers(groups, len(labels)) * num_classes + labels) % num_classes
    return np.bincount(labels, minlength=num_classes)


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature T > 0 that makes softmax(logits / T) most likely, by one-dimensional minimisation.

    Fit it on held-out images, never on those that are then evaluated.

    Args:
        labels: (N,) true classes.
        logits: (N, C), at any scale.

    Returns:
        T, in [0.001, 1000].

    Raises:
        ValueError: labels or logits of other shapes, or no images.

    Example:
        >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> round(fit_temperature([0, 0, 1, 1], logits), 2)
        1.82

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    labels, logits = _labelled(labels, "logits", logits)
    lower = logits - logits.max(axis=1, keepdims=True)
    own, step = lower[np.arange(len(labels)), labels].sum(), max(_AT_ONCE // lower.shape[1], 1)
    parts = [lower[start : start + step] for start in range(0, len(lower), step)]

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        sums = sum(np.log(np.exp(part / temperature).sum(axis=1)).sum() for part in parts)
        return float((sums - own / temperature) / len(labels))

    bounds = (np.log(1e-3), np.log(1e3))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def calibrated(labels: np.ndarray, logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities (N, C) of logits by temperature scaling, of each half of the images by the other half's.

    So that no image is evaluated at a temperature that it was part of.

    Args:
        labels: (N,) true classes, N >= 2.
        logits: (N, C), at any scale.
        seed: of the halves, which have the same classes as far as possible. Default 0.

    Returns:
        float64 (N, C), rows that sum to 1.

    Raises:
        ValueError: as `fit_temperature`.
    """

    def scaled_by(labels: np.ndarray, logits: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        temperature = fit_temperature(labels, logits)
        return lambda others: others / temperature

    return softmax(cross_fitted(labels, logits, scaled_by, seed))


def cross_fitted(
    labels: np.ndarray,
    logits: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]],
    seed: int = 0,
) -> np.ndarray:
    """What is fitted on each half of the images, applied to the other half.

    Args:
        labels: (N,) true classes, N >= 2.
        logits: (N, C).
        fit: from labels and logits of a half to a function of logits (n, C), which returns (n, C).
        seed: of the halves, which have the same classes as far as possible. Default 0.

    Returns:
        float64 (N, C).

    Raises:
        ValueError: labels or logits of other shapes.
    """
    labels, logits = _labelled(labels, "logits", logits)
    shuffled = np.random.default_rng(integer("seed", seed)).permutation(len(labels))
    second = np.zeros(len(labels), bool)
    second[shuffled[np.argsort(labels[shuffled], kind="stable")][1::2]] = True
    after = np.empty_like(logits)
    for half in (second, ~second):
        after[half] = fit(labels[~half], logits[~half])(logits[half])
    return after


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of logits, in float64.

    Raises:
        ValueError: what is no array of finite numbers, or has no classes.
    """
    logits = numeric("logits", logits)
    if not logits.ndim or not logits.shape[-1]:
        raise ValueError(f"`logits` must have shape (N, C). Received: logits.shape={logits.shape}")
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


def summary(found: dict[str, Any]) -> str:
    """What `evaluate` found, as text: the numbers with their intervals, and a table by class."""
    lines = []
    for name, value in found["value"].items():
        if value is None:
            continue
        low, high = found["interval"].get(name) or (None, None)
        between = f"  ({low:.2%} to {high:.2%})" if low is not None else ""
        lines.append(f"{name.replace('_', ' '):20}{value:8.2%}{between}")
    width = max(5, *(len(row["name"]) for row in found["per_class"]))
    lines += ["", f"{'class':{width}}  images  recall  precision      F1   AUROC"]
    for row in found["per_class"]:
        cells = (f"{'–':>{w}}" if row[k] is None else f"{row[k]:{w}.2%}" for k, w in _WIDTHS.items())
        lines.append(f"{row['name']:{width}}  {row['images']:6,}  " + "  ".join(cells))
    if found["not_evaluated"]:
        lines.append(f"without test images, left out of the means: {', '.join(found['not_evaluated'])}")
    if found["draws"]:
        over, of = f"{found['images']:,} test images", "test images"
        if found["groups"] is not None:
            over, of = f"{found['groups']:,} groups of {over}", "groups of test images"
        lines.append(f"in brackets: 95 % intervals over the {over}, not over training runs")
        if found["few"]:
            lines.append(f"too narrow to rely on, as there are fewer than {FEW} {of} of {named(found['few'])}")
    return "\n".join(lines)


_WIDTHS = {"recall": 6, "precision": 9, "f1": 6, "auroc": 6}


def _labelled(labels: np.ndarray, argument: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,), and numbers (N, C) in float64 that belong to them."""
    rows = numeric(argument, rows).astype(np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"`{argument}` must have shape (N, C). Received: shape={rows.shape}")
    labels = check_labels(labels, rows.shape[1])
    if len(labels) != len(rows):
        raise ValueError(f"`labels` must be one for each of {len(rows)} rows. Received: {len(labels)} labels")
    return labels, rows


def _names(class_names: Any) -> list[str]:
    """Names of classes; whole numbers are names too."""
    return [
        text("class_names", str(name) if isinstance(name, (int, np.integer)) else name)
        for name in sequence("class_names", class_names)
    ]


def _measured(
    labels: np.ndarray,
    predictions: np.ndarray,
    count: int,
    hits: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    draws: int,
    seed: int,
    units: np.ndarray,
) -> tuple[dict[str, float | None], dict[str, list[float]]]:
    """The numbers of the whole, and their 95 % percentile intervals over units drawn with replacement by class.

    `units` are the numbers (N,) of what is drawn: of groups, or of the images themselves.
    """
    right = predictions == labels

    def numbers(weights: np.ndarray) -> dict[str, float | None]:
        """Of images that count as often as their weights."""
        correct, true = np.bincount(labels, weights * right, count), np.bincount(labels, weights, count)
        recall, precision, f1 = _by_class(correct, true, np.bincount(predictions, weights, count))
        there = true > 0
        with np.errstate(divide="ignore"):
            g_mean = float(np.exp(np.log(recall[there]).mean()))
        total = weights.sum()
        return {
            **{name: float((hit * weights).sum() / total) for name, hit in hits.items()},
            "balanced_accuracy": float(recall[there].mean()),
            "g_mean": g_mean,
            "macro_precision": float(precision[there].mean()),
            "macro_f1": float(f1[there].mean()),
            **{
                f"{shot}_accuracy": float(recall[mask & there].mean()) if (mask & there).any() else None
                for shot, mask in masks.items()
            },
        }

    rng = np.random.default_rng(seed)
    # Each unit with the rarest class that it has images of.
    rarest_first = np.argsort(np.bincount(labels)[labels], kind="stable")
    of_class = labels[rarest_first][np.unique(units[rarest_first], return_index=True)[1]]
    number, by_class = np.bincount(of_class, minlength=count), np.argsort(of_class, kind="stable")
    # Of each unit in that order, where its class begins and how many it has.
    first, sizes = ((np.cumsum(number) - number)[of_class[by_class]], number[of_class[by_class]])
    drawn: dict[str, list[float]] = {}
    for _ in range(draws):
        chosen = by_class[first + rng.integers(sizes)]
        for name, value in numbers(np.bincount(chosen, minlength=len(of_class))[units].astype(float)).items():
            if value is not None:
                drawn.setdefault(name, []).append(value)
    interval = {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in drawn.items()}
    return numbers(np.ones(len(labels))), interval


def _by_class(
    correct: np.ndarray, true: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F1 of each class, from its images; 0 where nothing can be divided by."""

    def share(of: np.ndarray) -> np.ndarray:
        return np.divide(correct, of, out=np.zeros(len(correct)), where=of > 0)

    return share(true), share(predicted), 2 * share(true + predicted)


def _ranks(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes are before the true one (N,); of equal ones the first is before, as `argmax` takes it."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    equal = (probabilities == own) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return (probabilities > own).sum(axis=1) + equal.sum(axis=1)


def _auroc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the rest, by ranks; NaN where one of the two is empty."""
    from scipy.stats import rankdata

    count = probabilities.shape[1]
    sums = np.zeros(count)  # of the ranks of a class's own images
    step = max(_AT_ONCE // len(labels), 1)
    for start in range(0, count, step):
        own = np.flatnonzero((labels >= start) & (labels < start + step))
        if len(own):
            ranks = rankdata(probabilities[:, start : start + step], axis=0)
            sums += np.bincount(labels[own], ranks[own, labels[own] - start], count)
    images = np.bincount(labels, minlength=count).astype(float)
    pairs = images * (len(labels) - images)
    areas: np.ndarray = np.divide(sums - images * (images + 1) / 2, pairs, out=np.full(count, np.nan), where=pairs > 0)
    return areas


def _number(value: float, of: float) -> float | None:
    return float(value) if of else None
