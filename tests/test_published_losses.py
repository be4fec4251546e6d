"""The losses beyond the paper: agreement with their published codes, identities, and seeded draws.

`tests/data/published_methods.npz` has the outputs of the published codes on random inputs, computed in float64: losses,
and the first rows of their gradients.
"""

import contextlib
import functools

import keras
import numpy as np
import oracles
import pytest
from helpers import BACKEND, assert_close, float64, official, to_numpy, value_and_gradient
from keras import ops

from tf_mmloss import (
    AsymmetricLoss,
    CDTLoss,
    Checkpoint,
    ClassBalancedSigmoidLoss,
    CrossEntropyLoss,
    DistributionBalancedLoss,
    EqualizationLoss,
    GCLLoss,
    LabelAwareSmoothingLoss,
    LADELoss,
    LogitAdjustedLoss,
    SeesawCounts,
    SeesawLoss,
    VSLoss,
)
from tf_mmloss.losses import (
    cdt,
    class_balanced_sigmoid,
    equalization,
    gcl,
    label_aware_smoothing,
    lade,
    logit_adjusted,
    seesaw,
    vs,
)
from tf_mmloss.losses.draws import normals, uniforms

SIZES = ("c10", "c100")


@pytest.fixture(scope="module")
def published():
    return {**official("published_methods"), **official("published_second_stages")}


def assert_published(published, key, loss, x):
    """The batch loss, a function of the logits, and the first rows of its gradient."""
    value, gradient = value_and_gradient(loss, x)
    assert_close(value, published[f"{key}/loss"], 1e-5)
    if f"{key}/grad" in published:
        rows = published[f"{key}/grad"]
        assert_close(to_numpy(gradient)[: len(rows)], rows, 1e-5)


def of(published, size, logits="x"):
    return published[f"{size}/{logits}"], published[f"{size}/y"].astype("int64"), published[f"{size}/counts"]


