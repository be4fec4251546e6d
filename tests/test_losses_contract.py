"""The contract of every loss of the package, discovered from its exports."""

import functools
import inspect
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import oracles
import pytest
from helpers import (
    BACKEND,
    assert_close,
    float64,
    in_new_process,
    jitted,
    needs_jit,
    to_numpy,
    value_and_gradient,
)
from keras import ops

import tf_mmloss
from tf_mmloss import (
    CDTLoss,
    ClassBalancedSigmoidLoss,
    CrossEntropyLoss,
    DeferredReweighting,
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
from tf_mmloss.layers.features import KeepFeatures
from tf_mmloss.losses import base as losses_base
from tf_mmloss.losses import cross_entropy, hinge

COUNTS = [500, 120, 40, 12, 3]
LABELS = np.array([0, 1, 2, 3, 4, 0, 1, 0], np.int32)


class Case(NamedTuple):
    """A loss with arguments, and its oracle: a function of (labels, logits)."""

    loss: type[LongTailLoss]
    arguments: dict[str, Any]
    oracle: Callable[..., np.ndarray]

    def build(self, **more):
        return self.loss(**{**self.arguments, "reduction": None, **more})


def mm(**arguments):
    """A case of the Maximum Margin loss; its oracle takes the same hyper-parameters."""
    hyper = {key: value for key, value in arguments.items() if key != "stop_margin_gradient"}
    return Case(
        MaxMarginLoss,
        {"cls_counts": COUNTS, **arguments},
        lambda labels, logits, **frozen: oracles.max_margin(labels, logits, COUNTS, **hyper, **frozen),
    )


def counted(loss, oracle, **arguments):
    """A case of a loss with class counts; its oracle takes the same hyper-parameters."""
    return Case(
        loss,
        {"cls_counts": COUNTS, **arguments},
        lambda labels, logits, **frozen: oracle(labels, logits, COUNTS, **arguments, **frozen),
    )


CASES = {
    "cross-entropy": Case(CrossEntropyLoss, {}, oracles.cross_entropy),
    "cross-entropy-scaled": Case(CrossEntropyLoss, {"scale": 7.0}, lambda y, u: oracles.cross_entropy(y, u, scale=7.0)),
    "uniform-margin": Case(
        UniformMarginLoss, {"margin": 0.3, "scale": 21.0}, lambda y, u: oracles.uniform_margin(y, u, 0.3, 21.0)
    ),
    "ldam": Case(
        LDAMLoss,
        {"cls_counts": COUNTS, "max_margin": 0.4, "scale": 25.0},
        lambda y, u: oracles.ldam(y, u, COUNTS, 0.4, 25.0),
    ),
    "la-ldam": Case(
        LDAMLoss,
        {"cls_counts": COUNTS, "max_margin": 0.4, "scale": 12.0, "tau": 1.4},
        lambda y, u: oracles.la_ldam(y, u, COUNTS, 0.4, 12.0, 1.4),
    ),
    "logit-adjusted": Case(
        LogitAdjustedLoss,
        {"cls_counts": COUNTS, "tau": 1.3, "scale": 3.0},
        lambda y, u: oracles.logit_adjusted(y, u, COUNTS, 1.3, 3.0),
    ),
    "mm": mm(delta_neg=0.7, beta=1.4, scale=12.0, margin_space="cosine"),
    "mm-logit": mm(),
    "mm-ldam": mm(delta_neg=1.2, beta=1.3, class_margin=0.5, margin_space="cosine"),
    "mm-ldam-logit": mm(delta_neg=0.8, class_margin=0.4),
    "mm-through": mm(margin_space="cosine", stop_margin_gradient=False),
    "mm-ldam-logit-through": mm(delta_neg=0.8, class_margin=0.4, stop_margin_gradient=False),
    "focal": Case(FocalLoss, {}, oracles.focal),
    "focal-scaled": Case(FocalLoss, {"gamma": 2.5, "scale": 4.0}, lambda y, u: oracles.focal(y, u, 2.5, 4.0)),
    "hinge": Case(
        HingeLoss, {"margin": 0.4, "scale": 3.0}, lambda y, u: oracles.hinge(y, u, [0.4] * len(y), scale=3.0)
    ),
    "ldam-hinge": Case(
        LDAMHingeLoss,
        {"cls_counts": COUNTS, "max_margin": 0.6, "scale": 2.0},
        lambda y, u: oracles.ldam_hinge(y, u, COUNTS, 0.6, 2.0),
    ),
    "vs": counted(VSLoss, oracles.vs),
    "vs-scaled": counted(VSLoss, oracles.vs, gamma=0.3, tau=0.6, scale=20.0),
    "cdt": Case(CDTLoss, {"cls_counts": COUNTS}, lambda y, u: oracles.vs(y, u, COUNTS, 0.2, 0.0)),
    "equalization": counted(EqualizationLoss, oracles.equalization),
    "equalization-scaled": counted(EqualizationLoss, oracles.equalization, gamma=0.5, threshold=0.1, scale=7.0, seed=3),
    "gcl": counted(GCLLoss, oracles.gcl),
    "gcl-margin": counted(GCLLoss, oracles.gcl, noise=1.0, margin=0.1, scale=20.0, seed=5),
    "gcl-focal": counted(GCLLoss, oracles.gcl, margin=0.1, scale=20.0, gamma=1.5),
    "label-aware-smoothing": counted(LabelAwareSmoothingLoss, oracles.label_aware_smoothing),
    "label-aware-smoothing-linear": counted(
        LabelAwareSmoothingLoss, oracles.label_aware_smoothing, head=0.4, tail=0.1, shape="linear", scale=3.0
    ),
    "label-aware-smoothing-convex": counted(LabelAwareSmoothingLoss, oracles.label_aware_smoothing, shape="convex"),
    "class-balanced-sigmoid": counted(ClassBalancedSigmoidLoss, oracles.class_balanced_sigmoid),
    "class-balanced-focal": counted(
        ClassBalancedSigmoidLoss, oracles.class_balanced_sigmoid, beta=0.99, gamma=0.5, scale=3.0
    ),
    "seesaw": counted(SeesawLoss, oracles.seesaw),
    "seesaw-scaled": counted(SeesawLoss, oracles.seesaw, p=0.3, q=1.0, floor=0.1, scale=5.0),
    "lade": counted(LADELoss, oracles.lade),
    "lade-scaled": counted(LADELoss, oracles.lade, alpha=0.3, penalty=0.01, scale=3.0),
}
# What the gradient takes for constant comes from the logits, which finite differences must not move.
FROZEN = (EqualizationLoss, GCLLoss, SeesawLoss)
COUPLED = (LADELoss,)  # a row's loss depends on the batch

# Values that a constructor must refuse, naming the argument.
BAD_NUMBERS = [math.nan, math.inf, "0.5", None]
BAD_ARGUMENTS = {
    "cls_counts": [[], [100], [[5, 3], [2, 1]], [10, 0, 5], [10, -2], [10, 2.5], [10, math.nan], ["a", "b"], 7, None],
    "scale": [0.0, -1.0, 1e300, 1e38, 1e-300, *BAD_NUMBERS],
    "margin": [-0.1, 1e38, *BAD_NUMBERS],
    "gamma": [-1.0, 1e38, *BAD_NUMBERS],
    "max_margin": [0.0, -0.5, 1e38, *BAD_NUMBERS],
    "tau": [-1.0, 1e38, *BAD_NUMBERS],
    "delta_neg": [-0.1, 1e38, *BAD_NUMBERS],
    "beta": [0.0, -1.0, 1e38, *BAD_NUMBERS],
    "class_margin": [0.0, -0.5, 100.0, *BAD_NUMBERS[:3]],
    "margin_space": ["cos", "Logit", None, 1],
    "dtype": ["float16", "bfloat16", "mixed_bfloat16", "int32", "double trouble"],
    "reduction": ["average"],
    "name": [1, 0.5, ["a"]],
    "threshold": [-0.1, 1.1, *BAD_NUMBERS],
    "noise": [-0.1, *BAD_NUMBERS],
    "seed": [-1, 0.5, True, "0", None],
    "head": [-0.1, 1.1, *BAD_NUMBERS],
    "tail": [-0.1, 1.1, *BAD_NUMBERS],
    "shape": ["concav", None, 1],
    "alpha": [-0.1, *BAD_NUMBERS],
    "p": [-0.1, *BAD_NUMBERS],
    "q": [-0.1, *BAD_NUMBERS],
    "floor": [0.0, 1.1, *BAD_NUMBERS],
    "penalty": [-0.1, *BAD_NUMBERS],
    "ignore_class": [0.5, True, "255", 2**25, math.nan, [255]],
}
# Where a loss refuses others than its namesakes.
BAD_ARGUMENTS_OF = {
    (ClassBalancedSigmoidLoss, "beta"): [-0.1, 1.0, *BAD_NUMBERS],
    (EqualizationLoss, "gamma"): [-0.1, 1.1, *BAD_NUMBERS],
}
ANYTHING_GOES = {"stop_margin_gradient"}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SEPARATE = {name: case for name, case in CASES.items() if case.loss not in COUPLED}
each_separate = pytest.mark.parametrize("case", SEPARATE.values(), ids=SEPARATE)
# One case of every class, where what is tested does not depend on the arguments.
CLASSES = {case.loss.__name__: case for case in CASES.values()}
each_class = pytest.mark.parametrize("case", CLASSES.values(), ids=CLASSES)


def exported(module):
    """Names of the losses in a module's `__all__`, the base left out."""
    values = {name: getattr(module, name) for name in module.__all__}
    return {
        name
        for name, value in values.items()
        if isinstance(value, type) and issubclass(value, LongTailLoss) and value is not LongTailLoss
    }


def constructor_parameters(loss):
    """Parameters of a loss's constructor, those it passes on to its bases included."""
    parameters = {}
    for cls in loss.__mro__:
        if issubclass(cls, LongTailLoss) and "__init__" in vars(cls):
            own = inspect.signature(cls.__init__).parameters.values()
            parameters.update({p.name: p for p in own if p.name != "self" and p.kind is not p.VAR_KEYWORD})
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
    # `cls_counts` belongs to the losses that require it.
    if "cls_counts" not in inspect.signature(loss).parameters or loss.__init__ is LongTailLoss.__init__:
        parameters.pop("cls_counts", None)
    return set(parameters)


def refused():
    return [
        pytest.param(case, argument, value, id=f"{name}-{argument}-{value}")
        for name, case in CLASSES.items()
        for argument in sorted(constructor_parameters(case.loss) - ANYTHING_GOES)
        for value in BAD_ARGUMENTS_OF.get((case.loss, argument), BAD_ARGUMENTS[argument])
    ]


def cosines():
    """Cosines whose even rows are classified correctly and whose odd rows are not."""
    logits = np.random.default_rng(0).uniform(-1, 1, (len(LABELS), len(COUNTS))).astype("float32")
    for i, (row, label) in enumerate(zip(logits, LABELS, strict=True)):
        ranked = row.argsort()
        taken = ranked[-1] if i % 2 == 0 else ranked[i // 2]
        row[[label, taken]] = row[[taken, label]]
    return logits


def one_hot(dtype):
    return np.eye(len(COUNTS), dtype=dtype)[LABELS]


def small_model(loss, **arguments):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(len(COUNTS))(inputs))
    model.compile("sgd", loss, **arguments)
    return model


def features():
    return np.random.default_rng(1).normal(size=(len(LABELS), 6)).astype("float32")


def test_every_exported_loss_has_a_case():
    own = {"InfluenceBalancedLoss"}  # needs features beside the logits: test_influence_balanced.py
    assert exported(tf_mmloss) == exported(tf_mmloss.losses) == set(CLASSES) | own


@pytest.mark.skipif(BACKEND != "tensorflow", reason="variables of TensorFlow")
@each_class
def test_logits_may_be_a_variable(case):
    import tensorflow as tf

    loss = case.build()
    soft = [] if loss.soft_loss is None else [0.5 * one_hot("float32") + 0.5 / len(COUNTS)]
    for targets in (LABELS, *soft):
        assert_close(loss(targets, tf.Variable(cosines())), to_numpy(loss(targets, cosines())), 1e-6)


def test_every_parameter_has_values_to_refuse():
    parameters = set().union(*(constructor_parameters(case.loss) for case in CLASSES.values()))
    assert parameters == set(BAD_ARGUMENTS) | ANYTHING_GOES


@each_case
def test_value_against_the_oracle(case):
    logits = cosines()
    assert_close(case.build()(LABELS, logits), case.oracle(LABELS, logits), 1e-5)


@each_case
def test_value_and_gradient_in_float64(case):
    logits, expected = cosines().astype("float64"), case.oracle
    if case.loss is MaxMarginLoss and case.arguments.get("stop_margin_gradient", True):
        gradient = oracles.gradient(lambda u: expected(LABELS, u, margin_at=logits), logits)
    elif case.loss in FROZEN:
        gradient = oracles.gradient(lambda u: expected(LABELS, u, frozen_at=logits), logits)
    else:
        gradient = oracles.gradient(lambda u: expected(LABELS, u), logits)
    with float64():
        loss = case.build(dtype="float64")
        value, actual = (to_numpy(a) for a in value_and_gradient(lambda u: loss(LABELS, u), logits))
    assert value.dtype == actual.dtype == np.float64
    assert_close(value, expected(LABELS, logits), 1e-10)
    assert_close(actual, gradient, 1e-8)
    single = value_and_gradient(lambda u: case.build()(LABELS, u), logits.astype("float32"))[1]
    assert_close(single, gradient, 1e-5)


@each_case
def test_config_round_trip(case):
    loss = case.build(reduction="sum", name="mine", dtype="float64")
    config = json.loads(json.dumps(loss.get_config()))
    assert config["reduction"] == "sum"
    assert config["name"] == "mine"
    assert config["dtype"] == "float64"
    assert set(config) == constructor_parameters(case.loss)
    for restored in (case.loss.from_config(config), keras.losses.deserialize(keras.losses.serialize(loss))):
        assert type(restored) is case.loss
        assert restored.get_config() == loss.get_config()


@each_case
def test_attributes_are_the_arguments(case):
    loss = case.build()
    for name, value in case.arguments.items():
        assert getattr(loss, name) == value


def test_every_loss_is_reweighted_by_the_name_of_its_output():
    """One model with an output and a callback for each, but for one output that is left alone."""
    inputs, x = keras.Input((6,)), features()
    outputs = {name: keras.layers.Dense(len(COUNTS), name=name)(inputs) for name in (*CLASSES, "alone")}
    hidden = keras.layers.Dense(3, name="hidden")(inputs)
    outputs["Influence"] = KeepFeatures(name="Influence")(
        [keras.layers.Dense(len(COUNTS), name="head")(hidden), hidden]
    )
    model = keras.Model(inputs, outputs)
    losses = {name: case.loss(**case.arguments) for name, case in CLASSES.items()}
    losses |= {
        "alone": CrossEntropyLoss(),
        "Influence": InfluenceBalancedLoss(COUNTS, 2.0, reduction="mean_with_sample_weight"),
    }
    model.compile(keras.optimizers.SGD(0.0), losses, jit_compile=BACKEND == "jax")  # XLA takes long for so many
    schemes = dict(zip((*CLASSES, "Influence"), 20 * ["effective", "inverse"], strict=False))
    history = model.fit(
        x,
        dict.fromkeys(outputs, LABELS),
        batch_size=len(x),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[DeferredReweighting(1, COUNTS, scheme, output=name) for name, scheme in schemes.items()],
    ).history
    weights = {
        "effective": oracles.effective_number_weights(COUNTS),
        "inverse": oracles.inverse_frequency_weights(COUNTS),
    }
    logits = {name: to_numpy(value).astype(np.float64) for name, value in model(x).items()}
    of_hidden = to_numpy(keras.Model(inputs, hidden)(x))
    expected = {name: case.oracle(LABELS, logits[name]) for name, case in CLASSES.items()}
    expected["Influence"] = oracles.influence_balanced(LABELS, logits["Influence"], of_hidden, COUNTS, 2.0)
    for name, scheme in schemes.items():
        after = oracles.weighted_mean(expected[name], weights[scheme][LABELS])
        assert abs(after / expected[name].mean() - 1) > 1e-3
        np.testing.assert_allclose(history[f"{name}_loss"], [expected[name].mean(), after], rtol=1e-4, err_msg=name)
        assert history[f"{name}_reweighting"] == [0, 1]
    np.testing.assert_allclose(*history["alone_loss"], rtol=1e-6)


def test_saved_models_in_a_new_process(tmp_path):
    """All cases at once: class, config and value of the compiled loss."""
    inputs, expected = features(), {}
    for name, case in CASES.items():
        model = small_model(case.build(reduction="mean_with_sample_weight"))
        model.save(tmp_path / f"{name}.keras")
        logits = to_numpy(model(inputs))
        expected[name] = case.oracle(LABELS, logits).mean()
    np.savez(tmp_path / "data.npz", x=inputs, y=LABELS)
    code = """
import json, pathlib, sys
import keras, numpy as np, tf_mmloss
folder = pathlib.Path(sys.argv[1])
data = np.load(folder / "data.npz")
found = {}
for path in folder.glob("*.keras"):
    model = keras.models.load_model(path)
    value = model.loss(data["y"], model(data["x"]))
    found[path.stem] = {"class": type(model.loss).__name__, "config": model.loss.get_config(), "loss": float(value)}
print(json.dumps(found))
"""
    found = in_new_process(code, tmp_path)
    assert set(found) == set(CASES)
    for name, case in CASES.items():
        assert found[name]["class"] == case.loss.__name__
        assert found[name]["config"] == case.build(reduction="mean_with_sample_weight").get_config() | {
            "name": found[name]["config"]["name"]
        }
        assert found[name]["loss"] == pytest.approx(expected[name], rel=1e-5)


@each_case
@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype("int64"),
        LABELS.astype("uint8"),
        LABELS.astype("float32"),
        LABELS[:, None],
        LABELS[:, None].astype("float32"),
        one_hot("float32"),
        one_hot("int32"),
        LABELS.tolist(),
    ],
    ids=["int64", "uint8", "float", "column", "float-column", "one-hot", "int-one-hot", "list"],
)
def test_forms_of_labels_agree(case, labels):
    loss, logits = case.build(), cosines()
    np.testing.assert_array_equal(to_numpy(loss(labels, logits)), to_numpy(loss(LABELS, logits)))
    loss.enable_class_weights(len(COUNTS))
    loss.class_weights.weight.assign(oracles.inverse_frequency_weights(COUNTS))
    np.testing.assert_array_equal(to_numpy(loss(labels, logits)), to_numpy(loss(LABELS, logits)))


