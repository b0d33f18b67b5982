# SPDX-License-Identifier: Apache-2.0
"""One .safetensors file: 8 bytes length, a JSON header, then the tensors one after another.

Every number of the header is checked against the size of the file before anything is read by it.
"""

import dataclasses
import math
import os
import struct

import numpy as np

from train.container import BF16, from_bf16

from ..errors import ImportFailure
from .json_file import parse_object

MAX_HEADER = 100_000_000
MAX_AXES = 8
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
FLOATS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BF16}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor that stays in its file: tensor[begin:end] reads those rows, tensor[...] all, as float32."""

    path: str
    name: str
    dtype: str
    shape: tuple
    offset: int  # in the file

    def __getitem__(self, rows):
        if rows is Ellipsis:
            return self._read(0, math.prod(self.shape)).reshape(self.shape)
        begin, end, _ = rows.indices(self.shape[0])
        width = math.prod(self.shape[1:])
        return self._read(begin * width, (end - begin) * width).reshape(end - begin, *self.shape[1:])

    def _read(self, first, count):
        dtype = FLOATS[self.dtype]
        try:
            with open(self.path, "rb") as source:
                source.seek(self.offset + first * dtype.itemsize)
                data = source.read(count * dtype.itemsize)
        except OSError as error:
            raise ImportFailure(f"{self.path}: cannot read: {error.strerror}") from error
        if len(data) != count * dtype.itemsize:
            raise ImportFailure(f"{self.path}: tensor {self.name!r}: the file has become shorter")
        values = np.frombuffer(data, dtype)
        return from_bf16(values) if self.dtype == "BF16" else values.astype("<f4")


def read_tensors(path):
    """{name: StoredTensor} of a file. Errors name the first breach of the format."""
    try:
        with open(path, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            start = source.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if len(start) < 8 or length > MAX_HEADER or 8 + length > size:
                raise ImportFailure(
                    f"{path}: expected a safetensors file, found {size} bytes with a header of {length}: "
                    "truncated, or another format"
                )
            text = source.read(length)
    except OSError as error:
        raise ImportFailure(f"{path}: cannot read: {error.strerror}") from error
    if not text.startswith(b"{"):
        raise ImportFailure(f"{path}: expected a safetensors file, found a header that begins with {text[:8]!r}")
    header = parse_object(path, "the header", text)
    header.pop("__metadata__", None)
    begin = 8 + length
    tensors, at = {}, 0
    for name, entry in header.items():
        _check_entry(path, name, entry)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        expected = math.prod(entry["shape"]) * ITEM_BYTES[entry["dtype"]]
        if last - first != expected:
            raise ImportFailure(
                f"{path}: tensor {name!r}: expected {expected} bytes for {entry['dtype']} {entry['shape']}, "
                f"found data_offsets {first} to {last}"
            )
        if first != at:
            raise ImportFailure(
                f"{path}: tensor {name!r}: expected its data at {at}, found {first}: a hole or an overlap"
            )
        at = last
        tensors[name] = StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), begin + first)
    if begin + at != size:
        raise ImportFailure(f"{path}: expected {begin + at} bytes by the header, found {size}: truncated or damaged")
    return tensors


def _check_entry(path, name, entry):
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    sound = type(shape) is type(offsets) is list and len(offsets) == 2 and len(shape) <= MAX_AXES
    if not sound or not all(type(n) is int and n >= 0 for n in shape + offsets):
        raise ImportFailure(f"{path}: tensor {name!r}: expected a dtype, a shape and two data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ImportFailure(f"{path}: tensor {name!r}: dtype {dtype!r}; expected one of {', '.join(ITEM_BYTES)}")
