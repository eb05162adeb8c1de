"""IDX files, the format of MNIST: an array after a header with its dtype and shape.

Only as many bytes are read as the header declares, and only up to a limit, so an untrusted file cannot exhaust memory.
"""

import contextlib
import gzip
import hashlib
import io
import math
import os
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np

from fnn import files
from fnn.numbers import whole

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
LIMIT = 2**32  # bytes
EXPANSION = 100, 2**26  # a packed file may promise so many times its own size, or so many bytes if that is more
XZ_MEMORY = 2**27  # bytes, for the dictionary: twice that of xz -9
PIECE = 2**20  # bytes read at a time
DIGEST = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


def load_idx(path, sha256: str | None = None, rank: int | None = None, limit: int | None = None) -> np.ndarray:
    """The array in an IDX file, plain or compressed by gzip or xz, in native byte order.

    path: a regular file; sha256: of the **uncompressed** bytes, checked if given; rank: the required number of
    dimensions; limit: the largest size in bytes that a header may declare, by default 4 GiB, and for a compressed file
    64 MiB or 100 times its own size, whichever is more. The header is read first, and never more bytes than it
    declares. Raises FileNotFoundError, or ValueError for an invalid file. A plain file of images can be memory-mapped
    instead: ``np.memmap(path, np.uint8, "r", offset=16).reshape(-1, 784)``.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "labels").write_bytes(b"\\0\\0\\x08\\1" + b"\\0\\0\\0\\3" + b"\\7\\2\\1")
    ...     load_idx(f"{folder}/labels")
    array([7, 2, 1], dtype=uint8)
    """
    if sha256 is not None:
        require_digest("sha256", sha256)
    if limit is not None:
        limit = whole("limit", limit)
    path = files.path_of("path", path, "the path of a file", "train-images-idx3-ubyte.gz")
    with files.opened(path) as file, _unpacked(path, file) as unpacked:
        head, dtype, shape = _header(path, unpacked, rank)
        size = math.prod(shape) * dtype.itemsize
        _require_within(path, size, limit, None if unpacked is file else file)
        body = _read(unpacked, size)
        if len(body) < size:
            raise ValueError(f"{path}: truncated: the header declares {size:,} bytes, the file holds {len(body):,}")
        if unpacked.read(1):
            raise ValueError(f"{path}: the file continues after the {size:,} bytes that its header declares")
    if sha256 is not None:
        digest = hashlib.sha256(head)
        digest.update(body)
        if digest.hexdigest() != sha256.lower():
            raise ValueError(f"{path}: SHA-256 of the unpacked bytes is {digest.hexdigest()}, expected {sha256}")
    try:
        array = np.frombuffer(body, dtype).reshape(shape)
    except ValueError as error:  # more dimensions, or larger empty ones, than an array may have
        raise ValueError(f"{path}: no array has the dimensions that the header declares: {error}") from error
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder())


def require_digest(name: str, digest) -> None:
    """Raise TypeError or ValueError unless ``digest`` is a SHA-256 in hexadecimal."""
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        kind = ValueError if isinstance(digest, str) else TypeError
        raise kind(f"{name}: expected a SHA-256, 64 hexadecimal digits, got {digest!r}; write hashlib's hexdigest()")


@contextlib.contextmanager
def _unpacked(path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file, unpacked if its content is that of gzip or xz; raises ValueError if that is damaged."""
    begins = file.read(6)
    file.seek(0)
    packing, errors = cast(tuple[str, tuple], ("", ()))
    unpacked: Any = file
    if begins.startswith(b"\x1f\x8b"):
        packing, errors = "gzip", (gzip.BadGzipFile, EOFError, zlib.error)
        unpacked = gzip.GzipFile(fileobj=file)
    elif begins == b"\xfd7zXZ\0":
        import lzma  # not in every Python

        packing, errors = "xz", (lzma.LZMAError, EOFError)
        unpacked = io.BufferedReader(_Xz(file, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)))
    try:
        yield unpacked
    except errors as error:
        raise ValueError(f"{path}: damaged or truncated {packing} file: {error}") from error


class _Xz(io.RawIOBase):
    """An xz file unpacked piece by piece, in bounded memory; ``lzma.open`` takes no limit."""

    def __init__(self, file: IO[bytes], decompressor: Any):
        self.file, self.decompressor = file, decompressor

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while True:
            if self.decompressor.eof:
                if self.decompressor.unused_data or self.file.read(1):
                    raise EOFError("there is more after its end")
                return 0
            packed = self.file.read(PIECE) if self.decompressor.needs_input else b""
            if self.decompressor.needs_input and not packed:
                raise EOFError("it ends too early")
            piece = self.decompressor.decompress(packed, max_length=len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)


def _header(path, file: IO[bytes], rank: int | None) -> tuple[bytes, np.dtype, tuple[int, ...]]:
    """The header's bytes, and the dtype and the shape that it declares."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
        raise ValueError(f"{path}: not an IDX file: it begins with {head!r}, expected 0, 0, a type, a rank")
    dimensions = head[3]
    if rank is not None and dimensions != rank:
        raise ValueError(f"{path}: expected {rank} dimensions, the header says {dimensions}; is it the wrong file?")
    lengths = file.read(4 * dimensions)
    if len(lengths) < 4 * dimensions:
        raise ValueError(f"{path}: truncated in the header, after {4 + len(lengths)} bytes")
    return head + lengths, np.dtype(TYPES[head[2]]), tuple(np.frombuffer(lengths, ">u4").tolist())


def _require_within(path, size: int, limit: int | None, packed: IO[bytes] | None) -> None:
    """Raise ValueError if a header declares more than the limit; packed: the file, if it is."""
    most = LIMIT if limit is None else limit
    if size > most:
        raise ValueError(f"{path}: the header declares {size:,} bytes, over the limit of {most:,}; pass limit=")
    if limit is None and packed is not None:
        times, least = EXPANSION
        found = os.fstat(packed.fileno()).st_size
        if size > max(least, times * found):
            raise ValueError(
                f"{path}: the header declares {size:,} bytes, over {times} times the {found:,} of the packed file; "
                f"pass limit={size} if that is correct"
            )


def _read(file: IO[bytes], size: int) -> bytearray:
    """At most ``size`` bytes, in pieces, so that memory is not reserved for whatever a header declares."""
    body = bytearray()
    while len(body) < size and (piece := file.read(min(size - len(body), PIECE))):
        body += piece
    return body
