# SPDX-License-Identifier: Apache-2.0
"""Pickled checkpoints, read without running anything that they name.

A pickle is a program for a small stack machine that may call any importable function. Here every name it asks for is
looked up in the table below, which holds inert stand-ins only; a name outside the table is an error. So the worst a
hostile file can do is to describe wrong arrays.
"""

import gzip
import pickle
import zlib

import numpy as np

from .errors import ImportFailure
from .npy_stream import to_float32

# dtype codes of weights, and of the integers in layer states.
DTYPES = {"f2", "f4", "f8", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "b1"}


class Dtype:
    """Stands for numpy.dtype: a code and a byte order."""

    def __init__(self, code="", *_):
        self.code, self.order = code, "<"

    def __setstate__(self, state):
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = "<" if state[1] in ("|", "=") else state[1]

    def resolve(self):
        if self.code not in DTYPES:
            raise ImportFailure(f"an array of type {self.code!r}")
        return np.dtype(self.order + self.code)


class Array:
    """Stands for numpy.ndarray; `value` is the array once its state has come."""

    value = None

    def __setstate__(self, state):
        _version, shape, dtype, fortran_order, data = state
        self.value = _array(data, dtype, shape, "F" if fortran_order else "C")


def _array(data, dtype, shape, order):
    if not isinstance(dtype, Dtype) or not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImportFailure("an array that is not made of numbers")
    resolved, count = dtype.resolve(), 1
    for size in shape:
        if not isinstance(size, int) or size < 0:
            raise ImportFailure(f"an array of shape {shape!r}")
        count *= size
    if count * resolved.itemsize != len(data):
        raise ImportFailure(f"an array of shape {tuple(shape)} with {len(data)} bytes of {resolved}")
    return np.frombuffer(bytes(data), resolved).reshape(shape, order=order)


def _reconstruct(*_):
    return Array()


def _frombuffer(data, dtype, shape, order):
    array = Array()
    array.value = _array(data, dtype, shape, order)
    return array


def _scalar(dtype, data=b""):
    return _array(data, dtype, (), "C")[()]


class Record:
    """Stands for objects of the training loop that hold nothing an importer needs."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, *_, **__):
        return Record()

    def __setstate__(self, state):
        self.state = state

    def append(self, _):
        pass

    def __setitem__(self, _, __):
        pass


def _device_array(make, arguments, state, *_):
    """jax pickles a device array as the parts of the numpy array it came from."""
    if make not in NUMPY.values():
        raise ImportFailure("a device array that is not made from a numpy array")
    array = make(*arguments)
    array.__setstate__(state)
    return array


def _dictionary(*_):
    return {}


NUMPY = {"_reconstruct": _reconstruct, "ndarray": Array, "dtype": Dtype, "_frombuffer": _frombuffer, "scalar": _scalar}
PLAIN = {
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "defaultdict"): _dictionary,
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("builtins", "int"): int,
    ("builtins", "float"): float,
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin1"),
}
# Written by the training loop: its history, shapes, optimizer slots.
IGNORED = ("trax", "jax", "jaxlib")


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        root = module.split(".")[0]
        if root == "numpy" and name in NUMPY:
            return NUMPY[name]
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        if root == "jax" and "reconstruct" in name:
            return _device_array
        if root in IGNORED:
            return Record
        raise ImportFailure(f"the pickle names {module}.{name}, which no checkpoint of Trax needs: not read")

    def persistent_load(self, _):
        raise ImportFailure("the pickle refers to objects outside itself: not read")


def read_pickle(path):
    """The object of a gzipped pickle with arrays as numpy arrays. Errors: damaged file, a name outside the table."""
    try:
        with gzip.open(path, "rb") as stream:
            return _plain(Unpickler(stream).load())
    except ImportFailure as error:
        raise ImportFailure(f"{path}: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImportFailure(f"{path}: the gzip stream is truncated or damaged ({error})") from error
    except OSError as error:
        raise ImportFailure(f"{path}: cannot read: {error.strerror or error}") from error
    except Exception as error:  # the stack machine fails in many ways on bytes that are no pickle
        raise ImportFailure(f"{path}: not a pickle of a checkpoint ({type(error).__name__}: {error})") from error


def _plain(item):
    if isinstance(item, Array):
        return item.value
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item]
    return item
