"""The layers, against NumPy."""

import keras
import numpy as np
import oracles
import pytest
from helpers import BACKEND, assert_close, float64, jitted, needs_jit, to_numpy, value_and_gradient
from keras import ops

from tf_mmloss import BatchNormalization, ClassScale, CosineDense, StridedShortcut, resnet


def random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def built(layer, shape):
    layer.build(shape)
    return layer


def round_trip(layer, inputs, path):
    """A model of the layer alone, saved and loaded."""
    images = keras.Input(inputs.shape[1:])
    model = keras.Model(images, layer(images))
    for i, variable in enumerate(model.variables):
        variable.assign(np.abs(random(*variable.shape, seed=i)))
    model.save(path)
    return model, keras.models.load_model(path)


LAYERS = {
    "cosine": (lambda: CosineDense(3), (4, 5)),
    "cosine of pixels": (lambda: CosineDense(3), (2, 3, 4, 5)),
    "class scale": (lambda: ClassScale(), (4, 5)),
    "shortcut": (lambda: StridedShortcut(7, 2), (2, 5, 4, 3)),
    "batch norm": (lambda: BatchNormalization(momentum=0.7, epsilon=1e-4), (2, 5, 4, 3)),
}
each_layer = pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS)


@each_layer
def test_save_and_load(tmp_path, build, shape):
    model, loaded = round_trip(build(), random(*shape), tmp_path / "layer.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    x = random(*shape, seed=1)
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@needs_jit
@each_layer
def test_jit_equals_eager(build, shape):
    layer, x = built(build(), shape), ops.convert_to_tensor(random(*shape))

    def both(x):
        return value_and_gradient(lambda x: layer(x, training=False) if "norm" in layer.name else layer(x), x)

    for fast, eager in zip(jitted(both)(x), both(x), strict=True):
        assert_close(fast, to_numpy(eager), 1e-5)


@each_layer
def test_output_shape(build, shape):
    layer, x = built(build(), shape), random(*shape)
    assert tuple(layer.compute_output_shape(shape)) == tuple(layer(x).shape)
    batch_free = (None, *shape[1:])
    assert tuple(layer.compute_output_shape(batch_free)) == (None, *layer(x).shape[1:])


def test_cosines():
    x, layer = random(6, 5), built(CosineDense(4), (6, 5))
    w = to_numpy(layer.kernel).astype("float64")
    expected = [[np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for b in w.T] for a in x.astype("float64")]
    assert_close(layer(x), expected, 1e-6)
    assert_close(layer(x.reshape(3, 2, 5)), np.reshape(expected, (3, 2, 4)), 1e-6)
    layer.kernel.assign(3 * to_numpy(layer.kernel))
    assert_close(layer(7 * x), expected, 1e-6)
    assert [v.name for v in layer.weights] == ["kernel"]


def test_cosines_stay_in_their_range():
    """Also where rounding would leave it: features along the class vectors, of any length."""
    layer = built(CosineDense(50), (None, 9))
    kernel = to_numpy(layer.kernel).T
    x = np.concatenate([size * sign * kernel for size in (1e-3, 0.3, 1.0, 1e4) for sign in (1, -1)])
    cosines = to_numpy(layer(x))
    assert np.abs(cosines).max() <= 1
    assert np.abs(cosines).max() > 1 - 1e-6


def test_class_vectors_start_with_unit_norm():
    kernel = to_numpy(built(CosineDense(20), (None, 30)).kernel)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)
    assert np.abs(kernel.mean()) < 0.03
    assert len(np.unique(kernel)) == kernel.size


