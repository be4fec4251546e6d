"""From the bytes of a picture to uint8 pixels of one size. Pillow decodes; NumPy holds.

What is read: JPEG, PNG, WebP, GIF, BMP and TIFF, of any mode. The content decides, not the extension. A camera's
orientation (EXIF) is applied; transparency is laid on white; 16 bits are scaled to 8, white to white; of several frames
the first is taken. Colour profiles are not applied.

A plain JPEG is decoded by simplejpeg where that is installed, to the same pixels as by Pillow in less time: both have
libjpeg-turbo. What it refuses or warns of is Pillow's to judge.
"""

import functools
import io
import math
import mimetypes
import warnings
from types import ModuleType
from typing import Any

import numpy as np

from tf_mmloss.data.source import ImageError

# Pillow's own limit: 1 GiB of memory at 12 bytes a pixel. Refused by the header, before anything is decoded.
PIXEL_LIMIT = 89_478_485
FILE_LIMIT = 2**30
FITS = ("crop", "pad")
LARGEST_SIDE = 64
SIDE_STEP = 8

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
}
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
SIGNATURE_SIZE = 16
_READ = "JPEG, PNG, WebP, GIF, BMP and TIFF are read"
_ORIENTATION = 0x0112
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_SMALLEST_SHRUNK = 8
_JPEGS = ("JPEG", "MPO")  # MPO: a camera's JPEG with a preview or a second lens
_NOTES = {"exif", "xmp"}
_SIDEWAYS = (5, 6, 7, 8)
# Python's own table, not the system's: the same everywhere.
_TYPES = mimetypes.MimeTypes(())
_GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def claims_image(suffix: str) -> bool:
    """Whether an extension, lower case with its dot, is that of an image, of a format that is read or not."""
    return suffix in SUFFIXES or (_TYPES.guess_type(f"file{suffix}")[0] or "").startswith("image/")


def image_format(start: bytes) -> str | None:
    """The format that a file's first 16 bytes claim; None if it is none of those that are read."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:2] == b"BM" and start[6:10] == b"\0\0\0\0":
        return "BMP"
    return next((name for signature, name in _SIGNATURES.items() if start.startswith(signature)), None)


@functools.cache
def pillow() -> ModuleType:
    """Pillow's `Image`.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"Reading images needs Pillow: `pip install tf-mmloss[images]`: {error}") from error
    # Of the first it is refused below, by name; the second is no fault of the pixels.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", "(?i)(corrupt|truncated|metadata)", UserWarning, r"PIL\.")
    return Image


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def decode(
    content: bytes, height: int, width: int, channels: int, fit: str = "crop", suffix: str = ""
) -> tuple[np.ndarray, str]:
    """Return a picture at one size.

    Args:
        content: The file.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        fit: "crop": the largest centred part of the wanted shape; "pad": all of it, on black.
        suffix: The file's extension, lower case with its dot, to tell whether it is the content's; "" for none.

    Returns:
        The pixels, uint8 (height, width, channels), and what is odd about the file: that its extension is another
        format's, or that it holds several frames; "" if nothing is.

    Raises:
        ImageError: It cannot be decoded, or has more than `PIXEL_LIMIT` pixels.
    """
    plain = _plain_jpeg(content, height, width, channels, fit)
    if plain is not None:
        return fit_array(plain, height, width, channels, fit), _mislabelled("JPEG", suffix)
    image = _open(content)
    try:
        odd = _oddity(image, suffix)
        turned = image.format in _JPEGS and _orientation(image)
        if image.format in _JPEGS:
            # The decoder halves the size up to three times as it goes, never below what is needed.
            image_width, image_height = image.size[::-1] if turned in _SIDEWAYS else image.size
            scale = _scale(image_width, image_height, width, height, fit)
            image.draft("L" if channels == 1 else "RGB", tuple(math.ceil(side * scale) for side in image.size))
        image.load()
        image = _upright(image, turned or _orientation(image))
        image = _flat(image, "L" if channels == 1 else "RGB")
        pixels = np.asarray(_fitted(image, width, height, fit))
    except ImageError:
        raise
    except Exception as error:  # a damaged file may fail in any way
        raise ImageError(_reason(error)) from error
    return pixels.reshape(height, width, channels), odd


