# SPDX-License-Identifier: Apache-2.0
"""LSH attention: its tensors, settings, and the rotations that a model file holds beside them."""

import dataclasses
import math

from .attention import head_sizes, stacked_heads
from .errors import ImportFailure
from .gin_config import ABSENT
from .gin_syntax import Reference
from .projections import conv, dense, mult

PURE = {"PureLSHSelfAttention": "pure_lsh", "MixedLSHSelfAttention": "mixed_lsh"}


@dataclasses.dataclass
class HashedLayer:
    """A layer whose rotations are still to be drawn; planned at the place where they are stored."""

    name: str
    n_heads: int
    d_head: int
    n_hashes: int
    factors: list  # of the number of buckets, each even

    @property
    def shape(self):
        return self.n_heads, self.n_hashes, sum(self.factors) // 2, self.d_head


def bucket_factors(n_buckets, length, chunk_len):
    """Factors of the number of buckets. That of `None` Trax derives from the length of each call; a model file keeps the
    one of `length`, because its rotations fit one number only."""
    if isinstance(n_buckets, int):
        return [n_buckets]
    if n_buckets:
        return list(n_buckets)
    n = 2 * max(1, length // chunk_len)
    if n <= 128:
        return [n]
    a = 2 ** math.ceil(math.log2(math.sqrt(n)))
    return [a, 2 * (n // (2 * a))]


def lsh(flat, name, layer, d):
    """LSHSelfAttention: wqk [H, d, dk], wv [H, d, dv], wo [H, dv, d]."""
    heads, sizes = stacked_heads(flat, name, ("qk", "v"), d)
    return {"kind": "lsh", **head_sizes(flat, sizes, heads, d), **_hashing(flat, name, layer, heads, sizes["qk"])}


def pure_lsh(flat, name, layer, d):
    """PureLSHSelfAttentionWrapper: projections of its own around LSH, or around a mix of LSH and plain attention."""
    settings = flat.settings
    heads = settings.need("n_heads")
    implementation = settings.layer_need(layer, "pure_lsh_implementation")
    if not isinstance(implementation, Reference) or implementation.name not in PURE:
        raise ImportFailure(f"{layer.name}.pure_lsh_implementation: expected one of {', '.join('@' + n for n in PURE)}")
    inner = Reference(implementation.scopes or layer.scopes, implementation.name)
    out = {"kind": PURE[inner.name]}
    first = flat.peek()
    given = settings.layer_given(layer, "weights_format")
    weights_format = ("model" if first == (d, d) else "sparse") if given is ABSENT else given
    if weights_format == "sparse":
        out.update(_sparse_projections(flat, name, layer, d))
    elif weights_format == "model":
        out.update(_dense_projections(flat, name, layer, d))
    else:
        raise ImportFailure(
            f"{layer.name}.weights_format: Trax implements 'model' and 'sparse', found {weights_format!r}"
        )
    if settings.layer_usual(layer, "rotary_position_emb"):
        out["rotary"] = {"base": 10000.0, "interleaved": False}
    if out["kind"] == "mixed_lsh":
        out["std_length"] = settings.layer_need(inner, "std_length") or 0
    return {**out, **_hashing(flat, name, inner, heads, d // heads)}


def _dense_projections(flat, name, layer, d):
    """`num_weights` input maps and an output map; counted where the gin file does not say."""
    given = flat.settings.layer_given(layer, "bias")
    has_bias = len(flat.peek(1)) == 1 if given is ABSENT else bool(given)
    step = 2 if has_bias else 1
    count = next(i for i in range(6) if flat.peek(i * step) != (d, d))
    given = flat.settings.layer_given(layer, "num_weights")
    n_weights = min(max(count - 1, 2), 3) if given is ABSENT else given
    for part in _parts(n_weights) + ("out",):
        dense(flat, f"{name}.{part}", d, d, has_bias)
    return {"weights_format": "model", "n_weights": n_weights}


def _sparse_projections(flat, name, layer, d):
    """A FactoredDense layer, then convolutions over modules and three time steps; no output map."""
    given = flat.settings.layer_given(layer, "sparsity")
    s = flat.axis(0) if given is ABSENT else given
    mult(flat, f"{name}.shared", s, d, d)
    stacked = next((i for i in range(5) if len(flat.peek(2 * i)) != 4), 5)
    given = flat.settings.layer_given(layer, "num_weights")
    n_weights = stacked if given is ABSENT else given
    for part in _parts(n_weights):
        conv(flat, f"{name}.{part}", s, d, d // s, 1 if part == "v" else 3, 3)
    return {"weights_format": "sparse", "n_weights": n_weights, "n_modules": s}


def _parts(n_weights):
    return ("q", "k", "v") if n_weights == 3 else ("qk", "v")


def _hashing(flat, name, layer, heads, d_head):
    """Settings of the hash, and the rotations as a tensor that comes from no checkpoint."""
    settings = flat.settings
    out = {
        key: settings.layer_need(layer, key)
        for key in ("chunk_len", "n_chunks_before", "n_chunks_after", "n_hashes", "n_buckets")
    }
    out["mem_len"] = settings.layer_usual(layer, "predict_mem_len")
    out["drop_len"] = min(settings.layer_usual(layer, "predict_drop_len"), out["mem_len"])
    factors = bucket_factors(out["n_buckets"], settings.known("max_context"), out["chunk_len"])
    if any(factor < 2 or factor % 2 for factor in factors):
        raise ImportFailure(f"{layer.name}.n_buckets: expected even numbers, found {out['n_buckets']}")
    out["n_buckets"] = factors
    hashed = HashedLayer(f"{name}.rotations", heads, d_head, out["n_hashes"], factors)
    flat.hashed.append(hashed)
    flat.put(hashed.name, hashed.shape, (), None)
    return out
