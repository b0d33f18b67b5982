# SPDX-License-Identifier: Apache-2.0
"""The model functions of Trax that can be imported: their parameters with the defaults of Trax's code.

Parameters without effect on inference (dropout, chunking of computations, offsets in training) are left out.
"""

from .gin_syntax import Reference


def layer(name):
    return Reference((), name)


_FEED_FORWARD = {"ff_activation": layer("Relu"), "ff_use_sru": 0, "ff_sparsity": 0}
_LOSS = {"loss_sparsity_type": "mult", "loss_sparsity": 0, "loss_d_lowrank": 0, "loss_sparsity_prob": None}
_POSITION = {"max_len": 2048, "pos_type": None, "pos_axial_shape": None, "pos_d_axial_embs": None}
_SIZES = {"d_model": 512, "d_ff": 2048, "n_heads": 8}
_PAIR = {"input_vocab_size": None, "output_vocab_size": None, "n_encoder_layers": 6, "n_decoder_layers": 6}

# function -> (family, parameters)
MODELS = {
    "ConfigurableTransformerLM": (
        "transformer_lm",
        {
            "vocab_size": None,
            "n_layers": 6,
            **_SIZES,
            **_POSITION,
            **_FEED_FORWARD,
            "ff_sparsity_type": "1inN",
            **_LOSS,
            "attention_type": layer("CausalAttention"),
        },
    ),
    "TransformerLM": (
        "transformer_lm",
        {"vocab_size": None, "n_layers": 6, **_SIZES, "max_len": 2048, "ff_activation": layer("Relu")},
    ),
    "ReformerLM": (
        "reformer_lm",
        {
            "vocab_size": None,
            "n_layers": 6,
            **_SIZES,
            **_POSITION,
            **_FEED_FORWARD,
            **_LOSS,
            "ff_activation": layer("FastGelu"),
            "d_attention_key": 64,
            "d_attention_value": 64,
            "attention_type": layer("SelfAttention"),
        },
    ),
    "ConfigurableTransformer": (
        "transformer",
        {
            **_PAIR,
            **_SIZES,
            **_POSITION,
            **_FEED_FORWARD,
            "ff_sparsity_type": "1inN",
            **_LOSS,
            "encoder_attention_type": layer("Attention"),
            "encoder_decoder_attention_type": layer("CausalAttention"),
            "enc_dec_attention_sparsity": 0,
        },
    ),
    "Transformer": ("transformer", {**_PAIR, **_SIZES, "max_len": 2048, "ff_activation": layer("Relu")}),
    "ConfigurableTerraformer": (
        "terraformer",
        {
            **_PAIR,
            **_SIZES,
            **_POSITION,
            **_FEED_FORWARD,
            **_LOSS,
            "pos_type": "fixed-base",
            "d_attention_key": None,
            "d_attention_value": None,
            "encoder_attention_type": layer("SelfAttention"),
            "encoder_decoder_attention_type": layer("SelfAttention"),
            "n_layers_forget": 0,
            "forget_dense": True,
            "n_decoder_attention_layers": 2,
            "reversible_encoder": False,
            "use_two_swaps_per_encoder_block": True,
            "center_layernorm": True,
            "half_before_layer": None,
            "double_after_layer": None,
        },
    ),
}
MODELS["Reformer2"] = MODELS["ConfigurableTerraformer"]  # its name in older files

# What the functions without options always build.
FIXED = {
    "TransformerLM": {
        "attention_type": layer("CausalAttention"),
        "pos_type": None,
        "ff_sparsity": 0,
        "ff_use_sru": 0,
        "loss_sparsity": 0,
    },
    "Transformer": {
        "encoder_attention_type": layer("Attention"),
        "encoder_decoder_attention_type": layer("CausalAttention"),
        "pos_type": None,
        "ff_sparsity": 0,
        "ff_use_sru": 0,
        "loss_sparsity": 0,
        "enc_dec_attention_sparsity": 0,
    },
}

_CHUNKS = {"n_chunks_before": 0, "n_chunks_after": 0}
_HASHES = {
    "chunk_len": 128,
    "n_chunks_before": 1,
    "n_chunks_after": 0,
    "n_hashes": 1,
    "n_buckets": None,
    "predict_mem_len": 2048,
    "predict_drop_len": 256,
}

# Layers: parameters with Trax's defaults. None for `sparsity` means the number of heads.
LAYERS = {
    "CausalAttention": {"use_dconv": False},
    "Attention": {},
    "Favor": {
        "n_random_features": 256,
        "numerical_stabilizer": 0.001,
        "use_approximate_softmax": False,
        "scale_by_norm": 0,
        "normalize_data": False,
        "epsilon": 0.0001,
    },
    "CausalFavor": {"numerical_stabilizer": 0.001},
    "MultiplicativeCausalAttention": {"sparsity": None},
    "MultiplicativeModularCausalAttention": {"sparsity": None},
    "ConvCausalAttention": {"sparsity": None, "kernel_size": 1},
    "ModularCausalAttention": {"sparsity": None, "kernel_size": 1},
    "LowRankCausalAttention": {"lowrank": 64},
    "MultiplicativeConvCausalAttention": {
        "sparsity": None,
        "length_kernel_size": 3,
        "share_qk": False,
        "output_layer_type": "none",
        "v_concat_type": "none",
    },
    "SelfAttention": {
        "chunk_len": None,
        **_CHUNKS,
        "share_qk": False,
        "bias": False,
        "predict_mem_len": None,
        "predict_drop_len": None,
    },
    "LSHSelfAttention": dict(_HASHES),
    "PureLSHSelfAttention": dict(_HASHES),
    "MixedLSHSelfAttention": {**_HASHES, "std_length": None},
    "PureLSHSelfAttentionWrapper": {
        "pure_lsh_implementation": layer("PureLSHSelfAttention"),
        "num_weights": 3,
        "weights_format": "model",
        "sparsity": 16,
        "bias": True,
        "rotary_position_emb": False,
    },
    "BlockSparseFF": {},
    "SwitchSparseFF": {},
    "SparseFF": {"multiply_by_controller_output": False},
    "PositionalEncoding": {"d_feature": None},
    "SinCosPositionalEncoding": {},
    "FixedBasePositionalEncoding": {},
    "AxialPositionalEncoding": {},
    "TimeBinPositionalEncoding": {"time_bin_length": None},
    "InfinitePositionalEncoding": {"drift": 0.03, "transform": "any"},
}

# Parameters of these functions and layers that change no number here: they matter to training or to the way a result is
# computed, or the model passes its own value whatever a gin file says.
WITHOUT_EFFECT = frozenset(
    """
    mode dropout ff_dropout dropout_shared_axes attention_dropout output_dropout dropout_rate dropout_broadcast_dims
    ff_chunk_size attention_chunk_size n_parallel_heads use_python_loop use_reference_code max_inference_length precision
    use_bfloat16 big_weights_in_bfloat16 kernel_initializer bias_initializer initializer kernel_scaling temperature
    quant_prob pos_start_from_zero_prob pos_max_offset_to_add start_from_zero_prob max_offset_to_add
    start_from_zero_one_in base_dropout_one_in base_dropout_prob affine
    d_feature n_heads d_qk d_v causal masked d_ff n_elements_in_block d_lowrank n_experts max_len shape d_embs
    """.split()
)