@each_case
def test_logits_in_a_list(case):
    loss, logits = case.build(), cosines()
    for weighted in (False, True):
        np.testing.assert_array_equal(to_numpy(loss(LABELS, logits.tolist())), to_numpy(loss(LABELS, logits)))
        if not weighted:
            loss.enable_class_weights(len(COUNTS))


@each_case
def test_permuting_the_batch(case):
    order = np.random.default_rng(3).permutation(len(LABELS))
    loss, logits = case.build(), cosines()
    assert_close(loss(LABELS[order], logits[order]), to_numpy(loss(LABELS, logits))[order], 1e-6)
    mean = case.build(reduction="mean_with_sample_weight")
    assert_close(mean(LABELS[order], logits[order]), mean(LABELS, logits), 1e-6)


@each_separate
def test_a_row_does_not_depend_on_the_others(case):
    loss, logits = case.build(), cosines()
    alone = [to_numpy(loss(LABELS[i : i + 1], logits[i : i + 1]))[0] for i in range(len(LABELS))]
    assert_close(loss(LABELS, logits), alone, 1e-6)


@each_case
def test_reductions(case):
    logits = cosines()
    expected = case.oracle(LABELS, logits)
    assert to_numpy(case.build()(LABELS, logits)).shape == LABELS.shape
    assert_close(case.build(reduction="sum")(LABELS, logits), expected.sum(), 1e-5)
    for reduction in ("mean_with_sample_weight", "sum_over_batch_size"):
        assert_close(case.build(reduction=reduction)(LABELS, logits), expected.mean(), 1e-5)
    default = case.loss(**case.arguments)
    assert default.reduction == "mean_with_sample_weight"


