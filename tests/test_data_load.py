"""From a data set on the disk to mapped pixels and a split: the cache, the report, the refusals."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tf_mmloss import imbalance
from tf_mmloss.data import DataError, Source, cache, decoders, load, load_images, open_source, splits
from tf_mmloss.data.load import mean_and_std, progress_printer

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_MMLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def noise(seed, size=(10, 8)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8))


def write_set(root, **counts):
    """PNG files by class, no two alike."""
    seed = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            seed += 1
            noise(seed).save(root / name / f"{i:02}.png")
    return root


def reading(*_):
    pytest.fail("images were decoded again")


def test_a_set_with_everything(tmp_path):
    """Odd modes, one class with one image, spaces and Unicode in names."""
    root = write_set(tmp_path / "my photos", **{"Cats & dogs": 10, "Äpfel": 5, "rare": 1})
    noise(50).convert("L").save(root / "Äpfel" / "grau ü.jpg")
    noise(51).convert("RGBA").resize((30, 40)).save(root / "Äpfel" / "alpha.webp")
    Image.fromarray(np.full((9, 9), 30_000, np.uint16)).save(root / "Cats & dogs" / "deep.tif")
    images = load_images(root, test_share=0.25)
    assert images.class_names == ("Cats & dogs", "rare", "Äpfel")
    assert images.x.shape == (19, 8, 8, 3)
    assert isinstance(images.x, np.memmap)
    assert imbalance.class_counts(images.y[images.test], 3).tolist() == [3, 0, 2]
    assert imbalance.class_counts(images.y[images.train], 3).tolist() == [8, 1, 5]
    assert images.not_evaluated == ("rare",)
    report = "\n".join(images.report)
    for words in ("19 images of 3 classes, from 11 (Cats & dogs) to 1 (rare)", "not evaluated: rare", "8 x 8"):
        assert words in report
    train = images.x[images.train] / 255
    np.testing.assert_allclose(images.mean, train.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(images.std, train.std(axis=(0, 1, 2)), rtol=1e-9)
    dataset = images.dataset()
    np.testing.assert_array_equal(dataset.test_images, images.x[images.test])
    assert dataset.class_names == images.class_names
    again = load_images(root, test_share=0.25)
    np.testing.assert_array_equal(again.test, images.test)
    assert not np.array_equal(load_images(root, test_share=0.25, seed=1).test, images.test)


def write_dirt(root):
    png = (root / "a" / "00.png").read_bytes()
    (root / "a" / "empty.jpg").touch()
    (root / "a" / "cut.png").write_bytes(png[: len(png) // 2])
    (root / "a" / "page.jpg").write_text("<html>")
    (root / "b" / "other.jpg").write_bytes(noise_png(60))
    noise(61).save(root / "b" / "film.gif", save_all=True, append_images=[noise(62)])
    return {"a/empty.jpg", "a/cut.png", "a/page.jpg"}, {"b/other.jpg", "b/film.gif"}


def noise_png(seed):
    import io

    buffer = io.BytesIO()
    noise(seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_dirt_is_refused_left_out_or_accepted(tmp_path, monkeypatch):
    root = write_set(tmp_path / "set", a=4, b=4)
    broken, odd = write_dirt(root)
    with pytest.raises(DataError) as caught:
        load_images(root)
    message = str(caught.value)
    assert "5 files" in message
    for name, reason in (
        ("a/empty.jpg", "empty (0 bytes)"),
        ("a/cut.png", "cut short"),
        ("a/page.jpg", "not an image"),
        ("b/other.jpg", "its extension is .jpg, its content PNG"),
        ("b/film.gif", "holds 2 frames"),
    ):
        assert f"{name}: {reason}" in message
    assert "`skip_broken`" in message
    assert "`accept_odd`" in message
    monkeypatch.setattr(decoders, "decode", reading)
    skipped = load_images(root, skip_broken=True)
    assert len(skipped.train) + len(skipped.test) == 8
    assert {one.name for one in skipped.dirt} == broken | odd
    assert "5 left out" in "\n".join(skipped.report)
    assert "equal images" not in "\n".join(skipped.report)  # those that cannot be read are none
    accepted = load_images(root, skip_broken=True, accept_odd=True)
    kept = {accepted.names[i] for i in (*accepted.train, *accepted.test)}
    assert odd <= kept
    assert not broken & kept
    with pytest.raises(DataError, match="3 files"):
        load_images(root, accept_odd=True)


def test_a_class_of_which_nothing_can_be_read(tmp_path):
    root = write_set(tmp_path / "set", a=3, b=3)
    (root / "c").mkdir()
    (root / "c" / "0.png").touch()
    with pytest.raises(DataError, match="no image can be read of c"):
        load_images(root, skip_broken=True)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 7 images can be read.*a/00\.png"):
        load_images(root, skip_broken=True)


def test_duplicates_are_reported_and_kept_on_one_side(tmp_path):
    root = write_set(tmp_path / "set", a=10, b=10)
    shutil.copy(root / "a" / "00.png", root / "b" / "same.png")
    noise(1).save(root / "a" / "again.bmp")  # the pixels of a/00.png
    images = load_images(root, test_share=0.5)
    assert images.duplicates == (("a/00.png", "a/again.bmp", "b/same.png"),)
    assert "in two classes, 1 times:\n  a/00.png = a/again.bmp = b/same.png" in "\n".join(images.report)
    sides = {name: i in images.test for i, name in enumerate(images.names)}
    assert len({sides[name] for name in images.duplicates[0]}) == 1

    write_set(tmp_path / "split" / "train", a=3, b=3)
    (tmp_path / "split" / "test" / "a").mkdir(parents=True)
    shutil.copy(tmp_path / "split/train/a/01.png", tmp_path / "split/test/a/leak.png")
    images = load_images(tmp_path / "split")
    assert images.duplicates == (("test/a/leak.png", "train/a/01.png"),) or images.duplicates == (
        ("train/a/01.png", "test/a/leak.png"),
    )
    assert "in training and in test, 1 times" in "\n".join(images.report)


def test_nothing_to_evaluate(tmp_path):
    root = write_set(tmp_path / "set", a=1, b=1)
    with pytest.raises(DataError, match="leaves nothing to evaluate"):
        load_images(root)
    root = write_set(tmp_path / "more", a=4, b=4)
    with pytest.raises(DataError, match="leaves nothing to evaluate"):
        load_images(root, group_by="^0")


def test_group_by_names(tmp_path):
    root = tmp_path / "set"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for i in range(12):
            noise(len(label) * 100 + ord(label) + i * 7).save(root / label / f"{label}{i // 3}_{i}.png")
    images = load_images(root, group_by="^[^_]+", test_share=0.25)
    stems = [name.split("/")[1].split("_")[0] for name in images.names]
    assert not {stems[i] for i in images.train} & {stems[i] for i in images.test}
    assert imbalance.class_counts(images.y[images.test]).tolist() == [3, 3]
    assert "8 groups of names" in "\n".join(images.report)
    for wrong in ("(", "nowhere"):
        with pytest.raises(DataError, match="`group_by`"):
            load_images(root, group_by=wrong)


def test_split_of_the_data_is_kept(tmp_path):
    for number, (part, names) in enumerate({"train": "ab", "test": "ab", "val": "a"}.items()):
        for name in names:
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(2):
                noise(number * 10 + ord(name) * 100 + i).save(tmp_path / "set" / part / name / f"{i}.png")
    images = load_images(tmp_path / "set")
    for part in ("train", "test", "val"):
        assert {images.names[i].split("/")[0] for i in getattr(images, part)} == {part}
    assert any(line.startswith("The 2 validation images are not used: `holdout`") for line in images.report)
    assert any(line.endswith("training split. To use them, move them there.") for line in images.report)
    grouped = load_images(tmp_path / "set", group_by="^.").report
    assert "Where `holdout` takes images from the training split, 2 groups of names (^.) stay together." in grouped
    assert "Groups in training and in test, 2: 0, 1. Their test images are not new to the network." in grouped
    apart = load_images(tmp_path / "set", group_by="^nothing|^0").report
    assert "Groups in training and in test, 1: 0. Their test images are not new to the network." in apart
    assert not any(line.startswith("Groups in") for line in images.report)
    (tmp_path / "set" / "test").rename(tmp_path / "away")
    images = load_images(tmp_path / "set")
    assert not any("validation images are not used" in line for line in images.report)
    assert {images.names[i].split("/")[0] for i in images.test} == {"val"}
    assert images.not_evaluated == ("b",)
    (tmp_path / "away").rename(tmp_path / "set" / "test")
    (tmp_path / "set" / "test" / "b").rename(tmp_path / "set" / "test" / "new")
    with pytest.raises(DataError, match="the training split has no image of new, which"):
        load_images(tmp_path / "set")


# The cache


def test_cache_is_found_again_and_follows_the_content(tmp_path, monkeypatch, own_cache):
    root = write_set(tmp_path / "set", a=3, b=3)
    first = load_images(root)
    whole = decoders.decode
    monkeypatch.setattr(decoders, "decode", reading)
    assert load_images(root).fingerprint == first.fingerprint
    shutil.copytree(root, tmp_path / "copy")  # other times, the same content
    copied = load_images(tmp_path / "copy")
    assert copied.x.filename == first.x.filename
    assert copied.fingerprint == first.fingerprint
    monkeypatch.setattr(decoders, "decode", whole)
    noise(99).save(root / "a" / "00.png")
    changed = load_images(root)
    assert changed.fingerprint != first.fingerprint
    assert not np.array_equal(changed.x[0], first.x[0])
    for options in ({"fit": "pad"}, {"image_size": 5}, {"image_size": (5, 7)}, {"grey": True}):
        assert load_images(root, **options).fingerprint == changed.fingerprint
    assert load_images(root, image_size=(5, 7)).x.shape == (6, 5, 7, 3)
    assert load_images(root, grey=True).x.shape == (6, 10, 8, 1)
    assert not list(own_cache.glob("building*"))


def test_labels_and_classes_are_part_of_the_fingerprint(tmp_path):
    root = write_set(tmp_path / "set", a=3, b=3)
    first = load_images(root).fingerprint
    (root / "b").rename(root / "c")
    assert load_images(root).fingerprint != first


def test_groups_are_part_of_the_fingerprint(tmp_path):
    root = write_set(tmp_path / "set", a=6, b=6)
    ungrouped = load_images(root).fingerprint
    assert load_images(root, image_size=4).fingerprint == ungrouped
    by_name = [load_images(root, group_by=pattern).fingerprint for pattern in ("^..", "^00")]
    assert len({ungrouped, *by_name}) == 3
    assert all(one.startswith(f"{ungrouped}-") for one in by_name)
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.glob("*/*.png"))]
    found = []
    for patients in ("112233445566", "112233445565"):
        table = root / "table.csv"
        table.write_text("path,label,patient\n" + "".join(f"{r},{p}\n" for r, p in zip(rows, patients, strict=True)))
        images = load_images(table)
        assert open_source(table).fingerprint() == images.fingerprint
        found.append((images.fingerprint, images.test.tolist()))
    assert found[0][0] != found[1][0]


def test_an_interrupted_reading_continues(tmp_path, monkeypatch):
    root = write_set(tmp_path / "set", a=8, b=8)
    (root / "a" / "00.png").write_bytes(b"")
    monkeypatch.setattr(cache, "_CHUNK", 2)
    expected = load_images(root, skip_broken=True, cache_dir=tmp_path / "whole")

    def stop(done, total, seconds):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images(root, skip_broken=True, progress=stop)
    seen = []
    images = load_images(root, skip_broken=True, progress=lambda done, total, seconds: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    np.testing.assert_array_equal(images.x, expected.x)
    assert images.dirt == expected.dirt
    assert images.fingerprint == expected.fingerprint
    constants = images.mean, images.std
    assert constants == (expected.mean, expected.std) == mean_and_std(images.x, images.train)
    pixels = images.x[images.train] / 255
    np.testing.assert_allclose(constants, [pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))])
    moments = Path(images.x.filename).parent / "moments.npy"
    os.truncate(moments, 130)
    assert load_images(root, skip_broken=True).mean == images.mean
    moments.unlink()  # an entry of an earlier version
    assert load_images(root, skip_broken=True).mean == images.mean


def test_one_process_reads_and_others_wait(tmp_path, monkeypatch, own_cache):
    """The second waits while the first fails, and the third comes while the second reads."""
    root = write_set(tmp_path / "set", a=3, b=3)
    go_on, inside, most = [threading.Event() for _ in range(3)], [], 0
    read_all = cache._read_all

    def watched(*args):
        nonlocal most
        number = int(threading.current_thread().name)
        inside.append(number)
        most = max(most, len(inside))
        assert go_on[number].wait(20)
        inside.remove(number)
        if number == 0:
            raise OSError("the disk failed")
        read_all(*args)

    monkeypatch.setattr(cache, "_read_all", watched)
    found = {}

    def read(number):
        try:
            found[number] = cache.read_images(open_source(root), 8, 8, 3)
        except DataError as error:
            found[number] = str(error)

    threads = [threading.Thread(target=read, args=(number,), name=str(number)) for number in range(3)]
    for number, thread in enumerate(threads):
        thread.start()
        time.sleep(0.3)
        if number == 1:
            go_on[0].set()
            threads[0].join()
            time.sleep(0.3)
            assert inside == [1]
    assert inside == [1]
    for event in go_on:
        event.set()
    for thread in threads:
        thread.join()
    assert most == 1
    assert "the disk failed" in found[0]
    np.testing.assert_array_equal(found[1].images, found[2].images)
    assert not list(own_cache.glob("building*"))


def test_what_interrupted_readings_left_is_removed(tmp_path, own_cache):
    root = write_set(tmp_path / "set", a=3, b=3)

    def stop(*_):
        raise KeyboardInterrupt

    def interrupt(source):
        with pytest.raises(KeyboardInterrupt):
            load_images(source, progress=stop)

    source = dataclasses.replace(open_source(root), stamp="")
    interrupt(source)
    assert not list(own_cache.glob("building-*"))  # no reading can continue it
    interrupt(root)
    (fresh,) = own_cache.glob("building-*")
    old, locked = (own_cache / f"building-{name}" for name in ("old", "locked"))
    for folder in (old, locked):
        shutil.copytree(fresh, folder)
        os.utime(folder, (0, 0))
    with cache._alone(locked):
        load_images(source)
    assert {path.name for path in own_cache.glob("building-*")} == {fresh.name, locked.name}
    os.utime(fresh, (0, 0))
    seen = []
    load_images(root, image_size=8, progress=lambda done, total, seconds: seen.append(total))
    assert not list(own_cache.glob("building-*"))
    assert seen


def test_a_source_without_a_stamp_is_read_once(tmp_path):
    source, reads = dataclasses.replace(open_source(write_set(tmp_path / "set", a=3, b=3)), stamp=""), []

    def read(indices):
        reads.extend(indices.tolist())
        return source.read(indices)

    watched = dataclasses.replace(source, read=read)
    first = cache.read_images(watched, 8, 8, 3)
    assert sorted(reads) == list(range(6))
    again = cache.read_images(watched, 8, 8, 3)
    assert len(reads) == 12
    assert (first.folder, again.seconds) == (again.folder, 0)


def test_processors_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert decoders.processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert decoders.processors() == 64


def test_without_processes_files_are_decoded_here(tmp_path, monkeypatch):
    root = write_set(tmp_path / "set", a=9, b=8)
    monkeypatch.setattr(decoders, "MANY", 1)

    def popen(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", popen)
    found = cache.read_images(open_source(root), 8, 8, 3, workers=3)
    assert not found.dirt
    assert len(found.images) == 17


@pytest.mark.parametrize("dies", [False, True])
def test_processes_read_what_threads_read(tmp_path, monkeypatch, dies):
    root = write_set(tmp_path / "set", a=9, b=8)
    (root / "a" / "05.png").write_bytes((root / "a" / "05.png").read_bytes()[:-30])
    (root / "b" / "03.png").rename(root / "b" / "03.jpg")
    expected = cache.read_images(open_source(root), 8, 8, 3, cache_dir=tmp_path / "threads")
    monkeypatch.setattr(decoders, "MANY", 1)
    monkeypatch.setattr(cache, "_CHUNK", 2)
    asked, started = [], []

    class Process(decoders.Process):
        def __init__(self):
            super().__init__()
            started.append(self._process)

        def keep(self, *task):
            if dies:
                self._process and self._process.kill()
            found = super().keep(*task)
            asked.append(self._process is not None)
            return found

    monkeypatch.setattr(decoders, "Process", Process)
    found = cache.read_images(open_source(root), 8, 8, 3, cache_dir=tmp_path / "processes", workers=3)
    for name in ("images", "content", "pixels", "moments"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.dirt == expected.dirt
    assert set(expected.dirt) == {5, 12}
    assert len(started) == 2
    assert asked
    assert set(asked) == {not dies}
    assert all(process.returncode is not None for process in started)


def test_sums_of_pixels_are_exact():
    for shape in ((3, 600, 5, 3), (200, 7, 9, 1)):
        pixels = np.random.default_rng(0).integers(250, 256, shape, dtype=np.uint8)
        expected = [pixels.astype(np.int64).sum((1, 2)), (pixels.astype(np.int64) ** 2).sum((1, 2))]
        np.testing.assert_array_equal(decoders.sums(pixels), np.stack(expected, axis=1))


def test_a_killed_reading_starts_again(tmp_path, monkeypatch, own_cache):
    root = write_set(tmp_path / "set", a=8, b=8)
    code = (
        "import os, signal, sys\n"
        "from tf_mmloss.data import cache, load_images\n"
        "cache._CHUNK, cache._SAVE_EVERY = 2, 0\n"
        "def die(done, total, seconds):\n"
        "    if done >= 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "load_images(sys.argv[1], progress=die)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=False, env=os.environ)
    (building,) = [path for path in own_cache.iterdir() if path.is_dir() and path.name.startswith("building")]
    assert json.loads((building / "progress.json").read_text())["done"] == 8
    seen = []
    images = load_images(root, progress=lambda done, total, seconds: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    expected = load_images(root, cache_dir=tmp_path / "other")
    np.testing.assert_array_equal(images.x, expected.x)


@pytest.mark.parametrize("damage", ["short", "empty", "gone", "no JSON", "no digests", "no moments"])
def test_a_damaged_entry_is_read_again(tmp_path, damage):
    root = write_set(tmp_path / "set", a=3, b=3)
    first = load_images(root)
    pixels = first.x.copy()
    file = first.x.filename
    del first
    if damage == "short":
        os.truncate(file, 200)
    elif damage == "empty":
        os.truncate(file, 0)
    elif damage in ("no digests", "no moments"):
        os.truncate(type(root)(file).parent / f"{damage.removeprefix('no ')}.npy", 0)
    elif damage == "gone":
        os.unlink(file)
    else:
        (type(root)(file).parent / "entry.json").write_text("{")
    np.testing.assert_array_equal(load_images(root).x, pixels)


def test_cache_that_cannot_be_written(tmp_path):
    root = write_set(tmp_path / "set", a=3, b=3)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"TF_MMLOSS_CACHE names\) cannot be written.*file"):
        load_images(root, cache_dir=tmp_path / "file")
    with pytest.raises(DataError, match=r"needs .* MB and the disk has .*`image_size`.*TF_MMLOSS_CACHE"):
        load_images(root, image_size=2**24)


def test_arrays_and_functions(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (20, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2)
    images = load_images(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.x[..., 0], x)
    labels = np.arange(20) % 2
    source = Source("mine", ("a", "b"), labels, [str(i) for i in range(20)], lambda indices: list(x[indices]))
    np.testing.assert_array_equal(load_images(source).x[..., 0], x)
    x[3] = 0
    assert not load_images(source).x[3].any()  # nothing stands for its content but the content


def test_constant_images_have_a_deviation():
    assert mean_and_std(np.full((3, 2, 2, 1), 51, np.uint8), np.arange(3)) == ((0.2,), (1.0,))


def test_bad_arguments(tmp_path):
    root = write_set(tmp_path / "set", a=3, b=3)
    for options, word in (
        ({"fit": "stretch"}, "`fit`"),
        ({"image_size": 0}, "`image_size`"),
        ({"image_size": (1, 2, 3)}, "`image_size`"),
        ({"test_share": 1.0}, "`test_share`"),
        ({"test_share": 0}, "`test_share`"),
        ({"seed": -1}, "`seed`"),
    ):
        with pytest.raises(ValueError, match=word):
            load_images(root, **options)


def test_progress_is_in_lines_where_there_is_no_terminal(capsys):
    for last in (500, 1000):  # the first is interrupted
        print_progress = progress_printer()
        for done in range(0, last + 1, 10):
            print_progress(done or 1, 1000, done / 100)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == last // 100
        assert lines[-1].startswith(f"Reading images: {last:,} of 1,000")
    progress_printer()(10, 10, 0.1)
    assert capsys.readouterr().err == ""


def test_the_sample_of_large_arrays_is_smaller(monkeypatch):
    pictures, read = np.zeros((400, 8, 6, 3), np.uint8), []

    def read_some(indices):
        read.extend(indices.tolist())
        return list(pictures[indices])

    names = [str(i) for i in range(400)]
    source = Source("arrays", ("a", "b"), np.arange(400) % 2, names, read_some)
    monkeypatch.setattr(load, "_SAMPLE_BYTES", 150 * 8 * 6 * 3)
    load._measure(source)
    assert len(read) == 151


# Splits


def test_split_by_class():
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    train, test = splits.split_by_class(labels, 0.2, seed=3)
    assert np.bincount(labels[test], minlength=4).tolist() == [20, 2, 1, 0]
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(113))
    assert np.bincount(labels[splits.split_by_class(labels, 0.99)[0]]).min() == 1
    np.testing.assert_array_equal(splits.split_by_class(labels, 0.2, seed=3)[1], test)


def test_split_keeps_groups_together():
    labels = np.repeat([0, 1, 2], [60, 12, 6])
    groups = np.concatenate([np.arange(60) // 3, 100 + np.arange(12) // 6, np.full(6, 200)])
    train, test = splits.split_by_class(labels, 0.2, seed=0, groups=groups)
    assert not set(groups[train]) & set(groups[test])
    counts = np.bincount(labels[test], minlength=3)
    assert counts.tolist() == [12, 6, 0]  # of two groups of six one is tested; one group alone is trained on
    across = np.array([0, 0, 1, 1]), np.array(["p", "q", "p", "q"])
    train, test = splits.split_by_class(across[0], 0.5, groups=across[1])
    assert sorted(across[0][test]) == [0, 1]
    assert not set(across[1][train]) & set(across[1][test])


def test_hold_out_takes_at_most_half_of_a_class():
    labels = np.repeat([0, 1, 2], [100, 6, 1])
    _, held = splits.hold_out(labels, 10)
    assert np.bincount(labels[held], minlength=3).tolist() == [10, 3, 0]
    labels = np.repeat([0, 1, 2, 3, 4], [100, 40, 12, 6, 1])
    _, held = splits.hold_out(labels, 0.2)  # at least five, at most half
    assert np.bincount(labels[held], minlength=5).tolist() == [20, 8, 5, 3, 0]
    for per_class in (0, 1.0, 1.5, -0.2):
        with pytest.raises(ValueError, match="`per_class` must be an integer >= 1"):
            splits.hold_out(labels, per_class)


def test_imbalanced():
    labels = np.repeat([0, 1, 2], [20, 1000, 100])
    np.testing.assert_array_equal(splits.imbalanced(labels), np.arange(1120))
    kept = splits.imbalanced(labels, "longtail", 100)
    assert np.bincount(labels[kept]).tolist() == [10, 1000, 100]
    kept = splits.imbalanced(labels, "longtail", 2)
    assert np.bincount(labels[kept]).tolist() == [20, 1000, 100]
    balanced = np.repeat(np.arange(10), 50)
    expected = imbalance.imbalanced_counts(50, 10, "longtail", 10)
    assert np.bincount(balanced[splits.imbalanced(balanced, "longtail", 10)]).tolist() == expected.tolist()
    with pytest.raises(ValueError, match="imbalance"):
        splits.imbalanced(labels, "tail")


def test_no_keras():
    code = "import sys, tf_mmloss.data; assert 'keras' not in sys.modules and 'PIL' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0


def test_fingerprint_of_a_source_is_that_of_its_images(tmp_path):
    root = write_set(tmp_path / "set", a=3, b=3)
    assert open_source(root).fingerprint() == load_images(root).fingerprint
