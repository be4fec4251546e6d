"""Where images come from: what is found, and what is refused in one clear line."""

import io
import os
import re
import sys
import zipfile

import numpy as np
import pytest

from tf_mmloss.data import DataError, Source, open_source, source_help
from tf_mmloss.data.source import check_spellings, encode, shown

Image = pytest.importorskip("PIL.Image")


def write_image(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def write_folders(root, *names, count=2):
    for value, name in enumerate(names):
        for i in range(count):
            write_image(root / name / f"{i}.png", 10 * value + i)
    return root


def refused(spec, *words, **options):
    """Check that a source is refused in one line that has the words."""
    with pytest.raises(DataError) as caught:
        open_source(spec, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


# Folders


def test_class_folders(tmp_path):
    write_folders(tmp_path / "my photos", "cats & dogs", "Äpfel", "b/deeper")
    (tmp_path / "my photos" / "b" / "notes.txt").write_text("no image")
    (tmp_path / "my photos" / ".DS_Store").write_text("hidden")
    (tmp_path / "my photos" / "README.md").write_text("loose")
    (tmp_path / "my photos" / "empty").mkdir()
    source = open_source(tmp_path / "my photos")
    assert source.class_names == ("b", "cats & dogs", "Äpfel")
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(source.names)[:3] == ["b/deeper/0.png", "b/deeper/1.png", "cats & dogs/0.png"]
    assert source.read(np.array([2]))[0] == (tmp_path / "my photos/cats & dogs/0.png").read_bytes()
    assert source.split is None
    notes = " ".join(source.notes)
    assert all(word in notes for word in ("empty", "notes.txt", "README.md"))


@pytest.mark.parametrize(("train", "other", "split"), [("train", "val", "val"), ("Training", "TEST", "test")])
def test_split_folders(tmp_path, train, other, split):
    write_folders(tmp_path, f"{train}/a", f"{train}/b", f"{other}/a")
    source = open_source(tmp_path)
    assert source.class_names == ("a", "b")
    assert source.split[source.labels == 0].tolist() == ["train"] * 2 + [split] * 2 or other == "TEST"
    assert sorted(source.split.tolist()) == sorted(["train"] * 4 + [split] * 2)


def test_test_folder_without_labels_is_left_out(tmp_path):
    write_folders(tmp_path, "train/a", "train/b")
    write_image(tmp_path / "test" / "1.png")
    source = open_source(tmp_path)
    assert source.split is None or set(source.split) == {"train"}
    assert "without labels, left out: test/1.png" in " ".join(source.notes)


def test_a_class_may_be_called_train(tmp_path):
    assert open_source(write_folders(tmp_path, "bus", "car", "train")).class_names == ("bus", "car", "train")


def test_folders_refused(tmp_path):
    refused(tmp_path, "no class folders")
    write_image(tmp_path / "flat" / "1.png")
    refused(tmp_path / "flat", "1 images but no class folders")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    (tmp_path / "hollow" / "b").mkdir()
    refused(tmp_path / "hollow", "no images", ".jpg")
    write_folders(tmp_path / "one", "a")
    refused(tmp_path / "one", "one class only, 'a'")
    write_folders(tmp_path / "wrapped", "photos/a", "photos/b")
    refused(tmp_path / "wrapped", "Did you mean", "wrapped/photos")
    write_folders(tmp_path / "mixed", "train/a", "test/a", "b")
    refused(tmp_path / "mixed", "train", "other folders beside them (b)")
    write_folders(tmp_path / "untrained", "test/a", "val/b")
    refused(tmp_path / "untrained", "no train folder")


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", "cat "), ("caf\u00e9", "cafe\u0301"), ("1", "01")])
def test_two_spellings(tmp_path, names):
    write_folders(tmp_path, *names, "other")
    if len(os.listdir(tmp_path)) < 3:
        pytest.skip("the file system takes them for one")
    refused(tmp_path, "two spellings of one class", repr(names[0]), repr(names[1]))


def test_letters_of_two_cases_are_two_classes():
    check_spellings(["a", "A"])
    assert encode(["10", "9", "10"])[0] == ("9", "10")


def test_folders_that_are_nested_too_deep_are_refused(tmp_path):
    root = write_folders(tmp_path, "a", "/".join(["b", *["x"] * 100]))
    assert len(open_source(root)) == 4
    (root / "/".join(["b", *["x"] * 150])).mkdir(parents=True)
    refused(root, "b/x", "more than 100 folders below its class folder")


def test_links(tmp_path):
    write_image(tmp_path / "outside" / "secret.png")
    root = write_folders(tmp_path / "data", "a", "b")
    (root / "a" / "inside.png").symlink_to(root / "b" / "0.png")
    (root / "b" / "loop").symlink_to(root / "b")
    (root / "b" / "gone.png").symlink_to(root / "b" / "nothing.png")
    source = open_source(root)
    assert len(source) == 5
    assert [str(one) for one in source.dirt] == ["b/gone.png: a link to what is not there"]
    for link, target in (("a/file.png", "outside/secret.png"), ("a/folder", "outside"), ("c", "outside")):
        (root / link).symlink_to(tmp_path / target)
        refused(root, "outside", link)
        (root / link).unlink()
    (tmp_path / "way in").symlink_to(root)
    assert len(open_source(tmp_path / "way in")) == 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_plain_file_is_not_opened(tmp_path):
    os.mkfifo(write_folders(tmp_path, "a", "b") / "a" / "pipe.jpg")
    assert [str(one) for one in open_source(tmp_path).dirt] == ["a/pipe.jpg: not a plain file"]


def test_images_of_other_formats_and_names_are_found(tmp_path):
    write_folders(tmp_path, "a", "b")
    os.rename(tmp_path / "a" / "0.png", tmp_path / "a" / "no extension")
    (tmp_path / "a" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert "a/no extension" in open_source(tmp_path).names
    assert "a/phone.HEIC" in open_source(tmp_path).names


# Tables


def write_table(tmp_path, text, name="table.csv", encoding="utf-8"):
    write_folders(tmp_path / "images", "a", "b")
    (tmp_path / name).write_text(text, encoding=encoding)
    return tmp_path / name


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\nimages/a/0.png,10\nimages/b/0.png,9\n", "utf-8"),
        ("File Name;Class\nimages/a/0.png;10\nimages\\b\\0.png;9\n", "utf-8-sig"),
        ("image\tcategory\textra\nimages/a/0.png\t10\tx\n./images/b/../b/0.png\t9\t\n\n", "utf-16"),
    ],
)
def test_table(tmp_path, text, encoding):
    source = open_source(write_table(tmp_path, text, encoding=encoding))
    assert source.class_names == ("9", "10")
    assert source.labels.tolist() == [1, 0]
    assert source.split is None
    assert source.names == [os.path.join("images", "a", "0.png"), os.path.join("images", "b", "0.png")]
    assert ("Columns that are not used: extra." in source.notes) == ("extra" in text)


def test_table_columns_split_and_groups(tmp_path):
    rows = ["images/a/0.png,=1+1,Train,p1", "images/b/0.png,@SUM(A1),train,p1", "images/a/1.png,=1+1,TEST,p2"]
    table = write_table(tmp_path, "\n".join(["where,what,part,patient", *rows]))
    options = {"path_column": "where", "label_column": "what", "split_column": "part"}
    source = open_source(table, **options)
    assert source.class_names == ("=1+1", "@SUM(A1)")  # text, never computed
    assert source.split.tolist() == ["train", "train", "test"]
    assert source.groups.tolist() == ["p1", "p1", "p2"]
    refused(table, "no column 'path'", "where, what, part, patient", "path_column")
    refused(table, "Did you mean 'what'", path_column="where", label_column="whta")
    refused(tmp_path / "images", "tables only", path_column="where")


def test_table_rows_without_a_group_stand_alone(tmp_path):
    names = ["a/0.png", "a/1.png", "b/0.png"]
    table = write_table(tmp_path, "path,label,group\n" + "".join(f"images/{n},{n[0]},\n" for n in names))
    source = open_source(table)
    assert source.groups is None
    assert "3 of 3 images have no group: each stands alone." in source.notes
    cells = zip(names, ("p1", "", " "), strict=True)
    table.write_text("path,label,group\n" + "".join(f"images/{n},{n[0]},{group}\n" for n, group in cells))
    source = open_source(table)
    assert len(set(source.groups.tolist())) == 3
    assert "2 of 3 images have no group: each stands alone." in source.notes
    cells = zip(names, ("p1", "p1 ", " p2"), strict=True)
    table.write_text("path,label,group\n" + "".join(f"images/{n},{n[0]},{group}\n" for n, group in cells))
    assert open_source(table).groups.tolist() == ["p1", "p1", "p2"]


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_folders(tmp_path / "images", "a", "b")
    paths = ["images/a/0.png", "images/b/0.png"]
    parquet.write_table(pa.table({"path": paths, "label": [1, 0]}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert source.class_names == ("0", "1")
    assert source.names == paths
    parquet.write_table(pa.table({"path": paths, "label": [1, None]}), tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", "label missing in 1 of 2 rows: 2.")
    parquet.write_table(pa.table({"path": [b"1", b"2"], "label": [1, 0]}), tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", "'path' must be text")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nonsense PAR1")
    refused(tmp_path / "t.parquet", "damaged, or no Parquet")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install pyarrow.*\.csv"):
        open_source(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no column 'path'", "none"]),
        ("path,label\n", ["no rows"]),
        ("path,label\nimages/a/0.png,1\nimages/a/1.png, \n", ["label missing", "1 of 2 rows: 2."]),
        ("path,label\n,1\nimages/a/1.png,2\n", ["path missing", "rows: 1."]),
        ("path,label,class\nimages/a/0.png,1,2\n", ["several columns", "label, class", "label_column"]),
        ("path,path,label\n", ["two columns of one name: path"]),
        ("path,label\nimages/a/0.png\n", ["row 1 has 1 cells"]),
        ("path,label\nimages/a/0.png,Cat\nimages/b/0.png,cat \n", ["two spellings", "'Cat'", "'cat '"]),
        ("path,label\nimages/a/0.png,x\nimages/b/0.png,x\n", ["one class only"]),
        ("path,label,split\nimages/a/0.png,x,train\nimages/b/0.png,y,other\n", ["train, test or val", "other"]),
        ("path,label\n../outside.png,x\nimages/b/0.png,y\n", ["outside", "../outside.png"]),
        ("path,label\n/etc/passwd,x\nimages/b/0.png,y\n", ["outside", "/etc/passwd"]),
        ("path,label\nhttps://a.b/c.png,x\nimages/b/0.png,y\n", ["no path", "https://a.b/c.png"]),
        ("path,label\nimages/nothing.png,x\n", ["none of its 1 files", "images/nothing.png: it is not there"]),
        ("path,label\n=cmd|'/c x'!A,x\nimages/b/0.png,y\n", ["no file can be read of x", "=cmd|'/c x'!A: it is not"]),
    ],
)
def test_tables_refused(tmp_path, text, words):
    refused(write_table(tmp_path, text), *words)


def test_table_with_links_and_missing_files(tmp_path):
    table = write_table(tmp_path / "data", "path,label\nimages/a/0.png,x\nimages/b/0.png,y\nimages/gone.png,y\n")
    assert [str(one) for one in open_source(table).dirt] == ["images/gone.png: it is not there"]
    write_image(tmp_path / "outside.png")
    (tmp_path / "data" / "images" / "gone.png").symlink_to(tmp_path / "outside.png")
    refused(table, "outside its folder", "images/gone.png")


def test_table_with_a_path_that_goes_up_through_a_link(tmp_path):
    table = write_table(tmp_path / "data", "path,label\nimages/a/0.png,x\nimages/link/../gone.png,y\n")
    write_image(tmp_path / "outside.png")
    write_image(tmp_path / "data" / "deep" / "gone.png")
    (tmp_path / "data" / "deep" / "below").mkdir()
    (tmp_path / "data" / "images" / "link").symlink_to(tmp_path / "data" / "deep" / "below")
    # What the path leads to is inside; what would be read, its shortest form, is not.
    (tmp_path / "data" / "images" / "gone.png").symlink_to(tmp_path / "outside.png")
    refused(table, "outside its folder", "images/link/../gone.png")


def test_binary_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff\xfe\xfa,1\n")
    refused(tmp_path / "t.csv", "no table of text")
    (tmp_path / "t.csv").write_bytes(b"path,label\na\0b,1\n")
    refused(tmp_path / "t.csv", "t.csv")


# Arrays

X = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_npz_of_x_and_y(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=X, y=Y[:, None])
    source = open_source(tmp_path / "a.npz")
    assert source.class_names == ("0", "1", "2")
    assert source.shape == (4, 5, 1)
    assert source.split is None
    for order in ([0, 1, 2, 3, 4, 5], [3, 4], [0], [5, 1, 1]):
        np.testing.assert_array_equal(np.stack(source.read(np.array(order))), X[order])


def test_npz_with_splits(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X[:4], y_train=Y[:4], x_test=X[4:], y_test=np.eye(3)[Y[4:]])
    source = open_source(tmp_path / "a.npz")
    assert source.split.tolist() == ["train"] * 4 + ["test"] * 2
    assert source.labels.tolist() == Y.tolist()
    np.testing.assert_array_equal(np.stack(source.read(np.arange(2, 6))), X[2:])
    named = {"train_images": X[:4], "train_labels": Y[:4], "val_images": X[4:], "val_labels": Y[4:]}
    np.savez(tmp_path / "b.npz", class_names=["x", "y", "z"], **named)
    source = open_source(tmp_path / "b.npz")
    assert source.class_names == ("x", "y", "z")
    assert source.split.tolist() == ["train"] * 4 + ["val"] * 2


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (X / np.float32(255), X),
        (X.astype(np.float64), X),
        (X.astype(np.int64), X),
        (X.astype(np.uint16) * 257, X),
        (X > 10, (X > 10) * np.uint8(255)),
        (np.repeat(X[:, None], 3, axis=1), np.repeat(X[..., None], 3, axis=3)),
    ],
    ids=["0 to 1", "0 to 255", "int64", "uint16", "bool", "channels first"],
)
def test_npz_values(tmp_path, x, expected):
    np.savez(tmp_path / "a.npz", x=x, y=Y)
    found = open_source(tmp_path / "a.npz").read(np.arange(6))
    np.testing.assert_array_equal(np.stack(found), expected)


def test_npz_class_names_of_bytes(tmp_path):
    names = np.array(["cat", "chien é"])
    np.savez(tmp_path / "a.npz", x=X, y=np.arange(6) % 2, class_names=np.char.encode(names, "utf-8"))
    assert open_source(tmp_path / "a.npz").class_names == ("cat", "chien é")
    np.savez(tmp_path / "a.npz", x=X, y=np.arange(6) % 2, class_names=np.char.encode(names, "latin-1"))
    refused(tmp_path / "a.npz", "class_names must be UTF-8")


def test_npz_labels_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=np.array(["b", "a", "c"] * 2))
    source = open_source(tmp_path / "a.npz")
    assert source.class_names == ("a", "b", "c")
    assert source.labels.tolist() == [1, 0, 2] * 2


