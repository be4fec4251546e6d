"""Temperature: the answers stay, the probabilities become those that held-out images show."""

import numpy as np

from tf_mmloss.decide.base import Affine, Decision, Trained
from tf_mmloss.evaluation import fit_temperature


class Temperature(Decision):
    """The probabilities softmax(s u / T); T as `tf_mmloss.evaluation.fit_temperature` has it. 1 changes nothing.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """

    name = "temperature"
    help = "probabilities at another temperature; the answers stay"
    strengths = ()
    least, most = 1e-3, 1e3
    of_scores = True
    changes_answers = False

    def affine(self, trained: Trained, strength: float) -> Affine:
        return trained.scale / strength, 0.0

    def fit(self, trained: Trained, labels: np.ndarray, logits: np.ndarray) -> float:
        return fit_temperature(labels, trained.scale * logits)
