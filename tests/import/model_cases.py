# SPDX-License-Identifier: Apache-2.0
"""Models that differ from a plain one in an option or two, by name; test_import_sweep.py combines the options."""

from trax_files import C4_MEDIUM, small

MULTCONV = {"kind": "multconv", "sparsity": 4, "length_kernel_size": 3}
HASH = {"chunk_len": 4, "before": 1, "after": 0, "n_hashes": 2, "n_buckets": [4, 2], "mem_len": 64, "drop_len": 16}


def lm(attention="causal", **options):
    return small("lm", attn=attention, **options)


CASES = {
    # feed-forward, positions and loss of language models
    "lm": lm(),
    "lm-gelu": lm(ff_act="gelu"),
    "lm-fast-gelu-sru": lm(ff_act="fast_gelu", ff_sru=(2, 6)),
    "lm-1inN": lm(ff_sparsity=4),
    "lm-1inN-rank": lm(ff_sparsity=(3, 5), ff_sru=1),
    "lm-1inN-string": lm(ff_sparsity=(8, 2, 0.1, 0.3)),
    "lm-1inN-controller": lm(ff_sparsity=4, mult_controller=True, ff_sru=1),
    "lm-block": lm(ff_sparsity=4, ff_type="Block"),
    "lm-switch-sru": lm(ff_sparsity=4, ff_type="Switch", ff_sru=(1, 5)),
    "lm-sin-cos": lm(pos="sin-cos"),
    "lm-fixed-base": lm(pos="fixed-base"),
    "lm-low-rank": lm(pos=("lowrank", 4)),
    "lm-axial": lm(pos=("axial", (8, 8), (6, 10))),
    "lm-axial-3": lm(pos=("axial", (4, 2, 8), (6, 2, 8))),
    "lm-infinite": lm(pos="infinite"),
    "lm-time-bin": lm(pos=("time-bin", 3)),
    "lm-no-position": lm(pos="no"),
    "lm-loss-mult": lm(vocab=24, loss_sparsity=4),
    "lm-loss-none": lm(loss_type=None, loss_sparsity=4),
    "lm-loss-low-rank": lm(loss_type="lowrank", loss_sparsity=1, loss_lowrank=5),
    "lm-loss-einsum": lm(loss_type="einsum", loss_sparsity=1),
    "lm-loss-local": lm(vocab=24, loss_type="local", loss_sparsity=4),
    "lm-loss-local3": lm(vocab=24, loss_type="local3", loss_sparsity=4),
    "lm-loss-spare": lm(vocab=24, loss_sparsity=4, loss_prob=0.5),
    # attention
    "lm-dconv": lm({"kind": "causal", "use_dconv": True}),
    "lm-favor": lm("causal_favor"),
    "lm-mult": lm({"kind": "mult", "sparsity": 2}),
    "lm-mult-heads": lm({"kind": "mult", "sparsity": None}),
    "lm-mult-modular": lm({"kind": "multmod", "sparsity": 4}),
    "lm-conv": lm({"kind": "conv", "sparsity": 4, "kernel_size": 3}),
    "lm-conv-one": lm({"kind": "conv", "sparsity": 1, "kernel_size": 3}),
    "lm-modular": lm({"kind": "modular", "sparsity": 4, "kernel_size": 3}),
    "lm-modular-5": lm({"kind": "modular", "sparsity": 8, "kernel_size": 5}),
    "lm-low-rank-attention": lm({"kind": "lowrank", "lowrank": 3}),
    "lm-self": lm({"kind": "selfattn", "chunk_len": None}),
    "lm-self-chunks": lm({"kind": "selfattn", "chunk_len": 4, "before": 1, "after": 0}),
    "lm-multconv-kernel-1": lm({**MULTCONV, "length_kernel_size": 1}),
    "lm-multconv-one-module": lm({**MULTCONV, "sparsity": 1, "share_qk": False, "output": "none"}),
    "lm-multconv-units-1": lm({**MULTCONV, "sparsity": 16}),
    "lm-all-sparse": lm(MULTCONV, vocab=24, ff_sparsity=4, ff_sru=1, loss_sparsity=4),
    # reversible language models
    "reformer": small("reformer_lm", attn={"kind": "selfattn", "chunk_len": None}, ff_act="fast_gelu"),
    "reformer-chunks": small(
        "reformer_lm", attn={"kind": "selfattn", "chunk_len": 4, "before": 1, "after": 0, "share_qk": True}
    ),
    "reformer-widths": small(
        "reformer_lm", attn={"kind": "selfattn", "chunk_len": 4, "before": 1, "after": 0}, d_head=5, ff_sparsity=4
    ),
    "reformer-list": small(
        "reformer_lm",
        n_layers=4,
        ff_sru=(1, 6),
        attn=[
            {"kind": "selfattn", "chunk_len": 4, "before": 1, "after": 0},
            {"kind": "selfattn", "chunk_len": None, "share_qk": True},
        ],
    ),
    # encoder and decoder with cross attention
    "transformer": small("transformer", attn="causal"),
    "transformer-vocabularies": small("transformer", attn="causal", out_vocab=19),
    "transformer-cross-q": small("transformer", attn=MULTCONV, cross_sparsity=4),
    "transformer-cross-both": small("transformer", attn="causal", cross_sparsity=(2, 4), ff_sparsity=4),
    "transformer-fixed-base": small("transformer", attn="causal", pos="fixed-base", out_vocab=19, ff_sru=1),
    # terraformer
    "terraformer": small("terraformer"),
    "terraformer-one-swap": small("terraformer", two_swaps=False, n_enc=3),
    "terraformer-reversible": small("terraformer", reversible_encoder=True, two_swaps=False, n_enc=3),
    "terraformer-rms": small("terraformer", center_ln=False),
    "terraformer-one-attention": small("terraformer", n_attn=1, attn=MULTCONV),
    "terraformer-forget": small("terraformer", n_layers=4, n_enc=3, n_layers_forget=1),
    "terraformer-forget-nothing": small("terraformer", n_layers=3, n_layers_forget=1, forget_dense=False),
    "terraformer-half": small("terraformer", n_layers=4, half_before=2, ff_sparsity=4, n_heads=2),
    "terraformer-double": small("terraformer", n_layers=3, double_after=1, attn=MULTCONV, vocab=24, loss_sparsity=4),
    "terraformer-half-double-forget": small(
        "terraformer", n_layers=6, half_before=1, double_after=2, n_layers_forget=5, n_heads=2
    ),
    "terraformer-vocabularies": small("terraformer", out_vocab=19, pos="fixed-base"),
    "terraformer-favor": small("terraformer", enc_attn="favor", attn="causal_favor"),
    "terraformer-self-encoder": small("terraformer", enc_attn={"kind": "selfattn", "chunk_len": None}, attn=MULTCONV),
    "terraformer-self-both": small(
        "terraformer", enc_attn={"kind": "selfattn", "chunk_len": None}, attn={"kind": "selfattn", "chunk_len": None}
    ),
    "terraformer-list": small("terraformer", attn=["causal", MULTCONV], n_layers=4, pos="sin-cos"),
    "terraformer-sparse": small(
        "terraformer", ff_sparsity=(4, 5), ff_sru=(1, 7), attn=MULTCONV, vocab=24, loss_sparsity=3
    ),
    "c4-medium": C4_MEDIUM,
}
for share in (False, True):
    for concat in ("none", "original", "fixed"):
        for output in ("none", "mult", "conv", "multconv"):
            CASES[f"lm-multconv-{share}-{concat}-{output}"] = lm(
                {**MULTCONV, "sparsity": 8, "share_qk": share, "v_concat": concat, "output": output}, n_layers=1
            )

# LSH: a whole sequence and steps are two definitions, and both are compared.
CASES |= {
    "reformer-lsh": small("reformer_lm", attn={"kind": "lsh", **HASH}),
    "reformer-lsh-one-bucket-count": small(
        "reformer_lm", attn={"kind": "lsh", **HASH, "n_buckets": 8, "n_hashes": 1}, d_head=6
    ),
    "lm-lsh": lm({"kind": "lsh", **HASH, "n_buckets": None}, max_len=16),
    "lm-pure-lsh-3": lm({"kind": "purelsh", "num_weights": 3, **HASH}),
    "lm-pure-lsh-2": lm({"kind": "purelsh", "num_weights": 2, **HASH}),
    "lm-pure-lsh-no-bias": lm({"kind": "purelsh", "num_weights": 2, "bias": False, **HASH}),
    "lm-pure-lsh-sparse-3": lm(
        {"kind": "purelsh", "num_weights": 3, "weights_format": "sparse", "sparsity": 4, **HASH}
    ),
    "lm-pure-lsh-sparse-2": lm(
        {"kind": "purelsh", "num_weights": 2, "weights_format": "sparse", "sparsity": 4, **HASH}
    ),
}
