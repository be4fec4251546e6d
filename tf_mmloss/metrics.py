"""Metrics that show what an average over a long tail hides."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tf_mmloss._validation import choice, float_type, integer, numeric
from tf_mmloss._validation import name as keras_name
from tf_mmloss.imbalance import MAX_CLASSES, Counts, check_counts, check_labels
from tf_mmloss.losses.base import (
    as_targets,
    check_ignore_class,
    flat_labels,
    labelled,
    weights_of_positions,
    without_ignored,
)

SHOTS = ("many", "medium", "few")


def shot_masks(cls_counts: Counts, many: int = 100, few: int = 20) -> dict[str, np.ndarray]:
    """Group classes by their number of training examples.

    Args:
        cls_counts: (C,) training examples per class.
        many: "many" has more than this, a whole number >= 0. Default 100.
        few: "few" has fewer than this, a whole number >= 0. Default 20; "medium" is the rest.

    Returns:
        Boolean masks (C,) by name: many, medium, few.

    Raises:
        ValueError: bad counts or numbers, or few > many.

    Example:
        >>> shot_masks([500, 50, 5])["medium"]
        array([False,  True, False])

    Reference:
        Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
    """
    counts = check_counts(cls_counts)
    many, few = integer("many", many), integer("few", few)
    if few > many:
        raise ValueError(f"`few` must not exceed `many`. Received: few={few}, many={many}")
    return {
        "many": counts > many,
        "medium": (counts <= many) & (counts >= few),
        "few": counts < few,
    }


def per_class_error(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Top-1 error of each class, as a fraction; NaN for a class without examples. NumPy.

    Args:
        labels: (N,) true classes.
        predictions: (N,) predicted classes.
        num_classes: C.

    Returns:
        float64 array (C,).

    Raises:
        ValueError: labels or predictions that are not whole numbers in [0, C), or not as many.

    Example:
        >>> per_class_error([0, 0, 1], [0, 1, 1], 2)
        array([0.5, 0. ])
    """
    labels = check_labels(labels, num_classes)
    predictions = check_labels(predictions, num_classes, "predictions")
    if len(predictions) != len(labels):
        raise ValueError(
            f"`predictions` must be one for each of {len(labels)} labels. Received: {len(predictions)} predictions"
        )
    wrong = labels != predictions
    total = np.bincount(labels, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, weights=wrong, minlength=num_classes) / total


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """How far confidence is from accuracy, on average over the examples. NumPy.

        ECE = sum_b (n_b / N) |accuracy of b - mean confidence of b|

    over bins b of equal width of the confidence, the largest probability of an example.

    Args:
        labels: (N,) true classes.
        probabilities: (N, C), rows that sum to 1.
        bins: number of bins, 1 to 10^6. Default 15.

    Returns:
        A fraction, 0 for perfect calibration.

    Raises:
        ValueError: probabilities of another shape or outside [0, 1]; labels that are not whole numbers in [0, C); no
            examples.

    Example:
        >>> expected_calibration_error([0, 1], [[0.9, 0.1], [0.8, 0.2]])
        0.45

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, Eq. 3.
    """
    bins = integer("bins", bins, at_least=1, at_most=10**6)
    probabilities = numeric("probabilities", probabilities)
    if probabilities.ndim != 2 or not probabilities.size:
        raise ValueError(f"`probabilities` must have shape (N, C). Received: shape={probabilities.shape}")
    labels = check_labels(labels, probabilities.shape[1])
    if len(probabilities) != len(labels):
        raise ValueError(
            f"`probabilities` must have shape (N, C) for N = {len(labels)} labels. Received: {probabilities.shape}"
        )
    if not (np.abs(probabilities.sum(axis=1) - 1) < 1e-3).all() or probabilities.min() < 0:
        raise ValueError("`probabilities` must not be negative, and each row must sum to 1.")
    shares, accuracy, mean = reliability(labels == probabilities.argmax(axis=1), probabilities.max(axis=1), bins)
    return float(shares @ np.abs(accuracy - mean))


