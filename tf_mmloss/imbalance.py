"""Everything that follows from class counts: subsets, class weights and margins. NumPy only.

Notation of the docstrings: C classes, n_c training examples of class c.
"""

from collections.abc import Sequence

import numpy as np

from tf_mmloss._validation import choice, integer, number

IMBALANCES = ("longtail", "step")
WEIGHT_SCHEMES = ("effective", "inverse")

Counts = Sequence[int] | np.ndarray


def check_counts(cls_counts: Counts, argument: str = "cls_counts") -> np.ndarray:
    """Return class counts as an int64 array of shape (C,), or say what is wrong with them.

    Args:
        cls_counts: training examples per class, positive integers, at least two classes.
        argument: name that the error message gives to the counts.

    Returns:
        int64 array (C,).

    Raises:
        ValueError: empty, one class only, not one-dimensional, not integers, zero or negative.

    Example:
        >>> check_counts([5000, 50])
        array([5000,   50])
    """
    counts = np.asarray(cls_counts)
    if counts.ndim != 1 or counts.size < 2:
        raise ValueError(
            f"`{argument}` must be a one-dimensional sequence of at least two class counts. "
            f"Received: {argument}={cls_counts!r}"
        )
    numeric = counts.dtype.kind in "iuf" and np.all(np.isfinite(counts))
    if not numeric or np.any(counts != np.floor(counts)) or np.any(counts < 1):
        raise ValueError(
            f"`{argument}` must be positive integers, one for each class. Received: {argument}={cls_counts!r}"
        )
    return counts.astype(np.int64)


def check_labels(labels: np.ndarray, num_classes: int, argument: str = "labels") -> np.ndarray:
    """Return integer labels of shape (N,) as int64 after checking that all lie in [0, num_classes).

    Args:
        labels: (N,) or (N, 1) whole numbers.
        num_classes: C.
        argument: name that the error message gives to the labels.

    Returns:
        int64 array (N,).

    Raises:
        ValueError: another shape, not whole numbers, or out of range (the first offender is named).

    Example:
        >>> check_labels(np.array([[0], [2]]), 3)
        array([0, 2])
    """
    array = np.asarray(labels)
    flat = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1 or flat.dtype.kind not in "iuf" or np.any(flat != np.floor(flat)):
        raise ValueError(
            f"`{argument}` must be whole numbers of shape (N,) or (N, 1). "
            f"Received: shape={array.shape}, dtype={array.dtype}"
        )
    bad = np.flatnonzero((flat < 0) | (flat >= num_classes))
    if bad.size:
        raise ValueError(
            f"`{argument}` must lie in [0, {num_classes}). "
            f"Received: {argument}[{bad[0]}]={flat[bad[0]]} ({bad.size} of {flat.size} out of range)"
        )
    return flat.astype(np.int64)


