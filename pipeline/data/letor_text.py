"""Files of text, plain or compressed, to blocks of whole lines."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

BINARY_MEND = "give the text itself, plain or as .gz, .bz2 or .xz; unpack other archives first"

PADDING = b"\n" * 64  # behind the text that is parsed, so that the parser can read ahead

_MAX_LINE_BYTES = 1 << 26
_LEAST_BLOCK, _LARGEST_BLOCK = 1 << 19, 1 << 21  # bytes
_BLOCKS = 256  # of a file, within these: large, since each hand-over to a thread costs, but little beside the arrays
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LetorError(ValueError):
    """What is wrong with a file, where, and what to do; `line` counts from 1 and is None for the file as a whole."""

    def __init__(self, path: Path, line: int | None, what: str, mend: str) -> None:
        super().__init__(path, line, what, mend)
        self.path = path
        self.line = line
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.path}{'' if self.line is None else f':{self.line}'}: {self.what}; mend: {self.mend}"


class _Decompressed(io.RawIOBase):
    """.bz2 and .xz of one stream or several. bz2.open and lzma.open end in silence at damage after the first."""

    def __init__(self, file: IO[bytes], new_stream: Callable[[], Any]) -> None:
        self._file = file
        self._new_stream = new_stream
        self._stream = new_stream()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data.lstrip(b"\0")  # .xz may be padded
                while not data:
                    more = self._file.read(1 << 16)
                    if not more:
                        return 0
                    data = more.lstrip(b"\0")
                self._stream = self._new_stream()
            elif self._stream.needs_input:
                data = self._file.read(1 << 16)
                if not data:
                    raise EOFError("it ends in the middle")
            text = self._stream.decompress(data, len(buffer))
            if text:
                buffer[: len(text)] = text
                return len(text)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, io.BufferedReader]]:
    """-> (the text, the file as it lies on the disk)."""
    try:
        file = path.open("rb")
    except OSError as error:
        mend = "give the name of one file" if isinstance(error, IsADirectoryError) else "check the name"
        raise LetorError(path, None, f"cannot be opened ({error.strerror})", mend) from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise LetorError(path, None, "is not a regular file", "write the text to a file first")
        start = file.peek(6)
        if start.startswith(b"\x1f\x8b"):
            yield gzip.GzipFile(fileobj=file), file
        elif start.startswith(b"BZh"):
            yield io.BufferedReader(_Decompressed(file, bz2.BZ2Decompressor)), file
        elif start.startswith(b"\xfd7zXZ\0"):
            yield io.BufferedReader(_Decompressed(file, lzma.LZMADecompressor)), file
        else:
            yield file, file


def is_compressed(path: Path) -> bool:
    """Whether `read_blocks` decompresses the file."""
    with _opened(path) as (stream, file):
        return stream is not file


class Text(NamedTuple):
    """Whole lines: the first `size` bytes of `buffer`, with PADDING behind them."""

    buffer: bytearray
    size: int
    position: int  # bytes of the file read so far
    num_bytes: int  # of the file


def read_blocks(path: Path, block_bytes: int | None, spare: list[bytearray]) -> Iterator[Text]:
    """The lines in blocks (None: of a size that suits the file).

    Buffers are taken from `spare` while it has some: new ones cost as much as the reading.
    """
    with _opened(path) as (stream, file):
        num_bytes = os.fstat(file.fileno()).st_size
        block_bytes = block_bytes or min(max(num_bytes // _BLOCKS, _LEAST_BLOCK), _LARGEST_BLOCK)
        rest = b""  # of a line that began in the block before
        is_first, is_last = True, False
        while not is_last:
            num_needed = max(block_bytes, 2 * len(rest)) + len(PADDING)
            text = spare.pop() if spare else bytearray()
            if len(text) < num_needed:
                text = bytearray(num_needed)
            text[: len(rest)] = rest
            try:
                with memoryview(text) as view:
                    num_read = stream.readinto(view[len(rest) : -len(PADDING)])
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                what = f"is damaged or cut off ({error})"
                raise LetorError(path, None, what, "copy or download it again") from error
            is_last = num_read == 0
            size = len(rest) + num_read
            end = size if is_last else text.rfind(b"\n", 0, size) + 1
            rest = bytes(text[end:size])
            if len(rest) > _MAX_LINE_BYTES:
                what = f"has a line of more than {_MAX_LINE_BYTES} bytes"
                raise LetorError(path, None, what, BINARY_MEND)
            if end == 0:
                continue
            text[end : end + len(PADDING)] = PADDING
            if is_first and text.startswith(_BYTE_ORDER_MARK):
                text[: len(_BYTE_ORDER_MARK)] = b" " * len(_BYTE_ORDER_MARK)
            is_first = False
            yield Text(text, end, file.tell(), num_bytes)