@each_case
def test_weights_of_one_change_nothing(case):
    loss, logits = case.build(reduction="mean_with_sample_weight"), cosines()
    plain = to_numpy(loss(LABELS, logits))
    ones = np.ones(len(LABELS), "float32")
    assert_close(loss(LABELS, logits, ones), plain, 1e-6)
    assert loss.enable_class_weights(len(COUNTS))
    assert not loss.enable_class_weights(len(COUNTS))
    assert_close(loss(LABELS, logits), plain, 1e-6)
    assert_close(loss(LABELS, logits, ones[:, None]), plain, 1e-6)


@each_separate
def test_weight_two_is_the_example_twice(case):
    loss, logits = case.build(reduction="mean_with_sample_weight"), cosines()
    twice = np.array([*range(len(LABELS)), 0, 4])
    weights = np.bincount(twice).astype("float32")
    assert_close(loss(LABELS, logits, weights), loss(LABELS[twice], logits[twice]), 1e-5)


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("weight", [2.0, np.float32(2), [2.0], np.full((8, 1), 2.0)], ids=str)
def test_one_weight_for_all_changes_nothing(weight, by_class):
    loss = CrossEntropyLoss()
    if by_class:
        loss.enable_class_weights(len(COUNTS))
    expected = to_numpy(loss(LABELS, cosines()))
    np.testing.assert_allclose(to_numpy(loss(LABELS, cosines(), weight)), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^`sample_weight` must have one weight for each example of `y_pred`, shape"):
        loss(LABELS, cosines(), np.ones(3, "float32"))


@each_case
@pytest.mark.parametrize("with_sample_weight", [False, True])
def test_class_weights_against_the_oracle(case, with_sample_weight):
    logits = cosines()
    class_weights = oracles.effective_number_weights(COUNTS)
    sample_weight = np.random.default_rng(5).uniform(0, 2, len(LABELS)) if with_sample_weight else np.ones(len(LABELS))
    weights = class_weights[LABELS] * sample_weight
    rows, mean = case.build(), case.build(reduction="mean_with_sample_weight")
    for loss in (rows, mean):
        loss.enable_class_weights(len(COUNTS))
        loss.class_weights.weight.assign(class_weights)
    given = (sample_weight.astype("float32"),) if with_sample_weight else ()
    expected = case.oracle(LABELS, logits)
    assert_close(rows(LABELS, logits, *given), weights * expected, 1e-5)
    assert_close(mean(LABELS, logits, *given), oracles.weighted_mean(expected, weights), 1e-5)


@each_case
@pytest.mark.parametrize("size", ["cosine", "scale", "1e4"])
def test_finite_at_extreme_logits(case, size):
    """Target far above, far below, level with all rivals, and mixed; the wrong rows must keep a gradient."""
    loss = case.build()
    magnitude = {"cosine": 1.0, "scale": loss.scale, "1e4": 1e4}[size]
    target = one_hot("float32")
    rows = [2 * target - 1, 1 - 2 * target, np.ones_like(target), -np.ones_like(target), np.zeros_like(target)]
    rows.append(np.random.default_rng(7).choice([-1.0, 1.0], target.shape))
    logits, labels = magnitude * np.concatenate(rows).astype("float32"), np.tile(LABELS, len(rows))
    value, gradient = value_and_gradient(lambda u: loss(labels, u), logits)
    value, gradient = to_numpy(value), to_numpy(gradient)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    at_target = gradient[np.arange(len(labels)), labels]
    wrong = slice(len(LABELS), 2 * len(LABELS))
    assert np.all(value[wrong] > 0)
    assert np.all(at_target[wrong] < 0)
    assert np.all(gradient[wrong].sum(axis=1) - at_target[wrong] > 0)


@needs_jit
@each_case
def test_jit_equals_eager(case):
    loss, logits = case.build(), ops.convert_to_tensor(cosines())
    loss.enable_class_weights(len(COUNTS))
    loss.class_weights.weight.assign(oracles.inverse_frequency_weights(COUNTS))

    def both(u):
        return value_and_gradient(lambda v: loss(LABELS, v), u)

    for fast, eager in zip(jitted(both)(logits), both(logits), strict=True):
        assert_close(fast, to_numpy(eager), 1e-6)


@each_class
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(case, policy):
    """The loss of a half-precision model is that of its rounded logits, and training keeps all finite."""
    keras.config.set_dtype_policy(policy)
    loss = case.build(reduction="mean_with_sample_weight")
    assert loss.dtype == "float32"
    model = small_model(loss, run_eagerly=True)
    logits = model(features())
    assert keras.backend.standardize_dtype(logits.dtype) == policy.removeprefix("mixed_")
    expected = case.oracle(LABELS, to_numpy(ops.cast(logits, "float32"))).mean()
    before = [to_numpy(v) for v in model.trainable_variables]
    assert float(model.train_on_batch(features(), LABELS)) == pytest.approx(expected, rel=1e-5)
    for _ in range(7):  # float16: the first steps may only lower the loss scale
        assert np.isfinite(model.train_on_batch(features(), LABELS))
    after = [to_numpy(v) for v in model.trainable_variables]
    assert all(np.isfinite(v).all() for v in after)
    assert any(np.any(old != new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(("case", "argument", "value"), refused())
def test_bad_arguments_are_refused(case, argument, value):
    with pytest.raises((ValueError, TypeError), match=argument):
        case.loss(**{**case.arguments, argument: value})


def test_counts_that_are_none_are_refused():
    """Whatever the other arguments."""
    for loss in {case.loss for case in CASES.values() if "cls_counts" in case.arguments}:
        with pytest.raises(ValueError, match="cls_counts"):
            loss(None)


@each_class
@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 5, 1), (5, 8, 5)])
def test_bad_logits_are_refused(case, shape):
    with pytest.raises(ValueError, match="y_pred"):
        case.build()(LABELS, np.zeros(shape, "float32"))


