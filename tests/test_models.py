"""The CIFAR ResNets: sizes, padding, arguments. Their outputs are compared in test_parity."""

import itertools

import keras
import numpy as np
import pytest
from helpers import to_numpy

from tf_mmloss import CosineDense, StridedShortcut, normalization, resnet, resnet32
from tf_mmloss.models import add_head


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("classes", "head", "parameters"),
    [(10, "dense", 464_154), (10, "cosine", 464_144), (100, "dense", 470_004), (100, "cosine", 469_904)],
)
def test_golden_parameters(classes, head, parameters):
    model = resnet32(classes, head)
    assert trainable_parameters(model) == parameters
    assert model.name == "resnet32"
    assert model.output_shape == (None, classes)
    # Running mean and variance: 11 layers of 16, and 10 each of 32 and 64.
    assert model.count_params() - parameters == 2 * (11 * 16 + 10 * 32 + 10 * 64)


@pytest.mark.parametrize("depth", [8, 14, 20, 44])
def test_family(depth):
    model = resnet(depth, 7, input_shape=(16, 16, 3))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) + 1 == depth
    n = (depth - 2) // 6
    by_hand = 9 * (3 * 16 + 2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
    by_hand += 2 * ((2 * n + 1) * 16 + 2 * n * 32 + 2 * n * 64) + 64 * 7
    assert trainable_parameters(model) == by_hand
    assert sum(isinstance(layer, StridedShortcut) for layer in model.layers) == 2


def test_default_head_is_cosine():
    assert isinstance(resnet(8, 3, input_shape=(8, 8, 1)).layers[-1], CosineDense)


@pytest.mark.parametrize("head", ["cosine", "dense"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 7, 2)])
def test_other_input_shapes(head, shape):
    model = resnet(8, 3, head, input_shape=shape)
    outputs = to_numpy(model(np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")))
    assert outputs.shape == (2, 3)
    assert np.isfinite(outputs).all()
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    if head == "cosine":
        assert np.abs(outputs).max() <= 1


def test_strided_convolutions_pad_one_pixel_on_every_side():
    """An image that is lit in its first pixel only reaches, through a kernel of ones, what padding (1, 1) lets it."""
    model = resnet(8, 3, input_shape=(4, 4, 1))
    padding, strided = model.get_layer("stage2_block1_1_pad"), model.get_layer("stage2_block1_1_conv")
    strided.kernel.assign(np.ones(strided.kernel.shape))
    for pixel, reached in {(0, 0): [[1, 0], [0, 0]], (3, 3): [[0, 0], [0, 1]], (1, 1): [[1, 1], [1, 1]]}.items():
        image = np.zeros((1, 4, 4, 16), "float32")
        image[0, *pixel, 0] = 1
        np.testing.assert_array_equal(to_numpy(strided(padding(image)))[0, :, :, 0], reached)


def test_kernels_start_from_an_untruncated_normal():
    """Standard deviation sqrt(2 / fan_in); a truncated one has no value beyond two of its own."""
    kernel = to_numpy(resnet(8, 3, input_shape=(8, 8, 1)).get_layer("stage3_block1_2_conv").kernel)
    deviations = kernel / np.sqrt(2 / (9 * 64))
    assert deviations.std() == pytest.approx(1, rel=0.02)
    assert abs(deviations.mean()) < 0.02
    assert np.abs(deviations).max() > 3


@pytest.mark.parametrize("head", ["cosine", "dense"])
def test_the_head_stays_in_float32(head):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = resnet(8, 3, head, input_shape=(8, 8, 1))
    outputs = model(np.ones((2, 8, 8, 1), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_seeds_choose_the_start():
    starts = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        starts.append(to_numpy(resnet(8, 3, input_shape=(8, 8, 1)).get_layer("stem_conv").kernel))
    np.testing.assert_array_equal(starts[0], starts[1])
    assert np.any(starts[0] != starts[2])


def test_normalization():
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("uint8")
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    found = to_numpy(normalization(mean, std)(pixels))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("head", {"head": "cosin"}),
        ("num_classes", {"num_classes": 1}),
        ("features", {"features": np.zeros((2, 4))}),
        ("features", {"features": keras.Input((4, 4, 3))}),
    ],
)
def test_bad_heads_are_refused(argument, arguments):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        add_head(**{"features": keras.Input((4,)), "num_classes": 3, **arguments})


@pytest.mark.parametrize(
    ("argument", "mean", "std"),
    [
        ("std", (0.5, 0.5), (0.2,)),
        ("mean", (), ()),
        ("mean", 4, 1),
        ("mean", "abc", (1, 1, 1)),
        ("mean", ([1, 2], 3), (1, 1)),
        ("mean", (np.nan,), (1,)),
        ("mean", (1e30,), (1,)),
        ("mean", itertools.count(), (1,)),
        ("std", (0.5,), (0,)),
        ("std", (0.5,), (1e-300,)),
        ("std", (0.5,), ("1",)),
        ("std", (0.5,), None),
    ],
)
def test_bad_normalizations_are_refused(argument, mean, std):
    with pytest.raises(ValueError, match=f"`{argument}`.* Received: "):
        normalization(mean, std)


def test_channels_are_last_whatever_the_default_of_keras():
    default = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        assert resnet(8, 10)(np.zeros((1, 32, 32, 3), "float32")).shape == (1, 10)
    finally:
        keras.config.set_image_data_format(default)


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("depth", {"depth": 33}),
        ("depth", {"depth": 2}),
        ("depth", {"depth": 32.0}),
        ("num_classes", {"num_classes": 1}),
        ("num_classes", {"num_classes": "10"}),
        ("head", {"head": "cosin"}),
        ("depth", {"depth": 6_000_002}),
        ("depth", {"depth": 1208}),
        ("num_classes", {"num_classes": 10**8}),
        ("input_shape", {"input_shape": (32, 32)}),
        ("input_shape", {"input_shape": (32, 32, 10**9)}),
        ("input_shape", {"input_shape": 32}),
        ("input_shape", {"input_shape": itertools.count(1)}),
        ("input_shape", {"input_shape": (None, None, 3)}),
        ("input_shape", {"input_shape": (32, 0, 3)}),
        ("input_shape", {"input_shape": (32, 32, 3.0)}),
    ],
)
def test_bad_arguments_are_refused(argument, arguments):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        resnet(**{"depth": 8, "num_classes": 10, **arguments})
