# SPDX-License-Identifier: Apache-2.0
"""Every mistake gives one line that names file, tensor or setting, and leaves no output behind."""

import os
import pathlib
import subprocess
import sys

import import_trax
import numpy as np
import pytest
from model_cases import CASES, HASH, MULTCONV
from trax_files import C4_MEDIUM, small, weights_of, write_triple

ROOT = pathlib.Path(__file__).resolve().parents[2]

LM = small("lm", attn="causal")


@pytest.fixture
def refuse(tmp_path, capsys):
    """refuse(cfg, flat, part of the message, flags): imports, expects one line and no file."""

    def call(cfg, flat, message, *flags, **options):
        config, pkl, _ = write_triple(tmp_path, cfg, flat, **options)
        out = tmp_path / "out.model"
        assert import_trax.main(["--config", str(config), "--weights", str(pkl), "--out", str(out), *flags]) == 1
        error = capsys.readouterr().err
        assert message in error, error
        assert error.startswith("import_trax: ") and error.count("\n") == 1
        assert not out.exists() and not list(tmp_path.glob("*.part"))

    return call


def changed(cfg, index, shape):
    flat = weights_of(cfg)
    flat[index] = np.zeros(shape, np.float32)
    return flat


@pytest.mark.parametrize(
    "index, shape, message",
    [
        (
            0,
            (23, 8),
            "tensor 0 of 38 (decoder.embedding): expected shape [vocab_size = 23, d_model = 16], found [23, 8]",
        ),
        (
            1,
            (64, 8),
            "tensor 1 of 38 (decoder.position.table): expected shape [max_len = 64, d_model = 16], found [64, 8]",
        ),
        (2, (15,), "tensor 2 of 38 (decoder.blocks.0.attention.0.norm.scale): expected shape [16], found [15]"),
        (4, (16,), "tensor 4 of 38 (decoder.blocks.0.attention.0.q.weight): expected shape [16, 16], found [16]"),
        (14, (16, 25), "tensor 14 of 38 (decoder.blocks.0.ff.w1.weight): expected shape [16, 24], found [16, 25]"),
        (37, (), "tensor 37 of 38 (decoder.logits.bias): expected shape [23], found []"),
    ],
)
def test_the_first_tensor_that_disagrees_is_named(refuse, index, shape, message):
    message = message.replace("d_model = 16], found [64", "16], found [64")
    refuse(LM, changed(LM, index, shape), message)


def test_counts_must_be_equal(refuse):
    flat = weights_of(LM)
    refuse(
        LM, flat[:-1], "the checkpoint ends after 37 tensors; expected tensor 37 (decoder.logits.bias) of shape [23]"
    )
    refuse(
        LM,
        flat + [np.zeros((3, 3), np.float32)],
        "holds 39 tensors, the model only 38: tensor 38 of shape [3, 3] belongs to nothing",
    )
    refuse(LM, [], "the checkpoint ends after 0 tensors; expected tensor 0 (decoder.embedding)")


def test_a_wrong_gin_file_fails_loudly(refuse):
    flat = weights_of(LM)
    refuse(
        LM,
        flat,
        "tensor 0 of 38 (decoder.embedding): expected shape [vocab_size = 24, d_model = 16]",
        "--vocab-size",
        "24",
    )
    refuse(
        LM, flat, "(decoder.blocks.2.attention.0.q.weight): expected shape [16, 16], found [16, 23]", "--n-layers", "5"
    )
    refuse(LM, flat, "(decoder.logits.weight): expected shape [16, 23], found [16, 16]", "--n-layers", "1")
    refuse(
        LM,
        flat,
        "tensor 4 of 38 (decoder.blocks.0.attention.0.shared.gate): expected shape [4, 16], found [16, 16]",
        "--attention-type",
        "MultiplicativeConvCausalAttention",
        "--gin-param",
        "MultiplicativeConvCausalAttention.sparsity = 4",
    )
    refuse(LM, flat, "attention Reference", "--attention-type", "@MyAttention")
    refuse(LM, flat, "train.model is Hourglass", "--model", "Hourglass")
    refuse(LM, flat, "(decoder.blocks.0.ff.controller.down)", "--ff-sparsity", "4")
    refuse(LM, flat, "blocks of 5 units do not divide d_ff = 24", "--ff-sparsity", "5")
    refuse(LM, flat, "ff_activation: expected one of", "--ff-activation", "Tanh")


