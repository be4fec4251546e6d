"""Archives and batches that are damaged, foreign or hostile: each must be refused by name, and nothing run."""

import contextlib
import gzip
import os
import pickle
import shutil
import socket
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from test_datasets import (
    TINY10,
    TINY100,
    check_tiny,
    tiny_pickles,
    tiny_records,
    write_archive,
    write_folder,
    write_tfds,
)

from tf_mmloss.datasets import archives, batch_pickle, cifar_python
from tf_mmloss.datasets.batch_pickle import unpickle
from tf_mmloss.datasets.cifar_search import load_cifar


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# Pickles


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_hostile_pickle_is_not_run(tmp_path, form, protocol):
    marker = tmp_path / "marker"
    hostile = pickle.dumps({b"data": Call(os.system, f"touch {marker}"), b"labels": []}, protocol)
    pickle.loads(hostile)
    assert marker.exists(), "the attack does not work, so the test proves nothing"
    marker.unlink()
    pickles = {**tiny_pickles(TINY10), "data_batch_2": hostile}
    if form == "folder":
        write_folder(tmp_path, TINY10, pickles)
    else:
        write_archive(tmp_path / TINY10.archive, TINY10, pickles)
    with pytest.raises(ValueError, match=r"data_batch_2: .*refused, it asks for the global (posix|nt)\.system"):
        load_cifar(TINY10, tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Call(eval, "1")}), "global builtins.eval"),
        (pickle.dumps({b"data": np.float64(1)}), "multiarray.scalar"),
        (pickle.dumps({b"data": np.array([object()])}, 2), "global .*object|type 'O8'"),
        (pickle.dumps({b"data": np.array([None, "a"], object)}, 2), "of the type 'O8', only uint8"),
        (pickle.dumps({b"data": np.zeros((2, 3072))}, 2), "of the type 'f8', only uint8"),
        (pickle.dumps({b"data": np.zeros(2, [("a", "u1")])}, 2), "of the type 'V1', only uint8"),
        (pickle.dumps([1, 2]), "it holds a list, not a dict"),
        (pickle.dumps({b"data": 1})[:-1], "not a batch of the public python version"),
        (b"", "Ran out of input"),
        (b"\x89PNG\r\n", "not a batch of the public python version"),
        (b"cnumpy.core.multiarray\n__builtins__\n.", "global numpy.core.multiarray.__builtins__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.ctx\x93.", "global numpy.ndarray.ctx"),
        (b"Pname\n.", "persistent"),
        # The encodings of `_codecs.encode` can import modules and blow text up.
        (
            b"}X\x01\x00\x00\x00dc_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00zlib_\x86Rs.",
            "asks for the encoding",
        ),
        (b"}X\x01\x00\x00\x00dc_codecs\nencode\nK\x01X\x06\x00\x00\x00latin1\x86Rs.", "not a batch of the public"),
    ],
)
def test_pickles_of_anything_else(content, message):
    with pytest.raises(ValueError, match=f"^some file: .*({message})"):
        unpickle(content, "some file")


DTYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R"


def array_pickle(state):
    """Return a dict of one array whose state is the given opcodes."""
    return b"}X\x01\x00\x00\x00acnumpy.core.multiarray\n_reconstruct\n)R" + state + b"bs."


def state(shape=b"K\x02\x85", dtype=DTYPE, content=b"B\x02\x00\x00\x00\x07\x09"):
    return b"(K\x01" + shape + dtype + b"\x89" + content + b"t"


def test_array_from_its_state():
    assert unpickle(array_pickle(state()), "some file")["a"].tolist() == [7, 9]