# The code's name, and the loss for it.
PUBLISHED = {
    "vs/g0.15_t1.25": (VSLoss, {}),
    "vs/g0.05_t0.75": (VSLoss, {"gamma": 0.05, "tau": 0.75}),
    "vs/g0.0_t1.0": (VSLoss, {"gamma": 0.0, "tau": 1.0}),
    "vs/g0.2_t0.0": (CDTLoss, {}),
    "las/concave_h0.3_t0.0": (LabelAwareSmoothingLoss, {}),
    "las/concave_h0.4_t0.1": (LabelAwareSmoothingLoss, {"head": 0.4, "tail": 0.1}),
    "las/linear_h0.3_t0.0": (LabelAwareSmoothingLoss, {"shape": "linear"}),
    "las/convex_h0.3_t0.0": (LabelAwareSmoothingLoss, {"shape": "convex"}),
    "cb_bot/sigmoidfocal0.0": (ClassBalancedSigmoidLoss, {}),
    "cb_bot/sigmoidfocal1.0": (ClassBalancedSigmoidLoss, {"gamma": 1.0}),
    "cb_vandit/focal0.5": (ClassBalancedSigmoidLoss, {"gamma": 0.5}),
    "cb_vandit/focal2.0": (ClassBalancedSigmoidLoss, {"gamma": 2.0}),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_code(published, size, name):
    x, y, counts = of(published, size)
    loss, arguments = PUBLISHED[name]
    built = loss(counts, **arguments)
    assert_published(published, f"{size}/{name}", lambda u: built(y, u), x)


@pytest.mark.parametrize("size", SIZES)
def test_published_equalization(published, size):
    x, y, counts = of(published, size)
    drawn = np.unpackbits(published[f"{size}/seql/beta"], axis=1)[:, : len(counts)].astype(bool)
    threshold = float(published[f"{size}/seql/lambda"])
    assert_published(
        published,
        f"{size}/seql",
        lambda u: ops.mean(equalization(y, u, cls_counts=counts, threshold=threshold, drawn=drawn)),
        x,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        ("stage1", {}),
        ("stage2", {"margin": 0.1, "scale": 20.0, "gamma": 1.0}),
        ("default", {"noise": 1.0, "margin": 0.5, "scale": 30.0}),
    ],
)
def test_published_gcl(published, size, stage, arguments):
    x, y, counts = of(published, size, "cos")
    drawn = published[f"{size}/gcl/noise"]
    assert_published(
        published,
        f"{size}/gcl/{stage}",
        lambda u: ops.mean(gcl(y, u, cls_counts=counts, drawn=drawn, **arguments)),
        x,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_published_lade(published, size, penalty):
    x, y, counts = of(published, size)
    prior = logit_adjusted(y, x, cls_counts=counts)
    assert_close(ops.mean(prior), published[f"{size}/lade/priorce/loss"], 1e-5)

    def regularizer(u):
        return ops.mean(lade(y, u, cls_counts=counts, alpha=1.0, penalty=penalty)) - ops.mean(
            logit_adjusted(y, u, cls_counts=counts)
        )

    value, gradient = value_and_gradient(regularizer, x)
    assert_close(value, published[f"{size}/lade/l{penalty}/loss"], 1e-5)
    rows = published[f"{size}/lade/l{penalty}/grad"]
    # The code adds 1e-9 to shares of examples of 5e-4.
    assert_close(to_numpy(gradient)[: len(rows)], rows, 1e-4)


COUNTS = [200, 60, 10, 4]
EQUAL = [50] * 4
LABELS = np.array([0, 1, 2, 3, 3, 2, 1, 0])


def logits():
    return np.random.default_rng(0).normal(size=(len(LABELS), len(COUNTS))).astype("float32")


def rows(loss, *arguments, **hyper):
    return to_numpy(loss(*arguments, **hyper, reduction=None)(LABELS, logits()))


def plain(scale=1.0):
    return rows(CrossEntropyLoss, scale=scale)


IDENTITIES = {
    "VS, gamma=0": (lambda: rows(VSLoss, COUNTS, 0.0, 1.3, 2.0), lambda: rows(LogitAdjustedLoss, COUNTS, 1.3, 2.0)),
    "VS, tau=0": (lambda: rows(VSLoss, COUNTS, 0.4, 0.0, 2.0), lambda: rows(CDTLoss, COUNTS, 0.4, 2.0)),
    "VS, both 0": (lambda: rows(VSLoss, COUNTS, 0.0, 0.0, 2.0), lambda: plain(2.0)),
    "VS, equal counts": (lambda: rows(VSLoss, EQUAL), plain),
    "CDT, gamma=0": (lambda: rows(CDTLoss, COUNTS, 0.0), plain),
    "equalization, gamma=0": (lambda: rows(EqualizationLoss, COUNTS, 0.0, scale=2.0), lambda: plain(2.0)),
    "equalization, threshold=0": (lambda: rows(EqualizationLoss, COUNTS, threshold=0.0), plain),
    "GCL, no noise": (lambda: rows(GCLLoss, COUNTS, noise=0.0), lambda: plain(30.0)),
    "GCL, equal counts": (lambda: rows(GCLLoss, EQUAL, scale=2.0), lambda: plain(2.0)),
    "smoothing 0": (lambda: rows(LabelAwareSmoothingLoss, COUNTS, 0.0, 0.0), plain),
    "smoothing, head=tail": (
        lambda: rows(LabelAwareSmoothingLoss, COUNTS, 0.1, 0.1, "convex"),
        lambda: to_numpy(
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, reduction=None)(
                np.eye(4, dtype="float32")[LABELS], logits()
            )
        ),
    ),
    "smoothing, equal counts": (lambda: rows(LabelAwareSmoothingLoss, EQUAL), plain),
    "class-balanced sigmoid, beta=0": (
        lambda: rows(ClassBalancedSigmoidLoss, COUNTS, beta=0.0),
        lambda: (
            4
            * to_numpy(
                keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(
                    np.eye(4, dtype="float32")[LABELS], logits()
                )
            )
        ),
    ),
    "seesaw, p=0, q=0": (lambda: rows(SeesawLoss, COUNTS, 0.0, 0.0), plain),
    "seesaw, equal counts, q=0": (lambda: rows(SeesawLoss, EQUAL, q=0.0, scale=2.0), lambda: plain(2.0)),
    "LADE, alpha=0": (lambda: rows(LADELoss, COUNTS, alpha=0.0), lambda: rows(LogitAdjustedLoss, COUNTS)),
}


