"""Identities between the losses, and what is particular to the Maximum Margin loss."""

import math
from fractions import Fraction

import keras
import numpy as np
import oracles
import pytest
from helpers import BACKEND, assert_close, float64, to_numpy, value_and_gradient

from tf_mmloss import (
    CrossEntropyLoss,
    FocalLoss,
    HingeLoss,
    LDAMHingeLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    MaxMarginLoss,
    UniformMarginLoss,
)
from tf_mmloss.imbalance import ldam_margins
from tf_mmloss.losses import (
    asymmetric,
    cross_entropy,
    distribution_balanced,
    focal,
    hinge,
    ldam,
    logit_adjusted,
    max_margin,
    maximum_margins,
)

COUNTS = [200, 60, 10, 4]
EQUAL = [50] * 4
HUGE = 200.0  # e^-200 is 0 in float32

LABELS = np.array([0, 1, 2, 3, 3, 2, 1, 0, 2, 3])
SPACES = ("cosine", "logit")


def cosines():
    """The first half is classified correctly, the second is not."""
    logits = np.random.default_rng(0).uniform(-1, 1, (len(LABELS), len(COUNTS))).astype("float32")
    for i, (row, label) in enumerate(zip(logits, LABELS, strict=True)):
        taken = row.argmax() if i < 5 else row.argmin()
        row[[label, taken]] = row[[taken, label]]
    return logits


def gaps(logits):
    """u_y - max_{j != y} u_j."""
    return np.array([u[y] - oracles.rival(u, y) for y, u in zip(LABELS, logits, strict=True)])


def rows(loss, **arguments):
    """Losses of the rows, from a class that is built to return them."""
    return to_numpy(loss(**arguments, reduction=None)(LABELS, cosines()))


def plain(scale=1.0):
    return oracles.cross_entropy(LABELS, cosines(), scale=scale)


IDENTITIES = {
    "focal, gamma=0": (FocalLoss, {"gamma": 0.0, "scale": 8.0}, lambda: plain(8.0)),
    "uniform margin, m=0": (UniformMarginLoss, {"margin": 0.0}, lambda: plain(30.0)),
    "uniform margin, scale=1, m=0": (UniformMarginLoss, {"margin": 0.0, "scale": 1.0}, plain),
    "LDAM, margin towards 0": (LDAMLoss, {"cls_counts": COUNTS, "max_margin": 1e-12}, lambda: plain(30.0)),
    "LDAM, equal counts": (
        LDAMLoss,
        {"cls_counts": EQUAL, "max_margin": 0.4},
        lambda: rows(UniformMarginLoss, margin=0.4),
    ),
    "LDAM hinge, equal counts": (
        LDAMHingeLoss,
        {"cls_counts": EQUAL, "max_margin": 0.4},
        lambda: rows(HingeLoss, margin=0.4),
    ),
    "logit-adjusted, tau=0": (LogitAdjustedLoss, {"cls_counts": COUNTS, "tau": 0.0, "scale": 8.0}, lambda: plain(8.0)),
    "logit-adjusted, equal counts": (LogitAdjustedLoss, {"cls_counts": EQUAL, "tau": 2.0}, plain),
    "hinge, huge margin": (HingeLoss, {"margin": 1e3}, lambda: 1e3 - gaps(cosines())),
    "MM-LDAM, equal counts": (
        MaxMarginLoss,
        {"cls_counts": EQUAL, "delta_neg": 0.9, "class_margin": 0.5},
        lambda: rows(MaxMarginLoss, cls_counts=EQUAL, delta_neg=0.4),
    ),
    **{
        f"MM, huge delta, {space}": (
            MaxMarginLoss,
            {"cls_counts": COUNTS, "delta_neg": HUGE, "beta": 1.0, "margin_space": space},
            lambda: plain(10.0),
        )
        for space in SPACES
    },
}


@pytest.mark.parametrize(("loss", "arguments", "expected"), IDENTITIES.values(), ids=IDENTITIES)
def test_identities(loss, arguments, expected):
    assert_close(rows(loss, **arguments), to_numpy(expected()), 1e-5)