def reliability(right: np.ndarray, confidence: np.ndarray, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy by confidence, in bins of equal width, those without examples left out: a reliability diagram. NumPy.

    Args:
        right: (N,) bool, whether the prediction is.
        confidence: (N,) probabilities of the predicted classes.
        bins: number of bins, 1 to 10^6; each has its upper end. Default 15.

    Returns:
        Of each bin with examples, by rising confidence: its share of the examples, accuracy and mean confidence.

    Raises:
        ValueError: arrays of another shape, confidences outside [0, 1], no examples.

    Example:
        >>> shares, accuracy, confidence = reliability([True, False], [0.9, 0.8])
        >>> accuracy
        array([0., 1.])
    """
    bins = integer("bins", bins, at_least=1, at_most=10**6)
    right, confidence = numeric("right", right), numeric("confidence", confidence)
    if confidence.ndim != 1 or not confidence.size or right.shape != confidence.shape:
        raise ValueError(
            f"`right` and `confidence` must have one shape, (N,). Received: shapes {right.shape}, {confidence.shape}"
        )
    if confidence.min() < 0 or confidence.max() > 1 + 1e-3:
        raise ValueError(f"`confidence` must be in [0, 1]. Received: {confidence.min()} to {confidence.max()}")
    where = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    sizes = np.bincount(where, minlength=bins)
    there = sizes > 0
    accuracy, mean = (np.bincount(where, values, bins)[there] / sizes[there] for values in (right, confidence))
    return sizes[there] / len(confidence), accuracy, mean


@keras.saving.register_keras_serializable(package="tf_mmloss")
class BalancedAccuracy(keras.metrics.Metric):
    """Mean over classes of the accuracy within the class; classes not seen are left out.

    Outputs may be (B, ..., C), of pixels or of words, with labels (B, ...): each position is then an example, as in the
    losses. Of soft targets (B, C) the largest counts. What is no label is refused where it can be seen, as by the
    losses; in compiled code it makes the result NaN. A mask of Keras is not seen: give such positions a label of their
    own and name it in `ignore_class`.

    Args:
        num_classes: C, 2 to 10 million.
        name: default "balanced_accuracy".
        dtype: as for any Keras metric.
        ignore_class: the label of what does not count, such as 255 or -1 of pixels without a class, as in the losses.
            Default None.

    Raises:
        ValueError: num_classes out of range, a name that is no string; labels or logits of another shape; what is no
            label.

    Example:
        >>> model.compile(loss=MaxMarginLoss(cls_counts), metrics=["accuracy", BalancedAccuracy(10)])

    Reference:
        Brodersen et al., The Balanced Accuracy and Its Posterior Distribution, ICPR 2010.
    """

    _NAME = "balanced_accuracy"
    _OF_CLASSES = "num_classes"  # the argument that says how many there are
    _PREDICTED = False  # whether predictions of each class are counted, too

    def __init__(
        self, num_classes: int, name: str | None = None, dtype: Any = None, ignore_class: int | None = None
    ) -> None:
        super().__init__(name=self._NAME if name is None else keras_name(name), dtype=float_type(dtype))
        self.ignore_class = check_ignore_class(ignore_class)
        self.num_classes = integer("num_classes", num_classes, at_least=2, at_most=MAX_CLASSES)
        self.correct, self.total = self._counter("correct"), self._counter("total")
        if self._PREDICTED:
            self.predicted = self._counter("predicted")

    def _counter(self, name: str) -> keras.Variable:
        """A count of each class, zeros at first, also where Keras' own default is a half, which cannot count far."""
        dtype = "float64" if keras.config.floatx() == "float64" else "float32"
        return self.add_variable((self.num_classes,), initializer="zeros", dtype=dtype, name=name)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = ops.convert_to_tensor(y_pred)
        if len(y_pred.shape) and y_pred.shape[-1] == 1:
            raise ValueError(
                "`y_pred` must have an output for each class, shape (batch, ..., classes >= 2): of one yes-or-no "
                "output take keras.metrics.BinaryAccuracy or AUC, with the threshold 0 or from_logits=True where it is "
                f"a logit. Received: y_pred.shape={tuple(y_pred.shape)}"
            )
        if len(y_pred.shape) > 1 and sample_weight is not None:
            sample_weight = weights_of_positions(sample_weight, y_pred)
        if len(y_pred.shape) > 2:
            y_true = flat_labels(y_true, tuple(y_pred.shape[:-1]), y_pred.shape[-1])
            y_pred = ops.reshape(y_pred, (-1, y_pred.shape[-1]))
        y_true, counts = without_ignored(y_true, y_pred, self.ignore_class, self.correct.dtype)
        labels = as_targets(y_true, y_pred)
        if len(labels.shape) == 2:
            largest = ops.cast(ops.argmax(labels, axis=-1), "int32")
            labels = ops.where(ops.isnan(labels[:, 0]), -1, largest)
        if y_pred.shape[-1] != self.num_classes:
            raise ValueError(
                f"`{self._OF_CLASSES}` must be that of the model's {y_pred.shape[-1]} outputs. "
                f"Received: {self.num_classes} classes"
            )
        weights = ops.ones_like(labels, dtype=self.correct.dtype)
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, weights.dtype), (-1,))
        if counts is not None:
            weights = ops.where(counts, weights, 0)
        # What is no label makes the result NaN, whichever classes it is of: their mean has a term NaN times 0 or 1.
        weights, labels = labelled(weights, labels), ops.maximum(labels, 0)
        predicted = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        hits = ops.cast(ops.equal(predicted, labels), weights.dtype)
        if self._PREDICTED:
            self.predicted.assign(self.predicted + ops.segment_sum(weights, predicted, self.num_classes))
        self.total.assign(self.total + ops.segment_sum(weights, labels, self.num_classes))
        self.correct.assign(self.correct + ops.segment_sum(weights * hits, labels, self.num_classes))

    def result(self) -> Any:
        return self._mean(ops.cast(self.total > 0, self.total.dtype))

    def _mean(self, classes: Any) -> Any:
        accuracy = ops.divide_no_nan(self.correct.value, self.total.value)
        return ops.divide_no_nan(ops.sum(accuracy * classes), ops.sum(classes))

    def _mean_of_present(self, scores: Any) -> Any:
        """The mean of scores (C,) over the classes that were seen or predicted; those of the others are 0."""
        both = self.total + self.predicted
        return ops.divide_no_nan(ops.sum(scores), ops.sum(ops.cast(ops.not_equal(both, 0), both.dtype)))

    def _shares(self) -> tuple[Any, Any, Any]:
        """Shares of the classes among the labels (C,) and the predictions (C,), and the accuracy."""
        n = ops.sum(self.total.value)
        t, p = ops.divide_no_nan(self.total.value, n), ops.divide_no_nan(self.predicted.value, n)
        return t, p, ops.divide_no_nan(ops.sum(self.correct.value), n)

    def get_config(self) -> dict[str, Any]:
        config = {"name": self.name, "dtype": self.dtype, "num_classes": self.num_classes}
        return {**config, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="tf_mmloss")
