"""Everything that follows from class counts: subsets, class weights and margins. NumPy only.

Notation of the docstrings: C classes, n_c training examples of class c.
"""

import decimal
import math
import numbers
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tf_mmloss._validation import array, choice, integer, number, received, shown, text

IMBALANCES = ("longtail", "step")
WEIGHT_SCHEMES = ("effective", "inverse")

# Beyond these, a typing error is more likely than a data set; float64 holds every whole number up to the second.
MAX_CLASSES = 10_000_000
MAX_EXAMPLES = 2**53

Counts = Sequence[int] | np.ndarray | Mapping[Any, int]


def check_counts(cls_counts: Counts, argument: str = "cls_counts") -> np.ndarray:
    """Return class counts as an int64 array of shape (C,), or say what is wrong with them.

    What has keys is read by them: in a dict, a `Counter` or a pandas Series (such as `value_counts()` returns) a count
    belongs to the class that its key or index names. Keys are the labels 0 ... C-1, in any order, or names: then class
    c is the c-th name in alphabetical order, as in folders of images and scikit-learn's `LabelEncoder`.

    Args:
        cls_counts: training examples per class, positive whole numbers, at least two classes and at most 10 million,
            2^53 examples in all at most: a sequence in the order of the classes, or one of those that have keys.
        argument: name that the error message gives to the counts.

    Returns:
        int64 array (C,).

    Raises:
        ValueError: empty, one class only, not one-dimensional, not whole numbers, negative, too large, keys that are
            neither labels nor names; zero, with the class's name.

    Example:
        >>> check_counts([5000, 50])
        array([5000,   50])
        >>> check_counts({1: 50, 0: 5000})
        array([5000,   50])
    """
    counts, names = _counts(cls_counts, text("argument", argument))
    if counts.size < 2:
        raise ValueError(
            f"`{argument}` must be a one-dimensional sequence of at least two class counts. "
            f"{received(argument, cls_counts)}"
        )
    if np.any(counts == 0):
        c = int(np.argmin(counts))
        raise ValueError(
            f"`{argument}` must be positive: class {c if names is None else shown(names[c])} has no example. Give it "
            f"one, or leave the class out: of the counts, the labels and the model's outputs. "
            f"{received(argument, cls_counts)}"
        )
    return counts


def check_labels(labels: np.ndarray, num_classes: int, argument: str = "labels") -> np.ndarray:
    """Return integer labels of shape (N,) as int64 after checking that all lie in [0, num_classes).

    Args:
        labels: (N,) or (N, 1) whole numbers.
        num_classes: C, 1 to 10 million.
        argument: name that the error message gives to the labels.

    Returns:
        int64 array (N,).

    Raises:
        ValueError: another shape, not whole numbers, or out of range (the first offender is named).

    Example:
        >>> check_labels(np.array([[0], [2]]), 3)
        array([0, 2])
    """
    num_classes = integer("num_classes", num_classes, at_least=1, at_most=MAX_CLASSES)
    flat = _whole_labels(array(text("argument", argument), labels), argument)
    bad = np.flatnonzero((flat < 0) | (flat >= num_classes))
    if bad.size:
        raise ValueError(
            f"`{argument}` must lie in [0, {num_classes}). "
            f"Received: {argument}[{bad[0]}]={flat[bad[0]]} ({bad.size} of {flat.size} out of range)"
        )
    return flat.astype(np.int64)