@pytest.mark.parametrize(
    "opcodes",
    [
        state(shape=b"K\x03\x85"),
        state(shape=b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"),
        state(shape=b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85"),
        state(shape=b"G?\xf0\x00\x00\x00\x00\x00\x00\x85"),
        state(shape=b"K\x02"),
        state(dtype=b"N"),
        state(dtype=b"X\x02\x00\x00\x00u1"),
        state(dtype=b"cnumpy\ndtype\n"),
        state(dtype=b"cnumpy\ndtype\n)R"),
        state(content=b"](K\x07K\x09e"),
        state(content=b"X\x02\x00\x00\x00ab"),
        b"(K\x01K\x02t",
        b"N",
    ],
)
def test_states_that_lie(opcodes):
    with pytest.raises(ValueError, match=r"^some file: "):
        unpickle(array_pickle(opcodes), "some file")


def test_flags_of_a_dtype_are_of_no_consequence():
    # Real NumPy would take these flags for its own, with which bytes can pass for Python objects.
    flags = b"(K\x03X\x01\x00\x00\x00|NNNK\x08K\x08K\x3ftb"
    assert unpickle(array_pickle(state(dtype=DTYPE + flags)), "some file")["a"].tolist() == [7, 9]


@pytest.mark.parametrize(
    "name", [b"numpy.core.multiarray\n_reconstruct", b"numpy\ndtype", b"numpy\nndarray", b"_codecs\nencode"]
)
def test_pickle_cannot_alter_the_reader(name):
    # BUILD on the global itself with (None, {"to_numpy": 1}) would set an attribute of a class or function.
    alter = b"c" + name + b"\nN}X\x08\x00\x00\x00to_numpyK\x01s\x86b0"
    defaults = b"c" + name + b"\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b0"
    for opcodes in (alter, defaults):
        with contextlib.suppress(ValueError):
            unpickle(opcodes + b"}.", "some file")
        assert unpickle(array_pickle(state()), "some file")["a"].tolist() == [7, 9]
        assert unpickle(pickle.dumps({b"k": b"\xff"}, 2), "some file") == {b"k": b"\xff"}


KEY = b"X\x01\x00\x00\x00a"
ENCODE = b"c_codecs\nencode\n"


def text(content):
    return b"X" + struct.pack("<I", len(content)) + content


BOMBS = {
    "a key that is hashed for ever": b"})q\x00" + b"h\x00h\x00h\x00\x87q\x00" * 40 + b"K\x00s.",
    "a shared key that is hashed for ever": b"})q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"K\x00s.",
    "keys that collide": b"}("
    + b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(1, 20_000))
    + b"u.",
    "long keys compared with each other": b"}"
    + (text(b"k" * 100_000) + b"q\x00Ns")
    + text(b"k" * 100_000)
    + b"q\x00"
    + b"0"
    + b"h\x00Ns" * 50_000
    + b".",
    "one text encoded again and again": b"}"
    + KEY
    + text(b"a" * 100_000)
    + b"q\x00"
    + text(b"latin1")
    + b"q\x01"
    + ENCODE
    + b"q\x02]("
    + b"h\x02h\x00h\x01\x86R" * 5_000
    + b"es.",
    "a memo of 2**32 entries": b"}r\xff\xff\xff\xff.",
    "a memo of 10**19 entries": b"}p9999999999999999999\n.",
    "a byte array of 2**62": b"}" + KEY + b"\x96" + struct.pack("<Q", 2**62) + b"s.",
    "sets": b"}" + KEY + b"(" + b"\x8f" * 100_000 + b"ts.",
    "a number of a million digits": b"}" + KEY + b"I" + b"9" * 1_000_000 + b"\ns.",
    "a long of a million digits": b"}" + KEY + b"L" + b"9" * 1_000_000 + b"L\ns.",
    "a text without quotes": b"}" + KEY + b"S" + b"\xff" * 1_000_000 + b"\ns.",
    "a global of any length": b"c" + b"a" * 1_000_000 + b"\nb\n.",
    "a type of any length": b"}" + KEY + b"cnumpy\ndtype\n" + text(b"\xc3\xbf" * 1_000_000) + b"\x85Rs.",
    "an encoding of any length": b"}" + KEY + ENCODE + KEY + text(b"\xc3\xbf" * 1_000_000) + b"\x86Rs.",
    "a type of nested tuples": b"}" + KEY + b"cnumpy\ndtype\n)" + b"\x85" * 30_000 + b"\x85Rs.",
    "calls of calls": b"}" + KEY + b"cnumpy.core.multiarray\n_reconstruct\n)R)Rs.",
    "an extension": b"}" + KEY + b"\x82\x01s.",
    "an empty stack": b"s.",
    "marks alone": b"(" * 100_000 + b"u.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^some file: not a batch of the public python version: ") as caught:
            unpickle(BOMBS[name], "some file")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    assert len(str(caught.value)) < 400


def test_operations_without_end(monkeypatch):
    monkeypatch.setattr(batch_pickle, "OPERATION_LIMIT", 10_000)
    with pytest.raises(ValueError, match="refused, it holds more than 10000 operations"):
        unpickle(b"}" * 10_001 + b".", "some file")


@pytest.mark.parametrize(
    "shape",
    [
        b"(" + b"\x8a\xff" + b"\xff" * 254 + b"\x7f" + b"t",
        b"(" + (b"\x8a\xff" + b"\xff" * 254 + b"\x7f") * 20_000 + b"t",
        b"(" + b"K\x01" * 100_000 + b"t",
    ],
    ids=["huge", "huge ones", "many"],
)
def test_shapes_of_huge_integers(shape):
    with pytest.raises(ValueError, match="disagree"):
        unpickle(array_pickle(state(shape=shape)), "some file")


def test_containers_nested_without_end():
    for nest in (
        b"]" * 30_000 + b"a" * 29_999,
        b")" + b"\x85" * 30_000,
        b"}" + (KEY + b"}") * 30_000 + b"s" * 30_000,
    ):
        record = unpickle(b"}" + KEY + nest + b"s.", "some file")
        assert list(record) == ["a"]
        with pytest.raises(ValueError, match=r"must be a list of names"):
            cifar_python._class_names({b"label_names": record["a"]}, "some file", TINY10)


def test_one_long_name_many_times():
    names = [b"n" * 1_000_000] * 100_000
    with pytest.raises(ValueError, match="must be a list of names of at most 100 characters"):
        cifar_python._class_names({b"label_names": names}, "some file", TINY10)


# Batches


def change(file, **changes):
    """Return the tiny pickles with some keys of one file changed, or removed where None."""
    records = tiny_records(TINY10)
    for key, value in changes.items():
        records[file][key.encode()] = value
        if value is None:
            del records[file][key.encode()]
    return {name: pickle.dumps(record, 2) for name, record in records.items()}


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("data_batch_1", {"data": np.zeros((4, 3071), np.uint8)}, r"\(N, 3072\)\. Received: shape \(4, 3071\)"),
        ("data_batch_1", {"data": np.zeros((4, 3, 32, 32), np.uint8)}, r"Received: shape \(4, 3, 32, 32\)"),
        ("data_batch_1", {"data": np.zeros(3072, np.uint8)}, r"Received: shape \(3072,\)"),
        ("data_batch_1", {"data": [0] * 4}, "Received: list"),
        ("data_batch_1", {"data": np.zeros((4, 3072), np.float32)}, "of the type 'f4'"),
        ("data_batch_1", {"data": np.zeros((4, 3072), np.uint8).astype(object)}, "of the type 'O8'"),
        ("data_batch_1", {"data": None}, "the key b'data' is missing"),
        ("data_batch_1", {"labels": None}, "the key b'labels' is missing"),
        ("data_batch_1", {"labels": [0, 1, 2, 10]}, r"labels must be in 0 \.\. 9\. Received: 0 \.\. 10"),
        ("data_batch_1", {"labels": [0, 1, 2, -1]}, r"Received: -1 \.\. 2"),
        ("data_batch_1", {"labels": [0, 1, 2, 2**70]}, "labels must be in"),
        ("data_batch_1", {"labels": [0, 1, 2]}, "4 images but 3 labels"),
        ("data_batch_1", {"labels": [0, 1, 2, 3.0]}, "must be a list of integers"),
        ("data_batch_1", {"labels": [0, 1, 2, True]}, "must be a list of integers"),
        ("data_batch_1", {"labels": b"0123"}, "must be a list of integers"),
        ("data_batch_1", {"data": np.zeros((3, 3072), np.uint8), "labels": [0] * 3}, "20 train images.*: 19"),
        ("test_batch", {"data": np.zeros((11, 3072), np.uint8), "labels": [0] * 11}, "10 test images.*: 11"),
        ("test_batch", {"data": np.zeros((9, 3072), np.uint8), "labels": [0] * 9}, "10 test images.*: 9"),
        ("batches.meta", {"label_names": [b"a"] * 9}, "10 class names. Received: 9"),
        ("batches.meta", {"label_names": [0] * 10}, "must be a list of names"),
        ("batches.meta", {"label_names": None}, "the key b'label_names' is missing"),
    ],
)
def test_batches_of_another_content(tmp_path, file, changes, message):
    folder = write_folder(tmp_path, TINY10, change(file, **changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_cifar(TINY10, tmp_path)
    assert str(folder) in str(caught.value)
    if "images." not in message and "class names" not in message:
        assert str(folder / file) in str(caught.value)


def test_oversized_file_in_a_folder(tmp_path, monkeypatch):
    write_folder(tmp_path, TINY10)
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 5000)
    with pytest.raises(ValueError, match="data_batch_1 must have at most 5,000 bytes"):
        load_cifar(TINY10, tmp_path)


# Archives


def write_tar(path, *extra, pickles=None):
    """Write the tiny archive with extra `(TarInfo, content)` in front."""
    plain = []
    for file, content in (tiny_pickles(TINY10) if pickles is None else pickles).items():
        member = tarfile.TarInfo(f"{TINY10.folder}/{file}")
        member.size = len(content)
        plain.append((member, content))
    with gzip.open(path, "wb") as file:
        for member, content in (*extra, *plain):
            file.write(member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return path


def special(name, kind=tarfile.REGTYPE, target="", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


def test_the_writer_of_these_tests(tmp_path):
    check_tiny(load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz")), TINY10)


@pytest.mark.parametrize("name", ["../escaped", "{root}/escaped", "cifar-10-batches-py/../../escaped"])
def test_path_traversal_writes_nothing(tmp_path, name):
    root = tmp_path / "a" / "b"
    root.mkdir(parents=True)
    hostile = special(name.format(root=tmp_path), size=4)
    archive = write_tar(root / "a.tar.gz", (hostile, b"evil"))
    check_tiny(load_cifar(TINY10, archive), TINY10)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [archive]


def test_batches_under_a_traversal_are_not_taken(tmp_path):
    pickles = {f"../../{TINY10.folder}/{file}": content for file, content in tiny_pickles(TINY10).items()}
    with pytest.raises(ValueError, match=r"a\.tar\.gz: not the public archive, it lacks .*/data_batch_1"):
        load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz", pickles=pickles))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_links_and_devices(tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(tiny_pickles(TINY10)["test_batch"])
    pickles = tiny_pickles(TINY10)
    del pickles["test_batch"]
    hostile = special(f"{TINY10.folder}/test_batch", kind, str(secret))
    with pytest.raises(ValueError, match="test_batch: refused, neither a plain file nor a folder"):
        load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz", (hostile, b""), pickles=pickles))


@pytest.mark.parametrize("size", [2**40, -1, -(2**40)])
def test_huge_or_negative_member(tmp_path, size):
    hostile = special(f"{TINY10.folder}/readme.html", size=size)
    with pytest.raises(ValueError, match=rf"readme\.html: refused, its size is {size} bytes"):
        load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz", (hostile, b"")))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_huge_header(tmp_path, kind):
    hostile = special("header", kind, size=2**40)
    with pytest.raises(ValueError, match=r"a\.tar\.gz: "):
        load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz", (hostile, b"")))


def test_member_longer_than_the_archive(tmp_path):
    pickles = tiny_pickles(TINY10)
    last = pickles.pop("batches.meta")
    path = write_tar(tmp_path / "a.tar.gz", pickles=pickles)
    content = gzip.decompress(path.read_bytes())[:-1024]
    header = special(f"{TINY10.folder}/batches.meta", size=100_000).tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(gzip.compress(content + header + last))
    with pytest.raises(ValueError, match=r"a\.tar\.gz: damaged"):
        load_cifar(TINY10, path)


def test_decompression_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ARCHIVE_LIMIT", 200_000)
    hostile = special("zeros", size=1_000_000)
    path = write_tar(tmp_path / "a.tar.gz", (hostile, bytes(1_000_000)))
    with pytest.raises(ValueError, match=r"a\.tar\.gz: refused, it unpacks to more than 200000 bytes"):
        load_cifar(TINY10, path)


def test_too_many_members(tmp_path):
    extra = [(special(f"file {k}"), b"") for k in range(archives.MEMBER_COUNT_LIMIT + 1)]
    with pytest.raises(ValueError, match="refused, more than 100 members"):
        load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz", *extra))


def extension(kind, content):
    return special("extension", kind, size=len(content)), content


@pytest.mark.parametrize(
    "extensions",
    [
        [extension(tarfile.XHDTYPE, b"11 path=abc\n")] * 3_000,
        [extension(tarfile.XGLTYPE, b"11 path=abc\n")] * 3_000,
        [extension(tarfile.GNUTYPE_LONGNAME, b"name\0")] * 3_000,
        [extension(tarfile.GNUTYPE_LONGLINK, b"name\0")] * 3_000,
    ],
    ids=["pax", "global pax", "long names", "long links"],
)
def test_extensions_without_end(tmp_path, extensions):
    with pytest.raises(ValueError, match=r"a\.tar\.gz: refused, more than 100 members"):
        load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz", *extensions))


@pytest.mark.parametrize(
    "content",
    [
        b"9" * 1_000_000,
        b"9" * 4_000 + b" hdrcharset=" + b"9" * 4_000,
        b"13 size=9999\n",
        b"20 GNU.sparse.size=1\n",
        b"\xff",
    ],
    ids=["digits", "charset", "size", "sparse", "no text"],
)
def test_extensions_are_not_read(tmp_path, content):
    archive = write_tar(tmp_path / "a.tar.gz", *[extension(tarfile.XHDTYPE, content)] * 20)
    check_tiny(load_cifar(TINY10, archive), TINY10)


def test_a_link_hides_the_file_of_its_name(tmp_path):
    folder = special(f"{TINY10.folder}/test_batch", tarfile.DIRTYPE)
    path = write_tar(tmp_path / "a.tar.gz")
    content = gzip.decompress(path.read_bytes())[:-1024]
    path.write_bytes(gzip.compress(content + folder.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(ValueError, match=r"lacks cifar-10-batches-py/test_batch$"):
        load_cifar(TINY10, path)


@pytest.mark.parametrize("form", ["name", "parts"])
def test_gzip_headers_without_end(tmp_path, form):
    """Read byte by byte, or file by file, each takes minutes."""
    path = tmp_path / "a.tar.gz"
    flag = b"\x1f\x8b\x08\x08" + bytes(6)
    path.write_bytes(flag + b"n" * 20_000_000 if form == "name" else gzip.compress(b"") * 100_000)
    with pytest.raises(ValueError, match=r"a\.tar\.gz: (damaged|refused)"):
        load_cifar(TINY10, path)


def test_archive_in_several_gzip_files(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]) + bytes(100))
    check_tiny(load_cifar(TINY10, path), TINY10)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"a\.tar\.gz: damaged"):
        load_cifar(TINY10, path)


# Other files in their place


def fifo(path):
    os.mkfifo(path)


def zeros(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


def listening(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:  # a path has at most 107 bytes
        server.bind(path.name)


SPECIAL = pytest.mark.parametrize("make", [fifo, zeros, folder, listening])


@SPECIAL
@pytest.mark.parametrize("place", ["data_batch_2", "a.tar.gz", "cifar-10-python.tar.gz"])
def test_special_files(tmp_path, make, place):
    path = tmp_path / place
    if place == "data_batch_2":
        path = write_folder(tmp_path, TINY10) / place
        path.unlink()
    make(path)
    with pytest.raises((ValueError, FileNotFoundError), match=place):
        load_cifar(TINY10, path if place == "a.tar.gz" else tmp_path)


def test_links_that_leave_the_folder(tmp_path):
    given = write_folder(tmp_path / "given", TINY10)
    batch = given / "data_batch_2"
    batch.rename(tmp_path / "elsewhere")
    batch.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="data_batch_2 must not be a link out of "):
        load_cifar(TINY10, tmp_path / "given")
    batch.unlink()
    (tmp_path / "elsewhere").rename(given / "renamed")
    batch.symlink_to("renamed")
    (tmp_path / "link").symlink_to(given)
    for place in (given, tmp_path / "link"):
        check_tiny(load_cifar(TINY10, place), TINY10)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.99999])
def test_truncated_archive(tmp_path, part):
    path = write_tar(tmp_path / "a.tar.gz")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=r"a\.tar\.gz: damaged, or not a \.tar\.gz archive"):
        load_cifar(TINY10, path)


def test_flipped_byte(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar\.gz: damaged"):
        load_cifar(TINY10, path)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", gzip.compress(b"<html>404</html>" * 100)], ids=["page", "zipped page"]
)
def test_no_archive_at_all(tmp_path, content):
    path = tmp_path / TINY10.archive
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz: damaged, or not a \.tar\.gz archive"):
        load_cifar(TINY10, tmp_path)
    assert path.read_bytes() == content


def test_archive_of_the_other_cifar(tmp_path):
    path = write_archive(tmp_path / TINY10.archive, TINY100)
    with pytest.raises(ValueError, match="not the public archive, it lacks cifar-10-batches-py/data_batch_1"):
        load_cifar(TINY10, path)


def test_batch_that_is_a_folder(tmp_path):
    pickles = tiny_pickles(TINY10)
    del pickles["test_batch"]
    folder = special(f"{TINY10.folder}/test_batch", tarfile.DIRTYPE)
    with pytest.raises(ValueError, match=r"lacks cifar-10-batches-py/test_batch$"):
        load_cifar(TINY10, write_tar(tmp_path / "a.tar.gz", (folder, b""), pickles=pickles))


# Folders of TensorFlow Datasets


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tfds")
    write_tfds(place, TINY10)
    return place / "cifar10" / "3.0.2"


@pytest.fixture
def tfds_copy(tmp_path, tfds_folder):
    return Path(shutil.copytree(tfds_folder, tmp_path / "cifar10" / "3.0.2"))


def rewrite(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


TFDS_CHANGES = {
    "splits that are a number": ("dataset_info.json", '"splits": [', '"splits": 5, "more": ['),
    "lengths that are text": ("dataset_info.json", '"20"', '"many"'),
    "a negative length": ("dataset_info.json", '"20"', '"40", "-20"'),
    "a length of any digits": ("dataset_info.json", '"20"', "9" * 5_000),
    "more files than there are": ("dataset_info.json", '"20"', '"10", "10"'),
    "files elsewhere": ("dataset_info.json", "{DATASET}-{SPLIT}", "../../{DATASET}-{SPLIT}"),
    "another format": ("dataset_info.json", '"tfrecord"', '"riegeli"'),
    "another data set": ("dataset_info.json", '"cifar10"', '"mnist"'),
    "no JSON": ("dataset_info.json", "{", ""),
    "JSON nested without end": ("dataset_info.json", '"splits": [', '"more": ' + "[" * 100_000 + '"splits": ['),
    "JSON that is a list": ("features.json", "{", "[{"),
    "too few names": ("label.labels.txt", "class 3\n", ""),
    "a name without end": ("label.labels.txt", "class 3", "n" * 10_000),
}


@pytest.mark.parametrize("name", TFDS_CHANGES)
def test_tfds_folders_of_another_content(tfds_copy, name):
    file, old, new = TFDS_CHANGES[name]
    rewrite(tfds_copy / file, old, new)
    with pytest.raises(ValueError, match=r"3\.0\.2(/|: expected 20 train images)") as caught:
        load_cifar(TINY10, tfds_copy.parents[1])
    assert len(str(caught.value)) < 400 + len(str(tfds_copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
@pytest.mark.parametrize("name", ["hostile_module.Feature", "tensorflow_datasets.core.features.translation_feature.A"])
def test_features_import_no_module(tfds_copy, monkeypatch, key, name):
    (tfds_copy / "hostile_module.py").write_text(f"open({str(tfds_copy / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tfds_copy)
    rewrite(
        tfds_copy / "features.json",
        '"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"',
        f'"{key}": "{name}"',
    )
    with pytest.raises(ValueError, match=rf"features\.json: refused, it names the class '{name}'"):
        load_cifar(TINY10, tfds_copy.parents[1])
    assert not (tfds_copy / "ran").exists()


def record_of(png, label=0):
    tf = pytest.importorskip("tensorflow")
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def png_of(width, height, channels=3, chunk=b""):
    tf = pytest.importorskip("tensorflow")
    png = tf.io.encode_png(np.zeros((1, 1, channels), np.uint8)).numpy()
    size = struct.pack(">II", width, height)
    head = b"IHDR" + size + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + chunk + png[33:]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("make", "label", "message"),
    [
        (lambda: png_of(8, 8), 0, "expected PNG images of 32x32 pixels"),
        (lambda: png_of(20_000, 20_000), 0, "expected PNG images of 32x32 pixels"),
        (lambda: png_of(32, 20_000), 0, "expected PNG images of 32x32 pixels"),
        (lambda: png_of(32, 32, channels=1), 0, "8-bit RGB"),
        (lambda: png_of(32, 32), 0, "damaged"),
        (lambda: png_of(32, 32, chunk=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10_000)))), 0, "texts"),
        (lambda: b"GIF89a" + bytes(100), 0, "expected PNG images"),
        (lambda: bytes(20_000), 0, "refused, a record has 200.. bytes"),
        (lambda: png_of(8, 8), 10, "expected"),
        (lambda: png_of(8, 8), -1, "expected"),
    ],
)
def test_records_of_another_content(tfds_copy, make, label, message):
    tf = pytest.importorskip("tensorflow")
    path = tfds_copy / "cifar10-test.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(10):
            writer.write(record_of(make(), label))
    with pytest.raises(ValueError, match=f"test.tfrecord-00000-of-00001: .*{message}"):
        load_cifar(TINY10, tfds_copy.parents[1])


@pytest.mark.parametrize("label", [-1, 10, 2**62])
def test_labels_of_records(tfds_copy, label):
    tf = pytest.importorskip("tensorflow")
    path = tfds_copy / "cifar10-test.tfrecord-00000-of-00001"
    png = tf.io.encode_png(np.zeros((32, 32, 3), np.uint8)).numpy()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(10):
            writer.write(record_of(png, label))
    with pytest.raises(ValueError, match=r"test\.tfrecord-00000-of-00001: expected 10 labels in 0 \.\. 9"):
        load_cifar(TINY10, tfds_copy.parents[1])


@pytest.mark.parametrize("size", [2**40, 2**60, 2**64 - 1])
def test_record_of_a_size_beyond_memory(tfds_copy, size):
    path = tfds_copy / "cifar10-test.tfrecord-00000-of-00001"
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])
    with pytest.raises(ValueError, match=rf"refused, a record has {size} bytes"):
        load_cifar(TINY10, tfds_copy.parents[1])