@each_class
@pytest.mark.parametrize("shape", [(8, 4), (8, 6), (8, 5, 1), ()])
def test_bad_labels_are_refused(case, shape):
    with pytest.raises(ValueError, match="y_true"):
        case.build()(np.zeros(shape, "float32"), cosines())


@each_case
def test_an_empty_batch_has_no_losses(case):
    assert to_numpy(case.build()(LABELS[:0], np.zeros((0, len(COUNTS)), "float32"))).shape == (0,)


@each_case
def test_logits_that_are_nan_give_nan(case):
    """So that `StopOnNonFinite` speaks, and not an error about what was computed from them."""
    assert np.isnan(to_numpy(case.build()(LABELS, np.full((len(LABELS), len(COUNTS)), np.nan, "float32")))).all()


@each_class
def test_logits_of_another_width_than_the_counts_are_refused(case):
    wide = np.zeros((len(LABELS), len(COUNTS) + 1), "float32")
    if "cls_counts" in case.arguments:
        with pytest.raises(ValueError, match=r"y_pred.*cls_counts"):
            case.build()(LABELS, wide)
    else:
        assert to_numpy(case.build()(LABELS, wide)).shape == LABELS.shape


@each_class
def test_class_weights_of_another_number_are_refused(case):
    loss = case.build()
    loss.enable_class_weights(len(COUNTS))
    with pytest.raises(ValueError, match="cls_counts"):
        loss.enable_class_weights(len(COUNTS) - 1)


