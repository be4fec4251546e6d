"""The tf.data input against NumPy, and what it refuses."""

import keras
import numpy as np
import pytest
from helpers import augmented_by_hand

from tf_mmloss import DeferredResampling, normalization
from tf_mmloss.pipeline import eval_dataset, images_per_epoch, steps_per_epoch, train_dataset
from tf_mmloss.sampling import draw_rows

pytest.importorskip("tensorflow", reason="tf.data is TensorFlow's")

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (53, 6, 5, 3), dtype=np.uint8), rng.integers(0, 4, 53)


def batches(dataset, count):
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


@pytest.mark.parametrize(("pad", "flip"), [(4, True), (1, False), (0, True)])
def test_an_epoch_is_what_sampling_draws(data, pad, flip):
    images, labels = data
    dataset = train_dataset(
        images, labels, num_classes=4, normalize=normalization(MEAN, STD), batch_size=16, seed=3, pad=pad, flip=flip
    )
    got = batches(dataset, 2 * steps_per_epoch(53, 16))
    assert [len(y) for _, y in got] == [16, 16, 16, 5] * 2
    for epoch in (0, 1):
        rows = draw_rows(labels, 3, epoch, pad=pad, flip=flip)
        expected = (augmented_by_hand(images, rows, pad) - MEAN) / STD
        part = got[4 * epoch : 4 * epoch + 4]
        np.testing.assert_array_equal(np.concatenate([y for _, y in part]), labels[rows[:, 0]])
        np.testing.assert_allclose(np.concatenate([x for x, _ in part]), expected, atol=1e-5)


@pytest.mark.parametrize(("n", "lengths"), [(50, [16, 16, 16]), (51, [16, 16, 16, 3]), (3, [3])])
def test_a_last_batch_of_few_images_is_left_out(data, n, lengths):
    images, labels = data[0][:n], data[1][:n]
    dataset = train_dataset(images, labels, num_classes=4, normalize=normalization(MEAN, STD), batch_size=16, seed=3)
    got = batches(dataset, 2 * len(lengths))
    assert [len(y) for _, y in got] == 2 * lengths
    for epoch in (0, 1):
        rows = draw_rows(labels, 3, epoch)[: sum(lengths)]
        shown = np.concatenate([y for _, y in got[epoch * len(lengths) :][: len(lengths)]])
        np.testing.assert_array_equal(shown, labels[rows[:, 0]])


def test_a_batch_of_large_images_is_cropped_some_at_a_time():
    images = np.random.default_rng(0).integers(0, 256, (50, 96, 80, 3), dtype=np.uint8)
    labels = np.zeros(50, int)
    dataset = train_dataset(images, labels, num_classes=2, normalize=normalization(MEAN, STD), batch_size=50, pad=4)
    ((x, _),) = batches(dataset, 1)
    expected = (augmented_by_hand(images, draw_rows(labels, 0, 0, pad=4), 4) - MEAN) / STD
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_any_function_may_normalise(data):
    images, labels = data
    for build in (train_dataset, eval_dataset):
        (got,) = batches(build(images, labels, num_classes=4, normalize=lambda x: x, batch_size=50), 1)
        (scaled,) = batches(
            build(images, labels, num_classes=4, normalize=keras.layers.Rescaling(0.5, 1), batch_size=50), 1
        )
        assert got[0].dtype == np.uint8
        np.testing.assert_array_equal(scaled[0], got[0] * 0.5 + 1)


@pytest.mark.parametrize(("scale", "offset"), [((0.5, 0.25, 2.0), 1), ((0.5,), (1, 2, 3)), ((0.5,), (1,))])
def test_any_rescaling_may_normalise(data, scale, offset):
    images, labels = data
    for build in (train_dataset, eval_dataset):
        plain, scaled = (
            batches(build(images, labels, num_classes=4, normalize=normalize, batch_size=53), 1)[0][0]
            for normalize in (lambda x: x, keras.layers.Rescaling(scale, offset))
        )
        np.testing.assert_array_equal(scaled, plain * np.float32(scale) + np.float32(offset))


def test_what_is_made_of_a_rescaling_is_called(data):
    class Inverted(keras.layers.Rescaling):
        def call(self, inputs):
            return 1 - super().call(inputs)

    inverted = Inverted([1 / 255] * 3, [0.0] * 3)
    (got,) = batches(eval_dataset(*data, num_classes=4, normalize=inverted, batch_size=53), 1)
    np.testing.assert_allclose(got[0], 1 - data[0] / 255, atol=1e-6)


