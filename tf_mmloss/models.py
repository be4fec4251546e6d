"""The 6n+2 family of CIFAR ResNets, functional."""

from typing import Any

import keras
from keras import layers

from tf_mmloss._validation import choice, flag, integer, number, received, sequence
from tf_mmloss.imbalance import MAX_CLASSES
from tf_mmloss.layers import BatchNormalization, ClassScale, CosineDense, StridedShortcut
from tf_mmloss.layers.features import KeepFeatures

HEADS = ("cosine", "dense")
MAX_DEPTH = 1202  # the deepest of He et al.
MAX_SIDE = 2**16
CHANNELS_LAST = "channels_last"  # whatever Keras' own default is


def normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> keras.layers.Layer:
    """Layer from raw pixels in [0, 255] to what the networks take: (x / 255 - mean) / std.

    Args:
        mean: one number a channel, of pixels divided by 255, at most 10^6 in size.
        std: one number a channel, of the same, at least 10^-6.

    Returns:
        A `keras.layers.Rescaling`, for the input pipeline and for the exported model.

    Raises:
        ValueError: no lists of numbers, of different lengths, or out of range: a channel that does not vary has a
            standard deviation of 0 and needs another, such as 1.

    Example:
        >>> normalize = normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    """
    means = [number("mean", m, at_least=-1e6, at_most=1e6) for m in sequence("mean", mean)]
    stds = [number("std", s, at_least=1e-6) for s in sequence("std", std)]
    if len(means) != len(stds) or not means:
        raise ValueError(
            f"`mean` and `std` must have one number for each channel. Received: {len(means)} and {len(stds)} numbers"
        )
    scale = [1 / (255 * s) for s in stds]
    offset = [-m / s for m, s in zip(means, stds, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name="normalization")


def resnet(
    depth: int,
    num_classes: int,
    head: str = "cosine",
    input_shape: tuple[int, int, int] = (32, 32, 3),
) -> keras.Model:
    """ResNet of depth 6n+2 for small images, post-activation, with option-A shortcuts.

    A 3x3 convolution, three stages of n blocks with 16, 32 and 64 filters, average pooling, the head.
    Kernels start from N(0, 2 / fan_in); under mixed precision the head stays in float32.

    Args:
        depth: 6n+2: 8, 14, 20, 32, 44, 56, 110, ..., 1202 at most.
        num_classes: C, 2 to 10 million.
        head: "cosine" (`CosineDense`, for the margin losses) or "dense" (logits with a bias).
        input_shape: (height, width, channels) of the normalised images, each at most 65,536. Default (32, 32, 3).

    Returns:
        A functional `keras.Model` from (B, height, width, channels) to (B, C) cosines or logits.

    Raises:
        ValueError: depth not 6n+2, a number out of range, unknown head, a shape that is not three positive integers.

    Example:
        >>> resnet(20, num_classes=10).output_shape
        (None, 10)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """
    num_classes = _check_head(num_classes, head)  # before anything is built
    features = resnet_features(depth, input_shape)
    outputs = add_head(features.output, num_classes, head)
    return keras.Model(features.input, outputs, name=f"resnet{depth}")


def add_head(features: Any, num_classes: int, head: str = "cosine", *, scales: bool = False, bias: float = 0.0) -> Any:
    """The logits or cosines (B, C) of features (B, F), by a layer named "head" in float32.

    Args:
        features: a Keras tensor.
        num_classes: C, 2 to 10 million.
        head: see `resnet`.
        scales: whether a layer named "scales" multiplies them by a factor for each class, see `ClassScale`.
        bias: the first bias of a dense head, of every class. Default 0.

    Raises:
        ValueError: features that are no Keras tensor (B, F), a number out of range, an unknown head.
    """
    num_classes, scales = _check_head(num_classes, head), flag("scales", scales)
    bias = number("bias", bias, at_least=-1e6, at_most=1e6)
    if bias and head != "dense":
        raise ValueError(f"`bias` is of a dense head. {received('bias', bias)}")
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 2:
        raise ValueError(f"`features` must be a Keras tensor (B, F). {received('features', features)}")
    if head == "cosine":
        logits = CosineDense(num_classes, name="head", dtype="float32")(features)
    else:
        logits = layers.Dense(
            num_classes,
            kernel_initializer=_he_normal(),
            bias_initializer=keras.initializers.Constant(bias) if bias else "zeros",
            name="head",
            dtype="float32",
        )(features)
    return ClassScale(name="scales", dtype="float32")(logits) if scales else logits


def with_features(model: keras.Model) -> keras.Model:
    """A model of the same layers and outputs, whose outputs carry the features that its last layer takes.

    For `InfluenceBalancedLoss`, which needs them beside the logits. Metrics, `predict` and exports see only logits.

    Args:
        model: functional, of one output (B, C), made by a layer with weights of one input (B, F), such as
            `keras.layers.Dense`; a layer behind it, such as an `Activation` in float32, would take the logits for
            features, and is refused, as is a model in its place.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        ValueError: another model.

    Example:
        >>> model = with_features(resnet(8, num_classes=3, head="dense"))
        >>> model.compile(optimizer="sgd", loss=InfluenceBalancedLoss([5000, 500, 50]))
    """
    outputs = getattr(model, "outputs", None) or []
    history = getattr(outputs[0], "_keras_history", None) if len(outputs) == 1 else None
    head: Any = None if history is None else history.operation
    taken = [] if history is None else head._inbound_nodes[history.node_index].input_tensors
    if len(taken) != 1 or len(taken[0].shape) != 2 or isinstance(model, keras.Sequential):
        raise ValueError(
            "`model` must be a functional Keras model of one output, by a layer of one input (B, F). "
            f"{received('model', type(model).__name__)}"
        )
    if not getattr(head, "weights", None) or isinstance(head, (keras.Model, ClassScale)):
        raise ValueError(
            "`model` must end in the layer that makes logits of features, such as `keras.layers.Dense` (with "
            f'dtype="float32" under mixed precision). {received("last layer", type(head).__name__)}'
        )
    kept = KeepFeatures(name="keep_features")([outputs[0], taken[0]])
    return keras.Model(model.input, kept, name=model.name)


def _check_head(num_classes: int, head: str) -> int:
    choice("head", head, HEADS)
    return integer("num_classes", num_classes, at_least=2, at_most=MAX_CLASSES)


def resnet_features(depth: int, input_shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    """The network of `resnet` without its head.

    Args:
        depth, input_shape: see `resnet`.

    Returns:
        A functional `keras.Model` from (B, height, width, channels) to features (B, 64).

    Raises:
        ValueError: see `resnet`.

    Example:
        >>> resnet_features(8).output_shape
        (None, 64)
    """
    check_depth(depth)
    shape = tuple(
        integer("input_shape", side, at_least=1, at_most=MAX_SIDE) for side in sequence("input_shape", input_shape)
    )
    if len(shape) != 3:
        raise ValueError(f"`input_shape` must be (height, width, channels). {received('input_shape', input_shape)}")

    inputs = keras.Input(shape, name="images")
    x = _convolution(inputs, 16, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, (depth - 2) // 6 + 1):
            x = _block(x, filters, 2 if stage > 1 and block == 1 else 1, f"stage{stage}_block{block}")
    x = layers.GlobalAveragePooling2D(CHANNELS_LAST, name="features")(x)
    return keras.Model(inputs, x, name=f"resnet{depth}_features")


def check_depth(depth: Any) -> None:
    """Refuse what is not 6n+2, or more than 1202."""
    if integer("depth", depth, at_least=8, at_most=MAX_DEPTH) % 6 != 2:
        raise ValueError(f"`depth` must be 6n+2: 8, 14, 20, 32, 44, 56, 110. Received: depth={depth}")


def resnet32(
    num_classes: int,
    head: str = "cosine",
    input_shape: tuple[int, int, int] = (32, 32, 3),
) -> keras.Model:
    """The paper's network: `resnet(32, ...)`, 464,144 parameters with a cosine head on ten classes.

    Args:
        num_classes, head, input_shape: see `resnet`.

    Returns:
        A functional `keras.Model` from normalised images (B, height, width, channels) to (B, C).

    Raises:
        ValueError: see `resnet`.

    Example:
        >>> model = resnet32(10)
        >>> sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        464144
    """
    return resnet(32, num_classes, head, input_shape)


def _he_normal() -> Any:
    # Keras' HeNormal truncates; the published networks do not.
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")


def _convolution(x: Any, filters: int, strides: int, name: str) -> Any:
    padding = "same"
    if strides > 1:  # Keras' "same" would pad (0, 1); the published networks pad (1, 1).
        x, padding = layers.ZeroPadding2D(1, CHANNELS_LAST, name=f"{name}_pad")(x), "valid"
    x = layers.Conv2D(
        filters,
        3,
        strides,
        padding,
        CHANNELS_LAST,
        use_bias=False,
        kernel_initializer=_he_normal(),
        name=f"{name}_conv",
    )(x)
    return BatchNormalization(name=f"{name}_bn")(x)


def _block(x: Any, filters: int, strides: int, name: str) -> Any:
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = StridedShortcut(filters, strides, name=f"{name}_shortcut")(x)
    x = layers.ReLU(name=f"{name}_relu1")(_convolution(x, filters, strides, f"{name}_1"))
    x = _convolution(x, filters, 1, f"{name}_2")
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, shortcut]))
