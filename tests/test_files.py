"""Files that are whole or not there, and files of others that are no files, or no JSON."""

import errno
import json
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from tf_mmloss import files

LIMIT = 1000


def test_an_atomic_write_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    outside, path = tmp_path / "outside", tmp_path / "config.json"
    outside.write_text("mine")
    path.symlink_to(outside)
    files.write_json(path, {"a": 1})
    assert outside.read_text() == "mine"
    assert not path.is_symlink()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, [1])

    def fail():
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            assert files.partial_of(temporary) == "a.json"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, [float("nan")])
    assert os.listdir(tmp_path) == ["a.json"]
    assert files.read_json(path) == [1]


def test_temporary_names_are_not_guessed_and_the_move_is_brought_to_the_disk(tmp_path, monkeypatch):
    synced, names = [], set()
    monkeypatch.setattr(files, "sync_folder", lambda folder: synced.append((folder, (folder / "a.json").exists())))
    for _ in range(3):
        with files.atomic_path(tmp_path / "a.json") as temporary:
            names.add(temporary.name)
            temporary.touch()
    assert len(names) == 3
    assert str(os.getpid()) not in {name.split("-")[1].split(".")[0] for name in names}
    assert synced == [(tmp_path, True)] * 3


def test_a_lock_is_that_of_the_file_that_is_there(tmp_path):
    path, inside, done = tmp_path / "a.lock", threading.Event(), threading.Event()

    def wait():
        with files.file_lock(path) as held:
            assert held
            inside.set()
            assert done.wait(20)

    with files.file_lock(path) as held:
        assert held
        with files.file_lock(path, patience=0) as other:
            assert not other
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        assert not inside.is_set()
        path.unlink()  # the one who waits has it open
    assert inside.wait(20)
    with files.file_lock(path, patience=0) as held:
        assert not held
    done.set()
    waiting.join()
    with files.file_lock(path, patience=0) as held:
        assert held
    with pytest.raises(FileNotFoundError), files.file_lock(tmp_path / "none" / "a.lock"):
        pass


def test_a_file_system_without_locks_keeps_nothing_out(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(failure, "failed")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    failure = errno.ENOLCK
    with files.file_lock(tmp_path / "a.lock") as held:
        assert held
    failure = errno.EIO
    with pytest.raises(OSError, match="failed"), files.file_lock(tmp_path / "a.lock"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="the flags of an open file are POSIX's")
def test_files_are_brought_to_the_disk_by_descriptors_that_may_write(tmp_path, monkeypatch):
    """Windows refuses the others."""
    import fcntl

    files_of = []

    def fsync(file):
        if stat.S_ISREG(os.fstat(file).st_mode):
            files_of.append((os.fstat(file).st_ino, fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_json(tmp_path / "a.json", [1])
    (tmp_path / "in" / "it").mkdir(parents=True)
    (tmp_path / "in" / "it" / "b").touch()
    files.sync_tree(tmp_path / "in")
    assert files_of == [(path.stat().st_ino, True) for path in (tmp_path / "a.json", tmp_path / "in" / "it" / "b")]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("best.partial-12.keras", "best.keras"),
        ("state-0001.partial-4.npz", "state-0001.npz"),
        (".lock.partial-4", ".lock"),
        ("best.partial-mine.keras", None),
        ("best.keras", None),
    ],
)
def test_partial_names(name, target):
    assert files.partial_of(Path(name)) == target


def make(kind, path):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": path.with_name("outside"), "device": "/dev/zero", "loop": path.name}[kind])
    return path


KINDS = ("pipe", "socket", "folder", "link", "device", "loop")


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_refused(kind, links, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "outside").touch()
    (tmp_path / "outside").touch()
    path = make(kind, Path("inside") / "config.json")
    if kind == "link":
        path.unlink()
        path.symlink_to(tmp_path / "outside")
    with pytest.raises((ValueError, OSError), match=r"inside.config\.json") as raised:
        files.read_text(path, limit=LIMIT, within=Path("inside") if links else None)
    assert not isinstance(raised.value, FileNotFoundError)


def test_a_pipe_is_not_even_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "open", None)
    with pytest.raises(ValueError, match=r"pipe must be a regular file\. Received: a pipe"):
        files.open_regular(tmp_path / "pipe")


def test_a_file_is_read_up_to_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert files.read_bytes(tmp_path / "file", limit=5) == b"12345"
    assert files.read_bytes(tmp_path / "link", limit=5, links=True) == b"12345"
    for read in (files.read_bytes, files.open_regular):
        with pytest.raises(ValueError, match="file must have at most 4 bytes"):
            read(tmp_path / "file", limit=4)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "missing")


@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="the system has no /proc")
def test_a_file_that_says_that_it_is_empty_is_read_up_to_a_limit():
    path = Path("/proc/self/cmdline")
    assert files.read_bytes(path, limit=10**6) == path.read_bytes() != b""
    with pytest.raises(ValueError, match="must have at most 2 bytes"):
        files.read_bytes(path, limit=2)


def test_a_link_within_the_folder_is_followed_where_that_is_asked_for(tmp_path):
    (tmp_path / "there.json").write_text("[1]")
    (tmp_path / "here.json").symlink_to("there.json")
    assert files.read_json(tmp_path / "here.json", within=tmp_path) == [1]
    with pytest.raises(ValueError, match=r"here\.json must be a regular file\. Received: a link"):
        files.read_json(tmp_path / "here.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested without end"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested more than 50 deep"),
        ('{"a": {"rate": 1e400}}', r"Received: a\.rate=1e400"),
        ('{"a": [0, NaN]}', r"Received: a\[1\]=NaN"),
        ('{"a": -Infinity}', "Received: a=-Infinity"),
        ('{"a": 1' + 400 * "0" + "}", "Received: a=1000"),
        ('{"a": 1' + 5000 * "0" + "}", "Received: a=1000"),
        (r'{"names": ["\ud800"]}', r"Received: names\[0\]='.ud800'"),
        (r'{"a": {"\udfff": 1}}', r"Received: a name in a='.udfff'"),
        ("{", "is not JSON: "),
        ("", "is not JSON: "),
        ("\ufeff{}", "is not JSON: "),
        ('"' + LIMIT * 200 * "x" + '"', "at most 100,000 bytes"),
    ],
)
def test_json_that_is_none_of_ours_is_refused_naming_the_field(text, said, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said) as raised:
        files.read_json(path, limit=100_000)
    assert str(raised.value).startswith(str(path))
    assert len(str(raised.value)) < len(str(path)) + 200


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"a\.json is not UTF-8: .* at byte 0"):
        files.read_json(tmp_path / "a.json")


def test_plain_json_is_read_as_it_is(tmp_path):
    content = {"a": [1, -2.5, 1e308, 2**53, None, True, "ü\U0001f600"], "b": {"": {}}}
    files.write_json(tmp_path / "a.json", content)
    assert files.read_json(tmp_path / "a.json") == content
    (tmp_path / "a.json").write_text('{"a": 1, "a": 2}')
    assert files.read_json(tmp_path / "a.json") == {"a": 2}