@pytest.mark.skipif(BACKEND != "jax", reason="JAX tells what memory a program takes")
def test_no_normalised_copy_of_the_kernel():
    import jax

    layer = built(CosineDense(2000), (4, 512))

    def loss(kernel, features):
        return ops.sum(ops.square(layer.stateless_call([kernel], [], features)[0]))

    compiled = jax.jit(jax.value_and_grad(loss)).lower(layer.kernel.value, random(4, 512)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < layer.kernel.value.nbytes / 2


def test_zero_features():
    """Cosines of 0 and finite gradients for the feature and the class vectors; other rows as without it."""
    x, layer = random(3, 5), built(CosineDense(4), (3, 5))
    x[1] = 0
    cosines, gradient = (to_numpy(a) for a in value_and_gradient(layer, x))
    np.testing.assert_array_equal(cosines[1], 0)
    assert np.isfinite(gradient).all()
    of_kernel = value_and_gradient(lambda kernel: layer.stateless_call([kernel], [], x)[0], to_numpy(layer.kernel))[1]
    assert np.isfinite(to_numpy(of_kernel)).all()
    assert_close(cosines[[0, 2]], to_numpy(layer(x[[0, 2]])), 1e-6)
    layer.kernel.assign(np.zeros((5, 4)))
    assert np.isfinite(to_numpy(value_and_gradient(layer, x)[1])).all()


def test_cosines_do_not_depend_on_length():
    """By hand: (3, 4) with the axes and the diagonal, of every length that the type holds; for features and classes."""
    layer = built(CosineDense(3), (None, 2))
    vectors, expected = np.array([[1, 0, 1], [0, 1, 1]], "float32"), [[0.6, 0.8, 1.4 / 2**0.5]]
    for size in (1e-30, 1e-19, 1e-8, 1.0, 1e8, 1e19, 1e30):
        layer.kernel.assign(vectors)
        feature = np.array([[3, 4]], "float32") * np.float32(size)
        assert_close(layer(feature), expected, 1e-6)
        gradient = to_numpy(value_and_gradient(lambda x: layer(x)[:, 0], feature)[1]).astype("float64")
        assert_close(gradient * size, [[0.128, -0.096]], 1e-5)  # (w - cos x / |x|) / |x|
        layer.kernel.assign(vectors * np.float32(size) * np.array([1, -1, 1], "float32"))
        assert_close(layer(np.array([[3, 4]], "float32")), expected * np.array([1, -1, 1]), 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_lengths_and_zeros_in_half_precision(dtype):
    """The gradient at a zero feature, of a loss scaled as for float16, too."""
    layer, half = built(CosineDense(3, dtype=dtype), (None, 2)), dtype.removeprefix("mixed_")
    layer.kernel.assign(np.array([[1, 0, 1], [0, 1, 1]], "float32"))
    for size in (2.0**-12, 1.0, 2.0**12):
        cosines = layer(ops.cast(np.array([[3, 4]], "float32") * size, half))
        assert_close(ops.cast(cosines, "float32"), [[0.6, 0.8, 1.4 / 2**0.5]], 1e-2)
    zero = ops.cast(np.zeros((1, 2), "float32"), half)
    value, gradient = value_and_gradient(lambda x: 2.0**13 * layer(x), zero)
    np.testing.assert_array_equal(to_numpy(ops.cast(value, "float32")), 0)
    assert np.isfinite(to_numpy(ops.cast(gradient, "float32"))).all()


def test_gradient_of_cosines():
    x, w = random(3, 5, dtype="float64"), random(5, 4, seed=1, dtype="float64")

    def oracle(x, w):
        return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=0))

    with float64():
        layer = built(CosineDense(4), (3, 5))
        layer.kernel.assign(w)
        of_x = value_and_gradient(layer, x)[1]
        of_w = value_and_gradient(lambda kernel: layer.stateless_call([kernel], [], x)[0], w)[1]
        assert_close(of_x, oracles.gradient(lambda x: oracle(x, w), x), 1e-8)
        assert_close(of_w, oracles.gradient(lambda w: oracle(x, w), w), 1e-8)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_cosines_in_half_precision(policy):
    x = random(6, 50)
    layer = built(CosineDense(4), x.shape)
    half = built(CosineDense(4, dtype=policy), x.shape)
    half.kernel.assign(to_numpy(layer.kernel))
    assert keras.backend.standardize_dtype(half(x).dtype) == policy.removeprefix("mixed_")
    expected = to_numpy(layer(x))
    for size in (1e-3, 1.0, 100.0):  # squares below and above what float16 holds
        assert_close(ops.cast(half(size * x), "float32"), expected, 2e-2)
    assert_close(ops.cast(half(np.concatenate([x[:1], 0 * x[:1]])), "float32")[1:] + 1, np.ones((1, 4)), 1e-6)


