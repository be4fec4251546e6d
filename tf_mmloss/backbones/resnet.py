"""`resnetDEPTH`: the 6n+2 family of CIFAR ResNets."""

import re

import keras

from tf_mmloss.backbones.base import refuse_weights
from tf_mmloss.models import resnet_features

FORM = "resnet32 (any depth 6n+2)"


def matches(spec: str) -> bool:
    """Whether a spec names one of these."""
    return re.fullmatch(r"resnet\d{1,5}", spec) is not None


def check(spec: str, weights: str) -> None:
    """See `tf_mmloss.backbones.check`."""
    refuse_weights(spec, weights)


def statistics(spec: str, channels: int) -> None:
    """None: images are normalised by the training images' own mean and standard deviation."""


def build(spec: str, input_shape: tuple[int, int, int], weights: str) -> keras.Model:
    """See `tf_mmloss.backbones.open_backbone`."""
    check(spec, weights)
    return resnet_features(int(spec.removeprefix("resnet")), input_shape)
