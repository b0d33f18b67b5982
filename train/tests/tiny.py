# SPDX-License-Identifier: Apache-2.0
"""Tiny configurations of every model family, and a tiny corpus, for the tests."""

import json

import numpy as np

VOCABULARY = 300  # 256 byte pieces, 3 control pieces, a few merges

DENSE = {"kind": "dot_product"}
SPARSE_QKV = {"kind": "multiplicative_conv", "n_modules": 4, "kernel_size": 3}
SPARSE_FF = {"kind": "sparse", "block_size": 8, "d_lowrank": 8}
DENSE_FF = {"kind": "dense", "activation": "relu"}


def language_model(attention=DENSE, ff=DENSE_FF, logits=None, position=None, norm=None, **stack):
    """Configuration of a two-block language model of width 32."""
    return {
        "family": "transformer_lm",
        "d_model": 32,
        "d_ff": 64,
        "n_heads": 4,
        "vocab_size": VOCABULARY,
        "max_context": 64,
        "norm": norm or {"kind": "layer_norm", "epsilon": 1e-6},
        "decoder": {
            "n_layers": 2,
            "n_attention": 1,
            "center_norm": True,
            "position": position or {"kind": "learned", "max_len": 64},
            "attention": [attention],
            "ff": ff,
            **stack,
        },
        "logits": logits or {"kind": "dense"},
        "tokens": {"start": 0, "end": 1, "pad": 0},
    }


def terraformer(reversible):
    """Configuration of a two-plus-two-block Terraformer with sparse layers and the recurrent path."""
    stack = {
        "n_layers": 2,
        "center_norm": True,
        "position": {"kind": "low_rank", "max_len": 128, "rank": 8},
        "ff": {**SPARSE_FF, "sru": {"n_layers": 1, "width": 8}},
    }
    config = language_model(logits={"kind": "mult", "n_modules": 2})
    config["family"] = "terraformer"
    config["shared_embedding"] = True
    config["encoder"] = {
        **stack,
        "n_attention": 1,
        "attention": [DENSE],
        "vocab_size": VOCABULARY,
        "two_swaps": True,
        "reversible": reversible,
    }
    config["decoder"] = {**stack, "n_attention": 2, "attention": [SPARSE_QKV]}
    return config


# Parity with the engine is tested for each.
ALL_FAMILIES = {
    "dense": language_model(),
    "llama_like": language_model(
        {"kind": "dot_product", "rotary": {"base": 10000, "interleaved": False}, "n_kv_heads": 2},
        {"kind": "dense", "activation": "silu", "gated": True},
        position={"kind": "none"},
        norm={"kind": "rms_norm", "epsilon": 1e-5},
    ),
    "grouped_query": language_model({"kind": "dot_product", "n_kv_heads": 1}),
    "scaling": language_model(SPARSE_QKV, SPARSE_FF, {"kind": "mult", "n_modules": 2}),
    "scaling_shared_qk": language_model(
        {**SPARSE_QKV, "share_qk": True, "output": "multconv"},
        {**SPARSE_FF, "multiply_by_controller": True},
        position={"kind": "sin_cos"},
    ),
    "nested": language_model(SPARSE_QKV, {**SPARSE_FF, "widths": [16, 32, 64]}, {"kind": "mult", "n_modules": 2}),
    "nested_dense": {**language_model(DENSE, {**DENSE_FF, "widths": [64, 128, 192]}), "d_ff": 192},
    "shared_qk": language_model({"kind": "self", "share_qk": True}),
    "lsh": language_model(
        {
            "kind": "lsh",
            "chunk_len": 8,
            "n_chunks_before": 1,
            "n_chunks_after": 0,
            "n_hashes": 2,
            "n_buckets": 4,
            "mem_len": 64,
            "drop_len": 16,
        }
    ),
    "mixture_of_depths": language_model(
        SPARSE_QKV,
        {**SPARSE_FF, "widths": [16, 64], "sru": {"n_layers": 1, "width": 8}},
        mixture_of_depths={"every": 2, "capacity": 0.5, "predictor_width": 8},
    ),
    "mixture_of_depths_by_router": language_model(
        {"kind": "dot_product", "rotary": {"base": 10000, "interleaved": False}},
        mixture_of_depths={"every": 1, "capacity": 0.5, "predictor_width": 0},
    ),
    "terraformer": terraformer(reversible=False),
    "terraformer_reversible": terraformer(reversible=True),
}

OPTIONS = {
    "steps": 4,
    "batch_tokens": 128,
    "micro_tokens": 64,
    "contexts": {"32": 1.0},
    "encoder_context": 32,
    "eval_every": 100,
    "eval_rows": 2,
    "eval_context": 32,
    "lr": 1e-2,
    "quant_prob": 0.5,
}


def settings(model, folder, **options):
    """Complete run configuration on the tiny corpus in `folder`."""
    from train.settings import complete_settings

    source = "pairs" if model["family"] == "terraformer" else "words"
    return complete_settings(
        {"model": model, "data": {"folder": str(folder), "sources": {source: 1.0}}, "train": {**OPTIONS, **options}}
    )


def write_corpus(folder):
    """words.txt (documents parted by two blank lines) and pairs.jsonl from a small random grammar."""
    generator = np.random.default_rng(7)
    words = (
        "the a old young red quick river house stone bird sees finds carries loves and then because under over".split()
    )

    def sentence():
        return " ".join(generator.choice(words, size=12)).capitalize() + ".\n"

    documents = ["".join(sentence() for _ in range(30)) for _ in range(60)]
    (folder / "words.txt").write_text("\n\n\n".join(documents), encoding="utf-8")
    lines = [json.dumps({"document": text, "summary": text.split(".")[0] + "."}) for text in documents]
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
