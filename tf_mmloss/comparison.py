"""Which of several methods is better, from several trainings of each on one set of images. NumPy and SciPy alone.

Two things make a difference between two methods uncertain: another seed would train other networks, and other images of
the same classes would be evaluated. Every training is evaluated on the same images, so the design is crossed, as that
of readers by cases in diagnostic studies, whose analysis this is. The training images are one and the same: what other
training images would do is not part of it.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from tf_mmloss._validation import array, choice, number, received
from tf_mmloss.data.source import named
from tf_mmloss.imbalance import check_labels

# What can decide, with its name in texts. All but `error` are better when they are higher.
MEASURES = {"error": "error", "balanced_accuracy": "balanced accuracy", "few_accuracy": "few-shot accuracy"}
# Parts of a method's name that stand for a stage, or for another order of the images.
_STAGES = ("rs", "rw", "drw", "drs", "ssp", "crt", "lws")


def bare(name: str) -> str:
    """METHOD of METHOD+DECISION, which shares its training."""
    return name.partition("+")[0]


def simplicity(method: str) -> int:
    """How much a method adds to plain training.

    0 for erm, 1 for another loss, and 1 more for each stage in its name and for a decision after the training.

    Example:
        >>> [simplicity(name) for name in ("erm", "balanced-softmax", "ldam-drw", "ldam-drw-ssp")]
        [0, 1, 2, 3]
        >>> simplicity("erm+logit-adjustment")
        1
    """
    trained, decided = bare(method), "+" in method
    return decided + (0 if trained == "erm" else 1 + sum(part in _STAGES for part in trained.split("-")))


def compare(
    labels: np.ndarray,
    predictions: np.ndarray,
    methods: Sequence[str],
    *,
    few: np.ndarray,
    class_names: Sequence[str] | None = None,
    measure: str = "balanced_accuracy",
    level: float = 0.05,
) -> dict[str, Any]:
    """Compare methods that were trained with the same seeds and evaluated on the same images.

    A measure is a weighted mean over images, sum_i w_i [image i is right], averaged over the S seeds. Its variance, or
    that of the difference of two methods, has a part of the seeds and a part of the images:

        V = V_seeds + max(V_images - V_both, 0)

    V_seeds: variance of the S values / S. V_images: that of a sum over images drawn anew within each class, of the mean
    over the seeds. V_both: what seeds and images do together (the residual), which is in both parts. Intervals and
    tests are Student's, the quantile being the mean of those of the two parts, weighted by their variances (Cochran's
    test). With few seeds a bootstrap over the seeds would give intervals that are too narrow.

    As three seeds say little of their own spread, V_seeds is the largest of its own, of the mean over all methods (or
    pairs), and of V_both, at the degrees of freedom of that mean: M (S - 1) for the values of M methods,
    (M - 1) (S - 1) for their differences. V_images is at least what one image makes. Classes with a single image are
    one class for V_images. Methods METHOD+DECISION share the trainings of METHOD: M is then the number of methods that
    were trained, and the differences within one training are a group of their own, at S - 1 degrees of freedom.

    The p value of a difference is the chance of one as large, or larger, between two methods that are equally good;
    it is corrected by Holm for all pairs of methods, as the data say which of them is the best.

    Args:
        labels: (N,) true classes, N >= 2.
        predictions: (M, S, N) predicted classes of M methods and S seeds.
        methods: M names, METHOD or METHOD+DECISION, the simplest first where `simplicity` is the same.
        few: (C,) bool, the rarest classes, of the few-shot accuracy.
        class_names: C names, default the class numbers.
        measure: a key of MEASURES: what decides. Default "balanced_accuracy".
        level: two methods are told apart if the corrected p value is below. Default 0.05.

    Returns:
        A dictionary that JSON can hold: `methods`, for each by falling quality its `value`, `interval` (95 %) and
        `by_seed` of each measure; `pairs`, of each two methods `better`, `worse`, `difference` of their values and its
        `interval` (95 %, of this pair alone), `p` (None of one seed) and `p_corrected`; `best`; `equal`, what is not
        told apart from it; `choice`, the simplest of these; `least_difference`, from which on two methods would have
        been told apart; `not_evaluated`, names of the classes without images; `few`, of the rarest that have some;
        `answer`, sentences.

    Raises:
        ValueError: arrays of other shapes or values, fewer than two methods or images, a measure without images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat([0, 1], 200)
        >>> right = rng.random((2, 3, 400)) < np.array([0.6, 0.9])[:, None, None]
        >>> found = compare(labels, np.where(right, labels, 1 - labels), ["erm", "ldam"], few=[False, True])
        >>> found["choice"], found["pairs"][0]["p_corrected"] < 0.01
        ('ldam', True)

    Reference:
        Obuchowski and Rockette 1995 and Hillis 2007 (seeds are the readers, images the cases); Cochran and
        Cox, Experimental Designs, 1957, 4.14 (two variances); Cochran, Sampling Techniques, 1977, 5A.12 (classes of one
        image); Holm 1979.
    """
    measure, level = choice("measure", measure, MEASURES), number("level", level, above=0, below=1)
    methods, few = [str(method) for method in methods], array("few", few).astype(bool)
    names = [str(c) for c in range(len(few))] if class_names is None else [str(name) for name in class_names]
    labels, predictions = check_labels(labels, len(few)), array("predictions", predictions)
    if len(methods) < 2 or len(set(methods)) < len(methods):
        raise ValueError(f"`methods` must be two or more, each once. {received('methods', methods)}")
    if len(labels) < 2:
        raise ValueError(f"`labels` must be of two images or more. Received: {len(labels)}")
    if predictions.ndim != 3 or predictions.shape[::2] != (len(methods), len(labels)) or not predictions.shape[1]:
        raise ValueError(
            f"`predictions` must have shape ({len(methods)}, S, {len(labels)}): methods, seeds, images. "
            f"Received: shape={predictions.shape}"
        )
    if len(names) != len(few):
        raise ValueError(f"`class_names` must be {len(few)} names. Received: {len(names)} names")

    images = np.bincount(labels, minlength=len(few))
    weights = _weights(labels, images, few)
    deciding = weights[measure]
    if deciding is None:
        raise ValueError(f"`measure` {measure} has no images: no image of the rarest classes is evaluated.")
    trained = len(set(map(bare, methods)))
    order, starts = _strata(labels)
    right = (predictions == labels)[:, :, order]
    rows: list[dict[str, Any]] = [{"name": name} for name in methods]
    for name, weight in weights.items():
        if weight is None:
            for row in rows:
                row[name] = None
            continue
        hits = ~right if name == "error" else right
        found = [_parts(weight[order] * hit, starts) for hit in hits]
        for row, one in zip(rows, _estimates(found, trained, weight.max()), strict=True):
            low, high = one["interval"]
            row[name] = {"value": one["value"], "interval": [max(low, 0.0), min(high, 1.0)], "by_seed": one["by_seed"]}

    sign = -1 if measure == "error" else 1
    ranks = sorted(range(len(methods)), key=lambda m: (-sign * rows[m][measure]["value"], simplicity(methods[m]), m))
    deciding = deciding[order]
    contrasts = list(itertools.combinations(ranks, 2))
    differences: dict[tuple[int, int], dict[str, Any]] = {}
    for within, independent in ((False, trained - 1), (True, 1)):
        group = [(a, b) for a, b in contrasts if (bare(methods[a]) == bare(methods[b])) == within]
        parts = [_parts(sign * deciding * (right[a].astype(float) - right[b]), starts) for a, b in group]
        if group:
            differences |= zip(group, _estimates(parts, independent, deciding.max()), strict=True)
    seeds = predictions.shape[1]
    pairs = [
        {"better": methods[a], "worse": methods[b], "difference": one["value"], "interval": one["interval"]}
        | {"p": _p_value(abs(one["value"]) / one["error_of"][0], one["error_of"][1]) if seeds > 1 else None}
        | {"error_of": one["error_of"]}
        for a, b in contrasts
        for one in (differences[a, b],)
    ]
    least = _least_difference(pairs, level) if seeds > 1 else None
    for pair, corrected in zip(pairs, _holm([pair["p"] for pair in pairs]), strict=True):
        del pair["error_of"]
        pair["p_corrected"] = corrected
    best = methods[ranks[0]]
    against = {pair["worse"]: pair for pair in pairs if pair["better"] == best}
    equal = [name for name, pair in against.items() if pair["p_corrected"] is None or pair["p_corrected"] >= level]
    chosen = min([best, *equal], key=lambda name: (simplicity(name), methods.index(name)))
    result = {
        "measure": measure,
        "images": len(labels),
        "seeds": seeds,
        "level": level,
        "methods": [rows[m] for m in ranks],
        "pairs": pairs,
        "best": best,
        "equal": equal,
        "choice": chosen,
        "least_difference": least,
        "few": [names[c] for c in np.flatnonzero(few & (images > 0))],
        "not_evaluated": [names[c] for c in np.flatnonzero(images == 0)],
    }
    return result | {"answer": _answer(result, against)}


def _weights(labels: np.ndarray, images: np.ndarray, few: np.ndarray) -> dict[str, np.ndarray | None]:
    """The weight of every image in each measure; None: the measure has no images."""
    there = images > 0

    def mean_of(classes: np.ndarray) -> np.ndarray | None:
        shown = classes & there
        if not shown.any():
            return None
        by_class = np.divide(shown, images * shown.sum(), out=np.zeros(len(images)), where=there)
        return by_class[labels]

    return {
        "balanced_accuracy": mean_of(there),
        "error": np.full(len(labels), 1 / len(labels)),
        "few_accuracy": mean_of(few),
    }


def _strata(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order in which the images of a class stand together, and where each class begins; none has one image."""
    counts = np.bincount(labels)
    group = np.arange(len(counts))
    single = np.flatnonzero(counts == 1)
    group[single] = -1
    if len(single) == 1 and (counts > 1).any():
        group[np.where(counts > 1, counts, counts.max() + 1).argmin()] = -1
    of_image = group[labels]
    order = np.argsort(of_image, kind="stable")
    return order, np.flatnonzero(np.diff(of_image[order], prepend=-2))


