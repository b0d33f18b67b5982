# SPDX-License-Identifier: Apache-2.0
"""LLaMA-shaped models, imported and run: the engine's logits equal those of an oracle written from the formulas."""

import subprocess

import import_hf
import numpy as np
import pytest
from comparison import check_close, run_logits
from hf_files import INDEX, settings_of, weights_of, write_folder
from oracle.llama import Llama

N_TOKENS = 24
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
# Of eight frequencies some stay, some are divided and some lie between.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES = {
    "grouped": settings_of(),
    "multi-query": settings_of(num_key_value_heads=1),
    "every head its own": settings_of(num_key_value_heads=None),
    "wide heads": settings_of(head_dim=10),
    "narrow heads": settings_of(head_dim=2, num_key_value_heads=4),
    "heads do not divide": settings_of(hidden_size=22, head_dim=6),
    "relu": settings_of(hidden_act="relu"),
    "gelu": settings_of(hidden_act="gelu"),
    "tanh gelu": settings_of(hidden_act="gelu_pytorch_tanh"),
    "tied": settings_of(tie_word_embeddings=True),
    "attention biases": settings_of(attention_bias=True),
    "feed-forward biases": settings_of(mlp_bias=True),
    "another base": settings_of(rope_theta=500.0),
    "linear scaling": settings_of(rope_scaling={"type": "linear", "factor": 4.0}),
    "llama3 scaling": settings_of(rope_scaling=LLAMA3, head_dim=16, rope_theta=500.0),
    "another epsilon": settings_of(rms_norm_eps=0.1),
    "deep": settings_of(num_hidden_layers=7, hidden_size=48, num_attention_heads=6, num_key_value_heads=3),
    "mistral": settings_of(**MISTRAL, sliding_window=None),
    "mistral with a window that is never left": settings_of(**MISTRAL, sliding_window=64, head_dim=8),
}


def import_folder(folder, *flags):
    out = folder / "out.terrace"
    assert import_hf.main(["--model", str(folder), "--out", str(out), "--no-tokenizer", *flags]) == 0
    return out


@pytest.mark.parametrize("name", CASES)
def test_imported_models_equal_the_oracle(name, tmp_path, terrace):
    """Whole, in steps, and a prefill followed by steps."""
    settings = CASES[name]
    weights = weights_of(settings, seed=len(name))
    model = import_folder(write_folder(tmp_path, settings, weights))
    ids = np.random.default_rng(len(name)).integers(0, settings["vocab_size"], size=N_TOKENS)
    full = run_logits(terrace, model, tmp_path, ids, mode="full")
    check_close(full, Llama(settings, weights).full(ids), name)
    for mode in ("step", "prefill:1", "prefill:7", "prefill:23"):
        assert np.array_equal(full, run_logits(terrace, model, tmp_path, ids, mode=mode)), mode


def test_shards_give_the_same_file(tmp_path):
    settings = settings_of()
    weights = weights_of(settings)
    whole = import_folder(write_folder(tmp_path / "whole", settings, weights))
    shards = write_folder(tmp_path / "shards", settings, weights, n_shards=3)
    assert (shards / INDEX).exists() and not (shards / "model.safetensors").exists()
    assert import_folder(shards).read_bytes() == whole.read_bytes()


def test_older_and_newer_settings_mean_the_same(tmp_path):
    """rope_parameters of newer files; in the oldest no rope_theta, and the rotary frequencies beside the weights."""
    weights = weights_of(settings_of())
    expected = import_folder(write_folder(tmp_path / "a", settings_of(), weights)).read_bytes()
    newer = settings_of(rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}, head_dim=6, dtype="float32")
    del newer["rope_theta"], newer["torch_dtype"]
    assert import_folder(write_folder(tmp_path / "b", newer, weights)).read_bytes() == expected
    oldest = settings_of(pretraining_tp=1, max_sequence_length=64)
    del oldest["rope_theta"], oldest["rope_scaling"], oldest["model_type"]
    frequencies = (10000.0 ** (-np.arange(3) / 3)).astype("<f2")
    more = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": frequencies for i in range(2)}
    assert import_folder(write_folder(tmp_path / "c", oldest, weights | more)).read_bytes() == expected
    tied = settings_of(tie_word_embeddings=True)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    one = import_folder(write_folder(tmp_path / "d", tied, weights)).read_bytes()
    del weights["lm_head.weight"]
    assert import_folder(write_folder(tmp_path / "e", tied, weights)).read_bytes() == one


@pytest.mark.parametrize("biases", [False, True])
def test_imported_models_are_cut_and_quantised(tmp_path, terrace, biases):
    """relu models become experts, of which all together are the dense model; every model takes q8."""
    settings = settings_of(hidden_act="relu", attention_bias=biases)
    weights = weights_of(settings)
    model = import_folder(write_folder(tmp_path, settings, weights))
    ids = np.random.default_rng(0).integers(0, settings["vocab_size"], size=2000)
    (tmp_path / "text").write_text(" ".join(map(str, ids)))
    experts, q8 = tmp_path / "experts.terrace", tmp_path / "q8.terrace"
    cut = [terrace, "moefy", model, experts, "--tokens", tmp_path / "text", "--experts", "10", "--active", "10"]
    for command in (cut, [terrace, "quantize", model, q8, "--dtype", "q8"], [terrace, "verify", q8]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    expected = Llama(settings, weights).full(ids[:N_TOKENS])
    check_close(run_logits(terrace, experts, tmp_path, ids[:N_TOKENS]), expected, "experts")
    found = run_logits(terrace, q8, tmp_path, ids[:N_TOKENS])
    assert 1e-4 < np.max(np.abs(found - expected)) < 0.2