FUNCTIONS = {
    "cross_entropy": (cross_entropy, {"scale": 3.0}, CrossEntropyLoss, {"scale": 3.0}),
    "uniform margin": (cross_entropy, {"margin": 0.2, "scale": 3.0}, UniformMarginLoss, {"margin": 0.2, "scale": 3.0}),
    "focal": (focal, {"gamma": 2.0, "scale": 2.0}, FocalLoss, {"gamma": 2.0, "scale": 2.0}),
    "hinge": (hinge, {"margin": 0.2, "scale": 2.0}, HingeLoss, {"margin": 0.2, "scale": 2.0}),
    "ldam": (
        ldam,
        {"cls_counts": COUNTS, "max_margin": 0.3, "scale": 20.0},
        LDAMLoss,
        {"cls_counts": COUNTS, "max_margin": 0.3, "scale": 20.0},
    ),
    "logit_adjusted": (
        logit_adjusted,
        {"cls_counts": COUNTS, "tau": 1.4, "scale": 2.0},
        LogitAdjustedLoss,
        {"cls_counts": COUNTS, "tau": 1.4, "scale": 2.0},
    ),
    "ldam hinge": (
        hinge,
        {"margin": ldam_margins(COUNTS, 0.3)[LABELS].astype("float32"), "scale": 2.0},
        LDAMHingeLoss,
        {"cls_counts": COUNTS, "max_margin": 0.3, "scale": 2.0},
    ),
    "mm": (
        max_margin,
        {"delta_neg": 0.8, "beta": 1.2, "scale": 9.0, "margin_space": "logit"},
        MaxMarginLoss,
        {"cls_counts": COUNTS, "delta_neg": 0.8, "beta": 1.2, "scale": 9.0, "margin_space": "logit"},
    ),
    "mm-ldam": (
        max_margin,
        {"delta_neg": (0.8 - ldam_margins(COUNTS, 0.5)[LABELS]).astype("float32")},
        MaxMarginLoss,
        {"cls_counts": COUNTS, "delta_neg": 0.8, "class_margin": 0.5},
    ),
}