def _parts(z: np.ndarray, starts: np.ndarray) -> dict[str, Any]:
    """Value and variance of sums over images, of each seed.

    Args:
        z: (S, N) weighted values in the order of the classes.
        starts: where each class begins.
    """
    seeds, count = z.shape
    sizes = np.diff(starts, append=count)

    def within(values: np.ndarray) -> np.ndarray:
        """Values (..., N) less the means of their classes."""
        return values - np.repeat(np.add.reduceat(values, starts, axis=-1) / sizes, sizes, axis=-1)

    deviation = within(z.mean(axis=0))
    by_class = sizes * np.add.reduceat(deviation**2, starts) / (sizes - 1)
    variance, squares = by_class.sum(), (by_class**2 / (sizes - 1)).sum()
    freedom = variance**2 / squares if squares else float(count - len(starts))
    by_seed = z.sum(axis=1)
    both = 0.0
    if seeds > 1:
        residual = np.add.reduceat(((within(z) - deviation) ** 2).sum(axis=0), starts)
        both = (sizes * residual / ((sizes - 1) * (seeds - 1) * seeds)).sum()
    return {
        "by_seed": by_seed,
        "of_seeds": by_seed.var(ddof=1) / seeds if seeds > 1 else None,
        "of_both": both,
        "of_images": max(variance - both, 0.0),
        "freedom": freedom,
    }