def test_rotated_batch_by_hand(data):
    images, labels = data
    images = images[:, :5]
    dataset = train_dataset(
        images, labels, num_classes=4, normalize=normalization(MEAN, STD), batch_size=16, seed=3, pad=1, rotate=True
    )
    got = batches(dataset, 8)
    for epoch in (0, 1):
        rows = draw_rows(labels, 3, epoch, pad=1, rotate_batch=16)
        rotated = (augmented_by_hand(images, rows, 1) - MEAN) / STD
        part = got[4 * epoch : 4 * epoch + 4]
        np.testing.assert_array_equal(np.concatenate([y for _, y in part]), rows[:, 4])
        np.testing.assert_allclose(np.concatenate([x for x, _ in part]), rotated, atol=1e-5)
        # By a quarter turn to the left the last column becomes the first row.
        upright = (augmented_by_hand(images, rows * [1, 1, 1, 1, 0], 1) - MEAN) / STD
        once = list(rows[:, 4]).index(1)
        np.testing.assert_allclose(np.concatenate([x for x, _ in part])[once][0], upright[once][:, -1], atol=1e-5)
    with pytest.raises(ValueError, match="`images` must be square to be rotated"):
        train_dataset(*data, num_classes=4, normalize=normalization(MEAN, STD), rotate=True)


def test_resumed_at_an_epoch_it_shows_the_same(data):
    def start(first):
        return train_dataset(
            *data, num_classes=4, normalize=normalization(MEAN, STD), batch_size=16, seed=1, first_epoch=first
        )

    whole, resumed = batches(start(0), 12)[8:], batches(start(2), 4)
    for (x, y), (u, v) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_resampling_starts_at_its_epoch_and_balances(data):
    images, _ = data
    labels = np.repeat([0, 1], [45, 5])
    resampling = DeferredResampling(1, [45, 5], "inverse")
    dataset = train_dataset(
        images[:50], labels, num_classes=2, normalize=normalization(MEAN, STD), batch_size=50, resampling=resampling
    )
    counts = [int(y.sum()) for _, y in batches(dataset, 41)]
    assert counts[0] == 5
    assert np.mean(counts[1:]) == pytest.approx(25, abs=4 * (0.25 * 50 / 40) ** 0.5)


def test_evaluation_shows_every_image_once_in_order(data):
    images, labels = data
    got = batches(eval_dataset(images, labels, num_classes=4, normalize=normalization(MEAN, STD), batch_size=20), 9)
    assert [len(y) for _, y in got] == [20, 20, 13]
    np.testing.assert_array_equal(np.concatenate([y for _, y in got]), labels)
    np.testing.assert_allclose(np.concatenate([x for x, _ in got]), (images / 255 - MEAN) / STD, atol=1e-5)


@pytest.mark.parametrize("build", [train_dataset, eval_dataset])
def test_bad_input_is_refused(build, data):
    images, labels = data
    normalize = normalization(MEAN, STD)
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 3\)"):
        build(images, labels, num_classes=3, normalize=normalize)
    with pytest.raises(ValueError, match="`images` must be a uint8 array"):
        build(images / 255, labels, num_classes=4, normalize=normalize)
    with pytest.raises(ValueError, match="`images` and `labels`"):
        build(images, labels[:-1], num_classes=4, normalize=normalize)
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        build(images, labels, num_classes=4, normalize=normalize, batch_size=0)


def test_resampling_with_another_number_of_classes_is_refused(data):
    resampling = DeferredResampling(0, [40, 30, 20, 10, 5])
    with pytest.raises(ValueError, match="`resampling` must give one weight for each of 4 classes"):
        train_dataset(*data, num_classes=4, normalize=normalization(MEAN, STD), resampling=resampling)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pad", -1),
        ("pad", 7),
        ("pad", "4"),
        ("seed", 0.5),
        ("first_epoch", 2**63),
        ("flip", "no"),
        ("rotate", 1),
        ("normalize", 1),
        ("normalize", None),
        ("resampling", [1, 1, 1, 1]),
        ("batch_size", 0),
    ],
)
def test_bad_arguments_are_refused(data, name, value):
    arguments = {"num_classes": 4, "normalize": normalization(MEAN, STD), name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        train_dataset(*data, **arguments)
    if name in ("normalize", "batch_size"):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            eval_dataset(*data, **arguments)


def test_steps_per_epoch():
    assert [steps_per_epoch(n, 128) for n in (0, 1, 128, 144, 145, 272, 273)] == [0, 1, 1, 1, 2, 2, 3]
    assert [steps_per_epoch(n, 4) for n in (4, 5)] == [1, 2]
    assert [images_per_epoch(n, 128) for n in (0, 1, 128, 144, 145, 272, 273)] == [0, 1, 128, 128, 145, 256, 273]
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        steps_per_epoch(1, 0)
    with pytest.raises(ValueError, match="`num_examples` must be an integer >= 0"):
        steps_per_epoch(1.5, 1)