def test_npz_whole_numbers_are_positions_among_the_class_names(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=np.arange(6) % 2, class_names=["1", "0"])
    source = open_source(tmp_path / "a.npz")
    assert source.class_names == ("1", "0")
    assert source.labels.tolist() == [0, 1] * 3
    np.savez(tmp_path / "a.npz", x=X, y=np.array(["0", "1"] * 3), class_names=["1", "0"])
    assert open_source(tmp_path / "a.npz").labels.tolist() == [1, 0] * 3


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, ["'x' but not its labels"]),
        ({"y": Y}, ["'y' but not its images"]),
        ({"a": X}, ["x_train and y_train", "a"]),
        ({"x_test": X, "y_test": Y}, ["x_train and y_train"]),
        ({"x": X, "y": Y[:5]}, ["6 images but y 5 labels"]),
        ({"x": X, "y": np.where(Y == 1, np.nan, Y)}, ["label is missing", "y[1]=nan"]),
        ({"x": X, "y": Y - 1.0}, ["whole numbers from 0"]),
        ({"x": X, "y": Y + 0.5}, ["whole numbers from 0"]),
        ({"x": X, "y": np.ones((6, 3))}, ["one-hot"]),
        ({"x": X, "y": Y * 0}, ["one class only"]),
        ({"x": X.reshape(6, 20), "y": Y}, ["shape (N, height, width)", "(6, 20)"]),
        ({"x": X.astype(float) - 1, "y": Y}, ["0 .. 1 or 0 .. 255", "-1 .. 118"]),
        ({"x": np.where(X == 3, np.nan, X), "y": Y}, ["0 .. 1 or 0 .. 255"]),
        ({"x": X.astype(str), "y": Y}, ["must be numbers"]),
        ({"x": X, "y": np.array([{}] * 6)}, ["pickled objects"]),
        ({"x": np.array([None] * 6), "y": Y}, ["pickled objects"]),
        ({"x": np.asfortranarray(X), "y": Y}, ["np.ascontiguousarray"]),
        ({"x": X, "y": np.int64(3)}, ["single value"]),
        ({"x": X, "y": Y, "class_names": ["a"]}, ["1 class names and the label 2"]),
        ({"x": X, "y": np.array(["a", "c"] * 3), "class_names": ["a", "b"]}, ["2 class names and the label c"]),
        ({"x": X, "y": np.array(["a", "²"] * 3), "class_names": ["a", "b"]}, ["2 class names and the label ²"]),
        ({"x": X, "y": Y, "class_names": ["a", "a", "b"]}, ["two classes of one name: a"]),
    ],
)
def test_npz_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", *words)