def batch_norm_oracle(x, gamma, beta, mean=None, variance=None, epsilon=1e-5):
    """Output, batch mean and unbiased batch variance, channel by channel."""
    x = x.astype("float64")
    out, means, variances = np.empty_like(x), [], []
    for c in range(x.shape[-1]):
        values = x[..., c]
        m = values.mean() if mean is None else mean[c]
        v = np.square(values - values.mean()).sum() / values.size if variance is None else variance[c]
        out[..., c] = gamma[c] * (values - m) / np.sqrt(v + epsilon) + beta[c]
        means.append(values.mean())
        variances.append(np.square(values - values.mean()).sum() / (values.size - 1))
    return out, np.array(means), np.array(variances)


def batch_norm(x, dtype="float32", **arguments):
    """A layer with parameters and statistics that are not the initial ones, and those as arrays."""
    layer = built(BatchNormalization(dtype=dtype, **arguments), x.shape)
    arrays = [1 + np.abs(random(x.shape[-1], seed=i, dtype="float64")) for i in range(4)]
    for variable, array in zip(
        (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance), arrays, strict=True
    ):
        variable.assign(array)
    return layer, arrays


def images(dtype="float32"):
    return (3 + 2 * random(5, 4, 3, 6, seed=9)).astype(dtype)


SHAPES = {"images": lambda: images(), "features": lambda: 3 + random(9, 6), "one image": lambda: random(1, 2, 2, 3)}