NOT_LABELS = {
    "-1": np.int32(-1),
    "C": np.int32(len(COUNTS)),
    "255": np.uint8(255),
    "2^40": np.float32(2.0**40),
    "0.9": np.float32(0.9),
    "-0.5": np.float32(-0.5),
    "nan": np.float32(np.nan),
    "inf": np.float32(np.inf),
    "row of zeros": [0, 0, 0, 0, 0],
    "multi-hot row": [1, 0, 1, 0, 0],
    "sum of 0.8": [0.5, 0.3, 0, 0, 0],
    "sum of 1.2": [0.6, 0.6, 0, 0, 0],
    "negative": [1.5, -0.5, 0, 0, 0],
    "row of nan": [np.nan, 1, 0, 0, 0],
}
SOFT = np.array([[0.6, 0.4, 0, 0, 0], [0, 0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1, 0], [0.2, 0, 0, 0, 0.8]], "float32")
TAKES_SOFT_TARGETS = {
    CrossEntropyLoss,
    LogitAdjustedLoss,
    FocalLoss,
    UniformMarginLoss,
    VSLoss,
    CDTLoss,
    EqualizationLoss,
    GCLLoss,
    LabelAwareSmoothingLoss,
    ClassBalancedSigmoidLoss,
    LDAMLoss,
    MaxMarginLoss,
    HingeLoss,
    LDAMHingeLoss,
}


def with_a_bad_first(bad):
    labels = LABELS if np.ndim(bad) == 0 else one_hot("float32")
    return np.concatenate([np.asarray(bad)[None], labels[1:].astype(np.asarray(bad).dtype)])


def ways_to_compile():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return {"graph": tf.function, "XLA": lambda f: tf.function(f, jit_compile=True)}
    if BACKEND == "jax":
        import jax

        return {"jit": jax.jit}
    return {}


