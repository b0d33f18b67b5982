# SPDX-License-Identifier: Apache-2.0
"""The model file's container in pure numpy: writer and strict reader (docs/model-file.md, "Container").

A tensor is a numpy array of a stored type; bf16 travels as the dtype BF16 below, its bit patterns in uint16.
"""

import json
import math
import struct

import numpy as np

from train.atomic_file import open_atomically
from train.errors import TrainError

ALIGNMENT = 64
MAX_HEADER = 100_000_000
BF16 = np.dtype([("bf16", "<u2")])
STORED = {"F32": np.dtype("<f4"), "BF16": BF16, "I8": np.dtype("i1"), "U8": np.dtype("u1")}


def stored_name(array):
    for name, dtype in STORED.items():
        if array.dtype == dtype:
            return name
    raise TrainError(f"an array of {array.dtype} cannot be stored: expected one of {', '.join(STORED)}")


def to_bf16(values):
    """Nearest bf16 of finite float32 values, ties to even."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2").view(BF16).reshape(values.shape)


def from_bf16(array):
    return (array["bf16"].astype("<u4") << 16).view("<f4")


def to_q8(values):
    """(int8 weights, f32 scale per row): w = scale * q, scale = largest magnitude / 127."""
    largest = np.abs(values).max(axis=-1)
    scale = (largest / np.float32(127.0)).astype("<f4")
    safe = np.where(scale > 0, scale, 1).astype("<f4")
    q = np.clip(np.rint(values / safe[..., None]), -127, 127).astype("i1")
    return q, scale


def _hasher(data=b""):
    try:
        import xxhash
    except ImportError as error:
        raise TrainError(
            "the Python package 'xxhash' is not installed: needed for the checksums of a model file"
        ) from error
    return xxhash.xxh3_64(data)


class ContainerWriter:
    """Writes a model file tensor by tensor, so that only one of them need be in memory.

    `layout`: {name: (stored type, shape)}, all tensors in their order in the file. The header comes first and holds the
    checksums, which are of fixed length: it is written twice, the second time by finish().
    """

    def __init__(self, out, layout, metadata):
        self._out, self._layout, self._metadata = out, layout, metadata
        self._names = list(layout)
        self._checksums = {}
        self._entries, at, paddings = {}, 0, 0
        for name, (stored, shape) in layout.items():
            size = int(np.prod(shape, dtype=np.int64)) * STORED[stored].itemsize
            self._entries[name] = {"dtype": stored, "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
            gap = -at % ALIGNMENT
            if gap:
                self._entries[f"pad.{paddings}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [at, at + gap]}
                paddings, at = paddings + 1, at + gap
        self._out.write(self._header())

    def add(self, name, array):
        """Writes the next tensor of the layout."""
        if name in self._layout and tuple(array.shape) != tuple(self._layout[name][1]):
            raise ValueError(f"{name} has shape {array.shape}, not {self._layout[name][1]}")
        self.add_pieces(name, [array])

    def add_pieces(self, name, pieces):
        """The same for a tensor that comes in pieces: arrays of its elements in their order."""
        expected = self._names[len(self._checksums)]
        stored, shape = self._layout[expected]
        size = int(np.prod(shape, dtype=np.int64)) * STORED[stored].itemsize
        hasher, written = _hasher(), 0
        for piece in pieces:
            if name != expected or stored_name(piece) != stored or written + piece.nbytes > size:
                raise ValueError(f"{name} {piece.dtype} {piece.shape} is no part of {expected} {stored} {shape}")
            data = np.ascontiguousarray(piece).tobytes()
            hasher.update(data)
            written += self._out.write(data)
        if written != size:
            raise ValueError(f"{name}: {written} of {size} bytes were written")
        self._checksums[name] = hasher.hexdigest()
        self._out.write(bytes(-size % ALIGNMENT))

    def finish(self):
        if len(self._checksums) != len(self._names):
            raise ValueError(f"{len(self._checksums)} of {len(self._names)} tensors were written")
        self._out.seek(0)
        self._out.write(self._header())

    def _header(self):
        checksums = {name: self._checksums.get(name, "0" * 16) for name in self._names}
        metadata = {"format": "terrace", "format_version": "1", **self._metadata, "checksums": json.dumps(checksums)}
        content = {"__metadata__": metadata, **self._entries}
        header = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        header += b" " * (-(8 + len(header)) % ALIGNMENT)
        if len(header) > MAX_HEADER:
            raise TrainError(f"a header of {len(header)} bytes: at most {MAX_HEADER} are allowed")
        return struct.pack("<Q", len(header)) + header


def write_container(path, tensors, metadata):
    """Writes {name: array} in order; adds paddings and checksums. All or nothing: the file appears complete."""
    layout = {name: (stored_name(array), array.shape) for name, array in tensors.items()}
    with open_atomically(path) as out:
        writer = ContainerWriter(out, layout, metadata)
        for name, array in tensors.items():
            writer.add(name, array)
        writer.finish()


def read_container(path):
    """({name: array} without paddings, metadata). Checks every rule of the container; errors name the first breach."""
    try:
        with open(path, "rb") as source:
            data = source.read()
    except OSError as error:
        raise TrainError(f"{path}: cannot read: {error.strerror}") from error
    if len(data) < 8:
        raise TrainError(f"{path}: {len(data)} bytes: too short for a header")
    (length,) = struct.unpack_from("<Q", data)
    begin = 8 + length
    if length > MAX_HEADER or begin > len(data) or begin % ALIGNMENT:
        raise TrainError(
            f"{path}: header of {length} bytes in a file of {len(data)}: too long or not aligned to {ALIGNMENT}"
        )
    header = json_object(path, "the header", data[8:begin])
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != "terrace" or metadata.get("format_version") != "1":
        raise TrainError(f"{path}: not a terrace model file of version 1")
    for name, entry in header.items():
        _check_entry(path, name, entry)
    tensors, next_at = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype = STORED[entry["dtype"]]
        first, last = entry["data_offsets"]
        count = math.prod(entry["shape"])
        if first != next_at or last - first != count * dtype.itemsize or begin + last > len(data):
            raise TrainError(
                f"{path}: tensor '{name}': {entry} leaves a hole, overlaps, or does not fit shape and file"
            )
        next_at = last
        if name.startswith("pad."):
            if any(data[begin + first : begin + last]) or last % ALIGNMENT or last - first >= ALIGNMENT:
                raise TrainError(f"{path}: '{name}' is no padding up to a multiple of {ALIGNMENT} zeros")
            continue
        if first % ALIGNMENT:
            raise TrainError(f"{path}: tensor '{name}' begins at {first}: expected a multiple of {ALIGNMENT}")
        try:
            tensors[name] = np.frombuffer(data, dtype, count, begin + first).reshape(entry["shape"])
        except (ValueError, OverflowError) as error:
            raise TrainError(f"{path}: tensor '{name}': shape {entry['shape']}: {error}") from error
    if begin + next_at != len(data):
        raise TrainError(f"{path}: tensors end at {begin + next_at}, the file at {len(data)}")
    _check_sums(path, tensors, metadata_object(path, metadata, "checksums"))
    return tensors, metadata


def metadata_object(path, metadata, key):
    """The JSON object that the metadata hold under `key`."""
    if not isinstance(metadata.get(key), str):
        raise TrainError(f"{path}: metadata: no '{key}'")
    return json_object(path, f"metadata '{key}'", metadata[key])


def json_object(path, what, text):
    """A JSON object, in UTF-8 where `text` is bytes; no key appears twice."""
    try:
        value = json.loads(text if isinstance(text, str) else text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON
        raise TrainError(f"{path}: {what}: expected JSON: {error}") from error
    if not isinstance(value, dict):
        raise TrainError(f"{path}: {what}: expected a JSON object, found {type(value).__name__}")
    return value


def _unique(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _check_entry(path, name, entry):
    """Whether a tensor's entry is {"dtype", "shape", "data_offsets"} of the right types."""
    try:
        shape, offsets = entry["shape"], entry["data_offsets"]
        good = entry["dtype"] in STORED and type(shape) is type(offsets) is list and len(offsets) == 2
        good = good and all(type(n) is int and n >= 0 for n in shape + offsets)
    except (KeyError, TypeError):
        good = False
    if not good:
        raise TrainError(
            f"{path}: tensor '{name}': expected dtype {', '.join(STORED)}, a shape and two data_offsets, found {entry}"
        )


def _check_sums(path, tensors, checksums):
    if set(checksums) != set(tensors):
        raise TrainError(f"{path}: checksums and tensors differ: {sorted(set(checksums) ^ set(tensors))[:3]}")
    for name, array in tensors.items():
        if _hasher(array.tobytes()).hexdigest() != checksums[name]:
            raise TrainError(f"{path}: tensor '{name}' is damaged: its checksum differs")
