"""Data sets on tiny copies in the public layouts; files that must be refused are in test_datasets_untrusted.py."""

import ast
import dataclasses
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest

import tf_mmloss.files
from tf_mmloss.datasets import NAMES, ImageDataset, cifar_search, load, registry
from tf_mmloss.datasets.batch_pickle import unpickle
from tf_mmloss.datasets.cifar import CIFAR10, CIFAR100
from tf_mmloss.datasets.cifar_search import fetch_archive, load_cifar

TINY10 = dataclasses.replace(CIFAR10, train_count=20, test_count=10)
TINY100 = dataclasses.replace(CIFAR100, train_count=20, test_count=10)
TINY = pytest.mark.parametrize("spec", [TINY10, TINY100], ids=lambda spec: spec.name)
CLASS_NAMES = {spec.name: tuple(f"class {k}" for k in range(spec.num_classes)) for spec in (TINY10, TINY100)}


def tiny_images(spec):
    """Return `{split: (images, labels)}`; every pixel says its image, row, column and channel."""
    splits = {}
    for split, count, seed in (("train", spec.train_count, 0), ("test", spec.test_count, 1)):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        splits[split] = images, rng.integers(0, spec.num_classes, count)
    return splits


def rows(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def tiny_records(spec):
    """Return `{file: dict}` of the public python version."""
    records = {spec.meta_file: {spec.names_key: [name.encode() for name in CLASS_NAMES[spec.name]]}}
    for split, files in (("train", spec.train_files), ("test", spec.test_files)):
        images, labels = tiny_images(spec)[split]
        for file, part in zip(files, np.array_split(np.arange(len(labels)), len(files)), strict=True):
            records[file] = {
                b"batch_label": b"a batch",
                spec.label_key: labels[part].tolist(),
                b"coarse_labels": [0] * len(part),
                b"data": rows(images[part]),
                b"filenames": [b"a.png"] * len(part),
            }
    return records


def tiny_pickles(spec, protocol=2):
    return {file: pickle.dumps(record, protocol) for file, record in tiny_records(spec).items()}


def write_folder(place, spec, pickles=None):
    folder = place / spec.folder
    folder.mkdir(parents=True)
    for file, content in (pickles or tiny_pickles(spec)).items():
        (folder / file).write_bytes(content)
    return folder


def write_archive(path, spec, pickles=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for file, content in (pickles or tiny_pickles(spec)).items():
            member = tarfile.TarInfo(f"{spec.folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def check_tiny(dataset, spec):
    splits = tiny_images(spec)
    for split in ("train", "test"):
        images, labels = splits[split]
        np.testing.assert_array_equal(getattr(dataset, f"{split}_images"), images)
        np.testing.assert_array_equal(getattr(dataset, f"{split}_labels"), labels)
        assert getattr(dataset, f"{split}_images").flags.c_contiguous
        assert getattr(dataset, f"{split}_images").flags.writeable
    assert dataset.name == spec.name
    assert dataset.class_names == CLASS_NAMES[spec.name]
    assert dataset.num_classes == spec.num_classes


@pytest.fixture(autouse=True)
def _empty_caches(monkeypatch, tmp_path):
    """Give every test empty caches and no download."""

    def offline(spec):
        raise OSError("Name or service not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds-cache"))
    monkeypatch.setattr(cifar_search, "fetch_archive", offline)
    monkeypatch.setattr(cifar_search, "prepare_tfds", lambda spec: pytest.fail("TFDS was asked to download"))


# The public python version


@TINY
@pytest.mark.parametrize("given", ["parent", "itself"])
def test_extracted_folder(tmp_path, spec, given):
    folder = write_folder(tmp_path, spec)
    check_tiny(load_cifar(spec, tmp_path if given == "parent" else folder), spec)


@TINY
@pytest.mark.parametrize("given", ["parent", "itself"])
def test_archive(tmp_path, spec, given):
    archive = write_archive(tmp_path / spec.archive, spec)
    check_tiny(load_cifar(spec, tmp_path if given == "parent" else archive), spec)


def test_archive_of_another_name_given_as_text(tmp_path):
    check_tiny(load_cifar(TINY10, str(write_archive(tmp_path / "renamed.bin", TINY10))), TINY10)


def test_archive_of_a_leading_dot(tmp_path):
    write_folder(tmp_path, TINY10)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / TINY10.folder, f"./{TINY10.folder}")
    check_tiny(load_cifar(TINY10, tmp_path / "a.tar.gz"), TINY10)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickle_protocols(tmp_path, protocol, order):
    records = tiny_records(TINY10)
    for record in records.values():
        if b"data" in record:
            record[b"data"] = np.asarray(record[b"data"], order=order)
    write_folder(tmp_path, TINY10, {file: pickle.dumps(record, protocol) for file, record in records.items()})
    check_tiny(load_cifar(TINY10, tmp_path), TINY10)


def test_batches_saved_again_with_text_for_keys(tmp_path):
    pickles = {}
    for file, record in tiny_records(TINY10).items():
        text = {key.decode(): value for key, value in record.items()}
        if "label_names" in text:
            text["label_names"] = [name.decode() for name in text["label_names"]]
        pickles[file] = pickle.dumps(text)
    write_folder(tmp_path, TINY10, pickles)
    check_tiny(load_cifar(TINY10, tmp_path), TINY10)


def python2_pickle(images, labels):
    """Return the pickle as Python 2 and NumPy 1 wrote it: byte strings, the old module name."""

    def text(content):
        return b"T" + struct.pack("<i", len(content)) + content

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K" + bytes([len(images)]) + b"M\x00\x0c\x86" + dtype + b"\x89" + text(rows(images).tobytes())
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + b"tb" + text(b"labels") + numbers + b"u."


def test_batch_of_python_2(tmp_path):
    images, labels = tiny_images(TINY10)["test"]
    content = python2_pickle(images, labels)
    assert np.array_equal(pickle.loads(content, encoding="bytes")[b"data"], rows(images))
    write_folder(tmp_path, TINY10, {**tiny_pickles(TINY10), "test_batch": content})
    check_tiny(load_cifar(TINY10, tmp_path), TINY10)


def test_byte_strings_of_python_2_as_text():
    assert unpickle(b"(dp0\nS'a'\np1\nS\"\\xff\\n\"\nsS'b'\n(lp2\nI01\naI7\naL8L\nas.", "some file") == {
        b"a": b"\xff\n",
        b"b": [True, 7, 8],
    }


def test_load_uses_the_full_counts(tmp_path):
    write_folder(tmp_path, TINY10)
    with pytest.raises(ValueError, match=r"cifar-10-batches-py: expected 50000 train images\. Received: 20"):
        load("cifar10", tmp_path)


@TINY
def test_load_passes_its_arguments_on(tmp_path, monkeypatch, spec):
    monkeypatch.setattr(registry, spec.name.upper(), spec)
    write_folder(tmp_path, spec)
    dataset = load(spec.name, data_dir=tmp_path)
    check_tiny(dataset, spec)
    assert dataset.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.std == (0.2023, 0.1994, 0.2010)
    assert "Krizhevsky" in dataset.licence
    assert (CIFAR10.train_count, CIFAR10.test_count) == (50_000, 10_000)
    assert (CIFAR100.train_count, CIFAR100.test_count) == (50_000, 10_000)
    with pytest.raises(FileNotFoundError, match="`download` is False"):
        load(spec.name, download=False)


# Where it is looked for


@pytest.mark.parametrize(
    "entry",
    [
        "cifar-10-batches-py",
        "cifar-10-batches-py-target/cifar-10-batches-py",
        "cifar-10-batches-py-target_archive",
        "cifar-10-batches-py.tar.gz",
        "cifar-10-python.tar.gz",
    ],
)
def test_keras_cache(tmp_path, entry):
    path = tmp_path / "keras-home" / "datasets" / entry
    if entry.endswith("batches-py"):
        write_folder(path.parent, TINY10)
    else:
        write_archive(path, TINY10)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    check_tiny(load_cifar(TINY10), TINY10)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("given", ["home", "KERAS_HOME"])
def test_home_that_cannot_be_written(tmp_path, monkeypatch, given):
    """Keras puts its downloads under /tmp then; what lies in the home is read all the same."""
    home = tmp_path / "home"
    home.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(home) and access(path, mode))
    monkeypatch.setattr(os.path, "isdir", lambda path: path != "/tmp" and Path(path).is_dir())
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(home))
    if given == "home":
        monkeypatch.delenv("KERAS_HOME")
    else:
        monkeypatch.setenv("KERAS_HOME", str(home / ".keras"))
    cache = tmp_path / "tmp" / ".keras" / "datasets"
    assert tf_mmloss.files.keras_cache("datasets") == cache
    with pytest.raises(FileNotFoundError, match=re.escape(f"{home}/.keras/datasets/cifar-10-batches-py\n")):
        load_cifar(TINY10)
    write_archive(cache / TINY10.archive, TINY10)
    check_tiny(load_cifar(TINY10), TINY10)
    (cache / TINY10.archive).unlink()
    write_archive(home / ".keras" / "datasets" / TINY10.archive, TINY10)
    check_tiny(load_cifar(TINY10), TINY10)


