"""Augmentations: each operation against the published outputs, draws as functions of (seed, epoch), and the input."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import BACKEND
from PIL import Image, ImageEnhance, ImageOps

from tf_mmloss import augment, normalization
from tf_mmloss.augment import autoaugment, trivialaugment
from tf_mmloss.augment import operations as op
from tf_mmloss.augment.cutout import Cutout
from tf_mmloss.augment.policy import Policy
from tf_mmloss.train.config import Config, code_named

NAMES = sorted(augment.augmentations())
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 12, 10, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (20, 12, 10, 1)).astype(np.uint8)


def applied(augmentation, images, seed=0):
    return augmentation.apply(images, augmentation.draw(np.random.default_rng(seed), len(images)))


@pytest.mark.parametrize("images", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", NAMES)
def test_an_augmentation_is_a_function_of_what_was_drawn(name, images):
    (augmentation,) = augment.parse(name)
    before = images.copy()
    out = applied(augmentation, images)
    assert (out.shape, out.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(applied(augmentation, images), out)
    assert (applied(augmentation, images, seed=1) != out).any()
    assert (out != images).any()
    drawn = augmentation.draw(np.random.default_rng(0), len(images))
    assert drawn.dtype == np.int32
    np.testing.assert_array_equal(augmentation.apply(images[5:9], drawn[5:9]), out[5:9])


def test_draws_depend_on_seed_and_epoch_alone():
    both = augment.parse("autoaugment,cutout")
    for first, second in zip(augment.draw(both, 3, 4, 50), augment.draw(both, 3, 4, 50), strict=True):
        np.testing.assert_array_equal(first, second)
    for other in (augment.draw(both, 3, 5, 50), augment.draw(both, 4, 4, 50)):
        assert all((a != b).any() for a, b in zip(augment.draw(both, 3, 4, 50), other, strict=True))


# An image, what Pillow 13 makes of it by the operations of the published code, at levels 3, 7 and 9, and their values.
OUTPUTS = np.load(Path(__file__).parent / "data" / "published_augmentations.npz")

PUBLISHED = {
    **{"shearX": op.shear_x, "shearY": op.shear_y, "translateX": op.translate_x, "translateY": op.translate_y},
    **{name: getattr(op, name) for name in ("rotate", "color", "contrast", "sharpness", "brightness", "posterize")},
    **{name: getattr(op, name) for name in ("solarize", "autocontrast", "equalize", "invert")},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_operations_are_those_of_the_published_code(name):
    """Exactly, where Pillow is the version that made them; resampling may round otherwise in another."""
    operation, images = PUBLISHED[name], OUTPUTS["aa/image"][None]
    keys = [key for key in OUTPUTS.files if key.startswith(f"aa/{name}/") and ("/s+" in key or "/s-" in key)]
    assert len(keys) == (6 if operation in op.SIGNED else 3 if operation in (op.posterize, op.solarize) else 1)

    class One(Policy):
        name = help = "one"
        values = autoaugment.AutoAugment.values

        def draw(self, rng, n):
            raise NotImplementedError

    for key in keys:
        level, sign = int(key.split("/m")[1][0]), int(key.rsplit("/s", 1)[1])
        found = One().apply(images, np.array([[op.OPERATIONS.index(operation), level, sign]], np.int32))[0]
        np.testing.assert_array_equal(found, OUTPUTS[key], err_msg=key)
        if operation in One.values:
            assert One.values[operation][level] == pytest.approx(OUTPUTS[f"{key.rsplit('/', 1)[0]}/value"])


# What level 30 means, of shear, translation, rotation, enhancement, posterize and solarize; level 0 is ENDS[0] of both.
ENDS = {
    trivialaugment.TrivialAugment: (0.99, 1.0, 135.0, 0.99, 2, 0),
    trivialaugment.RandAugment: (0.3, 150 / 331, 30.0, 0.9, 4, 0),
}
START = (0.0, 0.0, 0.0, 0.0, 8, 255)


def shifted(pixels, by, axis):
    """Pixel x is what was at x + by, nearest; grey beyond."""
    places = np.floor(np.arange(pixels.shape[axis]) + 0.5 + by * pixels.shape[axis]).astype(int)
    moved = np.take(pixels, np.clip(places, 0, pixels.shape[axis] - 1), axis)
    outside = (places < 0) | (places >= pixels.shape[axis])
    return np.where(np.expand_dims(outside, 1 - axis)[..., None], 128, moved)


def by_pillow(change):
    """An operation of the published code, of a Pillow image and a fill, as one of pixels (height, width, channels)."""

    def of(pixels, value):
        image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
        out = change(image, value, (128,) * 3 if image.mode == "RGB" else 128)
        return np.asarray(out).reshape(pixels.shape)

    return of


def turned(image, value, fill):
    rotated = image.convert("RGBA").rotate(value)
    return Image.composite(rotated, Image.new("RGBA", rotated.size, (128,) * 4), rotated).convert(image.mode)


def sheared(*matrix):
    return by_pillow(
        lambda image, value, fill: image.transform(
            image.size, Image.AFFINE, tuple(value if m is None else m for m in matrix), Image.BICUBIC, fillcolor=fill
        )
    )


def enhanced(kind):
    return by_pillow(lambda image, value, fill: kind(image).enhance(1 + value))


# By operation: which of the six values it has, and what it makes of pixels, in NumPy where that is short.
EXPECTED = {
    op.identity: (None, lambda pixels, value: pixels),
    op.shear_x: (0, sheared(1, None, 0, 0, 1, 0)),
    op.shear_y: (0, sheared(1, 0, 0, None, 1, 0)),
    op.translate_x: (1, lambda pixels, value: shifted(pixels, value, 1)),
    op.translate_y: (1, lambda pixels, value: shifted(pixels, value, 0)),
    op.rotate: (2, by_pillow(turned)),
    op.brightness: (3, enhanced(ImageEnhance.Brightness)),
    op.color: (3, enhanced(ImageEnhance.Color)),
    op.contrast: (3, enhanced(ImageEnhance.Contrast)),
    op.sharpness: (3, enhanced(ImageEnhance.Sharpness)),
    op.posterize: (4, lambda pixels, bits: pixels & (256 - 2 ** (8 - bits))),
    op.solarize: (5, lambda pixels, value: np.where(pixels < value, pixels, 255 - pixels)),
    op.autocontrast: (None, by_pillow(lambda image, value, fill: ImageOps.autocontrast(image))),
    op.equalize: (None, by_pillow(lambda image, value, fill: ImageOps.equalize(image))),
    op.invert: (None, lambda pixels, value: 255 - pixels),
}


@pytest.mark.parametrize("policy", ENDS)
@pytest.mark.parametrize("operation", op.OPERATIONS)
def test_operations_at_both_ends_of_their_range(operation, policy):
    place, expected = EXPECTED[operation]
    levels = ((0, START), (30, ENDS[policy])) if policy is trivialaugment.TrivialAugment else ((30, ENDS[policy]),)
    for images in (COLOUR[:6], GREY[:6], np.stack([np.full((12, 10, 3), grey, np.uint8) for grey in (0, 255)])):
        for level, values in levels:
            for sign in (-1, 1):
                value = None if place is None else values[place] * (sign if operation in op.SIGNED else 1)
                drawn = np.tile(
                    np.int32([op.OPERATIONS.index(operation), level, sign]), (len(images), policy.operations)
                )
                done = policy().apply(images, drawn[:, :3])
                for found, pixels in zip(done, images, strict=True):
                    np.testing.assert_array_equal(found, expected(pixels, value))
                if level == 0 and operation in op.SIGNED:
                    np.testing.assert_array_equal(done, images)


def test_autoaugment_draws_its_policy():
    drawn = autoaugment.AutoAugment().draw(np.random.default_rng(0), 100_000).reshape(-1, 2, 3)
    identity = op.OPERATIONS.index(op.identity)
    expected = np.zeros((2, len(op.OPERATIONS)))
    for pair in autoaugment.POLICY:
        for place, (operation, probability, _) in enumerate(pair):
            expected[place, op.OPERATIONS.index(operation)] += probability / len(autoaugment.POLICY)
    expected[:, identity] = 1 - expected.sum(axis=1)
    for place in range(2):
        shares = np.bincount(drawn[:, place, 0], minlength=len(op.OPERATIONS)) / len(drawn)
        np.testing.assert_allclose(shares, expected[place], atol=0.01)  # six standard deviations
    # The first operation tells a pair's level.
    rotated = drawn[drawn[:, 0, 0] == op.OPERATIONS.index(op.rotate)]
    assert set(rotated[:, 0, 1].tolist()) == {2}
    assert set(drawn[..., 2].ravel().tolist()) == {-1, 1}


@pytest.mark.parametrize("policy", [trivialaugment.TrivialAugment, trivialaugment.RandAugment])
def test_even_policies_draw_all_operations_evenly(policy):
    drawn = policy().draw(np.random.default_rng(0), 70_000).reshape(-1, 3)
    numbers, counts = np.unique(drawn[:, 0], return_counts=True)
    assert len(numbers) == 14
    np.testing.assert_allclose(counts / len(drawn), 1 / 14, atol=0.006)
    levels = np.unique(drawn[:, 1])
    assert levels.tolist() == (list(range(31)) if policy.level is None else [9])
    for values in policy.values.values():
        assert len(values) == 31


def test_levels_of_even_policies_are_the_published_ones():
    wide, even = trivialaugment.TrivialAugment.values, trivialaugment.RandAugment.values
    assert (wide[op.posterize][0], wide[op.posterize][30], even[op.posterize][30]) == (8, 2, 4)
    assert wide[op.shear_x][30] == 0.99
    assert wide[op.translate_x][30] * 32 == 32
    assert wide[op.rotate][30] == 135
    assert even[op.solarize][9] == pytest.approx(255 * 0.7)
    assert even[op.brightness][9] == pytest.approx(0.27)
    assert even[op.posterize][9] == 8 - round(9 / 7.5)


@pytest.mark.parametrize("size", [(32, 32), (12, 20)])
def test_cutout_is_a_black_square_cut_at_the_border(size):
    images = np.full((400, *size, 3), 200, np.uint8)
    out = applied(Cutout(), images)
    side = min(size) // 4 * 2
    areas = (out[..., 0] == 0).sum(axis=(1, 2))
    assert areas.max() == side**2
    assert areas.min() < side**2 / 2  # a corner's, a quarter at least
    assert areas.min() >= (side // 2) ** 2
    assert set(np.unique(out)) == {0, 200}
    rows = (out[..., 0] == 0).any(axis=2)
    assert rows.any(axis=0).all()  # every row of the images is hit by some
    assert rows.sum(axis=1).max() == side


@pytest.mark.parametrize(
    ("names", "said"),
    [("autoaugmant", "Did you mean 'autoaugment'"), ("cutout,cutout", "once"), ("none,cutout", "must be one of"),
     ("", "augment"), (3, "augment")],
)  # fmt: skip
def test_what_is_no_augmentation_is_refused(names, said):
    with pytest.raises(ValueError, match=said):
        augment.parse(names)


def test_a_class_of_another_module(tmp_path, monkeypatch):
    (tmp_path / "light_of_the_test.py").write_text(
        "from tf_mmloss.augment.cutout import Cutout\nclass Own(Cutout):\n    pass\ndef none():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    names = "cutout,light_of_the_test:Own"
    assert augment.check(names) == names.split(",")
    assert "light_of_the_test" not in sys.modules  # to check a config that was read runs nothing
    assert [type(one).__name__ for one in augment.parse(names)] == ["Cutout", "Own"]
    assert code_named(Config(augment=names)) == {"augment": names}
    assert code_named(Config(augment="cutout")) == {}
    for name, said in (
        ("light_of_the_test:none", "must be a child of"),
        ("light_of_the_test:missing", "has no 'missing'"),
    ):
        with pytest.raises(ValueError, match=said):
            augment.parse(name)


def test_none_is_nothing():
    assert augment.parse("none") == ()


@pytest.mark.skipif(BACKEND == "torch", reason="tf.data is TensorFlow's")
class TestInput:
    """`train_dataset` with augmentations."""

    LABELS = np.arange(20) % 2

    def batches(self, first_epoch=0, epochs=2, images=COLOUR, **more):
        from tf_mmloss.pipeline import train_dataset

        channels = images.shape[-1]
        normalize = normalization([0.0] * channels, [1 / 255] * channels)  # leaves the pixels as they are
        data = train_dataset(
            images, self.LABELS, num_classes=2, normalize=normalize, batch_size=8, first_epoch=first_epoch, **more
        )
        taken = [(x.numpy(), y.numpy()) for x, y in data.take(3 * epochs)]
        return [(np.concatenate(x), np.concatenate(y)) for x, y in
                (zip(*taken[i : i + 3], strict=True) for i in range(0, len(taken), 3))]  # fmt: skip

    def test_images_are_those_without_it_changed_by_what_was_drawn(self):
        both = augment.parse("autoaugment,cutout")
        plain, changed = self.batches(), self.batches(augment=both)
        for epoch, ((x, y), (with_it, same_y)) in enumerate(zip(plain, changed, strict=True)):
            np.testing.assert_array_equal(y, same_y)
            expected = augment.apply(both, np.rint(x).astype(np.uint8), augment.draw(both, 0, epoch, 20))
            np.testing.assert_allclose(with_it, expected, atol=0.01)

    def test_a_resumed_run_sees_the_same_images(self):
        whole = self.batches(epochs=3, augment=augment.parse("trivialaugment"), images=GREY)
        rest = self.batches(first_epoch=2, epochs=1, augment=augment.parse("trivialaugment"), images=GREY)
        np.testing.assert_array_equal(whole[2][0], rest[0][0])

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"augment": "cutout"}, "must be augmentations"),
            ({"augment": [3]}, "must be augmentations"),
            ({"augment": augment.parse("cutout"), "rotate": True, "images": COLOUR[:, :10]}, "must be empty"),
            ({"augment": augment.parse("cutout"), "images": np.concatenate([COLOUR, GREY], axis=-1)}, "grey or RGB"),
        ],
        ids=["text", "number", "rotate", "four channels"],
    )
    def test_what_cannot_be_is_refused(self, more, said):
        with pytest.raises(ValueError, match=said):
            self.batches(**more)

    def test_a_run_takes_it(self, tmp_path):
        from tf_mmloss.runs.folder import read_config
        from tf_mmloss.train import Config, run

        options = {"dataset": "digits", "ratio": 20, "method": "erm", "depth": 8, "epochs": 1, "augment": "cutout"}
        run(Config(**options), tmp_path / "run")
        assert read_config(tmp_path / "run").augment == "cutout"
        for more in ({"input": "device"}, {"method": "rotation"}):
            with pytest.raises(ValueError, match="`augment`"):
                run(Config(**{**options, **more}), tmp_path / "refused")
        assert not (tmp_path / "refused").exists()
