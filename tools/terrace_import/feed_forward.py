# SPDX-License-Identifier: Apache-2.0
"""Feed-forward blocks of Trax with everything they may carry, starting with their norm."""

import numpy as np

from .errors import ImportFailure
from .gin_config import ABSENT
from .gin_syntax import Reference
from .projections import bias, dense, norm

SPARSE_FF = Reference((), "SparseFF")
ACTIVATIONS = {"Relu": "relu", "Gelu": "gelu", "FastGelu": "fast_gelu", "Swish": "silu"}


def feed_forward(flat, name, d, d_ff, widest=None):
    """Returns (configuration, d_ff, index of the norm's bias). `d_ff` None: taken from the tensors; `widest`: the largest
    d_ff of the stack, where blocks differ in width."""
    norm_bias = norm(flat, f"{name}.norm", d)
    kind = _kind(flat)
    if kind == "sparse":
        out, d_ff = _sparse(flat, name, d, d_ff, widest)
    else:
        out, d_ff = (_dense if kind == "dense" else _experts)(flat, name, d, d_ff)
    sru = _sru(flat, f"{name}.sru", d)
    return {**out, **({"sru": sru} if sru else {})}, d_ff, norm_bias


def sparsity_of(value):
    """The forms of ff_sparsity: N | (N, r, ..) | "N r ..": (N, r or None)."""
    if isinstance(value, str):
        value = [int(float(part)) for part in value.split()]
    if isinstance(value, (list, tuple)):
        return int(value[0]), int(value[1]) if len(value) > 1 else None
    return int(value or 0), None


def _kind(flat):
    given = flat.settings.given("ff_sparsity")
    if given is ABSENT:
        if len(flat.peek(1)) == 3:
            return "sparse"
        return "dense" if len(flat.peek(1)) == 1 else "experts"
    if sparsity_of(given)[0] == 0:
        return "dense"
    if flat.settings.family in ("terraformer", "reformer_lm"):
        return "sparse"
    kind = flat.settings.given("ff_sparsity_type")
    if kind is ABSENT:
        return "sparse" if len(flat.peek(1)) == 3 else "experts"
    return "sparse" if kind == "1inN" else "experts"


def _dense(flat, name, d, d_ff):
    d_ff = d_ff or flat.axis(-1)
    dense(flat, f"{name}.w1", d, d_ff)
    dense(flat, f"{name}.w2", d_ff, d)
    activation = flat.settings.need("ff_activation")
    if not isinstance(activation, Reference) or activation.name not in ACTIVATIONS:
        raise ImportFailure(
            f"ff_activation: expected one of {', '.join('@' + n for n in ACTIVATIONS)}, found {activation!r}"
        )
    return {"kind": "dense", "activation": ACTIVATIONS[activation.name]}, d_ff


def _sparse(flat, name, d, d_ff, widest):
    """SparseFF, one unit of N per block: m1 [d, r], m2 [r, B, N], mb [B, N], w1 [d, B, N], w2 [N, B, d], b2 [d].

    Trax numbers the units of w1 by (block, element) and those of w2 by (element, block); here both become
    block * N + element, and a unit is its w1 row followed by its w2 row.
    """
    n, rank, stored_rank, d_ff = _sparse_sizes(flat, name, d_ff, widest)
    b = d_ff // n
    index = flat.take(f"{name}.controller.down", d, rank)
    flat.put(f"{name}.controller.down", (stored_rank, d), index, lambda w: _pad(w.T, 0, stored_rank), is_weight=True)
    index = flat.take(f"{name}.controller.up", rank, b, n)
    flat.put(
        f"{name}.controller.up",
        (d_ff, stored_rank),
        index,
        lambda w: _pad(w.transpose(1, 2, 0).reshape(d_ff, rank), 1, stored_rank),
        is_weight=True,
    )
    index = flat.take(f"{name}.controller.bias", b, n)
    flat.put(f"{name}.controller.bias", (d_ff,), index, lambda w: w.reshape(d_ff))
    w1 = flat.take(f"{name}.units (w1)", d, b, n)
    w2 = flat.take(f"{name}.units (w2)", n, b, d)
    flat.put(f"{name}.units", (d_ff, 2, d), (w1, w2), _interleave, is_weight=True)
    bias(flat, name, d)
    out = {"kind": "sparse", "block_size": n, "d_lowrank": stored_rank}
    if flat.settings.layer_usual(SPARSE_FF, "multiply_by_controller_output"):
        out["multiply_by_controller"] = True
    return out, d_ff


