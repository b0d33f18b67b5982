# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints of oracle models as Trax published them: config.gin, X.pkl.gz, X.weights.npy.gz."""

import dataclasses
import gzip
import pickle

import numpy as np

from oracle.manifest import Cfg, random_weights

FUNCTIONS = {
    "lm": "ConfigurableTransformerLM",
    "reformer_lm": "ReformerLM",
    "transformer": "ConfigurableTransformer",
    "terraformer": "ConfigurableTerraformer",
}
CLASSES = {
    "causal": "CausalAttention",
    "attention": "Attention",
    "favor": "Favor",
    "causal_favor": "CausalFavor",
    "mult": "MultiplicativeCausalAttention",
    "multmod": "MultiplicativeModularCausalAttention",
    "conv": "ConvCausalAttention",
    "modular": "ModularCausalAttention",
    "lowrank": "LowRankCausalAttention",
    "multconv": "MultiplicativeConvCausalAttention",
    "selfattn": "SelfAttention",
    "lsh": "LSHSelfAttention",
    "purelsh": "PureLSHSelfAttentionWrapper",
}
# Keys of an oracle attention and their gin names, per kind.
KEYS = {
    "sparsity": "sparsity",
    "kernel_size": "kernel_size",
    "length_kernel_size": "length_kernel_size",
    "lowrank": "lowrank",
    "share_qk": "share_qk",
    "v_concat": "v_concat_type",
    "output": "output_layer_type",
    "use_dconv": "use_dconv",
    "num_weights": "num_weights",
    "weights_format": "weights_format",
    "bias": "bias",
    "rotary": "rotary_position_emb",
    "use_approximate_softmax": "use_approximate_softmax",
    "n_random_features": "n_random_features",
    "scale_by_norm": "scale_by_norm",
    "normalize_data": "normalize_data",
    "chunk_len": "chunk_len",
    "before": "n_chunks_before",
    "after": "n_chunks_after",
    "mem_len": "predict_mem_len",
    "drop_len": "predict_drop_len",
    "n_hashes": "n_hashes",
    "n_buckets": "n_buckets",
    "std_length": "std_length",
}
CHUNKED = {"chunk_len", "before", "after", "mem_len", "drop_len", "n_hashes", "n_buckets", "std_length"}
# What Trax assumes where the oracle's description says nothing.
DEFAULTS = {
    "selfattn": {"chunk_len": None},
    "lsh": {"before": 1, "after": 0, "n_hashes": 1, "n_buckets": None},
    "purelsh": {"before": 1, "after": 0, "n_hashes": 1, "n_buckets": None},
}


def attention_bindings(attention, scope=""):
    """Gin lines of a layer; returns (lines, reference)."""
    a = {"kind": attention} if isinstance(attention, str) else dict(attention)
    kind = a.pop("kind")
    a = {**DEFAULTS.get(kind, {}), **a}
    prefix, name = scope + "/" if scope else "", CLASSES[kind]
    inner = "MixedLSHSelfAttention" if "std_length" in a else "PureLSHSelfAttention"
    lines = [
        f"{prefix}{inner if kind == 'purelsh' and key in CHUNKED else name}.{KEYS[key]} = {value!r}"
        for key, value in a.items()
        if key in KEYS
    ]
    if kind == "purelsh":
        lines.append(f"{prefix}{name}.pure_lsh_implementation = @{inner}")
    return lines, f"@{prefix}{name}"


def gin_text(cfg, leave_out=()):
    """config.gin of an oracle description, with macros, scopes and a section that belongs to another function."""
    function = FUNCTIONS[cfg.model]
    pair = cfg.model in ("terraformer", "transformer")
    layers = cfg.attn if isinstance(cfg.attn, list) else [cfg.attn]
    lines, references = [], []
    for i, layer in enumerate(layers):
        # Bindings without a scope would hold for the encoder too.
        more, reference = attention_bindings(layer, f"decoder{i}" if len(layers) > 1 else "decoder" if pair else "")
        lines += more
        references.append(reference)
    values = {"d_model": "%d_model", "d_ff": cfg.d_ff, "n_heads": "%n_heads", "dropout": 0.1, "mode": "'train'"}
    if pair:
        more, reference = attention_bindings(cfg.enc_attn, "encoder")
        lines += more
        values |= {
            "input_vocab_size": None if cfg.d_input else "%vocab_size",
            "output_vocab_size": cfg.out_vocab,
            "n_encoder_layers": cfg.n_enc,
            "n_decoder_layers": cfg.n_layers,
            "encoder_attention_type": reference,
            "encoder_decoder_attention_type": "%attention",
        }
    else:
        values |= {"vocab_size": "%vocab_size", "n_layers": cfg.n_layers, "attention_type": "%attention"}
    if cfg.model == "terraformer":
        values |= {
            "n_decoder_attention_layers": cfg.n_attn,
            "reversible_encoder": cfg.reversible_encoder,
            "use_two_swaps_per_encoder_block": cfg.two_swaps,
            "center_layernorm": cfg.center_ln,
            "n_layers_forget": cfg.n_layers_forget,
            "forget_dense": cfg.forget_dense,
            "half_before_layer": cfg.half_before or None,
            "double_after_layer": cfg.double_after or None,
        }
    if cfg.model == "transformer":
        values["enc_dec_attention_sparsity"] = cfg.cross_sparsity
    if cfg.model in ("terraformer", "reformer_lm") and cfg.d_head:
        values |= {"d_attention_key": cfg.d_head, "d_attention_value": cfg.d_value or cfg.d_head}
    if cfg.model != "reformer_lm":
        values |= {
            "loss_sparsity_type": repr(cfg.loss_type),
            "loss_sparsity": cfg.loss_sparsity,
            "loss_d_lowrank": cfg.loss_lowrank,
            "loss_sparsity_prob": cfg.loss_prob,
        }
    values |= {
        "ff_sparsity": cfg.ff_sparsity,
        "ff_use_sru": cfg.ff_sru,
        "ff_chunk_size": 512,
        "ff_activation": "@trax.layers." + {"relu": "Relu", "gelu": "Gelu", "fast_gelu": "FastGelu"}[cfg.ff_act],
    }
    if cfg.model in ("lm", "transformer"):
        values["ff_sparsity_type"] = repr(cfg.ff_type)
    if cfg.mult_controller:
        lines.append("SparseFF.multiply_by_controller_output = True")
    position, more = position_bindings(cfg)
    values |= position
    lines += more
    listed = "[" + ", ".join(references) + "]" if len(references) > 1 else references[0]
    header = [
        "import trax.models",
        "include 'data.gin'  # not published",
        "",
        f"d_model = {cfg.d_model}",
        f"n_heads = {cfg.n_heads}",
        f"vocab_size = {cfg.vocab}",
        f"attention = {listed}",
        "batcher.batch_size = %batch  # in data.gin",
        f"train.model = @trax.models.{function}",
        "train.optimizer = @trax.optimizers.Adafactor",
        "Transformer2.d_ff = 1",
        "",
    ]
    body = [f"{function}.{key} = {value}" for key, value in values.items()]
    return "\n".join(line for line in header + body + lines if not any(word in line for word in leave_out)) + "\n"