@pytest.mark.parametrize(("actual", "expected"), IDENTITIES.values(), ids=IDENTITIES)
def test_identities(actual, expected):
    assert_close(actual(), expected(), 1e-5)


@pytest.mark.parametrize(
    ("function", "loss"),
    [
        (vs, VSLoss),
        (cdt, CDTLoss),
        (equalization, EqualizationLoss),
        (gcl, GCLLoss),
        (label_aware_smoothing, LabelAwareSmoothingLoss),
        (class_balanced_sigmoid, ClassBalancedSigmoidLoss),
        (lade, LADELoss),
        (seesaw, SeesawLoss),
    ],
)
def test_functions_are_the_classes_unreduced(function, loss):
    """With the defaults of both."""
    assert_close(function(LABELS, logits(), cls_counts=COUNTS), rows(loss, COUNTS), 1e-6)
    with pytest.raises(ValueError, match="cls_counts"):
        function(LABELS, logits(), cls_counts=COUNTS[:-1])


def test_spared_classes_do_not_learn_from_being_rivals():
    """Of a rare class that is spared, the logit has no gradient but from its own images."""
    u = logits()
    _, gradient = value_and_gradient(
        lambda x: equalization(LABELS, x, cls_counts=COUNTS, gamma=1.0, threshold=0.1, drawn=None), u
    )
    gradient = to_numpy(gradient)
    for k, rare in enumerate(np.array(COUNTS) / sum(COUNTS) < 0.1):
        of_others = gradient[k != LABELS, k]
        assert np.all(of_others == 0) if rare else np.all(of_others > 0)
        assert np.all(gradient[k == LABELS, k] < 0)


def test_draws_on_every_backend():
    u = np.random.default_rng(1).normal(size=(6, 5)).astype("float32")
    np.testing.assert_array_equal(to_numpy(uniforms(u, 3)), oracles.hashed_uniforms(u, 3).astype("float32"))
    assert_close(normals(ops.convert_to_tensor(u), 3), oracles.hashed_normals(u, 3), 1e-5)


def test_draws_are_independent():
    """Of each other, of the logits, and between seeds, and logits that differ in one bit."""
    u = np.random.default_rng(2).normal(size=(2000, 10)).astype("float32")
    drawn = to_numpy(uniforms(u, 0))
    assert 0 < drawn.min() < 1e-3
    assert 1 - 1e-3 < drawn.max() < 1
    histogram = np.histogram(drawn, 20, (0, 1))[0]
    assert ((histogram - 1000) ** 2 / 1000).sum() < 45  # chi-squared of 19, the chance of more is 0.001
    nudged = u.copy()
    nudged[:, 0] = np.nextafter(u[:, 0], np.float32(9))
    others = [u, np.roll(drawn, 1, axis=0), np.roll(drawn, 1, axis=1)]
    others += [to_numpy(a) for a in (uniforms(u, 1), uniforms(nudged, 0), uniforms(u[:, ::-1], 0))]
    for other in others:
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.03
    normal = to_numpy(normals(ops.convert_to_tensor(u), 0))
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    assert abs((normal**4).mean() - 3) < 0.2


