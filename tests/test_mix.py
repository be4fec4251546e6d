"""Mixing of training images: what it computes, that it is a function of (seed, epoch, batch), and runs with it.

`tests/data/published_remix.npz` has the label weights of the published code of Remix, for pairs of labels.
"""

import keras
import numpy as np
import pytest
from helpers import BACKEND, official, to_numpy

from tf_mmloss import mix, normalization
from tf_mmloss.device_input import DeviceImages, EpochRows
from tf_mmloss.mix.base import Mixed, draw_box

NAMES = sorted(mix.mixings())
COUNTS = [90, 20, 5]
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.random((6, 8, 8, 1), "float32"), np.array([0, 0, 0, 1, 1, 2])
# Batches of seed 0, epoch 5 that are mixed and that are not, of the mixings that leave some as they are.
BATCHES = range(12)


def mixed(name, batch=0, epoch=5, alpha=1.0, epochs=None, **more):
    if mix.find(name).draws_rare:
        more.setdefault("partners", (1 + IMAGES, LABELS))
    return mix.find(name)(COUNTS, alpha, epochs)(IMAGES, LABELS, 0, epoch, batch, **more)


def test_the_mixings_are_found_by_their_names():
    assert NAMES == ["cmo", "cutmix", "mixup", "remix"]
    assert mix.find("none") is None
    with pytest.raises(ValueError, match=r"`mix` must be one of .*Did you mean 'cutmix'"):
        mix.find("cutmx")


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_distributions_and_the_same_for_the_same_numbers(name):
    seen = set()
    for batch in BATCHES:
        images, targets = mixed(name, batch)
        assert (images.shape, images.dtype, targets.dtype) == (IMAGES.shape, np.float32, np.float32)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        assert (targets >= 0).all()
        for one, other in zip((images, targets), mixed(name, batch), strict=True):
            np.testing.assert_array_equal(one, other)
        seen.add(images.tobytes())
    assert len(seen) > 3
    assert len({mixed(name, batch, 6)[0].tobytes() for batch in BATCHES} - seen) > 3


def test_mixup_is_the_mean_of_images_and_labels():
    for batch in BATCHES:
        images, targets = mixed("mixup", batch)
        rng = np.random.default_rng([0, 5, batch, 1])
        rng.random()
        order, share = rng.permutation(6), rng.beta(1, 1)
        np.testing.assert_allclose(images, share * IMAGES + (1 - share) * IMAGES[order], rtol=1e-5)
        one_hot = np.eye(3)
        np.testing.assert_allclose(targets, share * one_hot[LABELS] + (1 - share) * one_hot[LABELS[order]], atol=1e-6)


def test_lambda_of_one_is_the_batch():
    """Of Beta(alpha, alpha) with a tiny alpha, lambda is 0 or 1."""
    for batch in BATCHES:
        images, targets = mixed("mixup", batch, alpha=1e-6)
        assert set(targets.ravel()) <= {0, 1}
        assert all((image == IMAGES).all(axis=(1, 2, 3)).any() for image in images)


def test_a_box_is_cut_at_the_border_and_its_label_weighed_as_it_was_cut():
    areas = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        box, left = draw_box(rng, (8, 10), 0.5)
        images = Mixed(None, 1, box, None).images(np.zeros((1, 8, 10, 1), "float32"), np.ones((1, 8, 10, 1), "float32"))
        assert left == pytest.approx(1 - images.mean())
        rows, columns = images[0, :, :, 0].any(axis=1), images[0, :, :, 0].any(axis=0)
        assert images.sum() == rows.sum() * columns.sum()  # it is a box
        areas.append(images.mean())
    assert max(areas) == pytest.approx(4 * 6 / 80)  # 8 sqrt(0.5) = 5.6 and 10 sqrt(0.5) = 7.1, to two halves each
    assert min(areas) < 0.15


