# SPDX-License-Identifier: Apache-2.0
"""Positional encodings: their tensors, recognised by shape, and their part of the configuration."""

import numpy as np

from .errors import ImportFailure
from .gin_config import ABSENT
from .gin_syntax import Reference

LEARNED = Reference((), "PositionalEncoding")
TIME_BIN = Reference((), "TimeBinPositionalEncoding")
INFINITE = Reference((), "InfinitePositionalEncoding")
BASES, DIGITS = 4, 8
# Encodings without tensors; 'no' is what is left when pos_type names none of the others.
WITHOUT_TENSORS = {"sin-cos": "sin_cos", "time-bin": "time_bin", "no": "none"}


def position(flat, name, d):
    """`pos_type` says which encoding; the tensors tell tables apart: learned, of low rank, or axial.

    (None means a learned table; published models were trained with one of low rank under the same setting, and older
    ones with axial tables.)
    """
    given = flat.settings.given("pos_type")
    if given is ABSENT:
        given = _recognise(flat, d)
    if given == "fixed-base":
        return _fixed_base(flat, name, d)
    if given in WITHOUT_TENSORS:
        return _without_tensors(flat, given)
    if given == "infinite":
        return _infinite(flat, name, d)
    if given == "infinite-affine":
        raise ImportFailure("pos_type 'infinite-affine' draws its phases anew in every call of Trax: nothing to import")
    return _axial(flat, name, d) if given else _table(flat, name, d)


def _recognise(flat, d):
    """The pos_type that the next tensors belong to; asks where they belong to several."""
    first = flat.peek()
    if first == (1, d // DIGITS) and flat.peek(BASES * DIGITS) == (1, 1, d):
        return "fixed-base"
    if first in ((d,), (d, d)):  # a norm follows at once; a table of d positions, or the map of 'infinite'
        return flat.settings.need("pos_type")
    return None


def _table(flat, name, d):
    """What pos_type None builds: a table, with PositionalEncoding.d_feature one of low rank. Older checkpoints may hold
    axial tables under it."""
    first, rank = flat.peek(), flat.settings.layer_given(LEARNED, "d_feature")
    if rank not in (ABSENT, None):
        return _low_rank(flat, name, d, rank)
    if len(first) >= 3 and first[0] == 1 and not (len(first) == 3 and first[2] == d):
        return _axial(flat, name, d)
    if rank is ABSENT and len(first) == 2 and first[1] != d and flat.peek(1) == (first[1], d):
        return _low_rank(flat, name, d, rank=first[1])
    # Older checkpoints store [1, max_len, d].
    length = flat.settings.known("max_len")
    old = (1, first[1], d) if len(first) == 3 and length in (ABSENT, first[1]) else ()
    index = flat.take(f"{name}.table", "max_len", d, or_shapes=[old] if old else ())
    if old:
        flat.settings.find("max_len", first[1])
    length = flat.settings.known("max_len")
    flat.put(f"{name}.table", (length, d), index, lambda w: w.reshape(-1, d))
    return {"kind": "learned", "max_len": length}


def _low_rank(flat, name, d, rank):
    index = flat.take(f"{name}.table", "max_len", rank)
    length = flat.settings.known("max_len")
    flat.put(f"{name}.table", (length, rank), index, lambda w: w)
    index = flat.take(f"{name}.proj", rank, d)
    flat.put(f"{name}.proj", (d, rank), index, np.transpose)
    return {"kind": "low_rank", "max_len": length, "rank": rank}


def _axial(flat, name, d):
    """Axis a: [1, 1 .., shape[a], .. 1, d_a]."""
    flat.settings.use("AxialPositionalEncoding")
    given = flat.settings.given("pos_type")
    n_axes = len(flat.peek()) - 2
    if n_axes < 1:
        raise ImportFailure(f"{name}: pos_type is {given!r}, an axial encoding; the tensor has shape {list(flat.peek())}")
    shape, dims = [], []
    for axis in range(n_axes):
        found = flat.peek() or (1,) * (n_axes + 2)
        length, width = found[min(axis + 1, len(found) - 1)], found[-1]
        ones = [1] * (n_axes + 1)
        ones[axis + 1] = length
        index = flat.take(f"{name}.axis.{axis}", *ones, width)
        flat.put(f"{name}.axis.{axis}", (length, width), index, lambda w: w.reshape(-1, w.shape[-1]))
        shape.append(length)
        dims.append(width)
    for setting, found in (("pos_axial_shape", shape), ("pos_d_axial_embs", dims)):
        value = flat.settings.given(setting)
        if value not in (ABSENT, None, ()) and list(value) != found and given:
            raise ImportFailure(f"{name}: {setting} is {tuple(value)}, the tensors have {tuple(found)}")
    if sum(dims) != d:
        raise ImportFailure(f"{name}: axial tables of widths {dims}, which do not add up to d_model = {d}")
    return {"kind": "axial", "shape": shape, "dims": dims}


def _fixed_base(flat, name, d):
    flat.settings.use("FixedBasePositionalEncoding")
    width = d // DIGITS
    sources = [
        flat.take(f"{name}.digits (base {i // DIGITS}, digit {i % DIGITS})", 1, width) for i in range(BASES * DIGITS)
    ]
    flat.put(f"{name}.digits", (BASES, DIGITS, width), sources, lambda *w: np.stack(w).reshape(BASES, DIGITS, width))
    index = flat.take(f"{name}.start", 1, 1, d)
    flat.put(f"{name}.start", (d,), index, lambda w: w.reshape(-1))
    return {"kind": "fixed_base"}


def _infinite(flat, name, d):
    transform = flat.settings.layer_usual(INFINITE, "transform")
    if transform != "any":
        raise ImportFailure(f"{INFINITE.name}.transform {transform!r}: only 'any' is offered")
    index = flat.take(f"{name}.weight", d, d)
    flat.put(f"{name}.weight", (d, d), index, np.transpose)
    return {"kind": "infinite", "drift": float(flat.settings.layer_usual(INFINITE, "drift"))}


def _without_tensors(flat, kind):
    out = {"kind": WITHOUT_TENSORS[kind]}
    if kind == "sin-cos":
        flat.settings.use("SinCosPositionalEncoding")
    if kind == "time-bin":
        out["bin_length"] = flat.settings.layer_need(TIME_BIN, "time_bin_length")
    return out