@pytest.mark.parametrize("loss", [EqualizationLoss, GCLLoss])
def test_a_seed_is_another_draw(loss):
    first, again, other = (rows(loss, COUNTS, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("loss", [EqualizationLoss, GCLLoss, LADELoss])
def test_training_twice_is_the_same(loss):
    """In the compiled step, with no state to attach; and the draws differ from step to step."""
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    y = np.arange(32) % 4

    def losses():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,))
        model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
        model.compile(keras.optimizers.SGD(0.1), loss(COUNTS), jit_compile=BACKEND == "jax")
        return model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0).history["loss"]

    assert losses() == losses()


@pytest.mark.parametrize("size", SIZES)
def test_published_seesaw(published, size):
    """Two batches, with the labels seen so far as counts, at least one of each class."""
    for batch, x, y in (("batch1", "x", "y"), ("batch2", "x2", "y2")):
        counts = np.maximum(published[f"{size}/seesaw/{batch}/cum"], 1).astype(int)
        labels = published[f"{size}/{y}"].astype("int64")
        assert_published(
            published,
            f"{size}/seesaw/{batch}",
            lambda u, labels=labels, counts=counts: ops.mean(seesaw(labels, u, cls_counts=counts)),
            published[f"{size}/{x}"],
        )


def test_seesaw_counts_the_labels_of_the_training(published, tmp_path):
    """As the published code does, in the compiled step; not those of the evaluation; and a resumed run goes on."""
    x = np.concatenate([published["c10/x"], published["c10/x2"]])
    y = np.concatenate([published["c10/y"], published["c10/y2"]]).astype("int64")
    seen = published["c10/seesaw/batch2/cum"]

    def built():
        inputs = keras.Input((10,))
        model = keras.Model(inputs, keras.layers.Dense(10, kernel_initializer="identity")(inputs))
        model.compile(keras.optimizers.SGD(0.0), SeesawLoss(published["c10/counts"]), jit_compile=BACKEND == "jax")
        return model

    class Losses(keras.callbacks.Callback):
        values = ()

        def on_train_batch_end(self, batch, logs=None):
            self.values += (logs["loss"],)

    model, losses = built(), Losses()
    arguments = {"batch_size": 64, "shuffle": False, "verbose": 0, "validation_data": (x, y)}
    model.fit(x, y, callbacks=[SeesawCounts(), losses, Checkpoint(tmp_path)], **arguments)
    batches = [float(published[f"c10/seesaw/batch{i}/loss"]) for i in (1, 2)]
    assert_close(losses.values, [batches[0], np.mean(batches)], 1e-5)  # Keras logs the mean so far
    np.testing.assert_array_equal(to_numpy(model.loss.seen_labels.seen), seen)
    model.evaluate(x, y, verbose=0)
    np.testing.assert_array_equal(to_numpy(model.loss.seen_labels.seen), seen)

    resumed, counts = built(), SeesawCounts()
    counts.attach(resumed)
    assert Checkpoint(tmp_path).restore(resumed) == 1
    resumed.fit(x, y, epochs=2, initial_epoch=1, callbacks=[counts], **arguments)
    np.testing.assert_array_equal(to_numpy(resumed.loss.seen_labels.seen), 2 * seen)


def test_a_loss_brings_its_callbacks():
    assert [type(callback) for callback in SeesawLoss(COUNTS).callbacks()] == [SeesawCounts]
    assert VSLoss(COUNTS).callbacks() == []


def test_seesaw_counts_need_a_seesaw_loss():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile("sgd", VSLoss(COUNTS))
    with pytest.raises(TypeError, match="SeesawLoss"):
        SeesawCounts().attach(model)