def test_what_nothing_tells_is_asked_for_by_flag(refuse):
    flat = weights_of(LM)
    refuse(
        LM,
        flat,
        "neither the gin file nor the tensors tell n_heads (--n-heads; Trax's default is 8)",
        leave_out=["n_heads ="],
    )
    refuse(
        LM,
        flat,
        "attention_type (--attention-type; Trax's default is @CausalAttention), n_heads (--n-heads; Trax's default is 8), "
        "ff_activation (--ff-activation;",
        leave_out=["n_heads =", "ff_activation", "attention_type"],
    )
    cfg = small("lm", attn={**MULTCONV, "v_concat": "fixed"})
    refuse(
        cfg,
        weights_of(cfg),
        "--gin-param 'MultiplicativeConvCausalAttention.v_concat_type = ...'",
        leave_out=["v_concat"],
    )
    cfg = small("reformer_lm", attn={"kind": "lsh", **HASH})
    refuse(cfg, weights_of(cfg), "LSHSelfAttention.n_buckets", leave_out=["n_buckets"])
    cfg = small("lm", attn="causal", ff_sparsity=4, ff_type="Switch")
    refuse(cfg, weights_of(cfg), "ff_sparsity_type (--ff-sparsity-type", leave_out=["ff_sparsity_type"])
    refuse(
        C4_MEDIUM,
        weights_of(C4_MEDIUM),
        "use_two_swaps_per_encoder_block (--use-two-swaps-per-encoder-block",
        leave_out=["two_swaps"],
    )
    # Norm biases that are all zero may mean that they were never applied.
    flat = weights_of(C4_MEDIUM)
    from oracle.manifest import manifest

    for i, (name, _) in enumerate(manifest(C4_MEDIUM)):
        if name.endswith(".bias") and ".ln" in name:
            flat[i] = np.zeros_like(flat[i])
    refuse(
        C4_MEDIUM, flat, "center_layernorm (--center-layernorm; Trax's default is True)", leave_out=["center_layernorm"]
    )


def test_macros_of_missing_includes_matter_only_where_tensors_do_not_tell(tmp_path, capsys, refuse):
    flat = weights_of(LM)
    config, pkl, _ = write_triple(tmp_path / "a", LM, flat, leave_out=["vocab_size = 23", "d_model = 16"])
    flags = ["--config", str(config), "--weights", str(pkl), "--out", str(tmp_path / "o.model")]
    assert import_trax.main(flags) == 0
    capsys.readouterr()
    refuse(
        LM,
        flat,
        "n_heads (the gin file's %n_heads is not defined, perhaps in data.gin, which was not found; --n-heads;",
        leave_out=["n_heads = 4"],
    )
    config, pkl, _ = write_triple(tmp_path / "b", LM, flat, leave_out=["n_heads = 4"])
    flags = ["--config", str(config), "--weights", str(pkl), "--out", str(tmp_path / "p.model")]
    assert import_trax.main([*flags, "--gin-param", "n_heads = 4"]) == 0


def test_trax_defaults_answer_when_asked_to(tmp_path, capsys):
    config, pkl, _ = write_triple(tmp_path, LM, weights_of(LM), leave_out=["n_heads =", "ff_activation"])
    flags = ["--config", str(config), "--weights", str(pkl), "--out", str(tmp_path / "o.model"), "--trax-defaults"]
    assert import_trax.main(flags) == 0
    assert "Trax's defaults: n_heads = 8, ff_activation = @Relu" in capsys.readouterr().err