class ShotAccuracy(BalancedAccuracy):
    """Mean accuracy over the classes with many, a medium number of, or few training examples.

    Args:
        cls_counts: (C,) training examples per class.
        shot: "many", "medium" or "few" (default), see `shot_masks`.
        many, few: where the groups end. Default 100 and 20; CIFAR-10 with 50 images in its smallest class has no "few"
            then.
        name: default "many_shot_accuracy" and so on.
        dtype, ignore_class: as for `BalancedAccuracy`.

    Raises:
        ValueError: bad counts, an unknown group, or one without a class; labels or logits of another shape.

    Example:
        >>> cls_counts = [500, 50, 5]
        >>> metrics = [ShotAccuracy(cls_counts, shot) for shot in ("many", "medium", "few")]

    Reference:
        Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
    """

    _OF_CLASSES = "cls_counts"

    def __init__(
        self,
        cls_counts: Counts,
        shot: str = "few",
        many: int = 100,
        few: int = 20,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
    ) -> None:
        self.shot = choice("shot", shot, SHOTS)
        self.many, self.few = integer("many", many), integer("few", few)
        self.cls_counts = check_counts(cls_counts).tolist()
        self._mask = shot_masks(self.cls_counts, self.many, self.few)[shot].astype("float32")
        if not self._mask.any():
            raise ValueError(
                f"`shot` must be a group with classes in it; `many` and `few` move them. Received: shot={shot!r}, "
                f"many={many}, few={few}, cls_counts from {min(self.cls_counts)} to {max(self.cls_counts)}"
            )
        name = f"{shot}_shot_accuracy" if name is None else name
        super().__init__(len(self.cls_counts), name, dtype, ignore_class)

    def result(self) -> Any:
        seen = ops.cast(self.total > 0, self.total.dtype)
        return self._mean(seen * ops.convert_to_tensor(self._mask, dtype=self.total.dtype))

    def get_config(self) -> dict[str, Any]:
        config = {"name": self.name, "dtype": self.dtype, "cls_counts": self.cls_counts, "shot": self.shot}
        return {**config, "many": self.many, "few": self.few, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="tf_mmloss")
