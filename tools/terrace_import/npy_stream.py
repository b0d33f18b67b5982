# SPDX-License-Identifier: Apache-2.0
"""`.weights.npy.gz`: .npy files one after another in one gzip stream."""

import ast
import gzip
import struct
import zlib

import numpy as np

from .errors import ImportFailure

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 20
MAX_BYTES = 1 << 40
# What a weight may be stored as. Unsigned 16-bit numbers are the upper halves of float32 values (bfloat16).
STORED = {"<f4", "<f2", "<f8", ">f4", "<u2"}


def to_float32(array):
    """Weights as float32; uint16 are bfloat16 bit patterns."""
    if array.dtype == np.uint16:
        return (array.astype("<u4") << np.uint32(16)).view("<f4")
    return np.asarray(array, dtype="<f4", order="C")


def read_arrays(path):
    """Yields the arrays of the stream as float32, in C order. Errors name file and array."""
    index = 0
    try:
        with gzip.open(path, "rb") as stream:
            while True:
                where = f"{path}: array {index}"
                magic = stream.read(8)
                if not magic:
                    return
                yield _read_array(stream, magic, where)
                index += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImportFailure(f"{path}: array {index}: the gzip stream is truncated or damaged ({error})") from error
    except OSError as error:
        raise ImportFailure(f"{path}: cannot read: {error.strerror or error}") from error


def _read_array(stream, magic, where):
    if len(magic) < 8 or magic[:6] != MAGIC or magic[6] not in (1, 2):
        raise ImportFailure(f"{where}: expected the start of a .npy file, found {magic!r}")
    width = 2 if magic[6] == 1 else 4
    length = struct.unpack("<H" if width == 2 else "<I", _exactly(stream, width, where))[0]
    if length > MAX_HEADER:
        raise ImportFailure(f"{where}: a header of {length} bytes")
    descr, fortran_order, shape = _parse_header(_exactly(stream, length, where), where)
    count = 1
    for size in shape:
        count *= size
    dtype = np.dtype(descr)
    if count * dtype.itemsize > MAX_BYTES:
        raise ImportFailure(f"{where}: shape {shape} is too large")
    flat = np.frombuffer(_exactly(stream, count * dtype.itemsize, where), dtype)
    return to_float32(flat.reshape(shape, order="F" if fortran_order else "C"))


def _parse_header(text, where):
    """The three fields of a header, a Python dictionary of literals; nothing is evaluated."""
    try:
        header = ast.literal_eval(text.decode("latin1").strip())
        descr, fortran_order, shape = header["descr"], header["fortran_order"], header["shape"]
        sound = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ImportFailure(f"{where}: a malformed .npy header") from error
    if not sound or not isinstance(fortran_order, bool):
        raise ImportFailure(f"{where}: a malformed .npy header")
    if not isinstance(descr, str) or descr not in STORED:
        raise ImportFailure(f"{where}: elements of type {descr!r}; weights are float32 ('<f4') or bfloat16 ('<u2')")
    return descr, fortran_order, shape


def _exactly(stream, count, where):
    data = stream.read(count)
    if len(data) != count:
        raise ImportFailure(f"{where}: the file ends after {len(data)} of {count} bytes")
    return data
