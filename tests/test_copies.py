"""Copies and pickles of everything public that a model is compiled with or made of, before and after use."""

import copy
import dataclasses
import json
import pickle

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import ops
from test_losses_contract import CLASSES as LOSSES
from test_losses_contract import COUNTS, LABELS, cosines

import tf_mmloss
from tf_mmloss.losses.base import ClassWeights

KINDS = (keras.losses.Loss, keras.metrics.Metric, keras.layers.Layer, keras.optimizers.Optimizer)
BUILD = {
    **{name: case.build for name, case in LOSSES.items()},
    "LongTailLoss": tf_mmloss.LongTailLoss,
    "AsymmetricLoss": lambda: tf_mmloss.AsymmetricLoss(3.0, 2.0, 0.1, 5.0, False),
    "DistributionBalancedLoss": lambda: tf_mmloss.DistributionBalancedLoss(COUNTS, 900, 0.2, 5.0, 0.3, 3.0, 0.1, 1.0),
    "BalancedAccuracy": lambda: tf_mmloss.BalancedAccuracy(len(COUNTS), name="mine"),
    "ShotAccuracy": lambda: tf_mmloss.ShotAccuracy(COUNTS, "medium", many=200, few=10),
    **{
        name: lambda name=name: getattr(tf_mmloss, name)(len(COUNTS), name="mine")
        for name in (
            *("CohenKappa", "GMean", "MacroF1Score", "MacroPrecision", "MatthewsCorrelation"),
            "WorstClassAccuracy",
        )
    },
    "SGD": lambda: tf_mmloss.SGD(0.3, momentum=0.5, weight_decay=0.1, clipnorm=1.0),
    "SAM": lambda: tf_mmloss.SAM(
        keras.Sequential([keras.Input((len(COUNTS),)), keras.layers.Dense(2)]), 0.2, adaptive=True, name="mine"
    ),
    "WarmupStepSchedule": lambda: tf_mmloss.WarmupStepSchedule(0.2, 3, (4, 5), 0.1),
    "BatchNormalization": lambda: tf_mmloss.BatchNormalization(0.7, name="mine"),
    "ClassScale": lambda: tf_mmloss.ClassScale(),
    "CosineDense": lambda: tf_mmloss.CosineDense(4),
    "Probabilities": lambda: tf_mmloss.Probabilities(3.0, "sigmoid"),
    "StridedShortcut": lambda: tf_mmloss.StridedShortcut(6, 2),
    "ClassWeights": lambda: ClassWeights(len(COUNTS)),
}
WAYS = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "config": lambda value: (
        type(value).from_config(value.get_config()) if hasattr(value, "get_config") else dataclasses.replace(value)
    ),
}


def use(value):
    """Return what it answers, a float or an array, and leave a state behind if it has one."""
    if isinstance(value, ClassWeights):
        value.weight.assign(np.arange(len(COUNTS)))
        return value(LABELS)
    if type(value) is tf_mmloss.LongTailLoss:
        return 0.0
    if isinstance(value, (tf_mmloss.AsymmetricLoss, tf_mmloss.DistributionBalancedLoss)):
        return value(np.eye(len(COUNTS), dtype="float32")[LABELS], cosines())
    if isinstance(value, keras.losses.Loss):
        answer = value(LABELS, cosines())
        value.enable_class_weights(len(COUNTS))
        value.class_weights.weight.assign(np.arange(len(COUNTS)))
        return answer
    if isinstance(value, keras.metrics.Metric):
        value.reset_state()
        return value(LABELS, cosines())
    if isinstance(value, keras.optimizers.Optimizer):
        variable = keras.Variable(np.ones(3, "float32"))
        value.build([variable])
        velocity = to_numpy(value.velocities[0]).copy()
        value.apply([ops.ones(3)], [variable])
        return velocity
    if isinstance(value, tf_mmloss.WarmupStepSchedule):
        return [value(epoch) for epoch in range(8)]
    if isinstance(value, (tf_mmloss.CosineDense, tf_mmloss.SAM)):
        return value(cosines())
    return value(cosines()[:, None, None])


def test_everything_public_of_these_kinds_is_here():
    public = [getattr(tf_mmloss, name) for name in tf_mmloss.__all__]
    names = {value.__name__ for value in public if isinstance(value, type) and issubclass(value, KINDS)}
    assert names | {"WarmupStepSchedule", "ClassWeights"} == set(BUILD) | {"InfluenceBalancedLoss"}


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # Keras says so of every copy
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_a_copy_is_as_before_its_use(build, way, used):
    """The same class and arguments, answers of its own; a layer keeps its weights, a metric starts from zero."""
    original = build()
    if isinstance(original, keras.layers.Layer):
        use(original)  # builds it: two fresh ones have different weights
    before = to_numpy(use(build() if not isinstance(original, keras.layers.Layer) else original))
    if used:
        use(original)
    found = way(original)
    assert type(found) is type(original)
    assert found is not original
    if hasattr(original, "get_config"):
        # A network in a config comes back from JSON, with lists for tuples.
        assert json.dumps(found.get_config()) == json.dumps(original.get_config())
    else:
        assert found == original
    if isinstance(original, tf_mmloss.LongTailLoss):
        assert found.class_weights is None
    if isinstance(original, ClassWeights):
        np.testing.assert_array_equal(to_numpy(found.weight), 1)
    if way is WAYS["config"] and isinstance(original, keras.layers.Layer):
        assert to_numpy(use(found)).shape == before.shape
    else:
        np.testing.assert_allclose(to_numpy(use(found)), before, rtol=1e-6)