class GMean(BalancedAccuracy):
    """Geometric mean over classes of the accuracy within the class; classes not seen are left out.

        (prod_c accuracy_c) ** (1 / C)

    It is 0 where one class is never right.

    Labels, targets and what is refused: as for `BalancedAccuracy`.

    Args:
        num_classes: C, 2 to 10 million.
        name: default "g_mean".
        dtype, ignore_class: as for `BalancedAccuracy`.

    Raises:
        ValueError: as for `BalancedAccuracy`.

    Example:
        >>> model.compile(loss=MaxMarginLoss(cls_counts), metrics=[GMean(10)])

    Reference:
        Kubat and Matwin, Addressing the Curse of Imbalanced Training Sets: One-Sided Selection, ICML 1997.
    """

    _NAME = "g_mean"

    def result(self) -> Any:
        seen = ops.cast(ops.not_equal(self.total, 0), self.total.dtype)  # NaN is kept, and makes the result NaN
        accuracy = ops.divide_no_nan(self.correct.value, self.total.value)
        mean = ops.divide_no_nan(ops.sum(ops.log(ops.where(seen > 0, accuracy, 1))), ops.sum(seen))
        return ops.where(ops.sum(seen) > 0, ops.exp(mean), 0)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class WorstClassAccuracy(BalancedAccuracy):
    """Accuracy within the class where it is lowest; classes not seen are left out.

        min_c accuracy_c

    Labels, targets and what is refused: as for `BalancedAccuracy`.

    Args:
        num_classes: C, 2 to 10 million.
        name: default "worst_class_accuracy".
        dtype, ignore_class: as for `BalancedAccuracy`.

    Raises:
        ValueError: as for `BalancedAccuracy`.

    Example:
        >>> model.compile(loss=MaxMarginLoss(cls_counts), metrics=[WorstClassAccuracy(10)])

    Reference:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020 (of groups).
    """

    _NAME = "worst_class_accuracy"

    def result(self) -> Any:
        accuracy = ops.divide_no_nan(self.correct.value, self.total.value)
        worst = ops.min(ops.where(ops.equal(self.total, 0), 1, accuracy))
        # The sum keeps NaN, which a minimum may drop; a metric that saw nothing is 0, as Keras' are.
        total = ops.sum(self.total.value)
        return ops.where(ops.equal(total, 0), 0, worst) + 0 * total


@keras.saving.register_keras_serializable(package="tf_mmloss")
class MacroF1Score(BalancedAccuracy):
    """Mean over classes of the F1 score, as scikit-learn's `f1_score(average="macro")`.

        F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c)

    Classes neither seen nor predicted are left out. Keras' `F1Score` counts them as 0 and needs one-hot targets.

    Labels, targets and what is refused: as for `BalancedAccuracy`.

    Args:
        num_classes: C, 2 to 10 million.
        name: default "macro_f1_score".
        dtype, ignore_class: as for `BalancedAccuracy`.

    Raises:
        ValueError: as for `BalancedAccuracy`.

    Example:
        >>> model.compile(loss=MaxMarginLoss(cls_counts), metrics=[MacroF1Score(10)])

    Reference:
        Opitz and Burst, Macro F1 and Macro F1, 2019, arXiv:1911.03347 (the averaged F1).
    """

    _PREDICTED = True
    _NAME = "macro_f1_score"

    def result(self) -> Any:
        return self._mean_of_present(ops.divide_no_nan(2 * self.correct.value, self.total + self.predicted))