@pytest.mark.parametrize("name", ["cutmix", "cmo"])
def test_boxes_come_from_the_partners(name):
    done = 0
    for batch in BATCHES:
        images, targets = mixed(name, batch, partners=(1 + IMAGES, np.full(6, 2)))
        other = images >= 1
        np.testing.assert_array_equal(images[~other], IMAGES[~other])
        shares = other.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(
            targets, (1 - shares)[:, None] * np.eye(3)[LABELS] + shares[:, None] * np.eye(3)[2], atol=1e-6
        )
        done += shares.max() > 0
    assert 2 <= done <= 10  # half of the batches


def test_cmo_spares_the_first_four_and_the_last_three_epochs():
    for epoch, any_mixed in ((3, False), (4, True), (6, True), (7, False), (9, False)):
        targets = np.stack(
            [mixed("cmo", batch, epoch, epochs=10, partners=(1 + IMAGES, np.full(6, 2)))[1] for batch in BATCHES]
        )
        assert (targets != np.eye(3)[LABELS]).any() == any_mixed


@pytest.mark.parametrize("size", ["c10", "c100"])
def test_remix_weighs_labels_as_the_published_code(size):
    published = official("published_remix")
    counts, own, other = (published[f"{size}/{key}"].astype(int) for key in ("counts", "y_a", "y_b"))
    remix = mix.find("remix")(counts)
    for share, expected in zip(published[f"{size}/lam"], published[f"{size}/weight_a"], strict=True):
        np.testing.assert_allclose(remix.weights(own, other, float(share)), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((COUNTS, 0), "`alpha`"),
        ((COUNTS, float("nan")), "`alpha`"),
        (([3, 0],), "cls_counts"),
        ((COUNTS, 1, 0), "`epochs`"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        mix.find("mixup")(*arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": np.zeros((6, 8, 8, 1), "uint8")}, "`images` must be float"),
        ({"images": IMAGES[0]}, "`images` must be float"),
        ({"images": IMAGES[:5]}, "`images` must be as many as `labels`, 6"),
        ({"partners": (np.zeros((6, 8, 8, 1), "uint8"), LABELS)}, "`partners` must be float"),
        ({"partners": (IMAGES[:5], LABELS)}, "`partners` must be as many"),
        ({"partners": (IMAGES, LABELS[:1])}, "`their_labels` must be as many as `labels`, 6. Received: 1"),
        ({"labels": np.eye(3, dtype=int)[LABELS]}, "`labels` must be"),
        ({"labels": LABELS + 1}, r"`labels` must lie in \[0, 3\)"),
        ({"labels": LABELS - 1}, r"`labels` must lie in \[0, 3\)"),
    ],
)
def test_batches_that_have_no_mean_or_no_labels_are_refused(name, given, said):
    with pytest.raises(ValueError, match=said):
        mix.find(name)(COUNTS)(**{"images": IMAGES, "labels": LABELS, "seed": 0, "epoch": 5, "batch": 0, **given})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"method": "seesaw"}, "`mix` makes soft targets, for which SeesawLoss of method seesaw is not defined"),
        ({"method": "lade"}, "LADELoss of method lade is not defined"),
        ({"method": "rotation"}, "`mix` is no option of method rotation"),
        ({"mix": "mixap"}, "Did you mean 'mixup'"),
        ({"mix_alpha": 0.0}, "`mix_alpha`"),
    ],
)
def test_what_cannot_be_mixed_is_refused_before_any_work(more, said):
    from tf_mmloss.train.config import Config
    from tf_mmloss.train.resolve import resolve

    with pytest.raises(ValueError, match=said):
        resolve(Config(**{"method": "ldam-drw", "mix": "mixup", **more}))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data")
