# SPDX-License-Identifier: Apache-2.0
"""Attention layers around a dot-product core: tensors in Trax's order and their part of the configuration.

A layer function takes (flat, name, layer, d): the reference that the gin file gave, and the width of the block.
"""

from .gin_config import ABSENT
from .projections import conv, dense, local, low_rank, mult, mult_modular

PARTS = ("q", "k", "v", "out")


def dot_product(flat, name, layer, d):
    """CausalAttention and the bidirectional Attention."""
    flat.settings.need("n_heads")
    given = flat.settings.layer_given(layer, "use_dconv")
    use_dconv = flat.peek(2) == (3, d) if given is ABSENT else bool(given)
    for part in PARTS:
        dense(flat, f"{name}.{part}", d, d)
        if use_dconv and part != "out":
            index = flat.take(f"{name}.{part}.dconv", 3, d)
            flat.put(f"{name}.{part}.dconv", (3, d), index, lambda w: w)
    return {"kind": "dot_product", **({"use_dconv": True} if use_dconv else {})}


def _modules(flat, layer, first_axis):
    """`sparsity` of a layer: given (None: the number of heads), or the first axis of its first tensor."""
    given = flat.settings.layer_given(layer, "sparsity")
    if given is ABSENT:
        return first_axis
    return flat.settings.need("n_heads") if given is None else given


def multiplicative(flat, name, layer, d):
    s = _modules(flat, layer, flat.axis(0))
    flat.settings.need("n_heads")
    for part in PARTS:
        mult(flat, f"{name}.{part}", s, d, d)
    return {"kind": "dot_product", "projection": {"kind": "mult", "n_modules": s}}


def multiplicative_modular(flat, name, layer, d):
    s = _modules(flat, layer, flat.axis(0))
    flat.settings.need("n_heads")
    for part in PARTS:
        mult_modular(flat, f"{name}.{part}", s, d)
    return {"kind": "dot_product", "projection": {"kind": "mult_modular", "n_modules": s}}


