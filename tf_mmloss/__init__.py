"""Maximum Margin loss and the long-tailed trainer around it, for Keras.

Importing this is fast: Keras, with whichever backend, is imported when a name that needs it is used. TensorFlow itself
is imported only when `tf_mmloss.pipeline` builds a `tf.data` input or `tf_mmloss.export` writes a model.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tf_mmloss._registration import register
from tf_mmloss._version import __version__

if TYPE_CHECKING:
    from tf_mmloss import imbalance
    from tf_mmloss.callbacks import (
        Checkpoint,
        DeferredInfluence,
        DeferredResampling,
        DeferredReweighting,
        NonFiniteLossError,
        SeesawCounts,
        StopOnNonFinite,
    )
    from tf_mmloss.layers import (
        BatchNormalization,
        ClassScale,
        CosineDense,
        Probabilities,
        StridedShortcut,
        probabilities,
    )
    from tf_mmloss.losses import (
        AsymmetricLoss,
        CDTLoss,
        ClassBalancedSigmoidLoss,
        CrossEntropyLoss,
        DistributionBalancedLoss,
        EqualizationLoss,
        FocalLoss,
        GCLLoss,
        HingeLoss,
        InfluenceBalancedLoss,
        LabelAwareSmoothingLoss,
        LADELoss,
        LDAMHingeLoss,
        LDAMLoss,
        LogitAdjustedLoss,
        LongTailLoss,
        MaxMarginLoss,
        SeesawLoss,
        UniformMarginLoss,
        VSLoss,
    )
    from tf_mmloss.metrics import (
        BalancedAccuracy,
        CohenKappa,
        GMean,
        MacroF1Score,
        MacroPrecision,
        MatthewsCorrelation,
        ShotAccuracy,
        WorstClassAccuracy,
    )
    from tf_mmloss.models import normalization, resnet, resnet32, with_features
    from tf_mmloss.optimizers import SGD
    from tf_mmloss.resampled_dataset import ResampledDataset
    from tf_mmloss.sam import SAM
    from tf_mmloss.sampling import ClassBalancedSampler
    from tf_mmloss.schedules import CosineSchedule, WarmupStepSchedule

# Where the names of `__all__` are that are no modules; PEP 562 imports them on first use.
_MODULE_OF = {
    "SAM": "sam",
    "SGD": "optimizers",
    "AsymmetricLoss": "losses",
    "BalancedAccuracy": "metrics",
    "BatchNormalization": "layers",
    "CDTLoss": "losses",
    "Checkpoint": "callbacks",
    "ClassBalancedSampler": "sampling",
    "ClassBalancedSigmoidLoss": "losses",
    "ClassScale": "layers",
    "CohenKappa": "metrics",
    "CosineDense": "layers",
    "CosineSchedule": "schedules",
    "CrossEntropyLoss": "losses",
    "DeferredInfluence": "callbacks",
    "DeferredResampling": "callbacks",
    "DeferredReweighting": "callbacks",
    "DistributionBalancedLoss": "losses",
    "EqualizationLoss": "losses",
    "FocalLoss": "losses",
    "GCLLoss": "losses",
    "GMean": "metrics",
    "HingeLoss": "losses",
    "InfluenceBalancedLoss": "losses",
    "LADELoss": "losses",
    "LDAMHingeLoss": "losses",
    "LDAMLoss": "losses",
    "LabelAwareSmoothingLoss": "losses",
    "LogitAdjustedLoss": "losses",
    "LongTailLoss": "losses",
    "MacroF1Score": "metrics",
    "MacroPrecision": "metrics",
    "MatthewsCorrelation": "metrics",
    "MaxMarginLoss": "losses",
    "NonFiniteLossError": "callbacks",
    "Probabilities": "layers",
    "ResampledDataset": "resampled_dataset",
    "SeesawCounts": "callbacks",
    "SeesawLoss": "losses",
    "ShotAccuracy": "metrics",
    "StopOnNonFinite": "callbacks",
    "StridedShortcut": "layers",
    "UniformMarginLoss": "losses",
    "VSLoss": "losses",
    "WarmupStepSchedule": "schedules",
    "WorstClassAccuracy": "metrics",
    "normalization": "models",
    "probabilities": "layers",
    "resnet": "models",
    "resnet32": "models",
    "with_features": "models",
}

__all__ = [
    "SAM",
    "SGD",
    "AsymmetricLoss",
    "BalancedAccuracy",
    "BatchNormalization",
    "CDTLoss",
    "Checkpoint",
    "ClassBalancedSampler",
    "ClassBalancedSigmoidLoss",
    "ClassScale",
    "CohenKappa",
    "CosineDense",
    "CosineSchedule",
    "CrossEntropyLoss",
    "DeferredInfluence",
    "DeferredResampling",
    "DeferredReweighting",
    "DistributionBalancedLoss",
    "EqualizationLoss",
    "FocalLoss",
    "GCLLoss",
    "GMean",
    "HingeLoss",
    "InfluenceBalancedLoss",
    "LADELoss",
    "LDAMHingeLoss",
    "LDAMLoss",
    "LabelAwareSmoothingLoss",
    "LogitAdjustedLoss",
    "LongTailLoss",
    "MacroF1Score",
    "MacroPrecision",
    "MatthewsCorrelation",
    "MaxMarginLoss",
    "NonFiniteLossError",
    "Probabilities",
    "ResampledDataset",
    "SeesawCounts",
    "SeesawLoss",
    "ShotAccuracy",
    "StopOnNonFinite",
    "StridedShortcut",
    "UniformMarginLoss",
    "VSLoss",
    "WarmupStepSchedule",
    "WorstClassAccuracy",
    "__version__",
    "imbalance",
    "normalization",
    "probabilities",
    "resnet",
    "resnet32",
    "with_features",
]

register()


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"tf_mmloss.{_MODULE_OF[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"tf_mmloss.{name}")
    else:
        raise AttributeError(f"module 'tf_mmloss' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