MULTI_HOT = np.random.default_rng(4).integers(0, 2, (8, 4)).astype("float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("hyper", [{}, {"gamma_negative": 0.5, "gamma_positive": 0.0, "clip": 0.0}])
def test_asymmetric_against_the_oracle(dtype, stop, hyper):
    u = 3 * logits().astype(dtype)
    oracle = functools.partial(oracles.asymmetric, MULTI_HOT, **hyper)
    frozen = u.astype("float64") if stop else None
    gradient = oracles.gradient(lambda v: oracle(v, frozen_at=frozen), u)
    with float64() if dtype == "float64" else contextlib.nullcontext():
        loss = AsymmetricLoss(**hyper, stop_focus_gradient=stop, reduction=None, dtype=dtype)
        value, actual = value_and_gradient(lambda v: loss(MULTI_HOT, v), u)
        assert_close(value, oracle(u.astype("float64")), 1e-5 if dtype == "float32" else 1e-10)
        assert_close(actual, gradient, 1e-5 if dtype == "float32" else 1e-7)


def test_asymmetric_identities_and_extremes():
    plain = AsymmetricLoss(0.0, 0.0, 0.0, reduction=None)(MULTI_HOT, logits())
    binary = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(MULTI_HOT, logits())
    assert_close(plain, 4 * to_numpy(binary), 1e-6)
    for arguments in ({}, {"clip": 0.0}, {"gamma_negative": 0.5, "gamma_positive": 0.5}):
        loss = AsymmetricLoss(**arguments, stop_focus_gradient=False, reduction=None)
        value, gradient = value_and_gradient(lambda u, loss=loss: loss(MULTI_HOT, u), 1e4 * np.sign(logits()))
        assert np.isfinite(to_numpy(value)).all()
        assert np.isfinite(to_numpy(gradient)).all()


PUBLISHED_FORMS = {
    "coco": {},
    "voc": {"mu": 0.3, "negative_scale": 5.0},
    "plain": {"gamma": 0.0},
}


@pytest.mark.parametrize("form", PUBLISHED_FORMS)
def test_distribution_balanced_against_the_published_code_and_the_oracle(form):
    """With an example of no class and one of all."""
    data, hyper = official("published_distribution_balanced"), PUBLISHED_FORMS[form]
    counted = {"cls_counts": data["counts"].tolist(), "num_examples": int(data["num_examples"])}
    y, x = data["y"], data["x"]
    assert_close(oracles.distribution_balanced(y, x, *counted.values(), **hyper), data[f"{form}/loss"], 1e-6)
    for scale, dtype, tolerance in ((1.0, "float32", 1e-5), (4.0, "float64", 1e-6)):
        with float64() if dtype == "float64" else contextlib.nullcontext():
            loss = DistributionBalancedLoss(**counted, **hyper, scale=scale, reduction=None, dtype=dtype)
            value, gradient = value_and_gradient(lambda u, loss=loss: loss(y, u), (x / scale).astype(dtype))
            assert_close(value, data[f"{form}/loss"], tolerance)
            assert_close(gradient, scale * data[f"{form}/grad"], tolerance)


def test_distribution_balanced_identities_and_extremes():
    arguments = {"cls_counts": COUNTS, "num_examples": 2 * max(COUNTS), "reduction": None}
    plain = {"alpha": 1.0, "beta": 0.0, "kappa": 0.0, "negative_scale": 1.0, "gamma": 0.0}
    some = MULTI_HOT.copy()
    some[:, 0] = 1  # no example without a class, whose weight is another
    binary = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(some, logits())
    assert_close(DistributionBalancedLoss(**arguments, **plain)(some, logits()), 1.5 * to_numpy(binary), 1e-6)
    none = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(0 * some, logits())
    assert_close(DistributionBalancedLoss(**arguments, **plain)(0 * some, logits()), 2 * to_numpy(none), 1e-6)
    for gamma in (0.0, 0.5, 2.0):
        loss = DistributionBalancedLoss(**arguments, gamma=gamma)
        value, gradient = value_and_gradient(lambda u, loss=loss: loss(MULTI_HOT, u), 1e4 * np.sign(logits()))
        assert np.isfinite(to_numpy(value)).all()
        assert np.isfinite(to_numpy(gradient)).all()


def test_distribution_balanced_config_and_what_it_refuses():
    loss = DistributionBalancedLoss(
        [9, 5, 3, 1], 12, 0.2, 5.0, 0.3, 3.0, 0.1, 1.0, 1.5, 2.0, reduction="sum", name="mine"
    )
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is DistributionBalancedLoss
    assert restored.get_config() == loss.get_config()
    for name in ("alpha", "beta", "negative_scale", "kappa", "gamma", "focal_weight", "scale", "num_examples"):
        for value in (-0.1, np.nan, "1", None):
            with pytest.raises(ValueError, match=name):
                DistributionBalancedLoss(**{"cls_counts": [9, 5, 3, 1], "num_examples": 12, name: value})
    with pytest.raises(ValueError, match="`num_examples` must be more than the largest of `cls_counts`, 9"):
        DistributionBalancedLoss([9, 5, 3, 1], 9)
    with pytest.raises(ValueError, match="cls_counts"):
        DistributionBalancedLoss([9, 5, 0, 1], 12)
    for labels in (LABELS, LABELS[:, None], MULTI_HOT[:, :3], 2 * MULTI_HOT + 1):
        with pytest.raises(ValueError, match="y_true"):
            loss(labels, logits())
    with pytest.raises(ValueError, match="one count for each logit"):
        loss(MULTI_HOT[:, :3], logits()[:, :3])


@pytest.mark.parametrize("labels", [MULTI_HOT[:, :1], MULTI_HOT[:, 0], MULTI_HOT[:, 0].astype(int)])
def test_one_question(labels):
    """A head with one output: of the asymmetric loss alone; the others say so, and what takes several classes."""
    x = logits()[:, :1]
    expected = oracles.asymmetric(MULTI_HOT[:, :1], x)
    assert_close(AsymmetricLoss(reduction=None)(labels, x), expected, 1e-5)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", AsymmetricLoss())
    fitted = model.fit(x, labels, batch_size=len(x), verbose=0).history["loss"]
    np.testing.assert_allclose(fitted, [expected.mean()], rtol=1e-4)
    model.compile("sgd", ClassBalancedSigmoidLoss([5, 3]))
    weighs = "weighs an example by its class: for one yes-or-no logit take AsymmetricLoss, or a head with two"
    with pytest.raises(ValueError, match=weighs):
        model.fit(x, labels, verbose=0)
    with pytest.raises(ValueError, match=weighs):
        class_balanced_sigmoid(labels, x, cls_counts=[5, 3])
    with pytest.raises(ValueError, match="for one yes-or-no question take AsymmetricLoss"):
        DistributionBalancedLoss([5], num_examples=20)


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), ClassBalancedSigmoidLoss(COUNTS)])
def test_several_classes_are_refused_with_what_takes_them(loss):
    with pytest.raises(ValueError, match="take AsymmetricLoss or DistributionBalancedLoss"):
        loss(MULTI_HOT, logits())


def test_asymmetric_config_and_what_it_refuses():
    loss = AsymmetricLoss(3.0, 0.5, 0.1, 2.0, False, reduction="sum", name="mine")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is AsymmetricLoss
    assert restored.get_config() == loss.get_config()
    for name in ("gamma_negative", "gamma_positive", "clip", "scale"):
        for value in (-0.1, np.nan, "1", None):
            with pytest.raises(ValueError, match=name):
                AsymmetricLoss(**{name: value})
    with pytest.raises(ValueError, match="clip"):
        AsymmetricLoss(clip=1.0)
    with pytest.raises(ValueError, match="dtype"):
        AsymmetricLoss(dtype="float16")
    for labels in (LABELS, LABELS[:, None], MULTI_HOT[:, :3], 2 * MULTI_HOT + 1, MULTI_HOT * np.nan):
        with pytest.raises(ValueError, match="y_true"):
            loss(labels, logits())
