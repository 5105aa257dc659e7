"""Text files, plain or compressed, in blocks of complete lines."""

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

from pipeline.data.letor.errors import LetorError

BINARY_FIX = "give the text itself, plain or as .gz, .bz2 or .xz; unpack other archives first"

PADDING = b"\n" * 8  # follows each block, so that the parser can look ahead without a bounds check

_MAX_LINE_BYTES = 1 << 26
_LEAST_BLOCK, _LARGEST_BLOCK = 1 << 19, 1 << 21  # bytes
_BLOCKS = 256  # in a file, within these limits
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Decompressed(io.RawIOBase):
    """.bz2 and .xz of one or more streams. bz2.open and lzma.open ignore damage after the first stream."""

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
                data = self._stream.unused_data.lstrip(b"\0")  # .xz files may have padding
                while not data:
                    more = self._file.read(1 << 16)
                    if not more:
                        return 0
                    data = more.lstrip(b"\0")
                self._stream = self._new_stream()
            elif self._stream.needs_input:
                data = self._file.read(1 << 16)
                if not data:
                    raise EOFError("the stream is incomplete")
            text = self._stream.decompress(data, len(buffer))
            if text:
                buffer[: len(text)] = text
                return len(text)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, io.BufferedReader]]:
    """-> (the text, the file on the disk)."""
    try:
        file = path.open("rb")
    except OSError as error:
        fix = "give the name of one file" if isinstance(error, IsADirectoryError) else "check the name"
        raise LetorError(f"the file cannot be opened ({error.strerror})", path, fix=fix) from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise LetorError("not a regular file", path, fix="write the text to a file first")
        start = file.peek(6)
        if start.startswith(b"\x1f\x8b"):
            yield gzip.GzipFile(fileobj=file), file
        elif start.startswith(b"BZh"):
            yield io.BufferedReader(_Decompressed(file, bz2.BZ2Decompressor)), file
        elif start.startswith(b"\xfd7zXZ\0"):
            yield io.BufferedReader(_Decompressed(file, lzma.LZMADecompressor)), file
        else:
            yield file, file


class Text(NamedTuple):
    """Complete lines: the first `size` bytes of `buffer`, followed by PADDING."""

    buffer: bytearray
    size: int
    position: int  # bytes of the file read so far
    num_bytes: int  # of the file
    is_compressed: bool


def read_blocks(path: Path, block_bytes: int | None = None) -> Iterator[Text]:
    """The lines in blocks of about `block_bytes` (None: a size that suits the file)."""
    with _opened(path) as (stream, file):
        num_bytes = os.fstat(file.fileno()).st_size
        block_bytes = block_bytes or min(max(num_bytes // _BLOCKS, _LEAST_BLOCK), _LARGEST_BLOCK)
        rest = b""  # of a line that began in the block before
        is_first, is_last = True, False
        while not is_last:
            text = bytearray(max(block_bytes, 2 * len(rest)) + len(PADDING))
            text[: len(rest)] = rest
            try:
                with memoryview(text) as view:
                    num_read = stream.readinto(view[len(rest) : -len(PADDING)])
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                what = f"the file is damaged or cut off ({error})"
                raise LetorError(what, path, fix="copy or download it again") from error
            is_last = num_read == 0
            size = len(rest) + num_read
            end = size if is_last else text.rfind(b"\n", 0, size) + 1
            rest = bytes(text[end:size])
            if len(rest) > _MAX_LINE_BYTES:
                raise LetorError(f"a line of more than {_MAX_LINE_BYTES} bytes", path, fix=BINARY_FIX)
            if end == 0:
                continue
            text[end : end + len(PADDING)] = PADDING
            if is_first and text.startswith(_BYTE_ORDER_MARK):
                text[: len(_BYTE_ORDER_MARK)] = b" " * len(_BYTE_ORDER_MARK)
            is_first = False
            yield Text(text, end, file.tell(), num_bytes, stream is not file)