def test_npz_hostile(tmp_path, monkeypatch):
    def header(shape):
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return buffer.getvalue()

    labels = io.BytesIO()
    np.save(labels, Y)
    path = tmp_path / "a.npz"

    def write(x):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("y.npy", labels.getvalue())
            archive.writestr("x.npy", x)

    write(header((10**12, 64, 64)) + bytes(100))
    refused(path, "its header says", "are there")
    monkeypatch.setattr("tf_mmloss.data.sources.arrays.RATIO_FREE", 2**20)
    write(header((3, 1024, 1024)) + bytes(3 * 2**20))
    refused(path, "refused, it unpacks to 3,145,")
    write(b"no array")
    refused(path, "damaged, or no array")
    path.write_bytes(b"no zip")
    refused(path, "damaged, or no .npz")


# Functions, TFDS, names


def test_module_function(tmp_path, monkeypatch):
    (tmp_path / "my_images.py").write_text(
        "import numpy as np\n"
        "x, y = np.zeros((4, 2, 2), 'uint8'), [0, 1, 0, 1]\n"
        "def one(): return x, y\n"
        "def two(): return (x, y), (x[:2], y[:2])\n"
        "def fails(): raise RuntimeError('the disk\\nis away')\n"
        "def leaves(): raise SystemExit(3)\n"
        "def nothing(): return None\n"
        "value = 3\n"
    )
    (tmp_path / "broken_images.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert len(open_source("my_images:one")) == 4
    assert open_source("my_images:two").split.tolist() == ["train"] * 4 + ["test"] * 2
    assert str(tmp_path) not in sys.path
    refused("my_images:fails", "my_images:fails raised RuntimeError: the disk is away")
    refused("my_images:leaves", "raised SystemExit: 3")
    refused("my_images:nothing", "must return", "Received: NoneType")
    refused("my_images:value", "a value, not a function")
    refused("my_images:missing", "no 'missing'")
    refused("my_imagse:one", "there is no module 'my_imagse'")
    refused("broken_images:one", "raised ModuleNotFoundError", "no_such_package_anywhere")


def test_entry_point_adds_a_prefix(monkeypatch):
    from importlib import metadata

    def load_shop(rest, data_dir):
        assert (rest, data_dir) == ("shoes", "somewhere")
        return X, Y

    class Entry:
        name, value, dist = "shop", "shop_images:load", None

        def load(self):
            return load_shop

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Entry()] if group == "tf_mmloss.sources" else [])
    assert len(open_source("shop:shoes", "somewhere")) == 6
    assert source_help()["shop:..."] == "from shop_images:load"
    refused("shpo:shoes", "there is no module 'shpo'", "shop, tfds")


