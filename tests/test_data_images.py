"""Decoding: every mode and format that people have, and every way in which a file is not what it should be."""

import io
import struct
import zlib

import numpy as np
import pytest

from tf_mmloss.data import images
from tf_mmloss.data.images import choose_size, decode, fit_array, measure
from tf_mmloss.data.source import ImageError

Image = pytest.importorskip("PIL.Image")


def encoded(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(height=6, width=8):
    """Red above, blue below; the left column green."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0] = pixels[height // 2 :, :, 2] = 250
    pixels[:, 0] = 0, 250, 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_formats(file_format):
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 100, "subsampling": 0}
    pixels, odd = decode(encoded(picture(), file_format, **options), 6, 8, 3)
    assert (pixels.shape, pixels.dtype, odd) == ((6, 8, 3), np.uint8, "")
    tolerance = 12 if file_format == "JPEG" else 0
    np.testing.assert_allclose(pixels.astype(int), np.asarray(picture()).astype(int), atol=tolerance)


def test_modes():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    sixteen = (grey.astype(np.uint16) << 8) | grey  # 257 times as much
    alpha = np.full((6, 8), 255, np.uint8)
    alpha[:, :4] = 0
    on_white = np.where(alpha == 0, 255, grey)
    cases = {
        "L": (Image.fromarray(grey), grey),
        "1": (Image.fromarray(grey > 100), np.where(grey > 100, 255, 0)),
        "I;16": (Image.fromarray(sixteen), grey),
        "LA": (Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))), on_white),
        "RGBA": (Image.merge("RGBA", [Image.fromarray(grey)] * 3 + [Image.fromarray(alpha)]), on_white),
        "P": (Image.fromarray(grey).convert("P"), grey),
    }
    for mode, (image, expected) in cases.items():
        assert image.mode == mode
        for channels in (1, 3):
            pixels, _ = decode(encoded(image), 6, 8, channels)
            np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], channels, 2), err_msg=mode)
    for mode in ("CMYK", "YCbCr", "I", "F"):
        image = {
            "I": lambda: Image.fromarray(sixteen.astype(np.int32)),
            "F": lambda: Image.fromarray(grey / np.float32(255)),
        }
        image = image[mode]() if mode in image else Image.fromarray(grey).convert("RGB").convert(mode)
        pixels, _ = decode(encoded(image, "TIFF"), 6, 8, 1)
        np.testing.assert_allclose(pixels[..., 0].astype(int), grey.astype(int), atol=2, err_msg=mode)


def test_big_endian_sixteen_bits():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    image = Image.fromarray((grey.astype(np.uint16) * 257).astype(">u2"))
    assert image.mode == "I;16B"
    np.testing.assert_array_equal(decode(encoded(image, "TIFF"), 6, 8, 1)[0][..., 0], grey)


def test_transparent_palette():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    for file_format in ("PNG", "GIF"):
        pixels, _ = decode(encoded(image, file_format, transparency=1), 2, 2, 3)
        np.testing.assert_array_equal(pixels[0], [[10, 20, 30], [255, 255, 255]])


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_orientation(file_format):
    """A picture that a camera wrote turned comes back upright, once."""
    upright = picture(32, 48)
    turn = Image.Transpose
    stored = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM]
    stored += [turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270]
    inside = np.ix_([4, 28], [12, 40])
    for orientation, how in enumerate(stored, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = upright if how is None else upright.transpose(how)
        content = encoded(turned, file_format, exif=exif, quality=100, lossless=True)
        pixels, odd = decode(content, 32, 48, 3)
        assert odd == ""
        tolerance = 40 if file_format == "JPEG" else 0
        expected = np.asarray(upright)[inside].astype(int)
        np.testing.assert_allclose(pixels[inside].astype(int), expected, atol=tolerance, err_msg=str(orientation))
        if file_format == "JPEG":
            assert measure(content) == (32, 48, False)


def test_fit():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    content = encoded(Image.fromarray(wide))
    np.testing.assert_array_equal(decode(content, 10, 10, 1)[0], np.full((10, 10, 1), 200))
    padded = decode(content, 30, 30, 1, "pad")[0][..., 0]
    np.testing.assert_array_equal(padded[10:20], wide)
    assert not np.delete(padded, np.s_[10:20], axis=0).any()
    np.testing.assert_array_equal(fit_array(wide, 10, 10, 1), np.full((10, 10, 1), 200))
    np.testing.assert_array_equal(fit_array(wide, 10, 30, 3), np.repeat(wide[..., None], 3, 2))
    rgba = np.concatenate([np.zeros((2, 2, 3), np.uint8), np.array([[[0], [255]]] * 2, np.uint8)], axis=2)
    np.testing.assert_array_equal(fit_array(rgba, 2, 2, 1)[..., 0], [[255, 0]] * 2)


def test_large_photo_is_shrunk_to_its_mean():
    """JPEG decodes at a fraction of its size; the result is that of the whole."""
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    content = encoded(Image.fromarray(np.broadcast_to(ramp, (480, 640)).copy()), "JPEG", quality=95)
    pixels = decode(content, 24, 32, 1)[0][..., 0]
    np.testing.assert_allclose(pixels[12], ramp.reshape(32, 20).mean(axis=1), atol=3)


def photo(height=45, width=60):
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def by_both(monkeypatch, content, *size):
    """What decoding gives, or says, with simplejpeg and by Pillow alone."""
    found = []
    for simplejpeg in (pytest.importorskip("simplejpeg"), None):
        monkeypatch.setattr(images, "_simplejpeg", lambda simplejpeg=simplejpeg: simplejpeg)
        try:
            found.append(decode(content, *size)[0].tobytes())
        except ImageError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_plain_jpegs_have_the_pixels_of_pillow(mode, options, monkeypatch):
    simplejpeg = pytest.importorskip("simplejpeg")
    for height, width in ((45, 60), (61, 37), (7, 7), (8, 3), (1, 200)):
        content = encoded(photo(height, width).convert(mode), "JPEG", **options)
        for size in ((16, 16, 3), (9, 12, 1, "pad"), (3, 3, 3, "pad"), (1, 2, 1), (80, 70, 3)):
            ours, pillows = by_both(monkeypatch, content, *size)
            assert ours == pillows, (height, width, size)
    monkeypatch.setattr(images, "_simplejpeg", lambda: simplejpeg)
    monkeypatch.setattr(images, "_open", lambda *_: pytest.fail("Pillow decoded it"))
    pixels, odd = decode(encoded(photo().convert(mode), "JPEG", **options), 16, 16, 3, suffix=".png")
    assert (pixels.shape, odd) == ((16, 16, 3), "its extension is .png, its content JPEG")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_is_cut_anywhere_is_refused_in_the_words_of_pillow(options, monkeypatch):
    content = encoded(photo(), "JPEG", **options)
    for end in (b"", b"\xff\xd9"):
        for length in range(4, len(content) - 2, 1 if not end else 5):
            ours, pillows = by_both(monkeypatch, content[:length] + end, 16, 16, 3)
            assert ours == pillows, length
            assert end or isinstance(ours, str), length
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(3, len(content))] = rng.integers(0, 256)
        ours, pillows = by_both(monkeypatch, bytes(damaged), 16, 16, 3)
        assert ours == pillows


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_jpeg_with_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    content = bytearray(encoded(photo(), "JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 10_000, 10_000)
    simplejpeg = pytest.importorskip("simplejpeg")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="refused, its 10,000 x 10,000 pixels"):
        decode(bytes(content), 8, 8, 3)


def test_four_colours_and_notes_are_left_to_pillow(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    four = encoded(photo().convert("CMYK"), "JPEG")
    for content in (four, encoded(photo(), "JPEG", exif=exif), encoded(photo(), "JPEG", xmp=b"<x/>")):
        ours, pillows = by_both(monkeypatch, content, 16, 16, 3)
        assert ours == pillows
        simplejpeg = pytest.importorskip("simplejpeg")
        monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("it was decoded"))
        monkeypatch.setattr(images, "_simplejpeg", lambda simplejpeg=simplejpeg: simplejpeg)
        assert decode(content, 16, 16, 3)[0].tobytes() == pillows
        monkeypatch.undo()


def png_header(width, height):
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + data))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + data + crc + b"\0\0\0\x09IDAT"


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_cut_short(file_format, share):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), file_format)
    with pytest.raises(ImageError, match=r"cut short|damaged|not an image"):
        decode(content[: max(int(len(content) * share), 20)], 8, 8, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"<html>Not found</html>", "not an image.*JPEG, PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC or AVIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (png_header(100_000, 100_000), "refused, .* more than 89,478,485"),
        (png_header(12_000, 12_000), "refused, its 12,000 x 12,000 pixels are more than 89,478,485"),
        (png_header(12, 12), "cut short|damaged"),
    ],
    ids=["empty", "HTML", "HEIC", "EPS", "bomb", "smaller bomb", "header alone"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_no_image(content, reason):
    with pytest.raises(ImageError, match=reason):
        decode(content, 8, 8, 3)


def test_odd_files_are_read_and_named():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
        pixels, odd = decode(content, 8, 8, 3, suffix=f".{file_format.lower()}")
        assert odd == "holds 2 frames"
        np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([255, 0, 0]), (8, 8, 3)))
    png = encoded(picture())
    assert decode(png, 6, 8, 3, suffix=".jpg")[1] == "its extension is .jpg, its content PNG"
    assert decode(png, 6, 8, 3, suffix=".txt")[1] == "its extension is .txt, its content PNG"
    assert decode(png, 6, 8, 3, suffix=".001")[1] == ""
    assert decode(encoded(picture(), "JPEG"), 6, 8, 3, suffix=".jfif")[1] == ""


def test_values_that_mean_nothing():
    for values in (np.full((2, 2), np.nan), np.full((2, 2), 300.0)):
        with pytest.raises(ImageError, match=r"0 \.\. 1 is read"):
            decode(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"), 2, 2, 1)
    with pytest.raises(ImageError, match=r"0 \.\. 65535 is read"):
        decode(encoded(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF"), 2, 2, 1)
    with pytest.raises(ImageError, match=r"shape \(2, 2, 5\)"):
        fit_array(np.zeros((2, 2, 5), np.uint8), 2, 2, 3)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(40, 24)] * 3, (40, 24)),
        ([(200, 200)] * 3, (64, 64)),
        ([(28, 30), (30, 28)], (24, 24)),
        ([(5, 5), (4, 6)], (8, 8)),
        ([(64, 80), (40, 90), (100, 48)], (48, 48)),
    ],
)
def test_choose_size(sizes, expected):
    assert choose_size(np.array(sizes))[:2] == expected


def test_without_pillow(monkeypatch):
    images.pillow.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install tf-mmloss\[images\]"):
        decode(png_header(1, 1), 8, 8, 3)
    assert fit_array(np.zeros((8, 8), np.uint8), 8, 8, 1).shape == (8, 8, 1)
