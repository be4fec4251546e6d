"""Callbacks: deferred re-weighting and re-sampling, and what makes a run survive being killed."""

from tf_mmloss.callbacks.checkpoint import Checkpoint
from tf_mmloss.callbacks.deferred_influence import DeferredInfluence
from tf_mmloss.callbacks.deferred_resampling import DeferredResampling
from tf_mmloss.callbacks.deferred_reweighting import DeferredReweighting
from tf_mmloss.callbacks.seesaw_counts import SeesawCounts
from tf_mmloss.callbacks.stop_on_non_finite import NonFiniteLossError, StopOnNonFinite

__all__ = [
    "Checkpoint",
    "DeferredInfluence",
    "DeferredResampling",
    "DeferredReweighting",
    "NonFiniteLossError",
    "SeesawCounts",
    "StopOnNonFinite",
]