def hidden(function):
    """What compiled code does where values cannot be seen, without a compiler: PyTorch on a GPU."""

    def call(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(losses_base, "seen", lambda x: None)
            return function(*arguments)

    return call


UNSEEN = {"hidden": hidden, **ways_to_compile()}
unseen = pytest.mark.parametrize("compiled", UNSEEN.values(), ids=UNSEEN)


@each_class
@pytest.mark.parametrize("bad", NOT_LABELS.values(), ids=NOT_LABELS)
def test_what_is_no_label_is_refused(case, bad):
    for loss in (case.build(), case.build(reduction="mean_with_sample_weight")):
        with pytest.raises(ValueError, match=r"`y_true`.*\(1 of 8 are not\)"):
            loss(with_a_bad_first(bad), cosines())
        loss.enable_class_weights(len(COUNTS))
        with pytest.raises(ValueError, match=r"`y_true`.*\(1 of 8 are not\)"):
            loss(with_a_bad_first(bad), cosines())
    with pytest.raises(ValueError, match=r"`y_true`.*\(1 of 8 are not\)"):
        loss(with_a_bad_first(bad)[:, None] if np.ndim(bad) == 0 else with_a_bad_first(bad), cosines())


@each_class
@unseen
def test_what_is_no_label_has_a_loss_of_nan_in_compiled_code(case, compiled):
    """Its own alone with `reduction=None`, and the batch's mean, so that training stops."""
    rows, mean = case.build(), case.build(reduction="mean_with_sample_weight")
    logits, expected = ops.convert_to_tensor(cosines()), case.oracle(LABELS, cosines())
    for weighted in (False, True):
        if weighted:
            rows.enable_class_weights(len(COUNTS))
            mean.enable_class_weights(len(COUNTS))
        of_integers, of_rows = (compiled(lambda y, u: [rows(y, u), mean(y, u)]) for _ in range(2))
        bad_labels = list(NOT_LABELS.values()) + ([] if case.loss in TAKES_SOFT_TARGETS else [SOFT[0]])
        for bad in bad_labels:
            run = of_integers if np.ndim(bad) == 0 else of_rows
            value, average = (to_numpy(a) for a in run(ops.convert_to_tensor(with_a_bad_first(bad), "float32"), logits))
            assert np.isnan(value[0]), bad
            if case.loss not in COUPLED:
                assert_close(value[1:], expected[1:], 1e-5)
            assert np.isnan(average), bad


def functions():
    """The pure functions of labels or multi-hot rows and logits (8, C), by name."""
    given = {"cls_counts": COUNTS, "features": np.ones((8, 2), "float32"), "num_examples": 10**6}
    found = {}
    for name in sorted(set(tf_mmloss.losses.__all__) - {"maximum_margins"}):
        function = getattr(tf_mmloss.losses, name)
        if inspect.isfunction(function):
            own = {key: value for key, value in given.items() if key in inspect.signature(function).parameters}
            found[name] = functools.partial(function, **own)
    return found


MULTI_LABEL = ("asymmetric", "distribution_balanced")
OF_LABELS = [name for name in functions() if name not in MULTI_LABEL]


@pytest.mark.parametrize("name", OF_LABELS)
def test_what_is_no_label_is_nan_in_a_function_that_cannot_see_it(name):
    value = to_numpy(hidden(functions()[name])(ops.convert_to_tensor(with_a_bad_first(99)), cosines()))
    assert np.isnan(value).tolist() == [True] + [False] * 7


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", functions())
def test_functions_of_logits_in_half_precision(name, dtype):
    """As of the same logits in float32: large ones times a scale, and factors of what is almost right."""
    function, targets = functions()[name], one_hot("float32") if name in MULTI_LABEL else LABELS
    more = {"gamma": 0.5} if "gamma" in inspect.signature(function).parameters else {}
    logits = ops.cast(ops.convert_to_tensor(4000 * cosines()), dtype)
    (value, gradient), (expected, slope) = (
        value_and_gradient(lambda u: function(targets, u, **more), u) for u in (logits, ops.cast(logits, "float32"))
    )
    np.testing.assert_array_equal(to_numpy(value), to_numpy(expected))
    assert_close(ops.cast(gradient, "float32"), to_numpy(slope), 1e-2)


@pytest.mark.parametrize("name", functions())
def test_functions_of_logits_that_are_whole_numbers(name):
    """As of the same logits as floats: margins and logs of priors are not cut to whole numbers."""
    function, targets = functions()[name], one_hot("float32") if name in MULTI_LABEL else LABELS
    logits = np.round(3 * cosines()).astype("int32")
    np.testing.assert_array_equal(
        to_numpy(function(targets, logits)), to_numpy(function(targets, logits.astype("float32")))
    )


NAMES = ["cat", "dog", "cat", "dog", "dog", "cat", "cat", "dog"]


@pytest.mark.parametrize("names", [NAMES, np.array(NAMES), np.array(NAMES, object)], ids=["list", "array", "objects"])
@pytest.mark.parametrize(
    "take", [CrossEntropyLoss(), CrossEntropyLoss(ignore_class=255), cross_entropy, tf_mmloss.BalancedAccuracy(5)]
)
def test_names_are_refused(take, names):
    with pytest.raises(ValueError, match=r"^`y_true` must be numbers: tf_mmloss\.imbalance\.class_indices"):
        take(names, cosines())


def test_soft_targets_with_a_margin_of_equal_large_logits():
    """Only differences count, also where their rounding is larger than the log of the number of classes."""
    loss, zeros = UniformMarginLoss(margin=0.1, scale=5.0, reduction=None), np.zeros((1, 3), "float32")
    target = np.array([[0.5, 0.3, 0.2]], "float32")
    (value, gradient), (expected, slope) = (value_and_gradient(lambda u: loss(target, u), zeros + x) for x in (1e9, 0))
    assert_close(value, to_numpy(expected), 1e-6)
    assert_close(gradient, to_numpy(slope), 1e-6)


@pytest.mark.parametrize("function", [cross_entropy, hinge])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float32", "bfloat16"])
@unseen
def test_functions_and_types_of_labels_in_compiled_code(compiled, dtype, function):
    """Those that all losses are made of, on labels beyond 5 classes and, in 300 classes, beyond the type."""
    labels = ops.cast(np.array([120, 100, *LABELS[2:]]), dtype)
    assert np.isnan(to_numpy(compiled(function)(labels, cosines()))).tolist() == [True] * 2 + [False] * 6
    wide = np.tile(cosines(), (1, 60))
    assert np.isfinite(to_numpy(compiled(function)(labels, wide))).all()


@each_class
def test_soft_targets_are_computed_or_refused_by_name(case):
    """sum_c t_c l_c, from the oracle of single labels; the class weight of a row is sum_c t_c w_c."""
    logits, loss = cosines()[: len(SOFT)], case.build()
    if case.loss not in TAKES_SOFT_TARGETS:
        for weighted in (False, True):
            with pytest.raises(ValueError, match=rf"{case.loss.__name__} is not defined for soft targets.*y_true\[0\]"):
                loss(SOFT, logits)
            if not weighted:
                loss.enable_class_weights(len(COUNTS))
        return
    each = np.stack([case.oracle([c] * len(SOFT), logits) for c in range(len(COUNTS))], axis=1)
    expected, class_weights = (SOFT * each).sum(axis=1), oracles.inverse_frequency_weights(COUNTS)
    ways = {"eager": lambda f: f, **UNSEEN}
    for compiled in ways.values():
        loss = case.build()
        assert_close(compiled(loss)(ops.convert_to_tensor(SOFT), logits), expected, 1e-5)
        loss.enable_class_weights(len(COUNTS))
        loss.class_weights.weight.assign(class_weights)
        assert_close(
            compiled(lambda *a, loss=loss: loss(*a))(ops.convert_to_tensor(SOFT), logits),
            SOFT @ class_weights * expected,
            1e-5,
        )
    assert_close(case.build()(SOFT.astype("float16"), logits), expected, 1e-3)


def test_soft_cross_entropy_by_hand():
    value = CrossEntropyLoss()(np.array([[0.6, 0.4, 0]], "float32"), np.array([[1.0, 0.5, -1.0]], "float32"))
    rest = math.log(math.exp(1) + math.exp(0.5) + math.exp(-1))
    assert float(value) == pytest.approx(rest - 0.6 * 1.0 - 0.4 * 0.5, rel=1e-6)


@each_class
def test_soft_targets_in_float64_and_at_extreme_logits(case):
    if case.loss not in TAKES_SOFT_TARGETS:
        pytest.skip("not defined for soft targets")
    logits = cosines()[: len(SOFT)].astype("float64")

    def expected(u):
        frozen = {"frozen_at": logits} if case.loss in FROZEN else {}
        return sum(SOFT[:, c].astype("float64") * case.oracle([c] * len(SOFT), u, **frozen) for c in range(len(COUNTS)))

    with float64():
        loss = case.build(dtype="float64")
        targets = ops.convert_to_tensor(SOFT.astype("float64"))
        value, gradient = value_and_gradient(lambda u: loss(targets, u), logits)
        assert_close(value, expected(logits), 1e-10)
        assert_close(gradient, oracles.gradient(expected, logits), 1e-7)
    extreme = 1e4 * np.concatenate([np.eye(5, dtype="float32")[:4], -np.eye(5, dtype="float32")[:4]])
    targets = np.concatenate([SOFT, SOFT])
    value, gradient = value_and_gradient(lambda u: case.build()(targets, u), extreme)
    assert np.isfinite(to_numpy(value)).all()
    assert np.isfinite(to_numpy(gradient)).all()


def test_a_child_with_a_loss_of_its_own_has_no_soft_targets_by_inheritance():
    class Child(CrossEntropyLoss):
        def margins(self, labels, logits):
            return ops.ones_like(logits[:, 0])

    class Grandchild(UniformMarginLoss):
        pass

    with pytest.raises(ValueError, match="Child is not defined for soft targets"):
        Child()(SOFT, cosines()[: len(SOFT)])
    assert to_numpy(Grandchild(reduction=None)(SOFT, cosines()[: len(SOFT)])).shape == (len(SOFT),)


def test_rows_rounded_to_bfloat16_sum_to_one():
    smooth = np.full((8, 100), 0.001, "float32")
    smooth[:, 0] = 0.901
    rounded = ops.cast(ops.cast(smooth, "bfloat16"), "float32")
    logits = np.random.default_rng(0).normal(size=(8, 100)).astype("float32")
    assert float(CrossEntropyLoss()(rounded, logits)) == pytest.approx(
        float(CrossEntropyLoss()(smooth, logits)), rel=1e-2
    )


@each_class
@unseen
@pytest.mark.parametrize(
    "labels", [np.zeros(0, "int32"), np.zeros((0, len(COUNTS)), "float32")], ids=["labels", "rows"]
)
def test_a_batch_without_rows(case, compiled, labels):
    """Like Keras' losses: a sum of nothing, of whichever shape."""
    logits, labels = ops.convert_to_tensor(np.zeros((0, len(COUNTS)), "float32")), ops.convert_to_tensor(labels)
    loss = case.build(reduction="mean_with_sample_weight")
    assert np.sum(to_numpy(compiled(lambda y, u: loss(y, u))(labels, logits))) == 0
    loss.enable_class_weights(len(COUNTS))
    assert np.sum(to_numpy(loss(labels, logits))) == 0
    assert to_numpy(case.build()(labels, logits)).shape == (0,)


POSITIONS = [(8, 1), (2, 2, 2)]
each_shape = pytest.mark.parametrize("positions", POSITIONS, ids=str)


def dense(array, positions):
    return np.reshape(array, (*positions, *np.shape(array)[1:]))


@each_case
@each_shape
def test_positions_are_examples(case, positions):
    """Logits (B, ..., C) with labels in every form."""
    logits, expected = dense(cosines(), positions), case.oracle(LABELS, cosines())
    labels = dense(LABELS, positions)
    for of_positions in (labels, labels.astype("uint8"), labels[..., None], dense(one_hot("float32"), positions)):
        rows, mean = (case.build(reduction=reduction) for reduction in (None, "mean_with_sample_weight"))
        value = to_numpy(rows(of_positions, logits))
        assert value.shape == positions
        assert_close(value.ravel(), expected, 1e-5)
        assert_close(mean(of_positions, logits), expected.mean(), 1e-5)


@each_class
@unseen
def test_positions_with_weights(case, compiled):
    """Of classes, of examples and of positions; the mean is over all positions."""
    positions = (2, 2, 2)
    logits, labels = ops.convert_to_tensor(dense(cosines(), positions)), dense(LABELS, positions)
    class_weights, expected = oracles.inverse_frequency_weights(COUNTS), case.oracle(LABELS, cosines())
    given = np.random.default_rng(5).uniform(0.5, 2, positions).astype("float32")
    of_examples = given[:, 0, 0]
    forms = {"each": (given, given), "column": (given[..., None], given)}
    forms["example"] = (of_examples, np.broadcast_to(of_examples[:, None, None], positions))
    losses = [case.build(reduction=reduction) for reduction in (None, "mean_with_sample_weight")]

    def run(y, u, weights):
        return {name: [loss(y, u, w) for loss in losses] for name, w in weights.items()}

    for of_classes in (np.ones(8), class_weights[LABELS]):
        found = compiled(lambda *a: run(*a))(
            ops.convert_to_tensor(labels), logits, {k: ops.convert_to_tensor(w) for k, (w, _) in forms.items()}
        )
        for name, (_, each) in forms.items():
            value, average = found[name]
            whole = of_classes * each.ravel()
            assert to_numpy(value).shape == positions
            assert_close(to_numpy(value).ravel(), whole * expected, 1e-5)
            assert_close(average, oracles.weighted_mean(expected, whole), 1e-5)
        for loss in losses:
            loss.enable_class_weights(len(COUNTS))
            loss.class_weights.weight.assign(class_weights)


@each_class
def test_soft_targets_of_positions(case):
    logits, targets = dense(cosines()[:4], (2, 2)), dense(SOFT, (2, 2))
    if case.loss not in TAKES_SOFT_TARGETS:
        with pytest.raises(ValueError, match=f"{case.loss.__name__} is not defined for soft targets"):
            case.build()(targets, logits)
        return
    loss = case.build()
    assert_close(loss(targets, logits), dense(to_numpy(case.build()(SOFT, cosines()[:4])), (2, 2)), 1e-6)
    class_weights = oracles.inverse_frequency_weights(COUNTS)
    loss.enable_class_weights(len(COUNTS))
    loss.class_weights.weight.assign(class_weights)
    expected = SOFT @ class_weights * to_numpy(case.build()(SOFT, cosines()[:4]))
    assert_close(loss(targets, logits), dense(expected, (2, 2)), 1e-5)


@pytest.mark.parametrize(
    ("labels", "logits", "weights", "argument"),
    [
        ((2, 3), (2, 4, 5), None, "y_true"),
        ((4, 2), (2, 4, 5), None, "y_true"),
        ((2,), (2, 4, 5), None, "y_true"),
        ((2, 4, 4), (2, 4, 5), None, "y_true"),
        ((2, 4, 1, 1), (2, 4, 5), None, "y_true"),
        ((), (2, 4, 5), None, "y_true"),
        ((2, 4), (2, 4, 1), None, "y_pred"),
        ((2, 4), (2, 4, 5), (4,), "sample_weight"),
        ((2, 4), (2, 4, 5), (4, 2), "sample_weight"),
        ((2, 4), (2, 4, 5), (2, 4, 5), "sample_weight"),
        ((2, 4), (2, 4, 5), (2, 4, 1, 1), "sample_weight"),
    ],
    ids=str,
)
def test_positions_that_do_not_fit_are_refused(labels, logits, weights, argument):
    weights = None if weights is None else np.ones(weights, "float32")
    for ignored in (None, 255):
        with pytest.raises(ValueError, match=f"^`{argument}` must have"):
            CrossEntropyLoss(ignore_class=ignored)(np.zeros(labels, "int32"), np.zeros(logits, "float32"), weights)


each_ignored = pytest.mark.parametrize("ignored", [255, -1, 2])


def some_ignored(ignored):
    """Labels of which three are ignored, whose logits are NaN, and which are not."""
    labels, logits = LABELS.copy(), cosines()
    labels[[1, 2, 6]] = ignored
    counted = labels != ignored
    logits[~counted] = np.nan
    return labels, logits, counted


@each_case
@each_ignored
def test_what_is_ignored_is_left_out(case, ignored):
    """In all forms of labels and reductions: as if the rows were not there."""
    labels, logits, counted = some_ignored(ignored)
    rows = (labels[:, None] == np.arange(len(COUNTS))).astype("float32")
    expected = case.oracle(labels[counted], logits[counted])
    for given in (labels, labels[:, None], labels.astype("float32"), rows):
        for reduction, reduced in (
            ("mean_with_sample_weight", expected.mean()),
            ("sum_over_batch_size", expected.mean()),
            ("mean", expected.mean()),
            ("sum", expected.sum()),
        ):
            assert_close(case.build(reduction=reduction, ignore_class=ignored)(given, logits), reduced, 1e-5)
        value = to_numpy(case.build(ignore_class=ignored)(given, logits))
        assert_close(value[counted], expected, 1e-5)
        assert (value[~counted] == 0).all()


@each_class
@unseen
@pytest.mark.parametrize("positions", [(8,), (2, 2, 2)], ids=str)
def test_what_is_ignored_has_neither_weight_nor_gradient(case, positions, compiled):
    """With weights of classes and of samples, of rows and of positions."""
    ignored = 255 if len(positions) == 1 else 2
    labels, logits, counted = some_ignored(ignored)
    class_weights = oracles.inverse_frequency_weights(COUNTS)
    given = np.random.default_rng(5).uniform(0.5, 2, 8).astype("float32")
    loss = case.build(reduction="mean_with_sample_weight", ignore_class=ignored)
    loss.enable_class_weights(len(COUNTS))
    loss.class_weights.weight.assign(class_weights)
    expected = oracles.weighted_mean(
        case.oracle(labels[counted], logits[counted]), (class_weights[labels * counted] * given)[counted]
    )
    y, u, w = (ops.convert_to_tensor(dense(a, positions)) for a in (labels, logits, given))
    value, gradient = compiled(lambda y, u, w: value_and_gradient(lambda v: loss(y, v, w), u))(y, u, w)
    assert_close(value, expected, 1e-5)
    gradient = to_numpy(gradient).reshape(8, -1)
    assert (gradient[~counted] == 0).all()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[counted]).max() > 0


