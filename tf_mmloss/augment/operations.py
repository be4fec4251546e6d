"""The operations of the policies on one image, by Pillow, as the long-tail codes compute them."""

import math
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

# What an image is filled with where it was moved away: grey.
_FILL = 128

Operation = Callable[[Image.Image, float], Image.Image]


def _fill(image: Image.Image) -> int | tuple[int, int, int]:
    return _FILL if image.mode == "L" else (_FILL, _FILL, _FILL)


def _moved(image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=_fill(image))


def shear_x(image: Image.Image, value: float) -> Image.Image:
    """Move each row by `value` times its number."""
    return _moved(image, (1, value, 0, 0, 1, 0), Image.Resampling.BICUBIC)


def shear_y(image: Image.Image, value: float) -> Image.Image:
    """Move each column by `value` times its number."""
    return _moved(image, (1, 0, 0, value, 1, 0), Image.Resampling.BICUBIC)


def translate_x(image: Image.Image, value: float) -> Image.Image:
    """Move the image by `value` times its width."""
    return _moved(image, (1, 0, value * image.width, 0, 1, 0), Image.Resampling.NEAREST)


def translate_y(image: Image.Image, value: float) -> Image.Image:
    """Move the image by `value` times its height."""
    return _moved(image, (1, 0, 0, 0, 1, value * image.height), Image.Resampling.NEAREST)


def rotate(image: Image.Image, value: float) -> Image.Image:
    """Turn the image by `value` degrees to the left."""
    return image.rotate(value, fillcolor=_fill(image))


def color(image: Image.Image, value: float) -> Image.Image:
    """Colour times 1 + `value`; -1 is grey. A grey image stays as it is."""
    return ImageEnhance.Color(image).enhance(1 + value)


def contrast(image: Image.Image, value: float) -> Image.Image:
    """Contrast times 1 + `value`."""
    return ImageEnhance.Contrast(image).enhance(1 + value)


def sharpness(image: Image.Image, value: float) -> Image.Image:
    """Sharpness times 1 + `value`."""
    return ImageEnhance.Sharpness(image).enhance(1 + value)


def brightness(image: Image.Image, value: float) -> Image.Image:
    """Brightness times 1 + `value`."""
    return ImageEnhance.Brightness(image).enhance(1 + value)


def posterize(image: Image.Image, value: float) -> Image.Image:
    """Keep the `value` highest bits of each pixel."""
    return ImageOps.posterize(image, int(value))


def solarize(image: Image.Image, value: float) -> Image.Image:
    """Invert the pixels from `value` on."""
    return ImageOps.solarize(image, math.ceil(value))


def autocontrast(image: Image.Image, value: float) -> Image.Image:
    """Stretch each channel to 0 .. 255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, value: float) -> Image.Image:
    """Make the histogram of each channel as even as it can be."""
    return ImageOps.equalize(image)


def invert(image: Image.Image, value: float) -> Image.Image:
    """Make dark what is bright."""
    return ImageOps.invert(image)


def identity(image: Image.Image, value: float) -> Image.Image:
    """Leave the image as it is."""
    return image


OPERATIONS: tuple[Operation, ...] = (
    *(shear_x, shear_y, translate_x, translate_y, rotate, color, contrast, sharpness, brightness),
    *(posterize, solarize, autocontrast, equalize, invert, identity),
)
# Those whose value has a sign, drawn at random.
SIGNED = (shear_x, shear_y, translate_x, translate_y, rotate, color, contrast, sharpness, brightness)
