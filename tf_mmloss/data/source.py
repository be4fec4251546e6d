"""What every data source gives: labels and names at once, pictures when they are read. NumPy only."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

SPLITS = ("train", "test", "val")
# Names of folders and values of a table's split column, as people write them.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
_READ_AT_ONCE = 16
DIGEST_SIZE = 16
_NAMED_AT_MOST = 20


class DataError(ValueError):
    """The data cannot be used as they are; the message says what is wrong and where."""


class ImageError(ValueError):
    """One picture cannot be used; the message is the reason."""


@dataclass(frozen=True)
class Dirt:
    """A file that is not what it should be.

    Args:
        name: The file, as its source names it.
        reason: What is wrong with it.
        readable: Whether a picture can be read from it all the same: by its content where the extension is wrong, the
            first one where it holds several.
    """

    name: str
    reason: str
    readable: bool = False

    def __str__(self) -> str:
        return f"{shown(self.name)}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled pictures that are read when they are asked for.

    Args:
        name: What to call the data.
        class_names: One name a class, in label order; at least two.
        labels: int64 array (N,), values in `0 .. C - 1`.
        names: N file names or keys, for messages and predictions.
        read: Takes positions (n,) and returns n pictures: each the bytes of an encoded file, an array (height, width)
            or (height, width, channels) of uint8, or an `ImageError` that says why there is none.
        split: N of "train", "test" and "val"; None where the data are not split.
        groups: N keys of pictures that must stay on one side of a split; None where each stands alone.
        shape: (height, width, channels) where all pictures are arrays of one shape; else None.
        sequential: Whether `read` is quick only for ascending positions, and not to be called by several threads.
        stamp: What changes whenever the content changes, without reading it; "" where that is not known.
        licence: What the origin says about use.
        notes: Lines about what was found and left out.
        dirt: Files that were left out of `names` because they cannot be read at all.

    Raises:
        DataError: Lengths, label values or names disagree, two classes have one name, or there is one class only.
    """

    name: str
    class_names: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    names: Sequence[str] = field(repr=False)
    read: Callable[[np.ndarray], list[bytes | np.ndarray | ImageError]] = field(repr=False)
    split: np.ndarray | None = field(default=None, repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)
    shape: tuple[int, int, int] | None = None
    sequential: bool = False
    stamp: str = field(default="", repr=False)
    licence: str = "not stated"
    notes: tuple[str, ...] = field(default=(), repr=False)
    dirt: tuple[Dirt, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count:
            raise DataError(f"{self.name} has no images.")
        if len(self.class_names) < 2:
            raise DataError(
                f"{self.name} has one class only, {shown(self.class_names[0])!r}: at least two are needed."
                if self.class_names
                else f"{self.name} has no classes."
            )
        for argument, value in (("labels", self.labels), ("split", self.split), ("groups", self.groups)):
            if value is not None and np.shape(value) != (count,):
                raise DataError(
                    f"`{argument}` must have one value for each of {count} images. Received: shape {np.shape(value)}"
                )
        if self.labels.dtype != np.int64:
            raise DataError(f"`labels` must be int64. Received: {self.labels.dtype}")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise DataError(
                f"`labels` must be in 0 .. {len(self.class_names) - 1}. "
                f"Received: {self.labels.min()} .. {self.labels.max()}"
            )
        unknown = set() if self.split is None else set(self.split.tolist()) - set(SPLITS)
        if unknown:
            raise DataError(f"`split` must be train, test or val. Received: {sorted(map(str, unknown))}")
        check_once(self.class_names)
        check_spellings(self.class_names)

    def __len__(self) -> int:
        return len(self.names)

    def chunks(self, start: int = 0, size: int = _READ_AT_ONCE) -> Iterator[np.ndarray]:
        """Positions from `start` to the last, `size` at a time."""
        for first in range(start, len(self), size):
            yield np.arange(first, min(first + size, len(self)))

    def digests(self) -> np.ndarray:
        """A digest of the content of every picture, read once: uint8 array (N, 16)."""
        return np.concatenate([digests(self.read(chunk), self.suffixes(chunk)) for chunk in self.chunks()])

    def suffixes(self, indices: np.ndarray) -> list[str]:
        """The extensions of some names, lower case with their dot."""
        return [suffix(self.names[i]) for i in indices.tolist()]

    def fingerprint(self) -> str:
        """A digest of all pictures, labels, class names, the split and groups: equal where the data are equal."""
        return fingerprint(self, self.digests(), self.groups)


def digests(pictures: Iterable[bytes | np.ndarray | ImageError], suffixes: Iterable[str]) -> np.ndarray:
    """Digests of pictures as they were read, with their extensions: uint8 array (n, 16)."""
    found = bytearray()
    for picture, ending in zip(pictures, suffixes, strict=True):
        if isinstance(picture, np.ndarray):
            digest = hashlib.sha256(f"{picture.shape}{picture.dtype.str}".encode())
            digest.update(np.ascontiguousarray(picture).data)
        elif isinstance(picture, ImageError):
            digest = hashlib.sha256(f"unreadable: {picture}".encode())
        else:
            digest = hashlib.sha256(ending.encode("utf-8", "surrogateescape") + b"\0")
            digest.update(picture)
        found += digest.digest()[:DIGEST_SIZE]
    return np.frombuffer(bytes(found), np.uint8).reshape(-1, DIGEST_SIZE)


def fingerprint(source: Source, content: np.ndarray, groups: np.ndarray | None) -> str:
    """A digest of all that a training can see of a source, given the digests of its pictures.

    Where there are groups, which decide about the split, their digest follows after a hyphen.
    """
    digest = hashlib.blake2b(content.tobytes(), digest_size=DIGEST_SIZE)
    digest.update(source.labels.tobytes())
    digest.update("\0".join(source.class_names).encode("utf-8", "surrogateescape"))
    digest.update("\0".join([] if source.split is None else source.split.tolist()).encode())
    if groups is None:
        return digest.hexdigest()
    numbers = np.unique(groups, return_inverse=True)[1].astype("<i8")
    return f"{digest.hexdigest()}-{hashlib.blake2b(numbers.tobytes(), digest_size=DIGEST_SIZE).hexdigest()}"


def encode(labels: Sequence[str], class_names: Sequence[str] | None = None) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, sorted as numbers where all are numbers, and the label of each example.

    Args:
        labels: N names.
        class_names: Their order; default: sorted.

    Returns:
        The class names and an int64 array (N,).

    Raises:
        DataError: Two spellings of one class.

    Example:
        >>> encode(["10", "9", "10"])
        (('9', '10'), array([1, 0, 1]))
    """
    if class_names is None:
        found = set(labels)
        check_spellings(found)
        class_names = sorted(found, key=int) if all(name.isascii() and name.isdigit() for name in found) else None
        class_names = class_names or sorted(found)
    position = {name: index for index, name in enumerate(class_names)}
    return tuple(class_names), np.array([position[label] for label in labels], np.int64)


def check_once(class_names: Sequence[str]) -> None:
    """Refuse two classes of one name.

    Raises:
        DataError: Such names.
    """
    if twice := [name for name, count in Counter(class_names).items() if count > 1]:
        raise DataError(f"two classes of one name: {named(twice)}. Give each its own.")


def check_spellings(class_names: Iterable[str]) -> None:
    """Refuse names that differ only in case, white space, leading zeros or in how Unicode writes them.

    Single letters are let through: `a` and `A` are two classes of handwriting.

    Raises:
        DataError: Such names.
    """
    seen: dict[str, str] = {}
    for name in sorted(class_names):
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if plain.isdigit():
            plain = plain.lstrip("0") or "0"
        other = seen.setdefault(plain, name)
        if other != name and not (len(name) == len(other) == 1):
            raise DataError(
                f"two spellings of one class: {other!r} and {name!r}"
                + (f" ({other!a} and {name!a})" if not (other + name).isascii() else "")
                + ". Give both the same name."
            )


def suffix(name: str) -> str:
    """The extension of a name, lower case with its dot; "" where it has none."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""


def shown(name: str) -> str:
    """A file's name as it can be printed: control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def listed(lines: Iterable[object], at_most: int = _NAMED_AT_MOST) -> str:
    """Lines below each other, indented, the rest counted."""
    lines = [str(line) for line in lines]
    more = [f"... and {len(lines) - at_most:,} more"] if len(lines) > at_most else []
    return "".join(f"\n  {line}" for line in [*lines[:at_most], *more])


def named(names: Iterable[str], at_most: int = 5) -> str:
    """Names in one line, the rest counted."""
    names = [shown(name) for name in names]
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
