"""Agreement with the published PyTorch code, whose outputs on random inputs are in tests/data."""

import numpy as np
import oracles
import pytest
from helpers import BACKEND, assert_close, carry_weights, float64, model_in, official, to_numpy, value_and_gradient
from keras import ops
from oracle_resnet import ResNet

from reproduction.published_code import PublishedCodeMaxMarginLoss
from tf_mmloss import SGD, CosineDense, FocalLoss, LDAMLoss, MaxMarginLoss, imbalance, resnet32
from tf_mmloss.losses import cross_entropy

SIZES = ("c10", "c100")
# Arguments with which the published maximum margins were recorded.
MARGINS = {
    "mm": {"delta_neg": 0.6, "beta": 1.5, "scale": 10.0},
    "mmldam": {"delta_neg": 1.2, "beta": 1.3, "class_margin": 0.5, "scale": 10.0},
}


@pytest.fixture(scope="module")
def published():
    return official()


def weighted(loss, weights):
    """Give the loss these class weights, as DeferredReweighting does."""
    loss.enable_class_weights(len(weights))
    loss.class_weights.weight.assign(weights)
    return loss


def of_size(published, size):
    return (published[f"{size}_{name}"] for name in ("x", "y", "counts"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["ldam", "ldam_w"])
def test_ldam(published, size, name):
    x, y, counts = of_size(published, size)
    loss = LDAMLoss(counts)
    if name == "ldam_w":
        weighted(loss, published[f"{size}_effnum_w"])
    value, gradient = value_and_gradient(lambda logits: loss(y, logits), x)
    assert_close(value, published[f"{size}_{name}"], 1e-6)
    assert_close(gradient, published[f"{size}_{name}_grad"], 1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_focal(published, size):
    x, y, _ = of_size(published, size)
    loss = FocalLoss(gamma=1.0)
    value, gradient = value_and_gradient(lambda logits: loss(y, logits), 5 * x)
    assert_close(value, published[f"{size}_focal"], 1e-6)
    assert_close(gradient, published[f"{size}_focal_grad"], 1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_focal_with_the_weight_in_the_modulator(published, size):
    """The published CB-Focal, p = exp(-w l), which the package does not offer, from the package's parts."""
    x, y, _ = of_size(published, size)
    weights = ops.convert_to_tensor(published[f"{size}_effnum_w"][y], "float32")

    def loss(logits):
        weighted_loss = weights * cross_entropy(y, logits)
        return ops.mean((1 - ops.exp(-weighted_loss)) * weighted_loss)

    value, gradient = value_and_gradient(loss, 5 * x)
    assert_close(value, published[f"{size}_focal_w"], 1e-6)
    assert_close(gradient, published[f"{size}_focal_w_grad"], 1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(MARGINS))
def test_maximum_margin(published, size, name):
    """Each row alone, where the published code's fault with the labels of other rows cannot show."""
    x, y, counts = of_size(published, size)
    rivals = np.where(np.eye(x.shape[1])[y] == 1, -np.inf, x).max(axis=1)
    assert rivals.min() > 0  # below 0 the published code clips the rival and differs from the paper
    loss = MaxMarginLoss(counts, **MARGINS[name], margin_space="cosine", reduction=None)
    value, gradient = value_and_gradient(lambda logits: loss(y, logits), x)
    assert_close(value, published[f"{size}_{name}"], 1e-6)
    assert_close(gradient, published[f"{size}_{name}_grad"], 1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(MARGINS))
def test_the_published_code_with_each_row_alone(published, size, name):
    x, y, counts = of_size(published, size)
    loss = PublishedCodeMaxMarginLoss(counts, **MARGINS[name], reduction=None)
    assert_close(
        np.concatenate([to_numpy(loss(y[i, None], x[i, None])) for i in range(len(x))]),
        published[f"{size}_{name}"],
        1e-6,
    )


def test_the_published_code_in_a_batch():
    """The first label's cosine for every row, 0 among the rivals, no margin on ties; no soft targets."""
    labels = np.array([2, 0, 1, 0, 2])
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3)).round(2)
    x[3] = [-0.2, -0.5, -0.3]  # no rival above 0
    x[4] = [0.4, 0.1, 0.4]  # a tie of the first label and the best rival
    with float64():
        loss = PublishedCodeMaxMarginLoss([50, 10, 5], 1.29, 1.528, scale=19, reduction=None, dtype="float64")
        found = to_numpy(loss(labels, x))
    expected = []
    for y, u in zip(labels, x, strict=True):
        gap = u[2] - max(0.0, *np.delete(u, y))
        delta = 0.0 if gap == 0 else np.exp(-abs(gap) - 1.29 * (1.528 if gap > 0 else 1.0))
        z = 19 * (u - delta * (np.arange(3) == y))
        expected.append(np.log(np.exp(z).sum()) - z[y])
    assert_close(found, np.array(expected), 1e-12)
    assert (
        abs(
            found - to_numpy(MaxMarginLoss([50, 10, 5], 1.29, 1.528, None, 19, "cosine", reduction=None)(labels, x))
        ).max()
        > 0.1
    )
    with pytest.raises(ValueError, match="not defined for soft targets"):
        loss([[0.5, 0.5, 0.0]], x[:1])


@pytest.mark.parametrize("size", SIZES)
def test_effective_number_weights(published, size):
    weights = imbalance.effective_number_weights(published[f"{size}_counts"], beta=0.9999)
    assert_close(weights, published[f"{size}_effnum_w"], 1e-11)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("published_name", "kind"), [("exp", "longtail"), ("step", "step")])