def test_files_that_cannot_be_read_or_written(refuse, tmp_path, capsys):
    flat = weights_of(LM)
    refuse(LM, flat, "nothing.gin: cannot read", "--config", str(tmp_path / "nothing.gin"))
    refuse(LM, flat, "nothing.subword: cannot read", "--vocab", str(tmp_path / "nothing.subword"))
    (tmp_path / "large.subword").write_text("'a_'\n" * 24)
    refuse(
        LM,
        flat,
        "24 pieces and 0 reserved ids make 24 ids, the model has 23",
        "--vocab",
        str(tmp_path / "large.subword"),
    )
    refuse(LM, flat, "no/such/folder/x.model: cannot save", "--out", str(tmp_path / "no/such/folder/x.model"))
    (tmp_path / "x.gin").write_text("a = \n")
    refuse(LM, flat, "x.gin, line 1", "--config", str(tmp_path / "x.gin"))


def test_an_older_output_survives_a_failure(tmp_path, capsys):
    config, pkl, weights = write_triple(tmp_path, LM, weights_of(LM))
    out = tmp_path / "out.model"
    out.write_text("precious")
    weights.write_bytes(weights.read_bytes()[:-200])
    assert import_trax.main(["--config", str(config), "--weights", str(pkl), "--out", str(out)]) == 1
    assert "truncated or damaged" in capsys.readouterr().err
    assert out.read_text() == "precious" and sorted(p.name for p in tmp_path.glob("out*")) == ["out.model"]


def test_weights_that_are_not_finite_are_reported(tmp_path, capsys):
    flat = weights_of(LM)
    flat[4][0, 0] = np.nan
    config, pkl, _ = write_triple(tmp_path, LM, flat)
    flags = ["--config", str(config), "--weights", str(pkl), "--out", str(tmp_path / "o.model")]
    assert import_trax.main(flags) == 0
    assert "warning: decoder.blocks.0.attention.0.q.weight holds values that are not finite" in capsys.readouterr().err
    assert import_trax.main([*flags[:-1], str(tmp_path / "q.model"), "--dtype", "q8"]) == 1
    assert not (tmp_path / "q.model").exists()


def test_the_command_line_exits_as_documented(tmp_path):
    script = [sys.executable, os.path.join(ROOT, "tools/import_trax.py")]
    assert subprocess.run([*script, "--help"], capture_output=True).returncode == 0
    assert subprocess.run(script, capture_output=True).returncode == 2
    assert (
        subprocess.run([*script, "--weights", "x", "--out", "y", "--colour", "red"], capture_output=True).returncode
        == 2
    )
    done = subprocess.run(
        [*script, "--model", "TransformerLM", "--weights", "nothing.pkl.gz", "--out", str(tmp_path / "y")],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1 and done.stderr == "import_trax: nothing.pkl.gz: cannot read: No such file or directory\n"
    )


def test_models_that_cannot_be_expressed_say_so(refuse):
    cfg = small("lm", attn="causal_favor")
    refuse(
        cfg,
        weights_of(cfg),
        "only the bidirectional Favor has softmax features",
        "--gin-param",
        "CausalFavor.use_approximate_softmax = True",
    )
    refuse(cfg, weights_of(cfg), "only Trax's default 0.001", "--gin-param", "CausalFavor.numerical_stabilizer = 1e-5")
    refuse(cfg, weights_of(cfg), "@Favor is bidirectional, a decoder needs a causal layer", "--attention-type", "@Favor")
    cfg = small("lm", attn="causal", pos="infinite")
    refuse(cfg, weights_of(cfg), "infinite-affine", "--pos-type", "'infinite-affine'")
    cfg = small("transformer", attn="causal", cross_sparsity=4)
    refuse(cfg, weights_of(cfg), "without a projection", "--enc-dec-attention-sparsity", "('noop', 4)")