def position_bindings(cfg):
    pos = cfg.pos
    values, lines = {"max_len": cfg.max_len}, []
    if pos == "learned" or pos[0] == "lowrank":
        values["pos_type"] = None
    elif pos[0] == "axial":
        values |= {"pos_type": "'axial'", "pos_axial_shape": tuple(pos[1]), "pos_d_axial_embs": tuple(pos[2])}
    elif pos[0] == "time-bin":
        values["pos_type"] = "'time-bin'"
        lines.append(f"TimeBinPositionalEncoding.time_bin_length = {pos[1]}")
    else:
        values["pos_type"] = repr(pos)
    return values, lines


def bfloat16_bits(array):
    return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").reshape(np.shape(array))


def write_triple(folder, cfg, flat, leave_out=(), bfloat16=False, fortran=(), state=(), level=2):
    """The published layout; returns (config.gin, model.pkl.gz, model.weights.npy.gz). `fortran`: indices of arrays that
    are written in column order; `bfloat16`: weights as bit patterns, which must then be exact."""
    folder.mkdir(parents=True, exist_ok=True)
    config, pkl, weights = folder / "config.gin", folder / "model.pkl.gz", folder / "model.weights.npy.gz"
    config.write_text(gin_text(cfg, leave_out))
    content = {
        "flat_weights": level,
        "slots_per_task": 1,
        "flat_state": list(state),
        "flat_eval_state": [],
        "step": 200000,
        "history": None,
        "version_timestamp": "Mar-10-2021",
    }
    with gzip.open(pkl, "wb", compresslevel=2) as out:
        pickle.dump(content, out, protocol=4)
    with gzip.open(weights, "wb", compresslevel=level) as out:
        for i, array in enumerate(flat):
            array = bfloat16_bits(array) if bfloat16 else np.asarray(array, "<f4")
            np.save(out, np.asfortranarray(array) if i in fortran else array, allow_pickle=False)
    return config, pkl, weights


def write_old_pickle(path, flat, protocol=3):
    """The layout of 2020: one pickle with the arrays inside."""
    content = {"flat_weights": [np.asarray(a, np.float32) for a in flat], "flat_state": [], "slots": None, "step": 7}
    with gzip.open(path, "wb") as out:
        pickle.dump(content, out, protocol=protocol)
    return path


def weights_of(cfg, seed=0, scale=0.4):
    """Random float32 weights in the flat order."""
    return [np.asarray(w, np.float32) for w in random_weights(cfg, seed, scale)]


def small(model, **options):
    """A description of the family, small enough to run thousands of."""
    base = {"vocab": 23, "d_model": 16, "d_ff": 24, "n_layers": 2, "n_enc": 2, "n_heads": 4, "max_len": 64}
    if model == "terraformer":
        base |= {"n_attn": 2, "attn": "causal", "enc_attn": "attention"}
    return Cfg(model, **{**base, **options})


# The wiring of terraformer_c4_medium.gin with low-rank positions, as the published checkpoint has them, at small width.
C4_MEDIUM = dataclasses.replace(
    small("terraformer"),
    vocab=300,
    d_model=64,
    d_ff=128,
    n_layers=3,
    n_enc=3,
    n_heads=4,
    max_len=512,
    pos=("lowrank", 8),
    attn={"kind": "multconv", "sparsity": 4, "length_kernel_size": 3},
    ff_sparsity=16,
    ff_sru=(1, 32),
    loss_sparsity=4,
    reversible_encoder=True,
)