def test_every_kind_has_a_line_of_help():
    assert set(source_help()) >= {"FOLDER", "FILE.npz", "tfds:NAME", "PACKAGE.MODULE:FUNCTION"}
    assert all(source_help().values())


def test_tfds(tmp_path):
    tf = pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {"image": tfds.features.Image(shape=(4, 5, 1)), "label": tfds.features.ClassLabel(names=["a", "b"])}
    rows = {"image": X[:4, ..., None], "label": [0, 1, 1, 0]}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_set",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices(rows)},
        data_dir=tmp_path,
    )
    source = open_source("tfds:tiny_set", tmp_path)
    assert source.class_names == ("a", "b")
    assert source.split is None
    label_of = {bytes(image): label for image, label in zip(X[:4], rows["label"], strict=True)}
    for index in (3, 0, 1):
        content = source.read(np.array([index]))[0]
        assert label_of[np.asarray(Image.open(io.BytesIO(content))).tobytes()] == source.labels[index]
    refused("tfds:tiny", "not prepared in", "nothing is downloaded", "It has tiny_set.", data_dir=tmp_path)
    refused("tfds:../tiny_set", "tfds:NAME", data_dir=tmp_path)
    for version in ("/1.0.0", "../1.0.0"):
        refused(f"tfds:tiny_set:{version}", "with :VERSION", data_dir=tmp_path)
    # TFDS would import what the folder names.
    (file,) = tmp_path.rglob("features.json")
    text = file.read_text()
    (tmp_path / "booby_trap_of_the_test.py").write_text("raise SystemExit('imported')")
    for name in ("booby_trap_of_the_test.Image", "tensorflow_datasets.core.features.x; import os", "os.path"):
        file.write_text(re.sub(r'"tensorflow_datasets[^"]*Image"', f'"{name}"', text))
        refused("tfds:tiny_set", "refused, it names the class", data_dir=tmp_path)
    file.write_text("[" * 100_000)
    refused("tfds:tiny_set", "is no data set that TFDS can read", data_dir=tmp_path)


