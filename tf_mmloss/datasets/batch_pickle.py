"""Reading a pickled CIFAR batch without running it.

A plain `pickle.load` runs whatever the file says. An unpickler that only refuses foreign globals is still open to
bombs: some operations cost far more than the bytes that ask for them (a tuple of shared tuples as a key is hashed
for ever, one text is encoded again and again, a memo of 2**32 entries takes 64 GB). So this is a reader for the few
operations that such a batch needs, in which each costs a constant or the bytes that it reads. No NumPy object is
built on the way: even the state of a `numpy.dtype` can claim that raw bytes are Python objects.

The operations are those of `pickletools`, for protocols 0 to 5.
"""

import codecs
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# The largest public batch, 50,000 images of CIFAR-100, takes 500,422 with protocol 2 and 700,000 with protocol 0.
OPERATION_LIMIT = 1_000_000
KEY_LIMIT = 100
NUMBER_LIMIT = 50


class PickleError(ValueError):
    """The pickle is damaged, or not one of a batch."""


def unpickle(content: bytes, where: str) -> dict[Any, Any]:
    """Return the dict in a pickled batch: bytes, text, numbers, lists and uint8 arrays, nothing else.

    Args:
        content: The pickle.
        where: The file's name, for messages.

    Raises:
        ValueError: It is no such pickle, or it asks for anything but a uint8 array.
    """
    try:
        record = _Reader(content).load()
        if not isinstance(record, dict):
            raise PickleError(f"it holds a {type(record).__name__}, not a dict")
        return {key: v.to_numpy() if isinstance(v, _Array) else v for key, v in record.items()}
    except PickleError as error:
        raise ValueError(f"{where}: not a batch of the public python version: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, struct.error, MemoryError) as error:
        # Python's own words may repeat the file's content at any length.
        reason = f"damaged ({type(error).__name__})"
        raise ValueError(f"{where}: not a batch of the public python version: {reason}") from None


def _shown(value: object) -> str:
    return repr(value[:50]) if isinstance(value, (str, bytes)) else f"of the type {type(value).__name__}"


class _Dtype:
    """Stands for `numpy.dtype`: only uint8 is one. Its byte order and flags are of no consequence."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise PickleError(f"its array is of the type {_shown(code)}, only uint8 ('u1') is read")


class _Array:
    """Stands for `numpy.ndarray`: what its state says, checked when the array is made."""

    def __init__(self, *_: object) -> None:
        self.state: Any = ()

    @classmethod
    def from_buffer(cls, content: object, dtype: object, shape: object, order: object) -> "_Array":
        """Return what `numpy._frombuffer` would: how protocol 5 writes an array."""
        array = cls()
        array.state = (1, shape, dtype, order == "F", content)
        return array

    def to_numpy(self) -> np.ndarray:
        _, shape, dtype, fortran_order, content = self.state
        plain = isinstance(dtype, _Dtype) and type(content) is bytes and type(shape) is tuple and len(shape) <= 4
        if (
            not plain
            or not all(type(n) is int and 0 <= n <= len(content) for n in shape)
            or math.prod(shape) != len(content)
        ):
            raise PickleError("the shape, type and bytes of its array disagree")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


@dataclass(frozen=True)
class _Global:
    """A function that a batch may name; None for what is only ever an argument."""

    call: Callable[..., Any] | None


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0
        self.globals = {
            ("numpy.core.multiarray", "_reconstruct"): _Global(_Array),  # NumPy 1
            ("numpy._core.multiarray", "_reconstruct"): _Global(_Array),  # NumPy 2
            ("numpy.core.numeric", "_frombuffer"): _Global(_Array.from_buffer),
            ("numpy._core.numeric", "_frombuffer"): _Global(_Array.from_buffer),
            ("numpy", "dtype"): _Global(_Dtype),
            ("numpy", "ndarray"): _Global(None),
            ("_codecs", "encode"): _Global(self._encode),  # how Python 3 writes bytes in protocol 2
        }
        self.operations: dict[int, Callable[[], None]] = {
            code[0]: operation for code, operation in self._operations().items()
        }

    def load(self) -> Any:
        content, operations, stack = self.content, self.operations, self.stack
        for _ in range(OPERATION_LIMIT):
            if self.position >= len(content):
                raise PickleError("Ran out of input")
            code = content[self.position]
            self.position += 1
            if code == ord("."):
                return stack.pop()
            operation = operations.get(code)
            if operation is None:
                raise PickleError(f"refused, it holds the operation {bytes([code])!r} (at byte {self.position - 1})")
            operation()
        raise PickleError(f"refused, it holds more than {OPERATION_LIMIT} operations")

    def _operations(self) -> dict[bytes, Callable[[], None]]:
        push, memo = self._push, self.memo

        def persistent() -> None:
            raise PickleError("refused, it asks for a persistent object")

        def get(read: Callable[[], int]) -> Callable[[], None]:
            return lambda: push(memo[read()])

        return {
            b"\x80": lambda: self._skip(1),  # the protocol
            b"\x95": lambda: self._skip(8),  # a frame's length
            # Numbers and constants
            b"K": lambda: push(self._byte()),
            b"M": lambda: push(self._int(2)),
            b"J": lambda: push(self._int(4, signed=True)),
            b"\x8a": lambda: push(int.from_bytes(self._sized(1), "little", signed=True)),
            b"G": lambda: push(struct.unpack(">d", self._take(8))[0]),
            b"I": self._int_or_bool,
            b"L": lambda: push(int(self._number().rstrip(b"L"))),
            b"F": lambda: push(float(self._number())),
            b"N": lambda: push(None),
            b"\x88": lambda: push(True),
            b"\x89": lambda: push(False),
            # Bytes and text; the first three are the byte strings of Python 2
            b"U": lambda: push(self._sized(1)),
            b"T": lambda: push(self._sized(4)),
            b"S": lambda: push(codecs.escape_decode(self._quoted())[0]),
            b"C": lambda: push(self._sized(1)),
            b"B": lambda: push(self._sized(4)),
            b"\x8e": lambda: push(self._sized(8)),
            b"\x96": lambda: push(self._sized(8)),
            b"\x8c": lambda: push(self._sized(1).decode("utf-8", "surrogatepass")),
            b"X": lambda: push(self._sized(4).decode("utf-8", "surrogatepass")),
            b"\x8d": lambda: push(self._sized(8).decode("utf-8", "surrogatepass")),
            b"V": lambda: push(self._line().decode("raw-unicode-escape")),
            # Containers
            b"(": lambda: self.marks.append(len(self.stack)),
            b")": lambda: push(()),
            b"t": lambda: push(tuple(self._marked())),
            b"\x85": lambda: push(tuple(self._pop(1))),
            b"\x86": lambda: push(tuple(self._pop(2))),
            b"\x87": lambda: push(tuple(self._pop(3))),
            b"]": lambda: push([]),
            b"l": lambda: push(self._marked()),
            b"a": lambda: self._extend(self._pop(1)),
            b"e": lambda: self._extend(self._marked()),
            b"}": lambda: push({}),
            b"d": lambda: self._set_items(self._marked(), push({})),
            b"s": lambda: self._set_items(self._pop(2)),
            b"u": lambda: self._set_items(self._marked()),
            # The memo
            b"\x94": lambda: self._put(len(memo)),
            b"q": lambda: self._put(self._byte()),
            b"r": lambda: self._put(self._int(4)),
            b"p": lambda: self._put(int(self._number())),
            b"h": get(lambda: self._byte()),
            b"j": get(lambda: self._int(4)),
            b"g": get(lambda: int(self._number())),
            # Objects
            b"c": lambda: self._global(self._line(), self._line()),
            b"\x93": lambda: self._global(*self._pop(2)),
            b"R": self._reduce,
            b"b": self._build,
            b"P": persistent,
            b"Q": persistent,
        }

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        values = self.stack[-count:]
        if len(values) < count:
            raise IndexError
        del self.stack[-count:]
        return values

    def _marked(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _skip(self, count: int) -> None:
        self.position += count

    def _take(self, count: int) -> bytes:
        start = self.position
        self.position = start + count
        if self.position > len(self.content):
            raise PickleError("Ran out of input")
        return self.content[start : self.position]

    def _byte(self) -> int:
        self.position += 1
        return self.content[self.position - 1]

    def _int(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self._take(count), "little", signed=signed)

    def _sized(self, count: int) -> bytes:
        return self._take(self._int(count))

    def _line(self) -> bytes:
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise PickleError("Ran out of input")
        line = self.content[self.position : end]
        self.position = end + 1
        return line

    def _number(self) -> bytes:
        line = self._line()
        if len(line) > NUMBER_LIMIT:  # to read digits takes the square of their number
            raise PickleError(f"refused, it holds a number of {len(line)} digits")
        return line

    def _int_or_bool(self) -> None:
        line = self._number()
        self._push(line == b"01" if line in (b"00", b"01") else int(line))

    def _quoted(self) -> bytes:
        line = self._line()
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise PickleError("a text of it has no quotes")
        return line[1:-1]

    def _put(self, index: int) -> None:
        if not 0 <= index < OPERATION_LIMIT:
            raise PickleError(f"refused, its memo has the index {index}")
        self.memo[index] = self.stack[-1]

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise PickleError("it adds to what is no list")
        self.stack[-1] += values

    def _set_items(self, items: list[Any], _: None = None) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise PickleError("it adds pairs to what is no dict")
        for key in items[::2]:
            # Other keys can take for ever to hash or to compare.
            if not isinstance(key, (bytes, str)) or len(key) > KEY_LIMIT:
                raise PickleError(f"refused, it holds a key that is no text of at most {KEY_LIMIT} bytes")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _global(self, module: object, name: object) -> None:
        texts = [text.decode("latin1") if isinstance(text, bytes) else text for text in (module, name)]
        if not all(isinstance(text, str) for text in texts):
            raise PickleError("refused, it asks for a global that has no name")
        found = self.globals.get((str(texts[0]), str(texts[1])))
        if found is None:
            raise PickleError(f"refused, it asks for the global {str(texts[0])[:100]}.{str(texts[1])[:100]}")
        self._push(found)

    def _reduce(self) -> None:
        function, arguments = self._pop(2)
        if type(function) is not _Global or function.call is None or type(arguments) is not tuple:
            raise PickleError("refused, it calls what is no function of a batch")
        if len(arguments) > 4:
            raise PickleError("refused, a call of it has too many arguments")
        self._push(function.call(*arguments))

    def _build(self) -> None:
        target, state = self._pop(2)
        if isinstance(target, _Array):
            target.state = state
        elif not isinstance(target, _Dtype):
            raise PickleError("refused, it changes what is no array")
        self._push(target)

    def _encode(self, text: str, encoding: object) -> bytes:
        if encoding not in ("latin1", b"latin1"):
            raise PickleError(f"it asks for the encoding {_shown(encoding)}")
        # A batch encodes each of its texts once, so all of them together are no longer than the file.
        self.encoded += len(text)
        if self.encoded > len(self.content):
            raise PickleError("refused, it encodes more text than it holds")
        return str.encode(text, "latin1")
