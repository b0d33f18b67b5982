# SPDX-License-Identifier: Apache-2.0
"""Linear maps and norms: their tensors in Trax's order, repacked to the layout of docs/model-file.md.

Trax multiplies a row by the matrix, [in, out]; a model file keeps one row per output, [out, in].
"""

import numpy as np

from .gin_config import ABSENT


def norm(flat, name, d):
    """Returns the index of the bias."""
    for part in ("scale", "bias"):
        index = flat.take(f"{name}.{part}", d)
        flat.put(f"{name}.{part}", (d,), index, lambda w: w)
    return index


def bias(flat, name, *shape, or_shapes=(), factor=1.0):
    index = flat.take(f"{name}.bias", *shape, or_shapes=or_shapes)
    flat.put(f"{name}.bias", shape, index, lambda b: factor * b.reshape(shape))


def dense(flat, name, d_in, d_out, has_bias=True, is_weight=True, factor=1.0):
    """y = factor * (x w + b); w [d_in, d_out]."""
    index = flat.take(f"{name}.weight", d_in, d_out)
    flat.put(f"{name}.weight", (d_out, d_in), index, lambda w: factor * w.T, is_weight)
    if has_bias:
        bias(flat, name, d_out, factor=factor)


def einsum(flat, name, d_in, d_out):
    """A dense layer that Trax stores as [d_out, d_in]."""
    index = flat.take(f"{name}.weight", d_out, d_in)
    flat.put(f"{name}.weight", (d_out, d_in), index, lambda w: w, is_weight=True)
    bias(flat, name, d_out)


def mult(flat, name, n_modules, d_in, d_out):
    """FactoredDense: gate [S, d_in], proj [d_in, M], bias [d_out]."""
    gate = flat.take(f"{name}.gate", n_modules, d_in)
    flat.put(f"{name}.gate", (n_modules, d_in), gate, lambda w: w)
    proj = flat.take(f"{name}.proj", d_in, d_out // n_modules)
    flat.put(f"{name}.proj", (d_out // n_modules, d_in), proj, np.transpose, is_weight=True)
    bias(flat, name, d_out)


def mult_modular(flat, name, n_modules, d):
    """gate [S, d], shared [d, M], modules [S, M (in), M (out)], bias [d]."""
    m = d // n_modules
    gate = flat.take(f"{name}.gate", n_modules, d)
    flat.put(f"{name}.gate", (n_modules, d), gate, lambda w: w)
    shared = flat.take(f"{name}.shared", d, m)
    flat.put(f"{name}.shared", (m, d), shared, np.transpose, is_weight=True)
    modules = flat.take(f"{name}.modules", n_modules, m, m)
    flat.put(f"{name}.modules", (n_modules, m, m), modules, lambda w: w.transpose(0, 2, 1), is_weight=True)
    bias(flat, name, d)


def conv(flat, name, n_modules, d_in, units, modules_seen, n_steps):
    """LocallyConvDense: w [Kl, Km, C, units] shared by the modules; one module is a dense layer.

    A row of the model file runs over (module j, time i, channel c). Trax gives the bias of a single unit shape ().
    """
    if n_modules == 1:
        return dense(flat, name, d_in, units)
    c = d_in // n_modules
    index = flat.take(f"{name}.weight", n_steps, modules_seen, c, units)
    flat.put(
        f"{name}.weight",
        (units, modules_seen * n_steps * c),
        index,
        lambda w: w.transpose(3, 1, 0, 2).reshape(units, -1),
        is_weight=True,
    )
    bias(flat, name, units, or_shapes=[()] if units == 1 else ())


def local(flat, name, n_modules, d_in, units, modules_seen):
    """LocallyConnectedDense: w [S, Km, C, units], kernels numbered by input module; one module is a dense layer.

    The model file numbers them by output module s: tap k holds the kernel of input module (s + k - (Km-1)/2) mod S.
    """
    if n_modules == 1:
        return dense(flat, name, d_in, units)
    c = d_in // n_modules
    index = flat.take(f"{name}.weight", n_modules, modules_seen, c, units)

    def by_output(w):
        module = np.arange(n_modules)[:, None] + np.arange(modules_seen)[None, :] - (modules_seen - 1) // 2
        taps = w[module % n_modules, np.arange(modules_seen)]  # [S, Km, C, units]
        return taps.transpose(0, 3, 1, 2).reshape(n_modules, units, modules_seen * c)

    flat.put(f"{name}.weight", (n_modules, units, modules_seen * c), index, by_output, is_weight=True)
    bias(flat, name, n_modules, units)


def low_rank(flat, name, d_in, rank, d_out):
    dense(flat, f"{name}.down", d_in, rank)
    dense(flat, f"{name}.up", rank, d_out)


def logits(flat, name, d, vocab_size):
    """The loss layer; returns its projection for the configuration."""
    projection = _loss_projection(flat, name, d, vocab_size)
    probability = flat.settings.known("loss_sparsity_prob")
    has_spare = flat.remaining == 2 if probability is ABSENT else probability is not None
    if has_spare:  # a dense layer behind the sparse one, for training; evaluation never uses it
        flat.take(f"{name} (dense, unused)", d, vocab_size)
        flat.take(f"{name} (dense, unused) bias", vocab_size)
    return projection


def _loss_projection(flat, name, d, vocab_size):
    kind, sparsity = _loss_kind(flat, d, vocab_size)
    if kind == "mult":
        mult(flat, name, sparsity, d, vocab_size)
        return {"kind": "mult", "n_modules": sparsity}
    if kind == "lowrank":
        rank = flat.settings.usual("loss_d_lowrank") or flat.axis(-1)
        low_rank(flat, name, d, rank, vocab_size)
        return {"kind": "low_rank", "rank": rank}
    if kind in ("local", "local3") and sparsity > 1:
        seen = 3 if kind == "local3" else 1
        local(flat, name, sparsity, d, vocab_size // sparsity, seen)
        return {"kind": "local", "n_modules": sparsity, "kernel_size": seen}
    (einsum if kind == "einsum" else dense)(flat, name, d, vocab_size)
    return {"kind": "dense"}


def _loss_kind(flat, d, vocab_size):
    """(type, sparsity) from the settings, or from the shapes where these say nothing."""
    sparsity = flat.settings.known("loss_sparsity")
    kind = flat.settings.usual("loss_sparsity_type")
    if isinstance(sparsity, int):
        return (None, 0) if sparsity == 0 or kind in (None, "None") else (kind, sparsity)
    first, second = flat.peek(), flat.peek(1)
    if len(first) == 4:
        return ("local3" if first[1] == 3 else "local"), first[0]
    if second == (vocab_size,):
        return "einsum" if first == (vocab_size, d) and vocab_size != d else None, 0
    if len(second) == 1:
        return "lowrank", 0
    return "mult", first[0]