@pytest.mark.parametrize("x", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("momentum", [0.9, 0.0, 0.75])
def test_batch_norm_in_training(x, momentum):
    x = x()
    layer, (gamma, beta, mean, variance) = batch_norm(x, momentum=momentum)
    expected, batch_mean, batch_variance = batch_norm_oracle(x, gamma, beta)
    assert_close(layer(x, training=True), expected, 1e-5)
    assert_close(layer.moving_mean, momentum * mean + (1 - momentum) * batch_mean, 1e-6)
    assert_close(layer.moving_variance, momentum * variance + (1 - momentum) * batch_variance, 1e-5)


@pytest.mark.parametrize("x", SHAPES.values(), ids=SHAPES)
def test_batch_norm_in_inference(x):
    x = x()
    layer, (gamma, beta, mean, variance) = batch_norm(x)
    assert_close(layer(x), batch_norm_oracle(x, gamma, beta, mean, variance)[0], 1e-5)
    assert_close(layer(x, training=False), batch_norm_oracle(x, gamma, beta, mean, variance)[0], 1e-5)
    assert_close(layer.moving_mean, mean, 1e-6)
    assert_close(layer.moving_variance, variance, 1e-6)


def test_a_frozen_batch_norm_infers():
    x = images()
    layer, (gamma, beta, mean, variance) = batch_norm(x)
    layer.trainable = False
    assert_close(layer(x, training=True), batch_norm_oracle(x, gamma, beta, mean, variance)[0], 1e-5)
    assert_close(layer.moving_mean, mean, 1e-6)
    assert_close(layer.moving_variance, variance, 1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_in_float64(training):
    """With the gradients of the input and of both parameters."""
    with float64():
        x = images("float64")[:2, :2]
        layer, (gamma, beta, mean, variance) = batch_norm(x, dtype="float64")
        statistics = () if training else (mean, variance)
        weights = random(*x.shape, seed=4, dtype="float64")  # the gradient of the plain sum is 0
        images_tensor, weights_tensor = ops.convert_to_tensor(x), ops.convert_to_tensor(weights)

        def oracle(x, gamma, beta):
            return weights * batch_norm_oracle(x, gamma, beta, *statistics)[0]

        def of(gamma, beta, x):
            fixed = [layer.moving_mean, layer.moving_variance]
            outputs = layer.stateless_call([gamma, beta], [v.value for v in fixed], x, training=training)[0]
            return weights_tensor * outputs

        assert_close(layer(x, training=training), batch_norm_oracle(x, gamma, beta, *statistics)[0], 1e-12)
        gradient = value_and_gradient(lambda x: of(gamma, beta, x), x)[1]
        assert_close(gradient, oracles.gradient(lambda x: oracle(x, gamma, beta), x), 1e-7)
        gradient = value_and_gradient(lambda g: of(g, beta, images_tensor), gamma)[1]
        assert_close(gradient, oracles.gradient(lambda g: oracle(x, g, beta), gamma), 1e-7)
        gradient = value_and_gradient(lambda b: of(gamma, b, images_tensor), beta)[1]
        assert_close(gradient, oracles.gradient(lambda b: oracle(x, gamma, b), beta), 1e-7)


@pytest.mark.parametrize("shape", [(1, 6), (1, 1, 1, 6)], ids=["features", "images"])
def test_batch_norm_of_one_value(shape):
    """Its variance is 0, the unbiased one too."""
    x = 3 + random(*shape)
    layer, (_, beta, mean, variance) = batch_norm(x)
    assert_close(layer(x, training=True), np.broadcast_to(beta, shape), 1e-4)
    assert_close(layer.moving_mean, 0.9 * mean + 0.1 * x.reshape(6), 1e-6)
    assert_close(layer.moving_variance, 0.9 * variance, 1e-6)


@pytest.mark.skipif(BACKEND == "jax", reason="XLA fuses on JAX")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [{}, {"scale": False}, {"center": False}], ids=str)
def test_fused_equals_plain(monkeypatch, training, affine):
    x, weights = images(), ops.convert_to_tensor(random(5, 4, 3, 6, seed=4))
    found = []
    for fused in (True, False):
        layer = built(BatchNormalization(**affine), x.shape)
        for i, variable in enumerate(layer.variables):
            variable.assign(1 + np.abs(random(6, seed=i)))
        assert layer._kernel(ops.convert_to_tensor(x), training) != layer._plain
        if not fused:
            monkeypatch.setattr(layer, "_kernel", lambda inputs, training, layer=layer: layer._plain)
        value, gradient = value_and_gradient(lambda x, layer=layer: weights * layer(x, training=training), x)
        found.append([to_numpy(a) for a in (value, gradient, layer.moving_mean, layer.moving_variance)])
    for fused, plain in zip(*found, strict=True):
        assert_close(fused, plain, 1e-5)


@pytest.mark.parametrize("shape", [(8, 6, 6, 4), (64, 4)], ids=["images", "features"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_batch_norm_in_half_precision(shape, policy):
    """Statistics in float32, far from what summing halves would give."""
    x = (30 + random(*shape)).astype("float32")
    x = to_numpy(ops.cast(ops.cast(x, policy.removeprefix("mixed_")), "float32"))
    half, full = (built(BatchNormalization(momentum=0.0, dtype=p), shape) for p in (policy, "float32"))
    outputs = half(x, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")
    assert_close(ops.cast(outputs, "float32"), to_numpy(full(x, training=True)), 1e-2)
    assert keras.backend.standardize_dtype(half.moving_variance.dtype) == "float32"
    assert_close(half.moving_mean, to_numpy(full.moving_mean), 1e-5)
    assert_close(half.moving_variance, to_numpy(full.moving_variance), 1e-4)


@needs_jit
@pytest.mark.parametrize("jit_compile", [True, False])
def test_batch_norm_in_a_fit(jit_compile):
    """One compiled step gives the statistics and the step that the oracle's output implies."""
    x = images()
    inputs = keras.Input(x.shape[1:])
    layer = BatchNormalization()
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    target = np.zeros_like(x)
    normal, batch_mean, batch_variance = batch_norm_oracle(x, np.ones(6), np.zeros(6))
    loss = model.train_on_batch(x, target)
    assert float(loss) == pytest.approx(np.square(normal).mean(), rel=1e-5)
    assert_close(layer.moving_mean, 0.1 * batch_mean, 1e-5)
    assert_close(layer.moving_variance, 0.9 + 0.1 * batch_variance, 1e-5)
    step = 0.1 * 2 * np.square(normal).sum(axis=(0, 1, 2)) / normal.size
    assert_close(layer.gamma, 1 - step, 1e-5)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (0, 3)])
def test_no_rows(shape):
    """As Keras' own layers: an answer of no rows."""
    for layer in (BatchNormalization(), CosineDense(4) if len(shape) == 2 else StridedShortcut(6)):
        expected = (0, *built(layer, shape).compute_output_shape(shape)[1:])
        assert tuple(layer(np.zeros(shape, "float32")).shape) == tuple(expected)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's convolution of no images has a wrong shape")
@pytest.mark.parametrize(("channels", "jit"), [(1, False), (3, False), (3, True)])
def test_no_images_after_a_convolution(channels, jit):
    """Keras' predict refuses an empty array; one batch of none, as of a data set, it takes."""
    model = resnet(8, 3, input_shape=(8, 8, channels))
    model.compile(jit_compile=jit)
    assert model.predict_on_batch(np.zeros((0, 8, 8, channels), "float32")).shape == (0, 3)
    x = random(2, 8, 8, channels)
    np.testing.assert_allclose(model.predict_on_batch(x), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
    assert model.predict_on_batch(x[:0]).shape == (0, 3)  # the number of images is no longer part of the program


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 0, 4, 3), (0, 3)])
def test_batch_norm_keeps_its_statistics_where_there_are_no_values(shape):
    layer = built(BatchNormalization(), shape)
    layer.moving_mean.assign([1.0, 2.0, 3.0])
    layer.moving_variance.assign([4.0, 5.0, 6.0])
    layer(np.zeros(shape, "float32"), training=True)
    assert_close(layer.moving_mean, [1, 2, 3], 1e-6)
    assert_close(layer.moving_variance, [4, 5, 6], 1e-6)


