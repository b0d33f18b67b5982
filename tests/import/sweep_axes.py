# SPDX-License-Identifier: Apache-2.0
"""The options of the encoder-decoder and reversible models, as axes whose values are parts of an oracle description."""

from model_cases import HASH, MULTCONV
from pairwise import all_pairs
from trax_files import small

CHUNKS = {"kind": "selfattn", "chunk_len": 4, "before": 1, "after": 0}
PURE = {"kind": "purelsh", "num_weights": 3, **HASH}
SPARSE_PURE = {**PURE, "weights_format": "sparse", "sparsity": 4}

ENCODER_ATTENTION = {
    "attention": "attention",
    "favor": "favor",
    "softmax-favor": {"kind": "favor", "use_approximate_softmax": True, "n_random_features": 20, "scale_by_norm": True},
    "causal-favor": "causal_favor",
    "causal": "causal",
    "multconv": MULTCONV,
    "self": {"kind": "selfattn", "chunk_len": None},
    "chunks": {**CHUNKS, "after": 1},
    "lsh": {"kind": "lsh", **HASH, "after": 1},
    "pure-lsh": PURE,
    "mixed-lsh": {**PURE, "num_weights": 2, "std_length": 8},
    "mixed-standard": {**SPARSE_PURE, "std_length": 40},
}
DECODER_ATTENTION = {
    "causal": "causal",
    "multconv": MULTCONV,
    "multconv-out": {**MULTCONV, "share_qk": True, "v_concat": "fixed", "output": "multconv"},
    "mult": {"kind": "mult", "sparsity": 2},
    "causal-favor": "causal_favor",
    "self-shared": {"kind": "selfattn", "chunk_len": None, "share_qk": True},
    "chunks": CHUNKS,
    "lsh": {"kind": "lsh", **HASH},
    "lsh-rolling": {"kind": "lsh", **HASH, "n_hashes": 1, "n_buckets": 4, "mem_len": 16, "drop_len": 8},
    "pure-lsh-rotary": {**PURE, "num_weights": 2, "rotary": True},
    "pure-lsh-sparse": SPARSE_PURE,
    "mixed-lsh": {**PURE, "std_length": 8},
    "mixed-standard": {**PURE, "num_weights": 2, "std_length": 40},
    "list": [MULTCONV, {"kind": "lsh", **HASH}],
}
POSITIONS = {
    "learned": "learned",
    "low-rank": ("lowrank", 4),
    "sin-cos": "sin-cos",
    "fixed-base": "fixed-base",
    "axial": ("axial", (8, 8), (4, 4)),  # widths in halves of the embedding
    "infinite": "infinite",
    "time-bin": ("time-bin", 3),
    "no": "no",
}
LOSS = {
    "dense": {},
    "mult": {"loss_sparsity": 4},
    "low-rank": {"loss_type": "lowrank", "loss_sparsity": 1, "loss_lowrank": 5},
    "einsum": {"loss_type": "einsum", "loss_sparsity": 1},
    "local": {"loss_type": "local", "loss_sparsity": 4},
    "local3": {"loss_type": "local3", "loss_sparsity": 4},
    "spare": {"loss_sparsity": 4, "loss_prob": 0.5},
}
VOCABULARIES = {"shared": {}, "separate": {"out_vocab": 20}, "embedded": {"out_vocab": 20, "d_input": 5}}
FEED_FORWARD = {
    "dense": {},
    "gelu-sru": {"ff_act": "gelu", "ff_sru": 1},
    "sparse": {"ff_sparsity": 4},
    "sparse-sru": {"ff_sparsity": (2, 5), "ff_sru": (2, 6)},
}
EXPERTS = {"block": {"ff_sparsity": 4, "ff_type": "Block"}, "switch-sru": {"ff_sparsity": 4, "ff_type": "Switch", "ff_sru": 1}}
WIDTHS = {
    "plain": {},
    "half": {"half_before": 1},
    "double": {"double_after": 1},
    "half-double": {"half_before": 1, "double_after": 2},
}
FORGET = {
    "never": {},
    "dense": {"n_layers_forget": 1},
    "dense-2": {"n_layers_forget": 2},
    "dense-3": {"n_layers_forget": 3},
    "nothing": {"n_layers_forget": 1, "forget_dense": False},
}
HEADS = {"d-over-h": {}, "own": {"d_head": 6}, "own-values": {"d_head": 10, "d_value": 4}}