@pytest.mark.parametrize("ratio", [100, 10])
def test_class_counts(published, size, published_name, kind, ratio):
    expected = published[f"{size}_{published_name}{ratio}"]
    counts = imbalance.imbalanced_counts(expected[0], len(expected), kind, ratio)
    np.testing.assert_array_equal(counts, expected)


def test_cosine_head(published):
    """The published NormedLinear and the gradients of sum(out^2)."""
    x, w = published["nl_x"], published["nl_w"]
    head = CosineDense(w.shape[1])
    head.build(x.shape)
    head.kernel.assign(w)
    assert_close(head(x), published["nl_out"], 1e-6)

    def of_kernel(kernel):
        return ops.sum(ops.square(head.stateless_call([kernel], [], x)[0]))

    assert_close(
        value_and_gradient(lambda features: ops.sum(ops.square(head(features))), x)[1], published["nl_gx"], 1e-5
    )
    assert_close(value_and_gradient(of_kernel, w)[1], published["nl_gw"], 1e-5)


def network(dtype):
    """The published ResNet-32 before training, all of it in `dtype`."""
    model = resnet32(10)
    if dtype == "float64":
        model = model_in(dtype, model)
    carry_weights(model, official("official_resnet32"))
    return model


def batches(published, size=16):
    """The published ten batches, their first `size` images."""
    images = published["rn_x"].transpose(0, 1, 3, 4, 2).astype("float32")
    return [(x[:size], y[:size]) for x, y in zip(images, published["rn_y"], strict=True)]


def train(model, data, counts, dtype):
    """Losses of the published run's SGD steps, one on each batch."""
    model.compile(SGD(0.1, momentum=0.9, weight_decay=2e-4), LDAMLoss(counts, dtype=dtype), run_eagerly=True)
    losses = []
    for x, y in data:
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x, y)))
    return np.array(losses)


def test_resnet32_inference(published):
    images = batches(published)[0][0]
    assert_close(network("float32")(images, training=False), published["rn_eval0"], 1e-5)


def test_ten_steps_in_float32(published):
    """At this rate rounding grows about tenfold a step, whatever the framework: the tolerance follows it."""
    losses = train(network("float32"), batches(published), published["c10_counts"], "float32")
    error = np.abs(losses / published["rn_traj"] - 1)
    assert np.all(error < [1e-6, 1e-4, 2e-3, 5e-3, 1e-2, 5e-2, 5e-2, 5e-2, 5e-2, 2e-1]), error


def oracle_losses(oracle, data, counts):
    margins = oracles.ldam_margins(counts)
    return [oracle.step(x, y, margins, scale=30.0, rate=0.1, momentum=0.9, decay=2e-4) for x, y in data]


def test_the_oracle_in_float64(published):
    """What the next test compares with agrees with the published run until that one's rounding shows."""
    oracle = ResNet(official("official_resnet32"))
    losses = oracle_losses(oracle, batches(published)[:2], published["c10_counts"])
    np.testing.assert_allclose(losses, published["rn_traj"][:2], rtol=1e-5)


def test_ten_steps_in_float64(published):
    """Network, loss, gradients, optimizer and running statistics at once, against the oracle."""
    # Only on TensorFlow does Keras take a mean, here that of the pooling, in float64.
    steps, rel = (10, 1e-12) if BACKEND == "tensorflow" else (5, 1e-6)
    data, counts = batches(published, size=4)[:steps], published["c10_counts"]
    oracle = ResNet(official("official_resnet32"))
    expected = oracle_losses(oracle, data, counts)
    with float64():
        model = network("float64")
        losses = train(model, data, counts, "float64")
        logits = to_numpy(model(data[0][0], training=False))
    np.testing.assert_allclose(losses, expected, rtol=rel)
    assert_close(logits, oracle.forward(data[0][0].astype("float64"), training=False)[0], 100 * rel)