@each_class
def test_a_batch_of_which_all_is_ignored(case):
    labels = np.full(len(LABELS), 255)
    loss = case.build(reduction="mean_with_sample_weight", ignore_class=255)
    for weighted in (False, True):
        value, gradient = value_and_gradient(lambda u: loss(labels, u), cosines())
        assert float(value) == 0
        assert (to_numpy(gradient) == 0).all()
        if not weighted:
            loss.enable_class_weights(len(COUNTS))


@each_class
def test_what_is_no_label_is_refused_beside_what_is_ignored(case):
    for bad in (254, -1, 1.5):
        with pytest.raises(ValueError, match=r"`y_true`.*\(1 of 8 are not\)"):
            case.build(ignore_class=255)(np.array([bad, 255, *LABELS[2:]]), cosines())


def test_ignored_as_keras_does():
    labels, logits, _ = some_ignored(255)
    for reduction in ("mean_with_sample_weight", "sum_over_batch_size", "sum", None):
        same = {"ignore_class": 255, "reduction": reduction}
        of_keras = keras.losses.SparseCategoricalCrossentropy(from_logits=True, **same)
        for weights in (None, np.linspace(0.5, 2, 8).astype("float32")):
            expected = to_numpy(of_keras(labels, logits, weights))
            assert_close(CrossEntropyLoss(**same)(labels, logits, weights), expected, 1e-6)


