"""Poly-1 loss, and a method that trains with it."""

import keras
from keras import ops

from tf_mmloss import LongTailLoss
from tf_mmloss.methods import Method


@keras.saving.register_keras_serializable(package="mine")
class PolyLoss(LongTailLoss):
    """Cross-entropy with more weight on the first term of its expansion.

        l = -log p_y + epsilon (1 - p_y),   p = softmax(s u)

    Args:
        epsilon: more weight of 1 - p_y, > -1.

    Reference:
        Leng et al., PolyLoss, ICLR 2022.
    """

    def __init__(self, epsilon: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def example_loss(self, labels, logits):
        log_p = ops.log_softmax(self.scale * logits, axis=-1)
        log_p = ops.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
        return -log_p + self.epsilon * (1 - ops.exp(log_p))

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


def poly() -> Method:
    return Method("poly", "my_loss:PolyLoss", "Leng et al. 2022.")