@pytest.mark.parametrize(("function", "hyper", "loss", "arguments"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_are_the_classes_unreduced(function, hyper, loss, arguments):
    expected = rows(loss, **arguments)
    assert_close(function(LABELS, cosines(), **hyper), expected, 1e-6)
    assert_close(function(np.eye(4)[LABELS], cosines(), **hyper), expected, 1e-6)


@pytest.mark.parametrize("pair", [(UniformMarginLoss, cross_entropy), (FocalLoss, focal), (HingeLoss, hinge)])
def test_defaults_of_functions_and_classes_agree(pair):
    loss, function = pair
    given = {"margin": 0.1, "scale": 30.0} if loss is UniformMarginLoss else {}
    assert_close(function(LABELS, cosines(), **given), rows(loss), 1e-6)


@pytest.mark.parametrize("pair", [(LDAMLoss, ldam), (MaxMarginLoss, max_margin), (LogitAdjustedLoss, logit_adjusted)])
def test_defaults_of_functions_and_classes_with_counts_agree(pair):
    loss, function = pair
    given = {} if loss is MaxMarginLoss else {"cls_counts": COUNTS}
    assert_close(function(LABELS, cosines(), **given), rows(loss, cls_counts=COUNTS), 1e-6)


def test_logit_adjustment_leaves_the_priors_out_of_what_is_learned():
    """Where images tell nothing, equal logits are the optimum for classes as frequent as the counts say."""
    labels = np.repeat(np.arange(4), COUNTS)
    loss = LogitAdjustedLoss(COUNTS)
    _, gradient = value_and_gradient(
        lambda u: loss(labels, keras.ops.tile(u, (len(labels), 1))), np.zeros((1, 4), "float32")
    )
    assert np.abs(to_numpy(gradient)).max() < 1e-6


@pytest.mark.parametrize("space", SPACES)
def test_margins_of_the_paper(space):
    """Eq. 2, 3 and 5; "logit" takes them on s cos, a margin of Delta / s on the cosine."""
    unit = 10.0 if space == "logit" else 1.0
    gap = unit * gaps(cosines())
    expected = np.where(gap >= 0, np.exp(-gap - 1.5 * 0.6), np.exp(gap - 0.6)) / unit
    assert_close(maximum_margins(LABELS, cosines(), margin_space=space), expected, 1e-6)


def test_the_two_spaces():
    """The margins in units of s cos at scale s are those of cosines multiplied by s, divided by s."""
    by_space = to_numpy(maximum_margins(LABELS, cosines(), scale=7.0, margin_space="logit"))
    assert_close(by_space, to_numpy(maximum_margins(LABELS, 7 * cosines(), margin_space="cosine")) / 7, 1e-5)
    assert_close(
        max_margin(LABELS, cosines(), scale=7.0, margin_space="logit"),
        max_margin(LABELS, 7 * cosines(), scale=1.0),
        1e-5,
    )
    at_one = [max_margin(LABELS, cosines(), scale=1.0, margin_space=space) for space in SPACES]
    assert_close(at_one[0], at_one[1], 1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_a_tie_counts_as_correct(space):
    tie = np.array([[0.3, 0.3, -0.2, 0.1]], "float32")
    unit = 10.0 if space == "logit" else 1.0
    margin = maximum_margins([0], tie, delta_neg=0.6, beta=1.5, margin_space=space)
    assert_close(margin, [np.exp(-0.9) / unit], 1e-6)
    rivals_tie = np.array([[0.2, 0.3, 0.3, 0.1]], "float32")
    margin = maximum_margins([0], rivals_tie, margin_space=space)
    assert_close(margin, [np.exp(-0.1 * unit - 0.6) / unit], 1e-6)


def test_a_negative_rival_is_not_clipped():
    """The published code lets 0 take part in the rival's maximum."""
    logits = np.array([[-0.2, -0.9, -0.5, -0.7]], "float32")
    assert_close(maximum_margins([0], logits), [np.exp(-3 - 0.9) / 10], 1e-6)


def test_harder_examples_get_larger_margins():
    """Within the correct and within the incorrect examples the margin falls with the distance to the boundary;
    on the boundary an incorrect one gets more than a correct one."""
    gap = np.array([0.9, 0.5, 0.1, 0.0, -1e-3, -0.1, -0.5, -0.9], "float32")
    logits = np.stack([gap, np.zeros_like(gap), np.full_like(gap, -1)], axis=1)
    margins = to_numpy(maximum_margins(np.zeros(len(gap), int), logits, beta=1.5))
    assert np.all(np.diff(margins[:4]) > 0)
    assert np.all(np.diff(margins[4:]) < 0)
    assert margins[4] > margins[3]


def test_class_margins():
    """Eq. 6 and 7: each class has its own delta, the rarest the smallest and so the largest margin."""
    logits = np.array([[0.15, 0.1, 0.1, 0.1], [0.1, 0.15, 0.15, 0.15]], "float32")
    losses = np.zeros((4, 2))
    for c in range(4):
        rolled = np.roll(logits, c, axis=1)
        loss = MaxMarginLoss(COUNTS, delta_neg=1.1, beta=1.3, class_margin=0.5, reduction=None)
        losses[c] = to_numpy(loss([c, c], rolled))
        delta = 1.1 - 0.5 * (4 / COUNTS[c]) ** 0.25
        margins = [np.exp(-0.5 - 1.3 * delta) / 10, np.exp(-0.5 - delta) / 10]
        assert_close(losses[c], oracles.cross_entropy([c, c], rolled, margins, scale=10.0), 1e-5)
    assert np.all(np.diff(losses, axis=0) > 0)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("stop", [True, False])
def test_gradient_through_the_margin(space, stop):
    """Against finite differences with the margin frozen and not; and the two differ."""
    logits = cosines().astype("float64")

    def oracle(u, frozen):
        return oracles.max_margin(LABELS, u, margin_space=space, margin_at=logits if frozen else None)

    frozen, free = (oracles.gradient(lambda u, f=f: oracle(u, f), logits) for f in (True, False))
    with float64():
        loss = MaxMarginLoss(COUNTS, margin_space=space, stop_margin_gradient=stop, reduction=None, dtype="float64")
        gradient = to_numpy(value_and_gradient(lambda u: loss(LABELS, u), logits)[1])
    assert_close(gradient, frozen if stop else free, 1e-8)
    assert np.abs(frozen - free).max() > 1e-3 * np.abs(free).max()


def test_the_published_fault_is_not_here():
    """The published code takes the logit of the batch's first label for every row."""
    loss, logits = MaxMarginLoss(COUNTS, reduction=None), cosines()
    whole = to_numpy(loss(LABELS, logits))
    for first in range(1, 4):
        labels, changed = LABELS.copy(), logits.copy()
        labels[0], changed[0] = first, np.roll(logits[0], 1)
        assert_close(to_numpy(loss(labels, changed))[1:], whole[1:], 1e-6)


@pytest.mark.parametrize("label_type", ["int32", "int64", "float32"])
def test_labels_of_100_000_classes_are_exact(label_type):
    """No rounding to a neighbouring class, also under a half-precision policy."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    classes = 100_000
    labels = np.array([0, 301, 4097, 65537, 99_999])
    logits = np.zeros((len(labels), classes), "float32")
    logits[np.arange(len(labels)), labels] = 8.0
    found = CrossEntropyLoss(reduction=None)(labels.astype(label_type), logits)
    assert_close(found, np.full(len(labels), np.log1p((classes - 1) * np.exp(-8))), 1e-5)


@pytest.mark.parametrize(
    ("argument", "loss", "arguments"),
    [
        *(
            (argument, lambda f=f, **a: f([0], [[0.1, 0.2]], **a), {argument: bad, **needed})
            for f, arguments, needed in (
                (cross_entropy, ["scale", "margin"], {}),
                (focal, ["scale", "gamma"], {}),
                (hinge, ["scale", "margin"], {}),
                (ldam, ["scale", "max_margin"], {"cls_counts": [5, 1]}),
                (logit_adjusted, ["scale", "tau"], {"cls_counts": [5, 1]}),
                (max_margin, ["scale", "delta_neg", "beta"], {}),
                (maximum_margins, ["scale", "delta_neg", "beta"], {}),
            )
            for argument in arguments
            for bad in (1e300, 1e38, math.nan, math.inf, "0.5", [0.1, 0.2, 0.3], [math.nan], ["a"], {})
        ),
        *(
            ("scale", lambda scale, f=f: f([0], [[0.1, 0.2]], scale=scale), {"scale": bad})
            for f in (cross_entropy, focal, hinge, max_margin, maximum_margins)
            for bad in (0, -1.0, 1e-300, None)
        ),
        ("y_true", lambda **a: maximum_margins(logits=[[0.1, 0.2]], **a), {"labels": [0.9]}),
        ("y_true", lambda **a: maximum_margins(logits=[[0.1, 0.2]], **a), {"labels": [2]}),
        ("y_true.*max_margin is not defined", max_margin, {"y_true": [[0.5, 0.5]], "y_pred": [[0.1, 0.2]]}),
        (
            "y_true.*margin for each example is not",
            cross_entropy,
            {"y_true": [[0.5, 0.5]], "y_pred": [[0.1, 0.2]], "margin": [0.1]},
        ),
        ("cls_counts", lambda **a: ldam([0], [[0.1, 0.2, 0.3]], **a), {"cls_counts": [5, 0, 1]}),
        ("cls_counts", lambda **a: ldam([0], [[0.1, 0.2, 0.3]], **a), {"cls_counts": [5, 1]}),
        ("max_margin", lambda **a: ldam([0], [[0.1, 0.2]], cls_counts=[5, 1], **a), {"max_margin": -1.0}),
        ("cls_counts", lambda **a: logit_adjusted([0], [[0.1, 0.2, 0.3]], **a), {"cls_counts": [5, 1]}),
        ("tau", lambda **a: logit_adjusted([0], [[0.1, 0.2]], cls_counts=[5, 1], **a), {"tau": -1.0}),
        ("margin_space", lambda **a: max_margin([0], [[0.1, 0.2]], **a), {"margin_space": "logits"}),
        ("y_pred", lambda **a: cross_entropy([0], **a), {"y_pred": [0.1, 0.2]}),
        ("y_pred", lambda **a: cross_entropy([0], margin=[0.1], **a), {"y_pred": np.float32(0.1)}),
        ("y_true", lambda **a: focal(y_pred=[[0.1, 0.2]], **a), {"y_true": [[0, 1, 0]]}),
        ("y_true", lambda **a: hinge(y_pred=[[0.1, 0.2]], **a), {"y_true": [[0, 1, 0]]}),
    ],
)
def test_functions_refuse_bad_arguments(argument, loss, arguments):
    with pytest.raises(ValueError, match=argument):
        loss(**arguments)


def test_functions_of_soft_targets_are_the_classes():
    soft = np.random.default_rng(2).dirichlet(np.ones(4), len(LABELS)).astype("float32")
    for function, given, loss in (
        (cross_entropy, {"scale": 3.0}, CrossEntropyLoss(scale=3.0, reduction=None)),
        (cross_entropy, {"margin": 0.2, "scale": 3.0}, UniformMarginLoss(0.2, 3.0, reduction=None)),
        (focal, {"gamma": 2.0}, FocalLoss(2.0, reduction=None)),
        (logit_adjusted, {"cls_counts": COUNTS, "scale": 2.0}, LogitAdjustedLoss(COUNTS, scale=2.0, reduction=None)),
    ):
        assert_close(function(soft, cosines(), **given), to_numpy(loss(soft, cosines())), 1e-6)


@pytest.mark.parametrize("label", [2**32, 2**33 + 1, -(2**63), -(2**32) + 1])
def test_a_label_of_more_than_32_bits_is_refused_and_not_cut(label):
    """The lower half of each is a class; also of positions, beside what is ignored and in rows."""
    refused = r"`y_true` must be whole numbers in \[0, 3\)"
    for y in ([label], np.array([label]), (label,)):
        with pytest.raises(ValueError, match=refused):
            cross_entropy(y, np.zeros((1, 3), "float32"))
    for loss in (CrossEntropyLoss(), CrossEntropyLoss(ignore_class=255)):
        with pytest.raises(ValueError, match=refused):
            loss(np.array([[0, label]]), np.zeros((1, 2, 3), "float32"))
    with pytest.raises(ValueError, match="must be multi-hot rows"):
        asymmetric(np.array([[0, label, 1]]), np.zeros((1, 3), "float32"))


@pytest.mark.skipif(BACKEND != "jax", reason="JAX cuts int64 to int32")
@pytest.mark.parametrize("label", [-1, 3, 255, 2**31])
def test_labels_of_64_bits_are_nan_under_jit(label):
    import jax

    labels, logits = np.array([label, 1]), np.zeros((2, 3), "float32")
    for loss in (CrossEntropyLoss(reduction=None), HingeLoss(reduction=None)):
        of_label, of_other = to_numpy(jax.jit(loss)(labels, logits))
        assert np.isnan(of_label)
        assert np.isfinite(of_other)


@pytest.mark.parametrize("number", [Fraction(1, 2), np.array(0.5)], ids=["fraction", "array"])
def test_numbers_of_other_types_are_those_numbers(number):
    """Of the function that has the most of them."""
    names = ("alpha", "beta", "mu", "kappa", "negative_scale", "gamma", "focal_weight", "scale")
    counts = {"cls_counts": COUNTS, "num_examples": 1000}
    rows, logits = np.eye(len(COUNTS), dtype="float32"), np.ones((len(COUNTS), len(COUNTS)), "float32")
    for name in names:
        value = distribution_balanced(rows, logits, **counts, **{name: number})
        assert_close(value, to_numpy(distribution_balanced(rows, logits, **counts, **{name: 0.5})), 1e-7)