def test_data_dir_that_is_no_place(tmp_path):
    with pytest.raises(TypeError, match=r"`data_dir` must be a path\. Received: data_dir=3"):
        load("cifar10", 3)
    with pytest.raises(FileNotFoundError, match="~nobody-of-this-name"):
        load("cifar10", "~nobody-of-this-name/data")
    np.savez(tmp_path / "data.npz", images=np.zeros(3))
    with pytest.raises(
        ValueError, match=r"data\.npz: damaged, or not a \.tar\.gz archive: .*Expected the public archive"
    ):
        load("cifar10", tmp_path / "data.npz")


def test_letters_that_the_file_system_cannot_name():
    code = "from tf_mmloss.datasets import load; load('cifar10', '/tmp/\\xfcber')"
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, text=True, check=False)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ValueError: `data_dir` has letters that a file name cannot have in the encoding 'ascii'")
    assert message.endswith(r"data_dir='/tmp/\xfcber'")


def test_data_dir_without_the_data_set(tmp_path):
    write_folder(tmp_path / "keras-home" / "datasets", TINY10)
    folder = write_folder(tmp_path / "given", TINY10)
    (folder / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_cifar(TINY10, tmp_path / "given")
    message = str(caught.value)
    assert f"{folder} (lacks data_batch_3)\n" in message
    assert f"{tmp_path / 'given' / TINY10.archive}\n" in message
    assert str(tmp_path / "given" / "cifar10" / "VERSION") in message
    assert "`data_dir`" in message
    assert "--data-dir" in message


def test_offline_message(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("cifar100")
    message = str(caught.value)
    assert str(tmp_path / "keras-home" / "datasets" / "cifar-100-python.tar.gz") in message
    assert str(tmp_path / "tfds-cache" / "cifar100") in message
    assert "Put cifar-100-python.tar.gz" in message
    assert "Name or service not known" in message
    assert "--data-dir" in message
    assert isinstance(caught.value.__cause__, OSError)


def test_without_download_nothing_is_fetched(monkeypatch):
    monkeypatch.setattr(cifar_search, "fetch_archive", lambda spec: pytest.fail("it was fetched"))
    with pytest.raises(FileNotFoundError, match="`download` is False"):
        load("cifar10", download=False)


@pytest.mark.parametrize("spec", [CIFAR10, CIFAR100], ids=lambda spec: spec.name)
def test_keras_pins_the_same_archive(spec):
    keras = pytest.importorskip("keras")
    constants = getattr(keras.datasets, spec.name).load_data.__code__.co_consts
    assert spec.sha256 in constants
    assert f"{spec.folder}-target" in constants
    assert sum(isinstance(c, str) and c.endswith(f"/{spec.archive}") for c in constants) == 1


def test_download_spares_what_is_in_the_cache(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    cache = tmp_path / "keras-home" / "datasets"
    cache.mkdir(parents=True)
    partial = cache / "cifar-10-batches-py-target" / "notes.txt"
    partial.parent.mkdir()
    partial.write_text("mine")
    calls = []

    def get_file(fname, origin, *, file_hash, cache_dir, cache_subdir):
        calls.append((fname, file_hash, cache_subdir))
        assert origin.endswith("/cifar-10-python.tar.gz")
        assert not list(Path(cache_dir).iterdir())
        return str(write_archive(Path(cache_dir) / fname, TINY10))

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    monkeypatch.setattr(cifar_search, "fetch_archive", fetch_archive)
    check_tiny(load_cifar(TINY10), TINY10)
    check_tiny(load_cifar(TINY10), TINY10)
    assert calls == [("cifar-10-python.tar.gz", CIFAR10.sha256, "")]
    assert sorted(p.name for p in cache.iterdir()) == ["cifar-10-batches-py-target", "cifar-10-python.tar.gz"]
    assert partial.read_text() == "mine"


def test_failed_download_leaves_nothing(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")

    def get_file(fname, origin, *, cache_dir, **_):
        (Path(cache_dir) / fname).write_bytes(b"half")
        try:
            raise OSError("connection lost")
        except OSError:
            raise Exception("URL fetch failure") from None  # `from None` keeps the context

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    monkeypatch.setattr(cifar_search, "fetch_archive", fetch_archive)
    with pytest.raises(FileNotFoundError, match="URL fetch failure"):
        load_cifar(TINY10)
    assert not list((tmp_path / "keras-home" / "datasets").iterdir())


def test_tfds_downloads_what_keras_could_not(tmp_path, monkeypatch):
    def refuse(spec):
        raise HTTPError("address", 404, "Not Found", Message(), None)

    monkeypatch.setattr(cifar_search, "fetch_archive", refuse)
    folder = write_folder(tmp_path, TINY10)
    monkeypatch.setattr(cifar_search, "prepare_tfds", lambda spec: folder)
    check_tiny(load_cifar(TINY10), TINY10)


# TensorFlow Datasets


def write_tfds(place, spec, version="3.0.2", splits=None):
    tf = pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES[spec.name]),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name=spec.name,
        version=version,
        features=features,
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
            for split, (images, labels) in (splits or tiny_images(spec)).items()
        },
        data_dir=place,
    )


def in_one_order(images, labels):
    """Sort by the pixels: TFDS shuffles when it prepares."""
    order = np.lexsort(images.reshape(len(images), -1).T)
    return images[order], labels[order]


@pytest.mark.parametrize("given", ["data_dir", "cache"])
def test_tfds_folder(tmp_path, given):
    place = tmp_path / ("given" if given == "data_dir" else "tfds-cache")
    write_tfds(place, TINY10)
    old = {split: (255 - images, labels) for split, (images, labels) in tiny_images(TINY10).items()}
    write_tfds(place, TINY10, version="2.10.0", splits=old)
    dataset = load_cifar(TINY10, place if given == "data_dir" else None)
    for split, expected in tiny_images(TINY10).items():
        found = getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")
        for one, other in zip(in_one_order(*found), in_one_order(*expected), strict=True):
            np.testing.assert_array_equal(one, other)
    assert dataset.class_names == CLASS_NAMES["cifar10"]


def test_tfds_folder_of_other_counts(tmp_path):
    write_tfds(tmp_path, TINY10)
    with pytest.raises(ValueError, match=r"3\.0\.2: expected 50000 train images\. Received: 20"):
        load("cifar10", tmp_path)


def test_without_tfds(tmp_path, monkeypatch):
    for place in ("given", "tfds-cache"):
        (tmp_path / place / "cifar10" / "3.0.2").mkdir(parents=True)
        (tmp_path / place / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"3\.0\.2 needs `pip install tf-mmloss\[training\]`"):
        load_cifar(TINY10, tmp_path / "given")
    with pytest.raises(FileNotFoundError, match=r"needs `pip install tf-mmloss\[training\]`"):
        load_cifar(TINY10)
    folder = write_folder(tmp_path / "downloaded", TINY10)
    monkeypatch.setattr(cifar_search, "fetch_archive", lambda spec: folder)
    check_tiny(load_cifar(TINY10), TINY10)


# Digits, names, and the data class


def test_digits():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    digits = load("digits")
    again = load("digits")
    assert digits.train_images.shape == (1297, 8, 8, 1)
    assert digits.test_images.shape == (500, 8, 8, 1)
    assert np.bincount(digits.test_labels).tolist() == [50] * 10
    np.testing.assert_array_equal(digits.test_images, again.test_images)
    assert digits.test_images.astype(int).sum() == 2_483_229, "the split has moved"
    scaled = digits.train_images / 255
    np.testing.assert_allclose(digits.mean, scaled.mean(axis=(0, 1, 2)), atol=5e-5)
    np.testing.assert_allclose(digits.std, scaled.std(axis=(0, 1, 2)), atol=5e-5)
    assert digits.class_names == tuple("0123456789")
    assert "CC BY 4.0" in digits.licence

    original = sklearn_datasets.load_digits()
    known = {
        (bytes(np.rint(i * 15.9375).astype(np.uint8)), t) for i, t in zip(original.images, original.target, strict=True)
    }
    images = np.concatenate([digits.train_images, digits.test_images])
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    assert {(bytes(i), t) for i, t in zip(images[..., 0], labels, strict=True)} == known
    assert images.max() == 255


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"^The data set .*pip install tf-mmloss\[training\]"):
        load("digits")