def class_counts(labels: Any, num_classes: int | None = None) -> np.ndarray:
    """Count the examples of each class, of labels in any form; counts with keys are put in order.

    Names are sorted: class c is the c-th name in alphabetical order, as in folders of images and scikit-learn's
    `LabelEncoder`.

    Args:
        labels: whole numbers (N,) or (N, 1); names (N,), strings; one-hot rows (N, C >= 2); a pandas Series of labels,
            whose index does not count; a `tf.data` set of labels or of (x, labels, ...), batched or not, that ends; or
            counts already: a dict or `Counter` by label or name, the Series of `value_counts()` (its name is "count").
        num_classes: C; default: the largest label + 1, the number of names, or the width of one-hot rows. At most 10
            million.

    Returns:
        int64 array (C,); a class without examples counts 0.

    Raises:
        ValueError: labels that are missing (NaN), soft, or not whole numbers in [0, C); names, or one-hot rows, of
            another number of classes than `num_classes`.

    Example:
        >>> class_counts([0, 0, 1], 3)
        array([2, 1, 0])
        >>> class_counts(["dog", "cat", "dog"])
        array([1, 2])
    """
    if num_classes is not None:
        num_classes = integer("num_classes", num_classes, at_least=1, at_most=MAX_CLASSES)
    if isinstance(labels, Mapping) or (_is_series(labels) and _attribute(labels, "name") == "count"):
        counts, names = _counts(labels, "labels")
        return _widened(counts, num_classes, "labels", names is not None)
    values = _labels_of_dataset(labels) if _is_dataset(labels) else array("labels", labels)
    if values.ndim == 2 and values.shape[1] > 1:
        if not values.size or values.dtype.kind not in "biuf" or not _one_hot(values):
            raise ValueError(
                "`labels` must be whole numbers or names of shape (N,) or (N, 1), or one-hot rows (N, C). "
                f"Received: shape={values.shape}, dtype={values.dtype}"
            )
        return _widened(values.sum(axis=0).astype(np.int64), num_classes, "labels", True)
    names_ = _names(labels, values)
    if names_ is not None:
        return _widened(np.unique(names_, return_counts=True)[1], num_classes, "labels", True)
    flat = _whole_labels(values, "labels")
    if num_classes is None:
        if not flat.size:
            raise ValueError(
                f"`labels` must not be empty where `num_classes` is left out. {received('labels', labels)}"
            )
        # At most: `check_labels` then names the first that is too large.
        num_classes = int(min(max(flat.max(), 0) + 1, MAX_CLASSES))
    return np.bincount(check_labels(flat, num_classes), minlength=num_classes)


def class_indices(labels: Any) -> np.ndarray:
    """Labels of any form as whole numbers, 0 to C - 1.

    Args:
        labels: as in `class_counts`, but counts: whole numbers, names, which are sorted, one-hot rows, a pandas Series,
            a `tf.data` set that ends.

    Returns:
        int64 array (N,).

    Raises:
        ValueError: no labels, or labels that are missing (NaN), soft, negative, or no whole numbers.

    Example:
        >>> class_indices(["dog", "cat", "dog"])
        array([1, 0, 1])
    """
    values = _labels_of_dataset(labels) if _is_dataset(labels) else array("labels", labels)
    if values.ndim == 2 and values.shape[1] > 1:
        class_counts(values)  # refuses what is not one-hot
        return values.argmax(axis=1)
    names_ = _names(labels, values)
    if names_ is not None:
        return np.unique(names_, return_inverse=True)[1].astype(np.int64)
    flat = check_labels(values, MAX_CLASSES)
    if not flat.size:
        raise ValueError(f"`labels` must not be empty. {received('labels', labels)}")
    return flat