def _estimates(parts: Sequence[dict[str, Any]], independent: int, largest: float) -> list[dict[str, Any]]:
    """Value, 95 % interval, and standard error with its degrees of freedom, of each of several sums.

    Args:
        parts: of each, see `_parts`.
        independent: so many of them are.
        largest: weight of an image.

    Of one seed the interval is of the images alone.
    """
    seeds = len(parts[0]["by_seed"])
    pooled = np.mean([part["of_seeds"] for part in parts]) if seeds > 1 else 0.0
    found = []
    for part in parts:
        of_seeds = max(part["of_seeds"], part["of_both"], pooled) if seeds > 1 else 0.0
        of_images = max(part["of_images"], largest**2)
        value, error = float(part["by_seed"].mean()), float(np.sqrt(of_seeds + of_images))
        freedoms = [(of_images, part["freedom"])]
        if seeds > 1:
            freedoms.append((of_seeds, independent * (seeds - 1)))
        half = _quantile(0.025, freedoms) * error
        found.append(
            {
                "value": value,
                "by_seed": part["by_seed"].tolist(),
                "interval": [value - half, value + half],
                "error_of": (error, freedoms),
            }
        )
    return found


def _quantile(tail: float, parts: Sequence[tuple[float, float]]) -> float:
    """The quantile of a sum of variances of several degrees of freedom, after Cochran: the mean by their sizes."""
    return sum(v * float(-special.stdtrit(f, tail)) for v, f in parts) / sum(v for v, _ in parts)


