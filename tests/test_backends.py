"""What must not depend on the backend: the order of the images, and what training makes of them."""

import numpy as np
import oracles
from helpers import carry_weights
from oracle_resnet import ResNet

from tf_mmloss import SGD, LDAMLoss, resnet
from tf_mmloss.sampling import draw_epoch

COUNTS = [24, 12, 4]
BATCH = 10
RATE, MOMENTUM, DECAY, SCALE = 0.01, 0.9, 2e-4, 30.0


def state():
    """A ResNet-8's weights and statistics by their PyTorch names, from NumPy's generator."""
    rng = np.random.default_rng(7)
    arrays = {}

    def unit(prefix, index, channels, filters):
        arrays[f"{prefix}conv{index}.weight"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, (filters, channels, 3, 3))
        for name in ("weight", "running_var"):
            arrays[f"{prefix}bn{index}.{name}"] = rng.uniform(0.5, 1.5, filters)
        for name in ("bias", "running_mean"):
            arrays[f"{prefix}bn{index}.{name}"] = rng.normal(0, 0.1, filters)

    unit("", 1, 3, 16)
    for stage, (channels, filters) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
        unit(f"layer{stage}.0.", 1, channels, filters)
        unit(f"layer{stage}.0.", 2, filters, filters)
    arrays["linear.weight"] = rng.normal(size=(64, len(COUNTS)))
    return {name: array.astype("float32") for name, array in arrays.items()}


def batches():
    """Two epochs of mirrored images, as `draw_epoch` orders them."""
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    images = np.random.default_rng(5).normal(size=(len(labels), 8, 8, 3)).astype("float32")
    for epoch in range(2):
        drawn = draw_epoch(labels, 3, epoch, pad=0)
        shown = np.where(drawn.flip[:, None, None, None], images[drawn.position, :, ::-1], images[drawn.position])
        for start in range(0, len(labels), BATCH):
            rows = slice(start, start + BATCH)
            yield shown[rows], labels[drawn.position[rows]]


def test_the_order_of_the_images():
    """Of one seed it is this one in every process, whatever is installed there."""
    labels = np.repeat([0, 1], [6, 2])
    drawn = [draw_epoch(labels, 3, epoch).position.tolist() for epoch in range(2)]
    assert drawn == [[6, 7, 2, 1, 4, 5, 3, 0], [2, 1, 4, 0, 5, 7, 6, 3]]


def test_the_first_losses():
    """Every backend's float32 stays with the float64 oracle over two epochs, and so with the other backends."""
    data, margins, oracle = list(batches()), oracles.ldam_margins(COUNTS), ResNet(state())
    arguments = {"scale": SCALE, "rate": RATE, "momentum": MOMENTUM, "decay": DECAY}
    expected = [oracle.step(x.astype("float64"), y, margins, **arguments) for x, y in data]
    model = resnet(8, len(COUNTS), input_shape=(8, 8, 3))
    carry_weights(model, state())
    model.compile(SGD(RATE, MOMENTUM, DECAY), LDAMLoss(COUNTS, scale=SCALE))
    losses = []
    for x, y in data:
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x, y)))
    assert len(losses) == 8
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