def class_counts(labels: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Count the examples of each class.

    Args:
        labels: (N,) or (N, 1) whole numbers.
        num_classes: C; default: largest label + 1.

    Returns:
        int64 array (C,); a class without examples counts 0.

    Raises:
        ValueError: labels that are not whole numbers in [0, C).

    Example:
        >>> class_counts([0, 0, 1], 3)
        array([2, 1, 0])
    """
    if num_classes is None:
        num_classes = int(np.max(labels)) + 1 if np.size(labels) else 0
    return np.bincount(check_labels(labels, num_classes), minlength=num_classes)


def imbalanced_counts(n_max: int, num_classes: int, imbalance: str, ratio: float) -> np.ndarray:
    """Class counts of the paper's two imbalances (section 4.1, after Cui et al. 2019 and Buda et al. 2018).

        longtail:  n_c = int(n_max * ratio ** (-c / (C - 1)))
        step:      n_c = n_max for c < C // 2, else int(n_max / ratio)

    Args:
        n_max: examples of the largest class, > 0.
        num_classes: C >= 2.
        imbalance: "longtail" or "step".
        ratio: largest over smallest class, >= 1 (paper: 10 and 100).

    Returns:
        int64 array (C,), largest class first.

    Raises:
        ValueError: an argument out of range, or a ratio that leaves a class empty.

    Example:
        >>> imbalanced_counts(5000, 10, "longtail", 100)
        array([5000, 2997, 1796, 1077,  645,  387,  232,  139,   83,   50])
    """
    n_max = integer("n_max", n_max, at_least=1)
    num_classes = integer("num_classes", num_classes, at_least=2)
    choice("imbalance", imbalance, IMBALANCES)
    ratio = number("ratio", ratio, at_least=1)
    if imbalance == "longtail":
        # The published code raises 1/ratio to a power; the product is truncated in the same order here.
        counts = [int(n_max * (1 / ratio) ** (c / (num_classes - 1))) for c in range(num_classes)]
    else:
        counts = [n_max if c < num_classes // 2 else int(n_max / ratio) for c in range(num_classes)]
    if min(counts) < 1:
        raise ValueError(
            f"`ratio` must leave an example in every class: at most {n_max} for n_max={n_max}. "
            f"Received: ratio={ratio:g}"
        )
    return np.array(counts, dtype=np.int64)


def subset_indices(labels: np.ndarray, cls_counts: Counts, seed: int = 0) -> np.ndarray:
    """Choose `cls_counts[c]` examples of every class c at random, without replacement.

    Args:
        labels: (N,) labels of the full data set.
        cls_counts: (C,) wanted counts, each at most what is there.
        seed: >= 0; the same seed always chooses the same examples.

    Returns:
        int64 array (sum of cls_counts,): sorted positions in the full data set.

    Raises:
        ValueError: labels out of range, or a class with fewer examples than wanted.

    Example:
        >>> subset_indices(np.array([0, 0, 1, 1]), [2, 1]).shape
        (3,)
    """
    counts = check_counts(cls_counts)
    labels = check_labels(labels, len(counts))
    rng = np.random.default_rng(integer("seed", seed))
    available = np.bincount(labels, minlength=len(counts))
    if np.any(counts > available):
        c = int(np.argmax(counts > available))
        raise ValueError(
            f"`cls_counts` must not exceed what the data holds: class {c} has {available[c]} examples. "
            f"Received: cls_counts[{c}]={counts[c]}"
        )
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(counts)]
    return np.sort(np.concatenate(chosen))


def effective_number_weights(cls_counts: Counts, beta: float = 0.9999) -> np.ndarray:
    """Class-balanced weights w_c ~ (1 - beta) / (1 - beta ** n_c), normalised to sum to C.

    Args:
        cls_counts: (C,) training examples per class.
        beta: in [0, 1); 0 weighs all classes alike, towards 1 the weights approach 1/n_c. Default 0.9999.

    Returns:
        float64 array (C,).

    Raises:
        ValueError: bad counts, or beta out of range.

    Example:
        >>> effective_number_weights([100, 10]).round(3)
        array([0.183, 1.817])

    Reference:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, section 4.
    """
    counts = check_counts(cls_counts)
    beta = number("beta", beta, at_least=0, below=1)
    # expm1/log1p keep 1 - beta**n exact where beta is close to 1.
    effective = -np.expm1(counts * np.log(beta)) if beta > 0 else np.ones(len(counts))
    return _sum_to_classes(1 / effective)


def inverse_frequency_weights(cls_counts: Counts) -> np.ndarray:
    """Weights w_c ~ 1 / n_c (the paper's Algorithm 1), normalised to sum to C.

    Args:
        cls_counts: (C,) training examples per class.

    Returns:
        float64 array (C,).

    Raises:
        ValueError: bad counts.

    Example:
        >>> inverse_frequency_weights([3, 1])
        array([0.5, 1.5])
    """
    return _sum_to_classes(1 / check_counts(cls_counts))


def class_weights(cls_counts: Counts, scheme: str = "effective", beta: float = 0.9999) -> np.ndarray:
    """Class weights of one of the two published schemes, normalised to sum to C.

    Args:
        cls_counts: (C,) training examples per class.
        scheme: "effective" (what the published code runs) or "inverse" (the paper's Algorithm 1).
        beta: of the effective number; unused by "inverse".

    Returns:
        float64 array (C,).

    Raises:
        ValueError: bad counts, an unknown scheme, beta out of range.

    Example:
        >>> class_weights([3, 1], "inverse")
        array([0.5, 1.5])
    """
    choice("scheme", scheme, WEIGHT_SCHEMES)
    return (
        effective_number_weights(cls_counts, beta) if scheme == "effective" else inverse_frequency_weights(cls_counts)
    )


def ldam_margins(cls_counts: Counts, max_margin: float = 0.5) -> np.ndarray:
    """Label-distribution-aware margins C_m / n_c ** (1/4), the largest one equal to `max_margin`.

    These are LDAM's margins and the paper's class margin gamma (section 3.2, Eq. 6 and 7).

    Args:
        cls_counts: (C,) training examples per class.
        max_margin: margin of the rarest class, in cosine units, > 0. Default 0.5, as published.

    Returns:
        float64 array (C,).

    Raises:
        ValueError: bad counts or margin.

    Example:
        >>> ldam_margins([16, 1])
        array([0.25, 0.5 ])

    Reference:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, Eq. 13.
    """
    margins = check_counts(cls_counts) ** -0.25
    return margins * (number("max_margin", max_margin, above=0) / margins.max())


def _sum_to_classes(weights: np.ndarray) -> np.ndarray:
    return weights * (len(weights) / weights.sum())