def some(axis, *names):
    return {name: axis[name] for name in names}


# axis -> {name: options}; the description is the union of the chosen ones.
TERRAFORMER = {
    "encoder": {name: {"enc_attn": a} for name, a in ENCODER_ATTENTION.items()},
    "decoder": {name: {"attn": a} for name, a in DECODER_ATTENTION.items()},
    "position": {name: {"pos": pos} for name, pos in POSITIONS.items()},
    "loss": LOSS,
    "vocabularies": VOCABULARIES,
    "ff": FEED_FORWARD,
    "widths": WIDTHS,
    "forget": FORGET,
    "reversible": {"plain": {}, "reversible": {"reversible_encoder": True}},
    "swaps": {"two": {}, "one": {"two_swaps": False}},
    "n-attention": {"1": {"n_attn": 1}, "2": {"n_attn": 2}, "3": {"n_attn": 3}},
    "norm": {"centred": {}, "rms": {"center_ln": False}},
    "heads": HEADS,
}
TRANSFORMER = {
    "encoder": some(TERRAFORMER["encoder"], "attention", "softmax-favor", "causal", "chunks", "lsh", "mixed-lsh"),
    "decoder": some(TERRAFORMER["decoder"], "causal", "multconv", "chunks", "lsh", "mixed-lsh", "list"),
    "cross": {str(s): {"cross_sparsity": s} for s in (0, 4, (2, 4), (0, 2), (4, "noop"))},
    "position": TERRAFORMER["position"],
    "loss": LOSS,
    "vocabularies": VOCABULARIES,
    "ff": {**FEED_FORWARD, **EXPERTS},
}
REFORMER = {
    "decoder": TERRAFORMER["decoder"],
    "heads": HEADS,
    "position": some(TERRAFORMER["position"], "learned", "axial", "fixed-base"),
    "ff": FEED_FORWARD,
}
# Trax gives d_attention_key and _value to these layers only, and the pure ones are as wide as the model.
WITH_HEADS = ("self-shared", "chunks", "lsh", "lsh-rolling")


# Trax's forgetting layers are as wide as the last block: they fit behind the concatenation only. (widths, forget)
FITTING = {
    "half": ("never", "nothing", "dense-2", "dense-3"),
    "double": ("never", "nothing", "dense-3"),
    "half-double": ("never", "nothing"),
}


def is_a_model(row):
    """Whether Trax can build a choice (of some axes)."""
    decoder, widths, forget = row.get("decoder"), row.get("widths"), row.get("forget")
    if row.get("heads") not in (None, "d-over-h") and decoder is not None and decoder not in WITH_HEADS:
        return False
    return widths in (None, "plain") or forget is None or forget in FITTING[widths]


def description(model, axes, row):
    """The oracle description of a row."""
    options = {"vocab": 24, "n_heads": 2, "n_layers": 4, "n_enc": 3}
    for axis, name in row.items():
        options |= axes[axis][name]
    if options.get("half_before") is None and isinstance(options["pos"], tuple) and options["pos"][0] == "axial":
        kind, shape, dims = options["pos"]
        options["pos"] = kind, shape, tuple(2 * d for d in dims)
    if model == "reformer_lm" and row["ff"] == "dense":
        options["ff_act"] = "fast_gelu"
    return small(model, **options)


def sweep():
    """{name: description}: all pairs of options of each family."""
    out = {}
    for model, axes in (("terraformer", TERRAFORMER), ("transformer", TRANSFORMER), ("reformer_lm", REFORMER)):
        for row in all_pairs({axis: list(values) for axis, values in axes.items()}, is_a_model):
            out[" ".join([model, *row.values()])] = description(model, axes, row)
    return out