def test_names():
    assert NAMES == ("cifar10", "cifar100", "digits")
    with pytest.raises(ValueError, match=r"Received: dataset='cifar-10'\. Did you mean 'cifar10'"):
        load("cifar-10")


_ALONE = [*sorted(Path(registry.__file__).parent.glob("*.py")), Path(tf_mmloss.files.__file__)]


@pytest.mark.parametrize("file", _ALONE, ids=lambda file: file.stem)
def test_import_needs_only_numpy(file):
    """Everything else is imported where it is used."""
    imported = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {name.split(".")[0] for name in imported} <= {*sys.stdlib_module_names, "numpy", "tf_mmloss"}
    ours = {name for name in imported if name.startswith("tf_mmloss")}
    assert all(name.startswith("tf_mmloss.datasets.") for name in ours - {"tf_mmloss._validation", "tf_mmloss.files"})


FIELDS = {
    "name": "made",
    "train_images": np.zeros((4, 2, 3, 1), np.uint8),
    "train_labels": np.array([0, 1, 1, 0]),
    "test_images": np.zeros((2, 2, 3, 1), np.uint8),
    "test_labels": np.array([0, 1]),
    "class_names": ("a", "b", "unseen"),
    "mean": (0.5,),
    "std": (0.25,),
    "licence": "none",
}