@keras.saving.register_keras_serializable(package="tf_mmloss")
class MacroPrecision(BalancedAccuracy):
    """Mean over classes of the precision, as scikit-learn's `precision_score(average="macro", zero_division=0)`.

        precision_c = TP_c / (TP_c + FP_c)

    A class that is seen and never predicted counts 0; one neither seen nor predicted is left out. Macro recall is
    `BalancedAccuracy`.

    Labels, targets and what is refused: as for `BalancedAccuracy`.

    Args:
        num_classes: C, 2 to 10 million.
        name: default "macro_precision".
        dtype, ignore_class: as for `BalancedAccuracy`.

    Raises:
        ValueError: as for `BalancedAccuracy`.

    Example:
        >>> model.compile(loss=MaxMarginLoss(cls_counts), metrics=[MacroPrecision(10)])

    Reference:
        Sokolova and Lapalme, A Systematic Analysis of Performance Measures for Classification Tasks, 2009, table 3.
    """

    _PREDICTED = True
    _NAME = "macro_precision"

    def result(self) -> Any:
        return self._mean_of_present(ops.divide_no_nan(self.correct.value, self.predicted.value))


@keras.saving.register_keras_serializable(package="tf_mmloss")
class CohenKappa(BalancedAccuracy):
    """Cohen's kappa: accuracy above that of a guess with the same class frequencies.

        (accuracy - sum_c t_c p_c) / (1 - sum_c t_c p_c)

    t_c and p_c are the shares of class c among the labels and the predictions. Where both are of one class it is 0.

    Labels, targets and what is refused: as for `BalancedAccuracy`.

    Args:
        num_classes: C, 2 to 10 million.
        name: default "cohen_kappa".
        dtype, ignore_class: as for `BalancedAccuracy`.

    Raises:
        ValueError: as for `BalancedAccuracy`.

    Example:
        >>> model.compile(loss=MaxMarginLoss(cls_counts), metrics=[CohenKappa(10)])

    Reference:
        Cohen, A Coefficient of Agreement for Nominal Scales, 1960.
    """

    _PREDICTED = True
    _NAME = "cohen_kappa"

    def result(self) -> Any:
        t, p, accuracy = self._shares()
        chance = ops.sum(t * p)
        return ops.divide_no_nan(accuracy - chance, 1 - chance)


@keras.saving.register_keras_serializable(package="tf_mmloss")
class MatthewsCorrelation(BalancedAccuracy):
    """Matthews' correlation coefficient of several classes, R_K: -1 to 1, 0 for a constant guess.

        (accuracy - sum_c t_c p_c) / sqrt((1 - sum_c t_c^2) (1 - sum_c p_c^2))

    t_c and p_c are the shares of class c among the labels and the predictions. Where either is of one class it is 0.

    Labels, targets and what is refused: as for `BalancedAccuracy`.

    Args:
        num_classes: C, 2 to 10 million.
        name: default "matthews_correlation".
        dtype, ignore_class: as for `BalancedAccuracy`.

    Raises:
        ValueError: as for `BalancedAccuracy`.

    Example:
        >>> model.compile(loss=MaxMarginLoss(cls_counts), metrics=[MatthewsCorrelation(10)])

    Reference:
        Gorodkin, Comparing Two K-Category Assignments by a K-Category Correlation Coefficient, 2004.
    """

    _PREDICTED = True
    _NAME = "matthews_correlation"

    def result(self) -> Any:
        t, p, accuracy = self._shares()
        return ops.divide_no_nan(accuracy - ops.sum(t * p), ops.sqrt((1 - ops.sum(t * t)) * (1 - ops.sum(p * p))))