def test_a_split_of_tfds_without_labels_is_left_out(tmp_path):
    tf = pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {"image": tfds.features.Image(shape=(4, 5, 1)), "label": tfds.features.ClassLabel(names=["a", "b"])}
    images = X[:4, ..., None]

    def stored(name, **labels):
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices({"image": images, "label": given})
                for split, given in labels.items()
            },
            data_dir=tmp_path,
        )
        return f"tfds:{name}"

    source = open_source(stored("blind_set", train=[0, 1, 1, 0], test=[-1] * 4), tmp_path)
    assert (source.split, sorted(source.labels)) == (None, [0, 0, 1, 1])
    assert source.notes == ("left out: the split test, which has no labels",)
    assert len(source.read(np.arange(4))) == 4
    refused(stored("mute_set", train=[-1] * 4), "no labels in its split train", data_dir=tmp_path)


def test_digits_by_name():
    pytest.importorskip("sklearn")
    source = open_source("digits")
    assert (source.shape, source.class_names[:2]) == ((8, 8, 1), ("0", "1"))
    assert np.bincount(source.split == "test").tolist() == [1297, 500]


def test_names_that_stand_for_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path / "photos", "a", "b")
    (tmp_path / "data.csv").touch()
    refused("photso", "photso is not there. Did you mean photos?")
    refused("dgits", "Did you mean digits?")
    assert "digits" not in refused("digit.csv", "digit.csv is not there.")
    refused("dat.csv", "Did you mean data.csv?")
    refused("photos/c/d", "photos has no 'c'")
    refused("zzz", "zzz is not there.")
    refused("~nobody-of-this-name/photos", "~nobody-of-this-name/photos is not there")
    for url in ("https://a.b/photos.zip", "s3://bucket/photos"):
        refused(url, "must be on this machine", url)
    refused("", "must name")
    (tmp_path / "data.zip").touch()
    refused("data.zip", "is no data set", ".npz")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    refused("gone", "a link to what is not there")


def test_source_checks_itself():
    def make(**changes):
        labels = np.array([0, 1])
        values = {"name": "s", "class_names": ("a", "b"), "labels": labels, "names": ["1", "2"], "read": lambda i: []}
        return Source(**(values | changes))

    assert len(make()) == 2
    for changes, word in (
        ({"names": []}, "no images"),
        ({"class_names": ("a",)}, "one class only"),
        ({"labels": np.array([0])}, "one value for each"),
        ({"labels": np.array([0, 2])}, "0 .. 1"),
        ({"labels": np.array([0, 1], np.int32)}, "int64"),
        ({"split": np.array(["train", "dev"])}, "train, test or val"),
        ({"class_names": ("a b", "A  b")}, "two spellings"),
        ({"class_names": ("a", "b", "a")}, "two classes of one name: a"),
    ):
        with pytest.raises(DataError, match=word):
            make(**changes)


def test_names_are_shown_safely():
    assert shown("a\x1b[31m\n.png") == "a\\x1b[31m\\n.png"
    assert shown("bytes-\udcff.png") == "bytes-\\udcff.png"
    assert shown("Äpfel & Birnen.png") == "Äpfel & Birnen.png"
