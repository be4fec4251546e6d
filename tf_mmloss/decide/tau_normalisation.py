"""tau-normalisation: the rows of the head are brought nearer to one length."""

import numpy as np

from tf_mmloss._validation import number, numeric
from tf_mmloss.decide.base import Affine, Decision, Trained


def tau_normalisation(kernel: np.ndarray, tau: float = 1.0) -> np.ndarray:
    """Return the kernel of a dense head with columns of other lengths; its bias is left out with it.

        w_c / |w_c|_2^tau

    Frequent classes have longer columns after plain training.

    Args:
        kernel: (F, C), as `keras.layers.Dense` has it.
        tau: strength, >= 0; 0 changes nothing, 1 gives columns of length 1. Default 1.

    Returns:
        float64 (F, C).

    Raises:
        ValueError: a kernel of another shape; tau out of range.

    Example:
        >>> tau_normalisation(np.array([[3.0, 0.0], [4.0, 2.0]]))
        array([[0.6, 0. ],
               [0.8, 1. ]])

    Reference:
        Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, Eq. 4.
    """
    kernel = numeric("kernel", kernel).astype(np.float64)
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f"`kernel` must have shape (F, C). Received: shape={kernel.shape}")
    return kernel * _factors(kernel, number("tau", tau, at_least=0, at_most=TauNormalisation.most))


def _factors(kernel: np.ndarray, tau: float) -> np.ndarray:
    """|w_c|^-tau, (C,)."""
    lengths = np.linalg.norm(kernel, axis=0)
    return np.where(lengths > 0, lengths, 1.0) ** -tau


class TauNormalisation(Decision):
    """`tau_normalisation` of the head, fitted among tau 0, 0.1, ..., 2, as published."""

    name = "tau-normalisation"
    help = "rows of a dense head divided by their length to the power tau, without its bias"
    strengths = tuple(i / 10 for i in range(21))
    most = 10.0

    def refuse(self, *, head: str, probabilistic: bool, activation: str) -> None:
        super().refuse(head=head, probabilistic=probabilistic, activation=activation)
        if head != "dense":
            raise ValueError(
                f"`decide` {self.name} needs a dense head: the rows of a cosine head have length 1. "
                "Take logit-adjustment."
            )

    def affine(self, trained: Trained, strength: float) -> Affine:
        if trained.kernel is None:
            raise ValueError(f"`decide` {self.name} needs a dense head.")
        # The logits are known, w_c h + b_c: the columns need not be multiplied again.
        scale = trained.scale * _factors(trained.kernel, strength)
        return scale, 0.0 if trained.bias is None else -scale * trained.bias