class TestBatches:
    def batches(self, name, first_epoch, number, **more):
        from tf_mmloss.pipeline import train_dataset

        images = np.random.default_rng(1).integers(0, 256, (10, 6, 6, 3)).astype("uint8")
        labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
        mixing = mix.find(name)([6, 3, 1])
        given = {"num_classes": 3, "normalize": lambda x: keras.ops.cast(x, "float32"), "batch_size": 4, "mix": mixing}
        data = train_dataset(images, labels, first_epoch=first_epoch, **{**given, **more})
        return list(data.take(number).as_numpy_iterator())

    @pytest.mark.parametrize("name", NAMES)
    def test_a_run_that_is_resumed_sees_the_same_batches(self, name):
        whole = self.batches(name, 4, 6)
        assert [len(targets) for _, targets in whole] == [4, 4, 2] * 2
        for ours, theirs in zip(whole[3:], self.batches(name, 5, 3), strict=True):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)
        assert not np.array_equal(whole[0][0], whole[3][0])

    def test_partners_of_cmo_are_drawn_by_inverse_frequency(self):
        """Each class equally often, so that the rarest, a tenth of the images, is a third of the partners."""
        pasted_class = np.zeros(3)
        for _, targets in self.batches("cmo", 0, 600):
            soft = targets[(targets > 0).sum(axis=1) > 1]
            pasted_class += soft.sum(axis=0)
        assert pasted_class[2] / pasted_class.sum() > 0.17  # 0.1 of each image's own label, a third of its partner's

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"mix": "cutmix"}, "`mix` must be a tf_mmloss.mix.Mixing"),
            ({"rotate": True}, "`mix` must be None"),
            ({"mix": mix.find("cutmix")([3, 1])}, "`mix` must be of the 3 classes"),
        ],
    )
    def test_bad_mixings_are_refused(self, more, said):
        with pytest.raises(ValueError, match=said):
            self.batches("mixup", 0, 1, **more)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_device_shows_the_same_batches(self, name):
        """Of two epochs, crops and mirrors included, and of whole epochs as `--input epoch` has them."""
        normalize = normalization((0.4,) * 3, (0.2,) * 3)
        batches = self.batches(name, 4, 6, normalize=normalize, pad=1)
        layer = DeviceImages(np.random.default_rng(1).integers(0, 256, (10, 6, 6, 3)).astype("uint8"), normalize, pad=1)
        given = {"num_classes": 3, "first_epoch": 4, "pad": 1, "mix": mix.find(name)([6, 3, 1]), "image_size": (6, 6)}
        rows = EpochRows(np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2]), batch_size=4, **given)
        for step, (images, targets) in enumerate(batches):
            ours, our_targets = rows[step]
            np.testing.assert_array_equal(our_targets, targets)
            np.testing.assert_allclose(to_numpy(layer(ours)), images, atol=1e-5)
        whole = EpochRows(rows.labels, batch_size=10, mix_batch=4, **given)
        np.testing.assert_array_equal(whole[1][0], np.concatenate([rows[step][0] for step in (3, 4, 5)]))
        np.testing.assert_array_equal(whole[1][1], np.concatenate([rows[step][1] for step in (3, 4, 5)]))

    def test_runs_compose_it_with_sam_and_resume(self, tmp_path):
        from tf_mmloss.train import Config, run
        from tf_mmloss.train.experiment import RunStoppedError

        config = Config(dataset="digits", ratio=20, method="ldam-drw", depth=8, epochs=2, mix="cutmix", sam=0.05)
        whole = run(config, tmp_path / "whole")
        with pytest.raises(RunStoppedError):
            run(config, tmp_path / "stopped", stop=lambda: True)
        assert run(config, tmp_path / "stopped", resume=True)["checksum"] == whole["checksum"]
        model = keras.saving.load_model(tmp_path / "whole" / "last.keras")
        assert type(model).__module__.startswith("keras.")


def test_a_run_of_the_device_input(tmp_path):
    """Of any backend; the evaluated images are not mixed."""
    from tf_mmloss.train import Config, run
    from tf_mmloss.train.inputs import load, split
    from tf_mmloss.train.resolve import resolve

    config = Config(dataset="digits", ratio=20, method="erm", depth=8, epochs=1, mix="cutmix", input="device")
    error, data = run(config, tmp_path / "run")["error"], load(config)
    splits, model = split(data, resolve(config)), keras.saving.load_model(tmp_path / "run" / "last.keras")
    shown = to_numpy(normalization(data.mean, data.std)(splits.eval_images))
    predicted = model.predict(shown, verbose=0).argmax(axis=1)
    assert np.mean(predicted != splits.eval_labels) == pytest.approx(error, abs=0.01)
