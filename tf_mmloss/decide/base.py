"""What a decision is: a number and an offset for each class, made from a trained network and a strength."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tf_mmloss._validation import array, choice, flag, number, numeric, received

# A scale for each class and an offset for each class, or one for all.
Affine = tuple[float | np.ndarray, float | np.ndarray]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What decisions are made from.

    Args:
        scale: s of the loss.
        cls_counts: (C,) training images of each class.
        kernel: (F, C) of the head, bias: (C,); None: a cosine head.
        probabilistic: whether the loss fits probabilities, see `LongTailLoss`.
        activation: what gives them, "softmax" or "sigmoid".

    Raises:
        ValueError: a scale that is not positive, arrays of other shapes, another activation.
    """

    scale: float
    cls_counts: Sequence[int] | np.ndarray
    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None
    probabilistic: bool = True
    activation: str = "softmax"

    def __post_init__(self) -> None:
        number("scale", self.scale, above=0)
        flag("probabilistic", self.probabilistic)
        choice("activation", self.activation, ("softmax", "sigmoid"))
        counts = numeric("cls_counts", self.cls_counts)
        if (counts < 0).any():
            raise ValueError(f"`cls_counts` must be numbers of images. {received('cls_counts', self.cls_counts)}")
        if counts.ndim != 1:
            raise ValueError(f"`cls_counts` must be (C,). Received: cls_counts of shape {counts.shape}")
        for name, dimensions in (("kernel", 2), ("bias", 1)):
            value = getattr(self, name)
            shape = None if value is None else array(name, value).shape
            if shape is not None and (len(shape) != dimensions or shape[-1] != len(counts)):
                raise ValueError(
                    f"`kernel` must be (F, C) and `bias` (C,), of C={len(counts)} counts. "
                    f"Received: {name} of shape {shape}"
                )

    @classmethod
    def of(cls, model: Any, cls_counts: Sequence[int] | np.ndarray) -> "Trained":
        """What is known of a model that is compiled with a loss of this package, and has its head in a layer "head"."""
        loss, head = model.loss, model.get_layer("head")
        arrays = [np.asarray(value, np.float64) for value in head.get_weights()] if hasattr(head, "use_bias") else []
        for layer in model.layers:
            if layer.name == "scales":  # of the head's logits, so of its columns
                arrays = [array * np.asarray(layer.get_weights()[0], np.float64) for array in arrays]
        kernel, bias = (*arrays, None, None)[:2]
        return cls(loss.scale, cls_counts, kernel, bias, loss.probabilistic, loss.activation)


class Decision(abc.ABC):
    """A way from a network's outputs u to scores z, whose largest is the answer, and whose softmax its probabilities.

        z_c = a_c u_c + o_c

    A file of this folder with a child of this class adds `--decide NAME`.
    """

    name: ClassVar[str]  # of the command line
    help: ClassVar[str]  # one line
    strengths: ClassVar[tuple[float, ...]]  # that `fit` tries, the weakest first
    least: ClassVar[float] = 0.0
    most: ClassVar[float] = 100.0
    changes_answers: ClassVar[bool] = True  # not the probabilities alone
    of_scores: ClassVar[bool] = False  # whether it is defined for a hinge, whose outputs are scores

    def check(self, strength: float) -> float:
        """Return a strength as a float.

        Raises:
            ValueError: it is out of range.
        """
        return number("decide", strength, at_least=self.least, at_most=self.most)

    def refuse(self, *, head: str, probabilistic: bool, activation: str) -> None:
        """Refuse a network for which the decision is not defined.

        Args:
            head: "dense" or "cosine".
            probabilistic, activation: of the loss.

        Raises:
            ValueError: it is not.
        """
        if activation != "softmax":
            raise ValueError(f"`decide` {self.name} is for one label an example, and not for a sigmoid of each class.")
        if not (probabilistic or self.of_scores):
            raise ValueError(
                f"`decide` {self.name} needs a loss that fits probabilities: a hinge has scores. Take temperature."
            )

    @abc.abstractmethod
    def affine(self, trained: Trained, strength: float) -> Affine:
        """The numbers a_c and o_c, each (C,) or one for all."""

    def fit(self, trained: Trained, labels: np.ndarray, logits: np.ndarray) -> float:
        """Return the strength with the highest balanced accuracy on held-out images, the weakest of several.

        Args:
            trained: what was trained.
            labels: (N,) true classes.
            logits: (N, C), outputs u of the network.
        """
        per_class = np.bincount(labels, minlength=logits.shape[1])
        weights = (1 / np.maximum(per_class, 1))[labels]

        def right(strength: float) -> float:
            scale, offset = self.affine(trained, strength)
            return float(weights @ ((scale * logits + offset).argmax(axis=1) == labels))

        return float(max(self.strengths, key=lambda strength: round(right(strength), 9)))