def fit_array(pixels: np.ndarray, height: int, width: int, channels: int, fit: str = "crop") -> np.ndarray:
    """Return a picture that is an array at one size; see `decode`.

    Args:
        pixels: uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), the last with transparency.

    Raises:
        ImageError: Another shape or type.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ImageError(f"an array of shape {pixels.shape} and type {pixels.dtype} is no picture")
    if pixels.shape == (height, width, channels):
        return pixels
    image = pillow().fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    image = _fitted(_flat(image, "L" if channels == 1 else "RGB"), width, height, fit)
    return np.asarray(image).reshape(height, width, channels)


def measure(picture: bytes | np.ndarray) -> tuple[int, int, bool]:
    """Height, width as they are shown, and whether it is grey: of a picture's header, nothing is decoded.

    Raises:
        ImageError: The header cannot be read.
    """
    if isinstance(picture, np.ndarray):
        return *picture.shape[:2], picture.ndim == 2 or picture.shape[2] == 1
    image = _open(picture)
    width, height = image.size
    if image.format in _JPEGS and _orientation(image) in _SIDEWAYS:
        width, height = height, width
    return height, width, image.mode in _GREY


def choose_size(sizes: np.ndarray) -> tuple[int, int, str]:
    """The size to train at, chosen for speed from the sizes of (a sample of) the pictures.

    Where all have one size of at most 64 x 64, that size. Else a square, as wide as the median of the shorter sides,
    at most 64, rounded down to a multiple of 8, at least 8.

    Args:
        sizes: Heights and widths, (n, 2).

    Returns:
        Height, width and why.

    Example:
        >>> choose_size(np.array([[150, 200], [180, 200], [90, 40]]))
        (64, 64, 'the median shorter side is 150, and at most 64 is taken, for speed')
    """
    low, high = sizes.min(axis=0), sizes.max(axis=0)
    if np.array_equal(low, high) and high.max() <= LARGEST_SIDE:
        return int(low[0]), int(low[1]), "all images have this size"
    median = int(np.median(sizes.min(axis=1)))
    side = max(min(median, LARGEST_SIDE) // SIDE_STEP * SIDE_STEP, SIDE_STEP)
    why = f"the median shorter side is {median}"
    if median > LARGEST_SIDE:
        return side, side, f"{why}, and at most {LARGEST_SIDE} is taken, for speed"
    return side, side, f"{why}, {'rounded to' if side != median else 'and'} a multiple of {SIDE_STEP} is taken"


def _plain_jpeg(content: bytes, height: int, width: int, channels: int, fit: str) -> np.ndarray | None:
    """The pixels of a JPEG without anything special, halved as often as Pillow halves it; None: it is Pillow's."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None or image_format(content[:SIGNATURE_SIZE]) != "JPEG" or _has_notes(content):
        return None
    try:
        image_height, image_width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray") or not 0 < image_height * image_width <= PIXEL_LIMIT:
            return None
        scale = _scale(image_width, image_height, width, height, fit)
        times = min(side // math.ceil(side * scale) for side in (image_width, image_height))
        shrunk = 1 << min(times.bit_length() - 1, 3)
        if shrunk > 1 and max(image_width, image_height) < _SMALLEST_SHRUNK:
            return None  # in so few pixels 3/8 is as wide as 1/2
        least = (-(-image_height // shrunk), -(-image_width // shrunk)) if shrunk > 1 else (0, 0)
        mode = "GRAY" if channels == 1 else "RGB"
        return simplejpeg.decode_jpeg(content, mode, min_height=least[0], min_width=least[1])
    except Exception:  # damaged, or cut short: Pillow has the words for it
        return None


def _has_notes(content: bytes) -> bool:
    """Whether a JPEG may have a camera's notes, which can say how it is turned: any segment APP1, or none we know."""
    at = 2
    while content[at : at + 1] == b"\xff":
        marker = content[at + 1] if at + 1 < len(content) else _APP1
        if marker in (_APP1, _START_OF_SCAN):
            return marker == _APP1
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return True


def _open(content: bytes) -> Any:
    if not content:
        raise ImageError("empty (0 bytes)")
    claimed = image_format(content[:SIGNATURE_SIZE])
    if claimed is None:
        what = "HEIC or AVIF" if content[4:8] == b"ftyp" else "not an image, or of another format"
        raise ImageError(f"{what}; {_READ}")
    image_module = pillow()
    try:
        image = image_module.open(io.BytesIO(content), formats=(claimed,))
        pixels = image.size[0] * image.size[1]
    except image_module.DecompressionBombError as error:
        raise ImageError(f"refused, it has more than {PIXEL_LIMIT:,} pixels") from error
    except Exception as error:  # a damaged file may fail in any way
        raise ImageError(f"damaged, or cut short: its header says {claimed} and no more can be read") from error
    if pixels > PIXEL_LIMIT:
        size = f"{image.size[0]:,} x {image.size[1]:,}"
        raise ImageError(f"refused, its {size} pixels are more than {PIXEL_LIMIT:,}")
    if not pixels:
        raise ImageError("it has no pixels")
    return image


def _oddity(image: Any, suffix: str) -> str:
    mislabelled = _mislabelled("JPEG" if image.format == "MPO" else image.format, suffix)
    if mislabelled:
        return mislabelled
    if image.format not in _JPEGS:
        try:
            if getattr(image, "is_animated", False):
                return f"holds {getattr(image, 'n_frames', 'several')} frames"
        except Exception:  # what follows the first frame is damaged: it is not needed
            image.seek(0)
    return ""


def _mislabelled(name: str, suffix: str) -> str:
    known = suffix in SUFFIXES or _TYPES.guess_type(f"file{suffix}")[0] is not None
    return f"its extension is {suffix}, its content {name}" if known and suffix not in _SUFFIXES[name] else ""


def _orientation(image: Any) -> int:
    if image.format in _JPEGS and not (_NOTES & image.info.keys()):
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged notes of a camera are no reason to refuse its picture
        return 1


def _upright(image: Any, orientation: int) -> Any:
    turn = pillow().Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _flat(image: Any, mode: str) -> Any:
    """The picture in 8 bits without transparency."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bits(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = pillow().new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow().alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Any) -> Any:
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        if not (low >= 0 and high <= 1):  # NaN too
            raise ImageError(f"its values are floating point, {low:g} .. {high:g}; 0 .. 1 is read")
        return pillow().fromarray(np.round(values * 255).astype(np.uint8))
    if low < 0 or high > 65535:
        raise ImageError(f"its values are {low} .. {high}; 0 .. 65535 is read")
    return pillow().fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _scale(image_width: int, image_height: int, width: int, height: int, fit: str) -> float:
    choose = max if fit == "crop" else min
    return min(choose(width / image_width, height / image_height), 1.0)


def _fitted(image: Any, width: int, height: int, fit: str) -> Any:
    if image.size == (width, height):
        return image
    bilinear = pillow().Resampling.BILINEAR  # of as many pixels as one of the result covers
    if fit == "crop":
        scale = max(width / image.size[0], height / image.size[1])
        across, down = min(width / scale, image.size[0]), min(height / scale, image.size[1])
        left, top = (image.size[0] - across) / 2, (image.size[1] - down) / 2
        return image.resize((width, height), bilinear, box=(left, top, left + across, top + down))
    scale = min(width / image.size[0], height / image.size[1])
    inner = tuple(max(round(side * scale), 1) for side in image.size)
    canvas = pillow().new(image.mode, (width, height))
    canvas.paste(image.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return "it does not fit in memory"
    return f"cut short: {text}" if "truncated" in text.lower() else f"damaged: {text}"