@pytest.mark.parametrize("ignored", [None, 255])
@pytest.mark.parametrize("reduction", ["mean_with_sample_weight", "sum_over_batch_size"])
def test_a_mask_of_keras(ignored, reduction):
    """Padded words do not count, beside those that are ignored."""
    words = np.array([[3, 1, 0, 0], [2, 4, 1, 0]])
    labels = np.array([[0, 1, 2, 3], [1, 0, 4, 2]])
    counted = words != 0
    if ignored is not None:
        labels[1, 0] = ignored
        counted[1, 0] = False
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Embedding(5, len(COUNTS), mask_zero=True)(inputs))
    model.compile("sgd", VSLoss(COUNTS, ignore_class=ignored, reduction=reduction))
    rows = to_numpy(model(words))[counted]
    assert float(model.evaluate(words, labels, verbose=0)) == pytest.approx(
        oracles.vs(labels[counted], rows, COUNTS).mean(), rel=1e-5
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_model_of_pixels(policy):
    """Trained as compiled for its backend, in half precision too; accuracy is of the pixels."""
    keras.config.set_dtype_policy(policy)
    case = CASES["mm-ldam"]
    images = np.random.default_rng(1).normal(size=(4, 2, 3, 6)).astype("float32")
    labels = np.random.default_rng(2).integers(0, len(COUNTS), (4, 2, 3))
    labels[:, 0, 0] = 255
    inputs = keras.Input((None, None, 6))
    model = keras.Model(inputs, keras.layers.Conv2D(len(COUNTS), 1)(inputs))
    loss = case.build(reduction="mean_with_sample_weight", ignore_class=255)
    model.compile("sgd", loss, weighted_metrics=["accuracy"])
    logits, counted = to_numpy(ops.cast(model(images), "float32")), labels != 255
    expected = case.oracle(labels[counted], logits[counted]).mean()
    found = model.evaluate(images, labels, sample_weight=counted.astype("float32"), verbose=0)
    rel = 1e-5 if policy == "float32" else 2e-2
    assert found[0] == pytest.approx(expected, rel=rel)
    assert found[1] == pytest.approx((logits.argmax(axis=-1) == labels)[counted].mean())
    history = model.fit(images, labels, batch_size=4, epochs=2, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=rel)
    assert np.isfinite(history["loss"]).all()