def convolutional(flat, name, layer, d):
    """ConvCausalAttention: w [1, Km, M, M]."""
    first = flat.peek()
    s = _modules(flat, layer, d // first[2] if len(first) == 4 else 1)
    given = flat.settings.layer_given(layer, "kernel_size")
    seen = (first[1] if len(first) == 4 else 1) if given is ABSENT else given
    flat.settings.need("n_heads")
    for part in PARTS:
        conv(flat, f"{name}.{part}", s, d, d // s, seen, 1)
    return {"kind": "dot_product", "projection": {"kind": "conv", "n_modules": s, "kernel_size": seen}}


def modular(flat, name, layer, d):
    """ModularCausalAttention: w [S, Km, M, M]."""
    first = flat.peek()
    s = _modules(flat, layer, first[0] if len(first) == 4 else 1)
    given = flat.settings.layer_given(layer, "kernel_size")
    seen = (first[1] if len(first) == 4 else 1) if given is ABSENT else given
    flat.settings.need("n_heads")
    for part in PARTS:
        local(flat, f"{name}.{part}", s, d, d // s, seen)
    return {"kind": "dot_product", "projection": {"kind": "local", "n_modules": s, "kernel_size": seen}}


def low_rank_attention(flat, name, layer, d):
    given = flat.settings.layer_given(layer, "lowrank")
    rank = flat.axis(-1) if given is ABSENT else given
    flat.settings.need("n_heads")
    for part in PARTS:
        low_rank(flat, f"{name}.{part}", d, rank, d)
    return {"kind": "dot_product", "projection": {"kind": "low_rank", "rank": rank}}


def multiplicative_conv(flat, name, layer, d):
    """MultiplicativeConvCausalAttention, the sparse QKV of the paper, in all its options."""
    settings = flat.settings
    settings.need("n_heads")
    s = _modules(flat, layer, flat.axis(0))
    m = d // s
    mult(flat, f"{name}.shared", s, d, d)
    first = flat.peek()
    given = settings.layer_given(layer, "length_kernel_size")
    steps = (first[0] if len(first) == 4 else 3) if given is ABSENT else given
    conv(flat, f"{name}.q", s, d, m, 3, steps)

    # The convolution of v sees one module, those of q and k three; with one module all are dense.
    given = settings.layer_given(layer, "share_qk")
    if given is ABSENT and s == 1:
        given = settings.layer_need(layer, "share_qk")
    share_qk = flat.axis(1) == 1 if given is ABSENT else bool(given)
    if not share_qk:
        conv(flat, f"{name}.k", s, d, m, 3, steps)

    given = settings.layer_given(layer, "v_concat_type")
    wide = flat.axis(-2) == 2 * m
    if given is ABSENT:
        given = settings.layer_need(layer, "v_concat_type") if wide else "none"
    conv(flat, f"{name}.v", s, d if given == "none" else 2 * d, m, 1, steps)

    output = _output_layers(flat, layer, s, d)
    if "mult" in output:
        mult(flat, f"{name}.out_mult", s, d, d)
    if "conv" in output:
        conv(flat, f"{name}.out_conv", s, d, m, 3, steps)
    return {
        "kind": "multiplicative_conv",
        "n_modules": s,
        "kernel_size": steps,
        "share_qk": share_qk,
        "v_concat": given,
        "output": output,
    }


def _output_layers(flat, layer, s, d):
    given = flat.settings.layer_given(layer, "output_layer_type")
    if given is not ABSENT:
        return given
    if s == 1:
        return flat.settings.layer_need(layer, "output_layer_type")
    has_mult = flat.peek() == (s, d)
    has_conv = len(flat.peek(3 if has_mult else 0)) == 4
    return {(False, False): "none", (True, False): "mult", (False, True): "conv", (True, True): "multconv"}[
        has_mult, has_conv
    ]


def self_attention(flat, name, layer, d):
    """SelfAttention: heads stacked on the first axis, wq [H, d, dk], wo [H, dv, d], outputs of the heads added."""
    settings = flat.settings
    n_stacked = next((i for i in range(5) if len(flat.peek(i)) != 3), 5)
    given = settings.layer_given(layer, "share_qk")
    share_qk = n_stacked == 3 if given is ABSENT else bool(given)
    heads, sizes = stacked_heads(flat, name, ("q", "v") if share_qk else ("q", "k", "v"), d)
    given = settings.layer_given(layer, "bias")
    if len(flat.peek()) == 2 if given is ABSENT else given:
        for part, size in sizes.items():
            index = flat.take(f"{name}.{part}.bias", heads, size)
            flat.put(f"{name}.{part}.bias", (heads * size,), index, lambda b: b.reshape(-1))
    return {"kind": "self", "share_qk": share_qk, **head_sizes(flat, sizes, heads, d), **chunks(settings, layer)}


def stacked_heads(flat, name, parts, d):
    """Per-head matrices of `parts` and the output matrix; returns (number of heads, {part: width per head})."""
    sizes = {}
    for part in parts:
        size = sizes["q"] if part == "k" else _given_width(flat, name, part, d) or flat.axis(2)
        index = flat.take(f"{name}.{part}.weight", "n_heads", d, size)
        heads = flat.settings.known("n_heads")
        sizes[part] = size
        flat.put(
            f"{name}.{part}.weight",
            (heads * size, d),
            index,
            lambda w: w.transpose(0, 2, 1).reshape(-1, d),
            is_weight=True,
        )
    index = flat.take(f"{name}.out.weight", "n_heads", sizes["v"], d)
    flat.put(f"{name}.out.weight", (d, heads * sizes["v"]), index, lambda w: w.reshape(-1, d).T, is_weight=True)
    return heads, sizes


def _given_width(flat, name, part, d):
    """What the gin file gives for the width of a head, where the model passes that on: in decoders of reversible models.
    None where it gives nothing."""
    if flat.settings.family not in ("terraformer", "reformer_lm") or not name.startswith("decoder."):
        return None
    given = flat.settings.given("d_attention_value" if part == "v" else "d_attention_key")
    return None if given in (ABSENT, None) else given * d // flat.settings.known("d_model")


def head_sizes(flat, sizes, heads, d):
    """d_head and d_value of the configuration, where they are not what it derives by itself. They follow the width of a
    block, as in Trax, and are stated for d_model."""
    d_model = flat.settings.known("d_model")
    d_head, d_value = (size * d_model // d for size in (next(iter(sizes.values())), sizes["v"]))
    out = {} if d_head * heads == d_model else {"d_head": d_head}
    return out if d_value == d_head else {**out, "d_value": d_value}


def chunks(settings, layer):
    """Chunk settings of SelfAttention, which has none when chunk_len is None."""
    out = {"chunk_len": settings.layer_need(layer, "chunk_len") or 0}
    if out["chunk_len"]:
        for key in ("n_chunks_before", "n_chunks_after"):
            out[key] = settings.layer_need(layer, key)
    for key in ("mem_len", "drop_len"):
        value = settings.layer_usual(layer, f"predict_{key}")
        if value:
            out[key] = value
    return out
