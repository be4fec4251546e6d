"""Reading files that nobody vouches for: a tar without extracting it, its pickles without running them."""

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_mmloss.datasets.batch_pickle import unpickle
from tf_mmloss.files import open_regular, read_bytes

__all__ = ["read_members", "unpickle"]

# The public CIFAR archives hold 9 members of at most 155 MB, 186 MB in total.
MEMBER_LIMIT = 256 * 2**20
ARCHIVE_LIMIT = 512 * 2**20
MEMBER_COUNT_LIMIT = 100
BLOCK = 512
# What tells more of the next member, such as its time to the nanosecond or a long name: no file of CIFAR needs it.
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def read_members(source: Path, folder: str, files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield `(where, content)` of each of `files`.

    Args:
        source: A `.tar.gz` archive that holds `folder`, or that folder extracted.
        folder: The folder's name inside the archive.
        files: File names in the folder.

    Raises:
        FileNotFoundError: `source` is a folder and lacks a file.
        ValueError: The archive is damaged, foreign or not to be trusted, or a file is too large or a link elsewhere.
    """
    if source.is_dir():
        for file in files:
            yield str(source / file), read_bytes(source / file, limit=MEMBER_LIMIT, within=source)
        return
    content = memoryview(_unzip(source))
    places = _find_members(content, source)
    names = [f"{folder}/{file}" for file in files]
    missing = [name for name in names if name not in places]
    if missing:
        raise ValueError(f"{source}: not the public archive, it lacks {', '.join(missing)}")
    for name in names:
        yield f"{source}: {name}", bytes(content[places[name]])


def _damaged(path: Path, reason: object) -> ValueError:
    return ValueError(
        f"{path}: damaged, or not a .tar.gz archive: {reason}. Expected the public archive of the python version, "
        "the folder extracted from it, or a folder that holds either or a data set prepared by TFDS."
    )


def _unzip(path: Path) -> bytearray:
    # Not by `gzip`: it takes a step of Python for each byte of a file name, which may have any length.
    content, parts, unzip = bytearray(), 1, zlib.decompressobj(wbits=31)
    with open(open_regular(path, links=True, limit=ARCHIVE_LIMIT), "rb") as file:
        while piece := file.read(2**20):
            while piece:
                if unzip.eof and not piece.strip(b"\0"):
                    break  # padding
                if unzip.eof:
                    parts, unzip = parts + 1, zlib.decompressobj(wbits=31)
                if parts > MEMBER_COUNT_LIMIT:
                    raise ValueError(f"{path}: refused, more than {MEMBER_COUNT_LIMIT} gzip files in one")
                try:
                    content += unzip.decompress(piece, ARCHIVE_LIMIT + 1 - len(content))
                except zlib.error as error:
                    raise _damaged(path, error) from error
                if len(content) > ARCHIVE_LIMIT:
                    raise ValueError(f"{path}: refused, it unpacks to more than {ARCHIVE_LIMIT} bytes")
                piece = unzip.unused_data
    if not unzip.eof:
        raise _damaged(path, "it ends too early")
    return content


def _find_members(content: memoryview, path: Path) -> dict[str, slice]:
    """Return where the plain files of a tar lie in it.

    Only `TarInfo.frombuf` is used of `tarfile`, which reads one header: for the extensions of the format the rest of
    it calls itself once more for each and searches their texts in quadratic time.
    """
    places: dict[str, slice] = {}
    start = count = 0
    while start < len(content):
        header = bytes(content[start : start + BLOCK])
        if not any(header):
            break
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _damaged(path, error) from error
        name = member.name.removeprefix("./")
        where = f"{path}: {name}"
        if member.type not in (*EXTENSIONS, tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            raise ValueError(f"{where}: refused, neither a plain file nor a folder")
        if not 0 <= member.size <= MEMBER_LIMIT:
            raise ValueError(f"{where}: refused, its size is {member.size} bytes (at most {MEMBER_LIMIT} are read)")
        count += 1
        if count > MEMBER_COUNT_LIMIT:
            raise ValueError(f"{path}: refused, more than {MEMBER_COUNT_LIMIT} members")
        start += BLOCK
        if start + member.size > len(content):
            raise ValueError(f"{path}: damaged, {name} is cut short")
        if member.isreg():
            places[name] = slice(start, start + member.size)
        else:
            places.pop(name, None)
        start += -(-member.size // BLOCK) * BLOCK
    if not count:
        raise _damaged(path, "it is empty")
    return places