def imbalanced_counts(n_max: int, num_classes: int, imbalance: str, ratio: float) -> np.ndarray:
    """Class counts of the paper's two imbalances (section 4.1, after Cui et al. 2019 and Buda et al. 2018).

        longtail:  n_c = floor(n_max * ratio ** (-c / (C - 1)))
        step:      n_c = n_max for c < C // 2, else floor(n_max / ratio)

    The whole numbers are exact, whatever rounding does to the powers.

    Args:
        n_max: examples of the largest class, > 0.
        num_classes: C, 2 to 10 million; n_max C at most 2^53.
        imbalance: "longtail" or "step".
        ratio: largest over smallest class, 1 to n_max (paper: 10 and 100).

    Returns:
        int64 array (C,), largest class first.

    Raises:
        ValueError: an argument out of range, such as a ratio that leaves a class empty.

    Example:
        >>> imbalanced_counts(5000, 10, "longtail", 100)
        array([5000, 2997, 1796, 1077,  645,  387,  232,  139,   83,   50])
    """
    num_classes = integer("num_classes", num_classes, at_least=2, at_most=MAX_CLASSES)
    n_max = integer("n_max", n_max, at_least=1, at_most=MAX_EXAMPLES // num_classes)
    choice("imbalance", imbalance, IMBALANCES)
    ratio = number("ratio", ratio, at_least=1)
    if ratio > n_max:
        raise ValueError(
            f"`ratio` must leave an example in every class: at most {n_max} for n_max={n_max}. "
            f"Received: ratio={ratio:g}"
        )
    if ratio == 1:
        return np.full(num_classes, n_max, np.int64)
    # 100 / 30 as a float is above 10 / 3: the fraction that was meant, where the float is that of a simple one.
    exact, simple = Fraction(ratio), Fraction(ratio).limit_denominator(n_max)
    exact = simple if float(simple) == ratio else exact
    if imbalance == "longtail":
        return _longtail(n_max, num_classes, exact)
    counts = np.full(num_classes, n_max, np.int64)
    counts[num_classes // 2 :] = math.floor(n_max / exact)
    return counts


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


def class_weight(labels_or_counts: Any, scheme: str = "effective", beta: float = 0.9999) -> dict[int, float]:
    """Class weights as the dict that `class_weight=` of Keras' own `fit` takes.

    The weights are those of `class_weights`: they sum to C, so that their ratios are w_c / w_k and their mean over the
    classes is 1. They re-weight from the first step on; `DeferredReweighting` does so later. Use one of the two.

    Args:
        labels_or_counts: the training labels, in any form that `class_counts` takes, or class counts, in any that
            `check_counts` takes. Of plain whole numbers those with a 0 among them are labels, those without are
            counts: every class needs an example, class 0 too.
        scheme: "effective" (default) or "inverse", see `class_weights`.
        beta: of the effective number, in [0, 1). Default 0.9999.

    Returns:
        Weights by label, {0: w_0, ..., C-1: w_{C-1}}; names are sorted, see `class_counts`.

    Raises:
        ValueError: bad labels or counts, among them a class without an example and labels that count from 1; an unknown
            scheme, beta out of range.

    Example:
        >>> class_weight([0, 0, 0, 1], "inverse")
        {0: 0.5, 1: 1.5}
        >>> model.fit(x, y, class_weight=class_weight(y))
    """
    argument = "labels_or_counts"
    counts: Any = labels_or_counts
    if not isinstance(counts, Mapping) and not _is_counts(counts, argument):
        try:
            counts = class_counts(counts)
        except ValueError as error:
            raise ValueError(f"`{argument}` are no counts, and as labels: {error}") from error
    weights = class_weights(check_counts(counts, argument), scheme, beta)
    return dict(enumerate(weights.tolist()))


def ldam_margins(cls_counts: Counts, max_margin: float = 0.5) -> np.ndarray:
    """Label-distribution-aware margins C_m / n_c ** (1/4), the largest one equal to `max_margin`.

    These are LDAM's margins and the paper's class margin gamma (section 3.2, Eq. 6 and 7).

    Args:
        cls_counts: (C,) training examples per class.
        max_margin: margin of the rarest class, in cosine units, > 0 and at most 10^6. Default 0.5, as published.

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
    return margins * (number("max_margin", max_margin, above=0, at_most=1e6) / margins.max())


def _sum_to_classes(weights: np.ndarray) -> np.ndarray:
    return weights * (len(weights) / weights.sum())


def _longtail(n_max: int, num_classes: int, ratio: Fraction) -> np.ndarray:
    """floor(n_max * ratio ** (-c / (C - 1))) of every class c, exact."""
    share = np.arange(num_classes) / (num_classes - 1)
    estimate = n_max * np.exp(-share * math.log(ratio))
    counts = np.floor(estimate).astype(np.int64)
    # A whole number nearer than the rounding of logarithm, product and power may be on either side.
    nearest = np.rint(estimate)
    rounding = estimate * (8 + 4 * share * math.log(ratio)) * np.finfo(np.float64).eps
    for c in np.flatnonzero(np.abs(estimate - nearest) <= rounding).tolist():
        counts[c] = _exact_longtail(n_max, ratio, Fraction(c, num_classes - 1))
    return counts


def _exact_longtail(n_max: int, ratio: Fraction, share: Fraction) -> int:
    """The largest whole k <= n_max * ratio ** -share."""
    with decimal.localcontext(prec=80):
        log_ratio = decimal.Decimal(ratio.numerator).ln() - decimal.Decimal(ratio.denominator).ln()
        real = n_max * (-log_ratio * share.numerator / share.denominator).exp()
        k = int(real.to_integral_value(decimal.ROUND_HALF_EVEN))
        if abs(real - k) > decimal.Decimal("1e-40"):
            return math.floor(real)
    # With share = a / b in lowest terms this compares (k / n_max)^b with ratio^-a. They are equal only where the ratio
    # is a b-th power, which no fraction of fewer than b bits is but 1: then the digits tell the side.
    a, b = share.numerator, share.denominator
    if b > max(ratio.numerator.bit_length(), ratio.denominator.bit_length()):
        return math.floor(real)
    return k if k**b * ratio.numerator**a <= n_max**b * ratio.denominator**a else k - 1


def _counts(cls_counts: Any, argument: str) -> tuple[np.ndarray, list[str] | None]:
    """Counts (C,) >= 0 of a sequence or of what has keys, and the classes' names if the keys are names."""
    if not isinstance(cls_counts, Mapping) and not _is_series(cls_counts):
        return _whole_counts(array(argument, cls_counts), cls_counts, argument), None
    try:
        if isinstance(cls_counts, Mapping):
            keys, values = list(cls_counts.keys()), list(cls_counts.values())
        else:
            keys, values = list(cls_counts.index), cls_counts.to_numpy()
        once = len(set(keys)) == len(keys)
    except Exception as error:
        raise ValueError(f"`{argument}` must be readable. {received(argument, cls_counts)}") from error
    counts = _whole_counts(array(argument, values), cls_counts, argument)
    if not once or len(keys) != len(counts):
        raise ValueError(f"`{argument}` must have every class once. {received(argument, cls_counts)}")
    if not keys or all(isinstance(key, str) for key in keys):
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return counts[order], [keys[i] for i in order]
    whole = array(argument, keys)
    labels = whole.ndim == 1 and whole.dtype.kind in "iuf" and whole.size
    if not labels or not np.all((whole == np.floor(whole)) & (whole >= 0) & (whole < MAX_CLASSES)):
        raise ValueError(
            f"`{argument}` must have labels (0, 1, ... below {MAX_CLASSES}) or names (strings) for keys. "
            f"{received(argument, cls_counts)}"
        )
    by_label = np.zeros(int(whole.max()) + 1, np.int64)
    by_label[whole.astype(np.int64)] = counts
    return by_label, None


def _whole_counts(counts: np.ndarray, cls_counts: Any, argument: str) -> np.ndarray:
    """Counts (C,) as int64, if they are whole numbers >= 0 within the bounds."""
    if counts.ndim != 1 or counts.dtype.kind not in "iuf":
        counts = _plain_numbers(counts)
    if counts.ndim != 1:
        raise ValueError(
            f"`{argument}` must be a one-dimensional sequence of at least two class counts; "
            f"`imbalance.class_counts` counts labels. {received(argument, cls_counts)}"
        )
    if counts.dtype.kind not in "iuf" or not np.all(np.isfinite(counts) & (counts == np.floor(counts)) & (counts >= 0)):
        raise ValueError(
            f"`{argument}` must be positive integers, one for each class. {received(argument, cls_counts)}"
        )
    # The first sum cannot overflow, the second is not rounded.
    too_many = counts.sum(dtype=np.float64) > 2 * MAX_EXAMPLES or counts.astype(np.int64).sum() > MAX_EXAMPLES
    if counts.size > MAX_CLASSES or too_many:
        raise ValueError(
            f"`{argument}` must be those of at most {MAX_CLASSES} classes and 2^53 examples. "
            f"{received(argument, cls_counts)}"
        )
    return counts.astype(np.int64)


def _whole_labels(labels: np.ndarray, argument: str) -> np.ndarray:
    """Labels (N,) of an array (N,) or (N, 1) of whole numbers."""
    flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    flat = _plain_numbers(flat) if flat.dtype.kind == "O" else flat
    if flat.ndim != 1 or flat.dtype.kind not in "iuf":
        raise ValueError(
            f"`{argument}` must be whole numbers of shape (N,) or (N, 1). "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    bad = np.flatnonzero(~np.isfinite(flat) | (flat != np.floor(flat)))
    if bad.size:
        raise ValueError(
            f"`{argument}` must be whole numbers: {bad.size} of {flat.size} are missing (NaN) or fractions. "
            f"Received: {argument}[{bad[0]}]={flat[bad[0]]}"
        )
    return flat


def _plain_numbers(values: np.ndarray) -> np.ndarray:
    """Python's and pandas' own numbers as an array of NumPy's, a missing one as NaN; else `values`."""
    if values.dtype.kind != "O" or values.ndim != 1:
        return values
    if all(isinstance(value, numbers.Integral) and not isinstance(value, bool) for value in values):
        try:
            return values.astype(np.int64)
        except OverflowError:
            pass
    plain = np.empty(len(values))
    for i, value in enumerate(values):
        missing = value is None or type(value).__name__ in ("NAType", "NaTType")
        if not missing and (not isinstance(value, numbers.Real) or isinstance(value, bool)):
            return values
        try:
            plain[i] = math.nan if missing else float(value)
        except OverflowError:
            plain[i] = math.inf
    return plain


def _names(labels: Any, values: np.ndarray) -> np.ndarray | None:
    """Names (N,) of labels that are strings; None of others."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values.reshape(-1)
    if values.ndim != 1 or values.dtype.kind not in "USO" or not values.size:
        return None
    if values.dtype.kind != "O" and isinstance(labels, (list, tuple)):
        values = np.array([label[0] if isinstance(label, (list, tuple)) else label for label in labels], object)
    if values.dtype.kind != "O":
        return values
    if not any(isinstance(value, (str, bytes)) for value in values):
        return None
    for i, value in enumerate(values):
        if not isinstance(value, (str, bytes)):  # NumPy would make the name "nan" of it
            raise ValueError(
                "`labels` must all be names where one is: another is missing or of another kind. "
                f"{received(f'labels[{i}]', value)}"
            )
    return np.array([value.decode(errors="replace") if isinstance(value, bytes) else value for value in values])


def _one_hot(rows: np.ndarray) -> bool:
    return bool(np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1))


def _widened(counts: np.ndarray, num_classes: int | None, argument: str, fixed: bool) -> np.ndarray:
    """Counts of `num_classes` classes; those by name or one-hot must be as many, others may lack the last ones."""
    if num_classes is None or len(counts) == num_classes:
        return counts
    if fixed or len(counts) > num_classes:
        raise ValueError(
            f"`num_classes` must be the number of classes in `{argument}`, {len(counts)}. "
            f"Received: num_classes={num_classes}"
        )
    return np.concatenate([counts, np.zeros(num_classes - len(counts), np.int64)])


def _is_counts(values: Any, argument: str) -> bool:
    """Whether plain values are class counts rather than labels: no class has 0 examples, a class 0 has one."""
    if _is_dataset(values):
        return False
    if _is_series(values):
        return bool(_attribute(values, "name") == "count")
    plain = array(argument, values)
    if plain.ndim != 1 or plain.dtype.kind not in "iuf" or not plain.size or np.any(plain == 0):
        return False
    seen = np.unique(plain)
    if len(plain) > len(seen) and np.array_equal(seen, np.arange(1, len(seen) + 1)):
        raise ValueError(
            f"`{argument}` must not leave open what it is: labels count from 0, so subtract 1 of these if they are "
            f"labels; pass counts like these as a dict, {{0: ..., 1: ...}}. {received(argument, values)}"
        )
    return True


# pandas and TensorFlow are not imported here: their objects are known by their attributes.


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def _is_series(value: Any) -> bool:
    return (
        _attribute(value, "index") is not None
        and _attribute(value, "ndim") == 1
        and callable(_attribute(value, "to_numpy"))
    )


def _is_dataset(value: Any) -> bool:
    return callable(_attribute(value, "as_numpy_iterator")) and _attribute(value, "element_spec") is not None


def _labels_of_dataset(dataset: Any) -> np.ndarray:
    """Labels of all elements (labels) or (x, labels, ...) of a `tf.data` set."""
    if int(dataset.cardinality()) == -1:
        raise ValueError("`labels` must be a set that ends: this one repeats for ever. Take one epoch of it.")
    structure = dataset.element_spec
    if isinstance(structure, Mapping) or (isinstance(structure, tuple) and len(structure) < 2):
        raise ValueError(
            "`labels` must be a set of labels or of (x, labels, ...); `map` it to one. "
            f"{received('element_spec', structure)}"
        )
    pair = isinstance(structure, tuple)
    parts = [np.asarray(element[1] if pair else element) for element in dataset.as_numpy_iterator()]
    if not parts:
        return np.zeros(0, np.int64)
    if parts[0].ndim == 0 or (parts[0].ndim == 1 and _is_one_hot_row(structure, parts)):
        return np.stack(parts)
    return np.concatenate(parts)


def _is_one_hot_row(structure: Any, parts: list[np.ndarray]) -> bool:
    """Whether elements (C,) are the one-hot rows of single examples, and no batches of labels."""
    width = parts[0].size
    x = _attribute(structure[0], "shape") if isinstance(structure, tuple) else None
    batched = x is not None and x.rank is not None and x.rank > 1 and x[0] in (None, width)
    # `batch` leaves the number of rows open, in every part.
    batched = batched or all(_is_open(part) for part in _parts(structure))
    same = width > 1 and all(part.shape == (width,) for part in parts)
    return not batched and same and parts[0].dtype.kind in "biuf" and _one_hot(np.stack(parts))


def _parts(structure: Any) -> list[Any]:
    """The leaves of an element's structure."""
    inner = structure.values() if isinstance(structure, Mapping) else structure
    return [leaf for part in inner for leaf in _parts(part)] if isinstance(structure, (Mapping, tuple)) else [structure]


def _is_open(part: Any) -> bool:
    """Whether the first side of an element's part, if it has one, is known only when it is read."""
    shape = _attribute(part, "shape")
    return shape is not None and bool(shape.rank) and shape[0] is None
