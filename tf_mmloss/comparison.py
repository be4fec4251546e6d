"""Which of several methods is better, from several trainings of each on one set of images. NumPy and SciPy alone.

Two things make a difference between two methods uncertain: another seed would train other networks, and other images of
the same classes would be evaluated. Every training is evaluated on the same images, so the design is crossed, as that
of readers by cases in diagnostic studies, whose analysis this is. The training images are one and the same: what other
training images would do is not part of it.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from tf_mmloss._validation import array, choice, group_numbers, integer, number, received
from tf_mmloss.data.source import named
from tf_mmloss.imbalance import check_labels

# What can decide, with its name in texts. All but `error` are better when they are higher.
MEASURES = {"error": "error", "balanced_accuracy": "balanced accuracy", "few_accuracy": "few-shot accuracy"}
# Degrees of freedom that the variance of images within small classes is estimated from.
_POOLED = 10
# The least difference from which on an answer says that hardly any can be told.
_HARDLY = 0.2
# The chance of calling one of equally spread methods unstable.
_UNSTABLE = 0.01


def bare(name: str) -> str:
    """METHOD of METHOD+DECISION, which shares its training."""
    return name.partition("+")[0]


def compare(
    labels: np.ndarray,
    predictions: np.ndarray,
    methods: Sequence[str],
    *,
    few: np.ndarray,
    class_names: Sequence[str] | None = None,
    measure: str = "balanced_accuracy",
    level: float = 0.05,
    additions: Sequence[int] | None = None,
    shares: np.ndarray | None = None,
    groups: np.ndarray | None = None,
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
    (M - 1) (S - 1) for their differences. A method whose seeds differ by far more than those of the middle one of
    the others (tested at 1 %) is `unstable`: it is no part of the means, and has S - 1 degrees of freedom of its own.
    Methods METHOD+DECISION share the trainings of METHOD: M is then the number of methods that were trained, and the
    differences within one training are a group of their own. Three seeds cannot always tell which method is unstable:
    of equally good methods whose spreads differ sixteenfold, two were told apart in 7 to 12 of 100 simulated
    comparisons, of those with equal spreads in 3 to 4.

    Classes with fewer than ten images share one variance within classes, that of the smallest classes that have ten
    degrees of freedom together; where all classes have fewer, they are one class for V_images. It is at least what one
    image makes. With `groups`, of pictures of one patient say, V_images is of groups drawn anew instead of images. A
    group with images of several classes is drawn as one: the covariance of its classes is added where it is positive,
    and the degrees of freedom are at most those of the groups.

    The p value of a difference is the chance of one as large, or larger, between two methods that are equally good;
    it is corrected by Holm for all pairs of methods, as the data say which of them is the best. The intervals of the
    differences hold for all pairs at once (Bonferroni).

    Args:
        labels: (N,) true classes, N >= 2.
        predictions: (M, S, N) predicted classes of M methods and S seeds.
        methods: M names, METHOD or METHOD+DECISION.
        few: (C,) bool, the rarest classes, of the few-shot accuracy.
        class_names: C names, default the class numbers.
        measure: a key of MEASURES: what decides. Default "balanced_accuracy".
        level: two methods are told apart if the corrected p value is below. Default 0.05.
        additions: (M,) how much each method adds to plain training, >= 0: the choice among equals has the least, the
            first of them. Default: the first of `methods` is the simplest.
        shares: (C,) how often each class comes where `error` is to hold, in any unit. Default: as in `labels`.
        groups: (N,) keys of images that are alike, each with others of its key. Default: images stand alone.

    Returns:
        A dictionary that JSON can hold: `methods`, for each by falling quality its `value`, `interval` (95 %) and
        `by_seed` of each measure; `pairs`, of each two methods `better`, `worse`, `difference` of their values and its
        `interval` (95 %, of all pairs at once), `p` (None of one seed) and `p_corrected`; `best`; `equal`, what is not
        told apart from it; `choice`, the simplest of these that no method is told apart from as better;
        `from_simplest`, all methods in that order; `at_most_worse`, by how much the best may be better than the choice,
        the end of its interval; `unstable`, methods that differ much by seed; `least_difference`, from which on two
        others would have been told apart; `not_evaluated`, names of the classes without images; `few`, of the rarest
        that have some; `answer`, sentences.

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
        Cox, Experimental Designs, 1957, 4.14 (two variances); Cochran, Sampling Techniques, 1977, 5A.12 (small classes
        put together) and 9.2 (groups); Holm 1979.
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

    added = list(range(len(methods))) if additions is None else [integer("additions", one) for one in additions]
    if len(added) != len(methods):
        raise ValueError(f"`additions` must be {len(methods)} numbers. Received: {len(added)}")
    images = np.bincount(labels, minlength=len(few))
    weights = _weights(images, few, images if shares is None else _shares(shares, len(few)))
    deciding = weights[measure]
    if deciding is None:
        of = "class with a share" if measure == "error" else "class of the rarest"
        raise ValueError(f"`measure` {measure} has no images: none of a {of} is evaluated.")
    design = _Design(labels, groups)
    right = (predictions == labels)[:, :, design.order].astype(float)
    seeds = predictions.shape[1]
    rows: list[dict[str, Any]] = [{"name": name} for name in methods]
    unstable: set[str] = set()
    for name, weight in weights.items():
        if weight is None:
            for row in rows:
                row[name] = None
            continue
        found = [_parts(1 - hit if name == "error" else hit, design, weight) for hit in right]
        # Of a method and its decisions the one that differs most by seed: the last of a name stays.
        rising = sorted(zip(methods, found, strict=True), key=lambda one: one[1]["by_seed"].var())
        differing = _unstable({bare(method): part["by_seed"] for method, part in rising})
        if name == measure:
            unstable = differing
        stable = [bare(method) not in differing for method in methods]
        trained = len({bare(method) for method in methods} - differing)
        for row, one in zip(rows, _estimates(found, stable, trained), strict=True):
            half = _quantile(0.025, one["freedoms"]) * one["error"]
            between = [max(one["value"] - half, 0.0), min(one["value"] + half, 1.0)]
            row[name] = {"value": one["value"], "interval": between, "by_seed": one["by_seed"]}

    sign = -1 if measure == "error" else 1
    ranks = sorted(range(len(methods)), key=lambda m: (-sign * rows[m][measure]["value"], added[m], m))
    contrasts = list(itertools.combinations(ranks, 2))
    differences: dict[tuple[int, int], dict[str, Any]] = {}
    independent = len({bare(method) for method in methods} - unstable) - 1
    for within in (False, True):
        group = [(a, b) for a, b in contrasts if (bare(methods[a]) == bare(methods[b])) == within]
        parts = [_parts(sign * (right[a] - right[b]), design, deciding) for a, b in group]
        stable = [not {bare(methods[a]), bare(methods[b])} & unstable for a, b in group]
        if group:
            differences |= zip(group, _estimates(parts, stable, 1 if within else independent), strict=True)
    pairs = []
    for a, b in contrasts:
        one = differences[a, b]
        half = _quantile(0.025 / len(contrasts), one["freedoms"]) * one["error"]
        pairs.append(
            {"better": methods[a], "worse": methods[b], "difference": one["value"]}
            | {"interval": [one["value"] - half, one["value"] + half]}
            | {"p": _p_value(abs(one["value"]) / one["error"], one["freedoms"]) if seeds > 1 else None}
        )
    for pair, corrected in zip(pairs, _holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_corrected"] = corrected
    least = None
    if seeds > 1:  # in Holm's first step, of the middle one of the pairs
        tail = level / 2 / len(pairs)
        steady = [pair for pair in differences if not {bare(methods[m]) for m in pair} & unstable] or differences
        ones = [differences[pair] for pair in steady]
        least = float(np.median([one["error"] * _quantile(tail, one["freedoms"]) for one in ones]))
    apart = [pair for pair in pairs if _is_told(pair, level)]
    best = methods[ranks[0]]
    told = {pair["worse"] for pair in apart if pair["better"] == best}
    equal = [methods[m] for m in ranks[1:] if methods[m] not in told]
    beaten = {pair["worse"] for pair in apart}
    chosen = min({best, *equal} - beaten, key=lambda name: (added[methods.index(name)], methods.index(name)))
    against = {pair["worse"]: pair for pair in pairs if pair["better"] == best}
    result = {
        "measure": measure,
        "images": len(labels),
        "groups": None if groups is None else design.distinct,
        "seeds": seeds,
        "level": level,
        "methods": [rows[m] for m in ranks],
        "pairs": pairs,
        "best": best,
        "equal": equal,
        "choice": chosen,
        "from_simplest": [methods[m] for m in sorted(range(len(methods)), key=lambda m: (added[m], m))],
        "at_most_worse": 0.0 if chosen == best else max(sign * end for end in against[chosen]["interval"]),
        "unstable": [name for name in methods if bare(name) in unstable],
        "least_difference": least,
        "few": [names[c] for c in np.flatnonzero(few & (images > 0))],
        "not_evaluated": [names[c] for c in np.flatnonzero(images == 0)],
    }
    return result | {"answer": _answer(result, against)}


def _shares(shares: np.ndarray, classes: int) -> np.ndarray:
    """Check them."""
    shares = array("shares", shares).astype(float)
    if shares.shape != (classes,) or not np.isfinite(shares).all() or (shares < 0).any():
        raise ValueError(f"`shares` must be {classes} numbers >= 0. {received('shares', shares)}")
    return shares


def _weights(images: np.ndarray, few: np.ndarray, shares: np.ndarray) -> dict[str, np.ndarray | None]:
    """The weight in each measure of an image of each class that has some, (K,); None: the measure has no images."""
    there = images > 0

    def of(wanted: np.ndarray) -> np.ndarray | None:
        wanted = wanted[there].astype(float)
        return wanted / wanted.sum() / images[there] if wanted.any() else None

    return {"balanced_accuracy": of(there), "error": of(shares), "few_accuracy": of(few)}


class _Design:
    """Which images are of one class, and of one group in it.

    Attributes:
        order: (N,) positions of the images, by class and group.
        images: (K,) of each class that has some.
        groups: (K,) of each class.
        sizes: (G,) images of each group, of those of several classes in each class.
        keys: (G,) its key, from 0 on; `distinct`: so many.
        small: (K,) bool, classes that share one variance; `shared`: those from which it is estimated.
        one: whether there are too few groups in all, so that they are taken as of one class.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray | None) -> None:
        count = len(labels)
        keys = group_numbers(groups, count)
        self.order = np.lexsort((keys, labels))
        labels, keys = labels[self.order], keys[self.order]
        new_class = np.diff(labels, prepend=-1) != 0
        self.starts = np.flatnonzero(new_class | (np.diff(keys, prepend=-1) != 0))
        self.sizes = np.diff(self.starts, append=count)
        self.keys, self.distinct = keys[self.starts], int(keys.max()) + 1
        self.class_starts = np.flatnonzero(new_class[self.starts])
        self.groups = np.diff(self.class_starts, append=len(self.starts))
        self.images = np.add.reduceat(self.sizes, self.class_starts)
        if self.distinct < 2:
            raise ValueError("`groups` must be two or more. Received: one, of all images")
        freedoms = self.groups - 1
        self.one = bool(freedoms.sum() < _POOLED)
        self.small = freedoms < _POOLED - 1
        rising = np.argsort(self.groups, kind="stable")
        needed = int(np.searchsorted(freedoms[rising].cumsum(), _POOLED)) + 1
        self.shared = rising[: max(needed, int(self.small.sum()))]

    def variance(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The variance of an image of each class, from sums of squares (K,) with one degree less than groups.

        Returns:
            Variances (K,), degrees of freedom of each (K,), and those of the small classes together.
        """
        freedoms = self.groups - 1.0
        if self.one:
            total = float(len(self.sizes) - 1)
            return np.full(len(squares), squares.sum() / total), freedoms, total
        pooled = float(freedoms[self.shared].sum())
        own = np.divide(squares, freedoms, out=np.zeros(len(squares)), where=freedoms > 0)
        return np.where(self.small, squares[self.shared].sum() / pooled, own), freedoms, pooled

    def between_classes(self, rows: np.ndarray, weight: np.ndarray) -> float:
        """What groups with images of several classes add to the variance of a weighted sum, summed over rows.

        Args:
            rows: (R, G) deviations of the groups' sums.
            weight: (K,) of an image of each class.
        """
        if self.distinct == len(self.keys):
            return 0.0
        own = rows * np.repeat(weight, self.groups)
        whole = np.stack([np.bincount(self.keys, row, self.distinct) for row in own])
        added = (whole**2).sum() - (own**2).sum()
        return max(float(added), 0.0) * self.distinct / (self.distinct - 1)


def _parts(values: np.ndarray, design: _Design, weight: np.ndarray) -> dict[str, Any]:
    """Value and variance of a weighted sum over images, of each seed.

    Args:
        values: (S, N) in the order of the design.
        design: of the images.
        weight: (K,) of an image of each class.
    """
    seeds, count = values.shape
    sums = values if len(design.starts) == count else np.add.reduceat(values, design.starts, axis=1)
    of_class = np.add.reduceat(sums, design.class_starts, axis=1)
    means = of_class.sum(axis=1, keepdims=True) / count if design.one else of_class / design.images
    means = np.repeat(np.broadcast_to(means, of_class.shape), design.groups, axis=1)
    residual = sums - means * design.sizes
    deviation = residual.mean(axis=0)
    size = design.images / design.groups  # of a group

    def squared(rows: np.ndarray) -> np.ndarray:
        return np.add.reduceat(rows, design.class_starts) / size

    scale = weight**2 * design.images
    variances, freedoms, pooled = design.variance(squared(deviation**2))
    least = 1 / count  # as if one image were another
    by_class = scale * np.maximum(variances, least)
    shared = design.small | design.one
    together = by_class[shared].sum()
    squares = (by_class[~shared] ** 2 / freedoms[~shared]).sum() + together**2 / max(pooled, 1.0)
    of_images = by_class.sum() + design.between_classes(deviation[None], weight)
    by_seed, both = of_class @ weight, 0.0
    if seeds > 1:
        both = (scale * design.variance(squared(((residual - deviation) ** 2).sum(axis=0)))[0]).sum()
        both = (both + design.between_classes(residual - deviation, weight)) / ((seeds - 1) * seeds)
    return {
        "by_seed": by_seed,
        "of_seeds": by_seed.var(ddof=1) / seeds if seeds > 1 else 0.0,
        "of_both": both,
        "of_images": max(of_images - both, scale.sum() * least),
        "freedom": min(by_class.sum() ** 2 / squares, design.distinct - 1),
    }


def _unstable(by_seed: dict[str, np.ndarray]) -> set[str]:
    """Methods whose seeds differ by far more than those of the middle one of the others."""
    spreads = np.array([values.var(ddof=1) if len(values) > 1 else 0.0 for values in by_seed.values()])
    seeds = len(next(iter(by_seed.values())))
    if len(spreads) < 3 or seeds < 2:
        return set()
    bound = _bound(len(spreads), seeds)
    return {name for m, name in enumerate(by_seed) if spreads[m] > bound * np.median(np.delete(spreads, m))}


@functools.cache
def _bound(methods: int, seeds: int) -> float:
    """The bound that a ratio of `_unstable` exceeds by chance, of methods that are alike: from normal draws."""
    drawn = np.random.default_rng(0).chisquare(seeds - 1, (20_000, methods))
    ratios = [drawn[:, m] / np.median(np.delete(drawn, m, axis=1), axis=1) for m in range(methods)]
    return float(np.quantile(np.max(ratios, axis=0), 1 - _UNSTABLE))


def _estimates(parts: Sequence[dict[str, Any]], stable: Sequence[bool], independent: int) -> list[dict[str, Any]]:
    """Value and standard error of each of several sums, with what the error is made of: (variance, freedom) of each.

    Args:
        parts: of each, see `_parts`.
        stable: of each, whether its seeds differ as those of the others.
        independent: so many of the stable ones are independent.

    Of one seed the error is of the images alone.
    """
    seeds = len(parts[0]["by_seed"])
    pooled = np.mean([part["of_seeds"] for part, one in zip(parts, stable, strict=True) if one] or [0.0])
    found = []
    for part, is_stable in zip(parts, stable, strict=True):
        of_seeds = max(part["of_seeds"], part["of_both"], pooled) if seeds > 1 else 0.0
        freedoms = [(part["of_images"], part["freedom"])]
        if seeds > 1:
            freedoms.append((of_seeds, (independent if is_stable else 1) * (seeds - 1)))
        found.append(
            {
                "value": float(part["by_seed"].mean()),
                "by_seed": part["by_seed"].tolist(),
                "error": float(np.sqrt(of_seeds + part["of_images"])),
                "freedoms": freedoms,
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


def _answer(found: dict[str, Any], against: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences that say what was chosen, and how sure it is."""
    measure, best, equal, chosen = MEASURES[found["measure"]], found["best"], found["equal"], found["choice"]
    most = "lowest" if found["measure"] == "error" else "highest"
    grouped = f" in {found['groups']:,} groups" if found["groups"] else ""
    on = f"{found['seeds']} seed{'s' * (found['seeds'] > 1)} and {found['images']:,} images{grouped}"
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
            f"{points(abs(closest['difference']))} from {closest['worse']}, the nearest. The chance of a "
            f"difference as large between equally good methods is {largest}"
            f"{'' if largest.startswith('below') else ' or less'} for each."
        ]
    else:
        tied = ", ".join(f"{name} ({chance(against[name]['p_corrected'])})" for name in equal)
        lines = [
            f"Not told apart: {best} has the {most} {measure}, but it may be no better than these. In brackets, the "
            f"chance of a difference as large between equally good methods: {tied}.",
        ]
        may = "" if chosen == best else f", which may be worse than {best} by up to {points(found['at_most_worse'])}"
        beaten = [
            pair["better"] for pair in found["pairs"] if pair["worse"] in equal and _is_told(pair, found["level"])
        ]
        of = " of them" if not beaten else " of them from which no better one is told apart"
        lines.append(f"Take the simplest{of}, {chosen}{may}.")
        apart = [pair for name, pair in against.items() if name not in equal]
        if apart:
            told = ", ".join(
                f"{p['worse']} (by {points(abs(p['difference']))}, {chance(p['p_corrected'])})" for p in apart
            )
            lines.append(f"Told apart from {best}: {told}.")
    if found["least_difference"] is not None:
        least = found["least_difference"]
        if least > _HARDLY:
            lines.append(
                f"With {on}, hardly any difference can be told: two methods differ by chance by up to "
                f"{points(min(least, 1.0))}. Train more seeds or hold out more images."
            )
        else:
            lines.append(
                f"With {on}, two methods are told apart from a difference of about {points(least)} on; more seeds or "
                "more held-out images tell smaller ones."
            )
    if found["unstable"]:
        lines.append(
            f"By seed {' and '.join(found['unstable'])} differ{'s' * (len(found['unstable']) == 1)} far more than the "
            "other methods."
        )
    if found["not_evaluated"]:
        lines.append(f"Classes without evaluated images are in no number: {listed(found['not_evaluated'])}.")
    return lines


def _is_told(pair: dict[str, Any], level: float) -> bool:
    return pair["p_corrected"] is not None and pair["p_corrected"] < level


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