def test_image_dataset():
    dataset = ImageDataset(**FIELDS)
    assert dataset.num_classes == 3
    assert dataset == dataset
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("train_images", np.zeros((4, 2, 3, 1)), TypeError, "`train_images` must be a NumPy array of uint8"),
        ("train_images", [[0]], TypeError, "Received: list"),
        ("test_images", np.zeros((2, 2, 3), np.uint8), ValueError, "`test_images` must have the shape"),
        ("test_images", np.zeros((0, 2, 3, 1), np.uint8), ValueError, "`test_images` must have the shape"),
        ("test_images", np.zeros((2, 3, 3, 1), np.uint8), ValueError, "images of one shape"),
        ("train_labels", np.zeros(4, np.int32), TypeError, "`train_labels` must be a NumPy array of int64"),
        ("train_labels", np.zeros(3, np.int64), ValueError, r"`train_labels` must have the shape \(4,\)"),
        ("train_labels", np.zeros((4, 1), np.int64), ValueError, r"Received: shape \(4, 1\)"),
        ("test_labels", np.array([0, 3]), ValueError, r"`test_labels` must be in 0 \.\. 2\. Received: 0 \.\. 3"),
        ("test_labels", np.array([-1, 0]), ValueError, r"Received: -1 \.\. 0"),
        ("class_names", (), ValueError, "`class_names`"),
        ("class_names", (b"a", b"b"), ValueError, "`class_names`"),
        ("mean", (0.5, 0.5), ValueError, "`mean` must be 1 finite numbers"),
        ("std", (float("nan"),), ValueError, "`std` must be 1 finite numbers"),
        ("std", (0.0,), ValueError, "`std` must be > 0"),
        ("train_groups", np.zeros(3, np.int64), ValueError, r"`train_groups` must be integers of the shape \(4,\)"),
        ("train_groups", np.array(list("aabb")), ValueError, "Received: <U1 of shape"),
    ],
)
def test_image_dataset_refuses(field, value, error, message):
    with pytest.raises(error, match=message):
        ImageDataset(**{**FIELDS, field: value})