@pytest.mark.parametrize(("arguments", "mask"), [({"axis": 1}, None), ({}, np.ones((5, 4, 3), bool))])
def test_batch_norm_refuses_other_axes_and_masks(arguments, mask):
    layer = built(BatchNormalization(**arguments), images().shape)
    with pytest.raises(ValueError, match="last axis"):
        layer.call(images(), mask=mask)


def test_batch_norm_refuses_renormalisation():
    """Keras has it, and it would be left out."""
    with pytest.raises(ValueError, match="`renorm` must be False"):
        BatchNormalization(renorm=True)
    assert BatchNormalization.from_config(BatchNormalization(renorm=False).get_config()).momentum == 0.9


@pytest.mark.parametrize(("filters", "strides"), [(6, 2), (7, 2), (3, 1), (8, 3)])
def test_shortcut(filters, strides):
    x = random(2, 5, 4, 3)
    expected = np.zeros((2, -(-5 // strides), -(-4 // strides), filters))
    before = (filters - 3) // 2
    for i in range(expected.shape[1]):
        for j in range(expected.shape[2]):
            expected[:, i, j, before : before + 3] = x[:, strides * i, strides * j]
    np.testing.assert_array_equal(to_numpy(StridedShortcut(filters, strides)(x)), expected)


def test_shortcut_by_hand():
    x = np.arange(1, 17, dtype="float32").reshape(1, 4, 4, 1)
    found = to_numpy(StridedShortcut(3)(x))
    np.testing.assert_array_equal(found[0, :, :, 1], [[1, 3], [9, 11]])
    np.testing.assert_array_equal(found[0, :, :, [0, 2]], np.zeros((2, 2, 2)))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("units", lambda: CosineDense(0)),
        ("units", lambda: CosineDense(2.5)),
        ("units", lambda: CosineDense(True)),
        ("units", lambda: CosineDense(10**8)),
        ("strides", lambda: StridedShortcut(4, 10**6)),
        ("filters", lambda: StridedShortcut(10**6)),
        ("momentum", lambda: BatchNormalization(momentum=1.5)),
        ("momentum", lambda: BatchNormalization(momentum="0.9")),
        ("epsilon", lambda: BatchNormalization(epsilon=-1e-5)),
        ("shape", lambda: CosineDense(3).build((5,))),
        ("shape", lambda: CosineDense(3).build((None, None))),
        ("filters", lambda: StridedShortcut(0)),
        ("filters", lambda: StridedShortcut(4.0)),
        ("strides", lambda: StridedShortcut(4, 0)),
        ("filters", lambda: StridedShortcut(2).build((None, 8, 8, 3))),
    ],
)
def test_bad_arguments_are_refused(argument, call):
    with pytest.raises(ValueError, match=argument):
        call()
