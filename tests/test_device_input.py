"""Images drawn on the device, against the tf.data pipeline and NumPy."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, augmented_by_hand, to_numpy

from tf_mmloss import SGD, DeferredResampling, LDAMLoss, normalization, resnet
from tf_mmloss.device_input import DeviceImages, EpochModel, EpochRows, SeveralRuns, pixel_index, plain_rows
from tf_mmloss.sampling import draw_epoch, draw_rotations, draw_rows

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (53, 6, 6, 3), dtype=np.uint8), rng.integers(0, 4, 53)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize(("pad", "flip"), [(4, True), (1, False), (0, True)])
def test_images_are_those_of_the_rows(data, pad, flip, rotate):
    images, labels = data
    layer = DeviceImages(images, normalization(MEAN, STD), pad=pad)
    epochs = EpochRows(
        labels,
        num_classes=4,
        batch_size=16,
        seed=3,
        first_epoch=1,
        pad=pad,
        flip=flip,
        rotate_batch=16 if rotate else None,
    )
    assert epochs.steps_per_epoch == 4
    for epoch in (1, 2, 1):
        expected = draw_rows(labels, 3, epoch, pad=pad, flip=flip, rotate_batch=16 if rotate else None)
        for i in range(4):
            rows, y = epochs[4 * (epoch - 1) + i]
            np.testing.assert_array_equal(rows, expected[16 * i : 16 * i + 16])
            np.testing.assert_array_equal(y, rows[:, 4] if rotate else labels[rows[:, 0]])
            by_hand = (augmented_by_hand(images, rows, pad) - MEAN) / STD
            np.testing.assert_allclose(to_numpy(layer(rows)), by_hand, atol=1e-5)


def test_rows_are_what_sampling_draws():
    labels = np.repeat([0, 1], [45, 5])
    rows = draw_rows(labels, 3, 2, class_weights=np.array([1.0, 9.0]), pad=2, rotate_batch=8)
    drawn = draw_epoch(labels, 3, 2, class_weights=np.array([1.0, 9.0]), pad=2)
    np.testing.assert_array_equal(rows[:, :4], np.stack(drawn, axis=1))
    np.testing.assert_array_equal(rows[:, 4], draw_rotations(50, 8, 3, 2))
    assert not draw_rows(labels, 3, 2)[:, 4].any()


@pytest.mark.parametrize("n", [53, 50], ids=["whole", "rest-left-out"])
def test_same_batches_as_the_pipeline(data, n):
    pytest.importorskip("tensorflow")
    from tf_mmloss.pipeline import train_dataset

    images, labels = data[0][:n], data[1][:n]
    layer = DeviceImages(images, normalization(MEAN, STD))
    epochs = EpochRows(labels, num_classes=4, batch_size=16, seed=5)
    stream = iter(
        train_dataset(images, labels, num_classes=4, normalize=normalization(MEAN, STD), batch_size=16, seed=5)
    )
    for i, (x, theirs) in zip(range(8), stream, strict=False):
        rows, y = epochs[i]
        np.testing.assert_allclose(to_numpy(layer(rows)), x.numpy(), atol=1e-5)
        np.testing.assert_array_equal(y, theirs.numpy())


def test_plain_rows_show_images_as_they_are(data):
    images, _ = data
    layer = DeviceImages(images, normalization(MEAN, STD), pad=2)
    shown = to_numpy(layer(plain_rows(np.array([7, 0]), pad=2)))
    np.testing.assert_allclose(shown, (images[[7, 0]] / 255 - MEAN) / STD, atol=1e-5)


def test_a_model_on_rows_trains_and_saves_without_the_images(data, tmp_path):
    images, labels = data
    rows = keras.Input((5,), dtype="int32")
    x = DeviceImages(images, normalization(MEAN, STD))(rows)
    model = keras.Model(rows, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = to_numpy(model.layers[1].pixels).copy()
    model.fit(EpochRows(labels, num_classes=4, batch_size=16), steps_per_epoch=4, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(to_numpy(model.layers[1].pixels), before)
    model.save_weights(tmp_path / "m.weights.h5")
    assert (tmp_path / "m.weights.h5").stat().st_size < 40_000


@pytest.mark.skipif(BACKEND != "jax", reason="whole epochs need JAX")
@pytest.mark.parametrize("n", [53, 49], ids=["whole", "rest-left-out"])
def test_whole_epochs_have_the_steps_of_fit(data, n):
    images, labels = data[0][:n], data[1][:n]

    def trained(build, batch_size):
        keras.utils.set_random_seed(0)
        rows = keras.Input((5,), dtype="int32")
        x = keras.layers.Flatten()(DeviceImages(images, normalization(MEAN, STD))(rows))
        model = build(rows, keras.layers.Dense(4)(x))
        model.compile(SGD(0.01), LDAMLoss(np.bincount(labels)))
        epochs = EpochRows(labels, num_classes=4, batch_size=batch_size)
        model.fit(epochs, steps_per_epoch=epochs.steps_per_epoch, epochs=2, shuffle=False, verbose=0)
        return int(model.optimizer.iterations), to_numpy(model.layers[-1].kernel)

    steps, kernel = trained(keras.Model, 16)
    ours, whole = trained(lambda *parts: EpochModel(*parts, scan_batch_size=16), n)
    assert steps == ours == 2 * (n // 16 + (n == 53))
    np.testing.assert_allclose(whole, kernel, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(BACKEND != "jax", reason="several runs in one program need JAX")
def test_several_runs_at_once_are_the_runs_alone(data):
    images, labels = data
    counts = np.bincount(labels)
    rows = keras.Input((5,), dtype="int32")
    network = resnet(8, 4, input_shape=(6, 6, 3))
    outputs = network(DeviceImages(images, normalization(MEAN, STD))(rows))
    model = EpochModel(rows, outputs, scan_batch_size=16)
    model.compile(SGD(0.01), LDAMLoss(counts), metrics=["accuracy"])

    def epochs(seed):
        return EpochRows(labels, num_classes=4, batch_size=len(labels), seed=seed)

    runs = SeveralRuns(model)
    starts, alone = [], []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        network.set_weights(resnet(8, 4, input_shape=(6, 6, 3)).get_weights())
        starts.append([np.array(w) for w in network.get_weights()])
    fresh = [np.array(v) for v in model.optimizer.variables]

    def begin(seed):
        network.set_weights(starts[seed])
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)

    for seed in range(3):
        begin(seed)
        fit = model.fit(epochs(seed), steps_per_epoch=1, epochs=2, shuffle=False, verbose=0)
        alone.append((fit.history["loss"], [to_numpy(v) for v in network.variables]))
    states = []
    for seed in range(3):
        begin(seed)
        states.append(runs.state())
    state, losses = runs.stack(states), []
    feeds = [epochs(seed) for seed in range(3)]
    for epoch in range(2):
        batches = tuple(np.stack(part) for part in zip(*(feed[epoch] for feed in feeds), strict=True))
        logs, state = runs.train_epoch(state, batches)
        losses.append(to_numpy(logs["loss"]))
    for seed, (history, weights) in enumerate(alone):
        np.testing.assert_allclose([loss[seed] for loss in losses], history, rtol=1e-4)
        runs.assign(state, seed)
        for ours, expected in zip(network.variables, weights, strict=True):
            np.testing.assert_allclose(to_numpy(ours), expected, rtol=1e-3, atol=1e-4)


def test_pixels_are_counted_within_a_batch():
    """Among all 42,800 images of 224 x 224 there are more than int32 can count."""
    rows = plain_rows(np.array([0, 42_799]), pad=4)
    index, inside = (to_numpy(values) for values in pixel_index(keras.ops.convert_to_tensor(rows), 224, 224, 4))
    np.testing.assert_array_equal(index.reshape(-1), np.arange(2 * 224 * 224))
    assert index.dtype == np.int32
    assert inside.all()


def test_a_quarter_turn_of_images_that_are_not_square_is_nan(data):
    images, labels = data
    rows = draw_rows(labels, 0, 0, rotate_batch=16)
    shown = to_numpy(DeviceImages(images[:, :, :5], normalization(MEAN, STD))(rows))
    np.testing.assert_array_equal(np.isnan(shown).all(axis=(1, 2, 3)), rows[:, 4] % 2 == 1)
    assert np.isfinite(shown[rows[:, 4] % 2 == 0]).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("pad", -1), ("pad", 1.5), ("pad", 7), ("normalize", 1), ("normalize", None)],
)
def test_bad_arguments_of_device_images(data, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        DeviceImages(**{"images": data[0], "normalize": normalization(MEAN, STD), name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pad", -1),
        ("flip", "no"),
        ("rotate_batch", 0),
        ("seed", -1),
        ("first_epoch", 1.5),
        ("resampling", np.ones(4)),
        ("resampling", lambda epoch: np.zeros(4)),
        ("labels", []),
    ],
)
def test_bad_arguments_of_epoch_rows(data, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        EpochRows(**{"labels": data[1], "num_classes": 4, name: value})


def test_several_runs_need_an_epoch_model():
    with pytest.raises(ValueError, match="`model` must be a compiled `EpochModel`"):
        SeveralRuns(3)


@pytest.mark.parametrize("positions", [[[1]], [0.5], [-1], [2**31], "a", None])
def test_bad_positions(positions):
    with pytest.raises(ValueError, match="`positions` must"):
        plain_rows(positions, pad=4)


def test_bad_input_is_refused(data):
    images, labels = data
    with pytest.raises(ValueError, match="`images` must be a uint8 array"):
        DeviceImages(images / 255, normalization(MEAN, STD))
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 3\)"):
        EpochRows(labels, num_classes=3)
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        EpochRows(labels, num_classes=4, batch_size=0)
    with pytest.raises(ValueError, match="`resampling` must give one weight for each of 4 classes"):
        EpochRows(labels, num_classes=4, resampling=DeferredResampling(0, [3, 2, 1]))
