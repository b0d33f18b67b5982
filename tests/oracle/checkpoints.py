# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files of both generations (docs/import.md), read and written."""

import gzip
import os
import pickle
import struct

import numpy as np


def read_npy_stream(f):
    """Concatenated .npy blobs (gzip member already opened); uint16 means bfloat16 bits."""
    out = []
    while True:
        head = f.read(8)
        if len(head) < 8:
            return out
        assert head[:6] == b"\x93NUMPY", head
        n = struct.unpack("<H" if head[6] == 1 else "<I", f.read(2 if head[6] == 1 else 4))[0]
        h = eval(f.read(n).decode("latin1"), {"__builtins__": {}}, {"True": True, "False": False})
        dt = np.dtype(h["descr"])
        a = np.frombuffer(f.read(int(np.prod(h["shape"], dtype=np.int64)) * dt.itemsize), dt)
        a = a.reshape(h["shape"], order="F" if h["fortran_order"] else "C")
        if dt == np.uint16:
            a = (a.astype(np.uint32) << np.uint32(16)).view(np.float32)
        out.append(a)


class _SafeUnpickler(pickle.Unpickler):
    """Numpy arrays and plain containers; any other class becomes an inert placeholder."""

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")      # pickles written by numpy 2
        if module.split(".")[0] == "numpy" and name in (
                "_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"):
            return super().find_class(module, name)
        if (module, name) in (("collections", "defaultdict"), ("collections", "OrderedDict"),
                              ("builtins", "list"), ("builtins", "dict")):
            return super().find_class(module, name)

        class Placeholder:
            def __init__(self, *a, **k):
                self.args = a

            def __setstate__(self, s):
                self.state = s
        Placeholder.__name__ = name
        return Placeholder


def load_checkpoint(path):
    """path of *.pkl.gz -> (list of float arrays, metadata dict)."""
    with gzip.open(path, "rb") as f:
        d = _SafeUnpickler(f).load()
    w = d["flat_weights"]
    if isinstance(w, int):                       # new format: the int is the gzip level
        side = path[:-len("pkl.gz")] + "weights.npy.gz" if path.endswith(".pkl.gz") else path + ".npy"
        if not os.path.exists(side):
            side = path + ".npy"
        with gzip.open(side, "rb") as f:
            w = read_npy_stream(f)
    return [np.asarray(a) for a in w], {k: v for k, v in d.items() if k != "flat_weights"}


def save_checkpoint(path, flat, new_format=True, level=2):
    """Writes files that Trax's init_from_file(weights_only=True) can read (for fixtures)."""
    d = {"flat_weights": [np.asarray(a) for a in flat], "flat_state": []}
    if new_format:
        with gzip.open(path[:-len("pkl.gz")] + "weights.npy.gz", "wb", compresslevel=level) as f:
            for a in flat:
                np.save(f, np.ascontiguousarray(a), allow_pickle=False)
        d["flat_weights"] = level
    with gzip.open(path, "wb", compresslevel=2) as f:
        pickle.dump(d, f, protocol=4)