def _sparse_sizes(flat, name, d_ff, widest):
    """(N, r, r as stored, d_ff). An integer ff_sparsity makes r = d_ff / N of the block; a model file knows one r per
    stack, so where blocks differ in width the smaller ones are padded with zeros, which changes no number."""
    given = flat.settings.given("ff_sparsity")
    n, rank = (flat.axis(2, ahead=1), flat.axis(0, ahead=1)) if given is ABSENT else sparsity_of(given)
    d_ff = d_ff or flat.axis(1, ahead=1) * flat.axis(2, ahead=1)
    if n <= 0 or d_ff % n:
        raise ImportFailure(f"{name}: blocks of {n} units do not divide d_ff = {d_ff}")
    if rank is not None:
        return n, rank, rank, d_ff
    return n, d_ff // n, max(d_ff, widest or 0) // n, d_ff


def _pad(w, axis, size):
    missing = [(0, size - w.shape[axis] if i == axis else 0) for i in range(2)]
    return np.pad(w, missing)


def _interleave(w1, w2):
    """w1 [d, B, N] and w2 [N, B, d] as units [B * N, 2, d]."""
    d = w1.shape[0]
    rows = w1.transpose(1, 2, 0).reshape(-1, d), w2.transpose(1, 0, 2).reshape(-1, d)
    return np.stack(rows, axis=1)


def _experts(flat, name, d, d_ff):
    """BlockSparseFF and SwitchSparseFF: m1 [d, E], w1 [d, F], w2 [F, d], b2 [d]."""
    given = flat.settings.given("ff_sparsity")
    experts = flat.axis(1) if given is ABSENT else sparsity_of(given)[0]
    d_ff = d_ff or flat.axis(1, ahead=1)
    kind = flat.settings.need("ff_sparsity_type")
    if kind not in ("Block", "Switch"):
        raise ImportFailure(
            f"{name}: the tensors are those of ff_sparsity_type 'Block' or 'Switch', the setting is {kind!r}"
        )
    flat.settings.use(f"{kind}SparseFF")
    if experts <= 0 or d_ff % experts:
        raise ImportFailure(f"{name}: {experts} experts do not divide d_ff = {d_ff}")
    index = flat.take(f"{name}.router", d, experts)
    flat.put(f"{name}.router", (experts, d), index, np.transpose, is_weight=True)
    w1 = flat.take(f"{name}.units (w1)", d, d_ff)
    w2 = flat.take(f"{name}.units (w2)", d_ff, d)
    shape = (experts, 2, d_ff // experts, d)

    def units(a, b):
        return np.stack([rows.reshape(experts, -1, d) for rows in (a.T, b)], axis=1)

    flat.put(f"{name}.units", shape, (w1, w2), units, is_weight=True)
    bias(flat, name, d)
    return {"kind": kind.lower(), "n_experts": experts}, d_ff


def _sru(flat, name, d):
    """The SRU branch beside the block: norm, dense d -> s, k cells [s, 3 s], dense s -> d."""
    given = flat.settings.given("ff_use_sru")
    n_layers, width = (
        (given, 32) if isinstance(given, int) else given if isinstance(given, (list, tuple)) else _find_sru(flat, d)
    )
    if not n_layers:
        return None
    norm(flat, f"{name}.norm", d)
    dense(flat, f"{name}.in", d, width, is_weight=False)
    for k in range(n_layers):
        dense(flat, f"{name}.cells.{k}", width, 3 * width, is_weight=False)
    dense(flat, f"{name}.out", width, d, is_weight=False)
    return {"n_layers": n_layers, "width": width}


def _find_sru(flat, d):
    """(layers, width) of the branch that the next tensors may be."""
    width = flat.axis(1, ahead=2)
    n_layers = 0
    while flat.peek(4 + 2 * n_layers) == (width, 3 * width):
        n_layers += 1
    starts = flat.peek() == flat.peek(1) == (d,) and flat.peek(2) == (d, width) and flat.peek(3) == (width,)
    return (n_layers, width) if starts else (0, 0)