def test_a_low_rank_that_the_tensors_do_not_have_is_named(refuse):
    flat = weights_of(LM)
    message = "tensor 1 of 38 (decoder.position.table): expected shape [max_len = 64, 3], found [64, 16]"
    refuse(LM, flat, message, "--gin-param", "PositionalEncoding.d_feature = 3")
    cfg = small("lm", attn="causal", pos=("lowrank", 4))
    message = "tensor 1 of 39 (decoder.position.table): expected shape [max_len = 64, {}], found [64, 4]"
    refuse(cfg, weights_of(cfg), message.format(3), "--gin-param", "PositionalEncoding.d_feature = 3")
    refuse(cfg, weights_of(cfg), message.format(16), "--gin-param", "PositionalEncoding.d_feature = None")


def test_a_table_where_the_gin_file_says_axial_is_named(refuse):
    message = "decoder.position: pos_type is 'axial', an axial encoding; the tensor has shape [64, 16]"
    refuse(LM, weights_of(LM), message, "--pos-type", "'axial'")


@pytest.mark.parametrize("setting, part", [("key", "q"), ("value", "v")])
def test_widths_of_heads_that_the_tensors_do_not_have_are_named(refuse, setting, part):
    cfg = small("reformer_lm", attn={"kind": "selfattn", "chunk_len": None}, d_head=5)
    message = f"(decoder.blocks.0.attention.0.{part}.weight): expected shape [n_heads = 4, 16, 6], found [4, 16, 5]"
    refuse(cfg, weights_of(cfg), message, f"--d-attention-{setting}", "6")


def warnings_of(folder, capsys, cfg, *flags, **options):
    """The warnings of an import that succeeds."""
    config, pkl, _ = write_triple(folder, cfg, weights_of(cfg), **options)
    out = folder / "out.model"
    assert import_trax.main(["--config", str(config), "--weights", str(pkl), "--out", str(out), *flags]) == 0
    return [line for line in capsys.readouterr().err.split("\n") if line.startswith("warning: ")]


def test_parameters_that_are_not_known_are_named(tmp_path, capsys):
    cfg = small("reformer_lm", attn={"kind": "lsh", **HASH}, ff_sparsity=4)
    flags = []
    for binding in (
        "SparseFF.sparsty = 8",  # a slip
        "decoder/LSHSelfAttention.n_hash = 4",
        "trax.models.ReformerLM.n_head = 4",
        "LSHSelfAttention.max_length_for_buckets = 64",  # not offered
        "LSHSelfAttention.attention_dropout = 0.2",  # for training
        "ReformerLM.ff_dropout = 0.1",
        "SwitchSparseFF.expertise = 3",  # not in this model
        "MixedLSHSelfAttention.std_len = 3",
    ):
        flags += ["--gin-param", binding]
    assert warnings_of(tmp_path, capsys, cfg, *flags) == [
        f"warning: {name} is no parameter that the importer knows: it has no effect"
        for name in (
            "LSHSelfAttention.max_length_for_buckets",
            "ReformerLM.n_head",
            "SparseFF.sparsty",
            "decoder/LSHSelfAttention.n_hash",
        )
    ]


def test_parameters_of_another_function_are_named(tmp_path, capsys):
    """TransformerLM has no ff_sparsity."""
    flags = ["--model", "TransformerLM", "--n-heads", "4", "--ff-activation", "Relu", "--ff-sparsity", "4"]
    found = warnings_of(tmp_path, capsys, LM, *flags)
    assert found == ["warning: TransformerLM.ff_sparsity is no parameter that the importer knows: it has no effect"]


@pytest.mark.parametrize("name", CASES)
def test_published_settings_give_no_warning(tmp_path, capsys, name):
    assert warnings_of(tmp_path, capsys, CASES[name]) == []