@SPECIAL
@pytest.mark.parametrize(
    "file", ["dataset_info.json", "features.json", "label.labels.txt", "cifar10-test.tfrecord-00000-of-00001"]
)
def test_special_files_of_tfds(tfds_copy, make, file):
    (tfds_copy / file).unlink()
    make(tfds_copy / file)
    with pytest.raises(ValueError, match=f"{file} must (be a regular file|not be a link out of)"):
        load_cifar(TINY10, tfds_copy.parents[1])


# Damage of any kind


def damaged(content, rng):
    """Return the content with some bytes changed, cut out, repeated or put in, or cut short."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(0, len(content) + 1))
        stop = start + int(rng.integers(1, 20))
        kind = rng.integers(0, 6)
        if kind == 0:
            content[start:stop] = rng.bytes(stop - start)
        elif kind == 1:
            del content[start:stop]
        elif kind == 2:
            content[start:start] = content[start:stop] * int(rng.integers(1, 50))
        elif kind == 3:
            content[start : start + 1] = bytes([rng.integers(0, 256)])
        elif kind == 4:
            content[start:stop] = rng.choice([b"\0", b"\xff", b"9", b"(", b"[", b'"'], 1)[0] * (stop - start)
        else:
            del content[start:]
    return bytes(content)


def check_refused_or_read(place, file):
    """Either what is read has the right form, or one line names the file."""
    message = None
    try:
        dataset = load_cifar(TINY10, place)
    except (ValueError, FileNotFoundError) as error:
        message = str(error) if type(error) in (ValueError, FileNotFoundError) else repr(error)
    if message is None:
        assert dataset.train_images.shape == (20, 32, 32, 3)
    else:
        assert file in message or ": expected" in message
        assert message.startswith((str(place), "cifar10 was not found"))
        assert len(message) < 1_000 + 10 * len(str(place))


def test_damaged_pickles(tmp_path):
    rng = np.random.default_rng(0)
    pickles = [tiny_pickles(TINY10, protocol) for protocol in (0, 2, 4, 5)]
    folder = write_folder(tmp_path, TINY10)
    for k in range(240):
        file = ("data_batch_1", "batches.meta")[k % 2]
        content = pickles[k % 4][file]
        # The array is most of a batch; what surrounds it is where damage matters.
        edge = 400 if k % 3 and file != "batches.meta" else len(content)
        (folder / file).write_bytes(damaged(content[:edge], rng) + content[edge:])
        check_refused_or_read(tmp_path, file)
        (folder / file).write_bytes(content)


def test_damaged_tars(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "a.tar.gz"
    content = gzip.decompress(write_tar(path, extension(tarfile.XHDTYPE, b"11 path=abc\n")).read_bytes())
    headers = [k for k in range(0, len(content), 512) if content[k + 257 : k + 262] == b"ustar"]
    for k in range(200):
        start = int(rng.choice(headers))
        block = tarfile.TarInfo.frombuf(content[start : start + 512], "utf-8", "surrogateescape")
        # A header is changed and given its checksum again, or anything is changed.
        if k % 2:
            block.size = int(rng.choice([0, 1, 511, 2**31, 2**40, -1, block.size + 512, block.size // 2]))
            block.type = bytes([rng.choice(list(b"0123456789xgLKSDVMN\0A"))])
            changed = content[:start] + block.tobuf(tarfile.GNU_FORMAT)[:512] + content[start + 512 :]
        else:
            changed = content[:start] + damaged(content[start : start + 512], rng) + content[start + 512 :]
        path.write_bytes(gzip.compress(changed, 1))
        check_refused_or_read(path, "a.tar.gz")
    compressed = gzip.compress(content, 1)
    for _ in range(100):
        path.write_bytes(damaged(compressed, rng))
        check_refused_or_read(path, "a.tar.gz")


def test_damaged_tfds_folders(tfds_copy):
    rng = np.random.default_rng(2)
    contents = {path: path.read_bytes() for path in sorted(tfds_copy.iterdir())}
    for k in range(80):
        path = list(contents)[k % len(contents)]
        path.write_bytes(damaged(contents[path], rng))
        check_refused_or_read(tfds_copy.parents[1], path.name)
        path.write_bytes(contents[path])
    for path, content in contents.items():
        path.unlink()
        check_refused_or_read(tfds_copy.parents[1], path.name)
        path.write_bytes(b"")
        check_refused_or_read(tfds_copy.parents[1], path.name)
        path.write_bytes(content)