def _p_value(ratio: float, parts: Sequence[tuple[float, float]]) -> float:
    """The two-sided p value whose quantile the ratio is."""
    if ratio == 0:
        return 1.0
    low, high = -230.0, math.log(0.5)  # to 1e-100: SciPy's quantiles of smaller ones may have another sign
    for _ in range(40):  # to 1e-9 of the p value
        middle = (low + high) / 2
        low, high = (middle, high) if _quantile(math.exp(middle), parts) > ratio else (low, middle)
    return 2 * math.exp(high)


def _holm(values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number, by Holm's step-down method."""
    if None in values:
        return list(values)
    corrected, largest = [1.0] * len(values), 0.0
    for rank, i in enumerate(np.argsort(np.array(values, float), kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * float(values[i] or 0.0)))
        corrected[i] = largest
    return list(corrected)


def _least_difference(pairs: Sequence[dict[str, Any]], level: float) -> float:
    """The difference at which the middle one of the pairs would just have been told apart, in Holm's first step."""
    least = [error * _quantile(level / 2 / len(pairs), parts) for error, parts in (pair["error_of"] for pair in pairs)]
    return float(np.median(least))


def _answer(found: dict[str, Any], against: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences that say what was chosen, and how sure it is."""
    measure, best, equal, chosen = MEASURES[found["measure"]], found["best"], found["equal"], found["choice"]
    most = "lowest" if found["measure"] == "error" else "highest"
    on = f"{found['seeds']} seed{'s' * (found['seeds'] > 1)} and {found['images']:,} images"
    if found["seeds"] == 1:
        lines = [
            f"{best} has the {most} {measure}, of one seed. How much another seed would change is unknown, so nothing "
            f"is told apart: take the simplest, {chosen}, or train more seeds."
        ]
    elif not equal:
        largest = chance(max(pair["p_corrected"] for pair in against.values()))
        closest = min(against.values(), key=lambda pair: abs(pair["difference"]))
        lines = [
            f"Take {best}. Its {measure} is the {most}, and it is told apart from every other method: by "
            f"{points(abs(closest['difference']))} from {closest['worse']}, the nearest; the chance of noise is "
            f"{largest}{'' if largest.startswith('below') else ' or less'} for each."
        ]
    else:
        tied = ", ".join(f"{name} ({chance(against[name]['p_corrected'])})" for name in equal)
        lines = [
            f"Not told apart: {best} has the {most} {measure}, but the difference to these may be noise, with the "
            f"chance in brackets: {tied}.",
            f"Take the simplest of them, {chosen}.",
        ]
        apart = [pair for name, pair in against.items() if name not in equal]
        if apart:
            told = ", ".join(
                f"{p['worse']} (by {points(abs(p['difference']))}, {chance(p['p_corrected'])})" for p in apart
            )
            lines.append(f"Told apart from {best}: {told}.")
    if found["least_difference"] is not None:
        lines.append(
            f"With {on}, two methods are told apart from a difference of about {points(found['least_difference'])} on; "
            "more seeds or more held-out images tell smaller ones."
        )
    if found["not_evaluated"]:
        lines.append(f"Classes without evaluated images are in no number: {listed(found['not_evaluated'])}.")
    return lines


def listed(names: Sequence[str]) -> str:
    """Names of classes as text, of many the first ten."""
    return named(names, at_most=10) or "no class, none has images"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points: "2.4 points"."""
    return f"{100 * difference:.1f} points"


def chance(p: float | None) -> str:
    """A p value as text: "3.2 %", "below 0.1 %", or "unknown"."""
    if p is None:
        return "unknown"
    return "below 0.1 %" if p < 0.001 else f"{100 * p:.1f} %" if p < 0.1 else f"{100 * p:.0f} %"
