# SPDX-License-Identifier: Apache-2.0
"""What cannot be imported is refused in one line that names file, key or tensor, and nothing is written."""

import json
import os
import pathlib
import subprocess
import sys

import import_hf
import numpy as np
import pytest
from hf_files import CONFIG, WHOLE, sentencepiece_model, settings_of, weights_of, write_folder

ROOT = pathlib.Path(__file__).resolve().parents[2]
Q = "model.layers.1.self_attn.q_proj.weight"
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
YARN = {"type": "yarn", "factor": 2.0}
NEWER = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}
LLAMA3 = NEWER | {"low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 64}
LINEAR = {"type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architectures": ["GemmaForCausalLM"]}, "'architectures': expected LlamaForCausalLM or MistralForCausalLM"),
        ({"architectures": None}, "found None"),
        ({"architectures": [["LlamaForCausalLM"]]}, "'architectures'"),
        ({"model_type": "mistral"}, "'model_type': expected 'llama', as the architecture is LlamaForCausalLM"),
        ({"rope_scaling": YARN}, "'rope_scaling': expected null or one of the types default, linear, llama3, found 'yarn'"),
        ({"rope_scaling": 2.0}, "found 2.0"),
        ({"rope_scaling": {"type": ["linear"]}}, "found ['linear']"),
        ({"rope_scaling": {"type": "linear"}}, "'rope_scaling.factor': expected a positive number, as the type is linear"),
        ({"rope_scaling": LINEAR | {"factor": "2"}}, "'rope_scaling.factor': expected a positive number, found '2'"),
        ({"rope_scaling": LINEAR | {"factor": 0.5}}, "'rope_scaling': expected a factor of at least 1, found 0.5"),
        ({"rope_scaling": LINEAR | {"beta_fast": 32}}, "not 'beta_fast', found 32"),
        ({"rope_parameters": NEWER}, "'rope_parameters.low_freq_factor': expected a positive number, as the type is llama3"),
        ({"rope_parameters": LLAMA3}, "'rope_scaling': expected low_freq_factor below high_freq_factor"),
        ({"rope_scaling": LINEAR, "rope_parameters": {"rope_type": "default"}}, "expected the same scaling"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "not 'rope_theta', found 5.0"),
        ({"rope_parameters": {"rope_type": "default", "attention_factor": 2}}, "not 'attention_factor', found 2"),
        ({"rope_theta": -1.0}, "'rope_theta': expected a positive number, found -1.0"),
        ({"rope_theta": float("nan")}, "'rope_theta': expected a positive number, found nan"),
        ({"hidden_act": "fatrelu"}, "'hidden_act': expected one of silu, swish, relu"),
        ({"hidden_act": None}, "'hidden_act'"),
        ({"hidden_act": ["relu"]}, "'hidden_act'"),
        ({"rms_norm_eps": 0}, "'rms_norm_eps': expected a number between 0 and 1, found 0"),
        ({"rms_norm_eps": None}, "'rms_norm_eps'"),
        ({"rms_norm_eps": 10**400}, "'rms_norm_eps'"),
        ({"hidden_size": 2.5}, "'hidden_size': expected a whole number from 1 to 1048576, found 2.5"),
        ({"hidden_size": True}, "'hidden_size'"),
        ({"hidden_size": 22}, "'num_attention_heads': expected a divisor of hidden_size (22), or 'head_dim', found 4"),
        ({"hidden_size": 20}, "'head_dim': expected an even number, for rotary positions, found 5"),
        ({"num_key_value_heads": 3}, "'num_key_value_heads': expected a divisor of num_attention_heads (4), found 3"),
        ({"num_key_value_heads": 8}, "'num_key_value_heads': expected a whole number from 1 to 4, found 8"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers': expected a whole number from 1 to 4096"),
        ({"vocab_size": None}, "'vocab_size': expected a whole number from 1 to 16777216, found None"),
        ({"tie_word_embeddings": 1}, "'tie_word_embeddings': expected true or false, found 1"),
        ({"bos_token_id": 40}, "'bos_token_id': expected token ids from 0 to 39, found 40"),
        ({"eos_token_id": [1, "</s>"]}, "'eos_token_id': expected token ids from 0 to 39, found '</s>'"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor': expected 1, found 0.5"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "'quantization_config': expected keys that the importer knows",
        ),
        (
            {"clip_qkv": 8.0},
            "'clip_qkv': expected keys that the importer knows, found this one with 8.0; if it does not",
        ),
        ({"sliding_window": 32}, "'sliding_window': expected null or at least the context (64)"),
        ({**MISTRAL, "sliding_window": 63}, "'sliding_window': expected null or at least the context (64)"),
        (
            {**MISTRAL, "max_position_embeddings": 8192},
            "'sliding_window': expected null or at least the context (8192)",
        ),
        ({**MISTRAL, "attention_bias": True}, "'attention_bias': expected false: a Mistral has no biases, found True"),
        ({**MISTRAL, "num_key_value_heads": None}, "'num_key_value_heads'"),
        ({**MISTRAL, "sliding_window": None, "layer_types": ["linear_attention"]}, "'layer_types': expected full_att"),
    ],
)
def test_settings_that_mean_another_computation_are_refused(tmp_path, refuse_folder, changes, message):
    settings = settings_of()
    write_folder(tmp_path, settings, weights_of(settings))
    (tmp_path / CONFIG).write_text(json.dumps({**settings, **changes}))
    refuse_folder(f"{CONFIG}: ")
    refuse_folder(message)


def test_keys_without_effect_and_null_pass(tmp_path):
    more = {"temperature": 0.6, "initializer_range": 0.02, "some_new_key": None, "is_decoder": True, "pad_token_id": 40}
    settings = settings_of(**more)
    write_folder(tmp_path, settings, weights_of(settings))
    assert import_hf.main(["--model", str(tmp_path), "--out", str(tmp_path / "o"), "--no-tokenizer"]) == 0


@pytest.mark.parametrize(
    "name, array, message",
    [
        (Q, np.zeros((24, 25)), f"tensor '{Q}': expected shape [24, 24] by "),
        (Q, np.zeros(24), "found [24]"),
        (Q, None, f"tensor '{Q}': expected shape [24, 24] by "),
        ("model.layers.0.self_attn.k_proj.weight", np.zeros((24, 24)), "expected shape [12, 24]"),
        ("lm_head.weight", None, "'lm_head.weight': expected shape [40, 24]"),
        (
            "model.norm.bias",
            np.zeros(24),
            "'model.norm.bias' of shape [24]: expected the tensors of a LlamaForCausalLM",
        ),
        ("model.layers.2.mlp.up_proj.weight", np.zeros((40, 24)), "found this one too"),
        ("model.layers.0.self_attn.q_proj.bias", np.zeros(24), "found this one too"),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", np.ones(3), "expected the frequencies of rope_theta 10000.0"),
    ],
)
def test_tensors_must_be_those_of_the_model(tmp_path, refuse_folder, name, array, message):
    weights = weights_of(settings_of())
    if array is None:
        del weights[name]
    else:
        weights[name] = array.astype("<f4")
    write_folder(tmp_path, settings_of(), weights)
    refuse_folder(message)
    refuse_folder("found no such tensor" if array is None else WHOLE)


def test_tensors_must_be_floats(tmp_path, refuse_folder):
    weights = weights_of(settings_of())
    for dtype, name in (("i1", "I8"), ("<f8", "F64")):
        write_folder(tmp_path, settings_of(), {**weights, Q: weights[Q].astype(dtype)})
        refuse_folder(f"tensor '{Q}': expected F32, F16, BF16, found {name}")


def test_a_tied_model_must_not_have_another_output_layer(tmp_path, refuse_folder):
    settings = settings_of(tie_word_embeddings=True)
    write_folder(tmp_path, settings, {**weights_of(settings), "lm_head.weight": np.zeros((40, 24), "<f4")})
    refuse_folder("'lm_head.weight': expected the values of 'model.embed_tokens.weight'")


def test_a_tokenizer_must_be_there_and_fit(tmp_path, refuse_folder):
    write_folder(tmp_path, settings_of(), weights_of(settings_of()))
    none = ["--dtype", "f32"]
    refuse_folder(
        "expected tokenizer.model (SentencePiece), found none; --no-tokenizer imports a model that takes token ids",
        *none,
    )
    (tmp_path / "tokenizer.json").write_text("{}")
    refuse_folder("found only tokenizer.json, a kind that the engine does not have; --no-tokenizer", *none)
    good = sentencepiece_model(41)
    for data, message in (
        (good, "expected at most 40 pieces by 'vocab_size', found 41"),
        (good[:-1], "expected a SentencePiece model, found another format or a damaged file"),
        (b"", "expected a SentencePiece model"),
        (b"IQ== 0\nIg== 1\n", "expected a SentencePiece model"),  # as of other tokenizers
        (b"\x0a" + b"\xff" * 9 + b"\x01", "expected a SentencePiece model"),
        (b"\x0a" + b"\xff" * 20, "expected a SentencePiece model"),
    ):
        (tmp_path / "tokenizer.model").write_bytes(data)
        refuse_folder(f"tokenizer.model: {message}", *none)
    (tmp_path / "tokenizer_config.json").write_text("nothing")
    refuse_folder("tokenizer_config.json: the file: expected JSON", *none)


def test_flags_must_fit_the_model(tmp_path, refuse_folder):
    write_folder(tmp_path, settings_of(), weights_of(settings_of()))
    base = ["--no-tokenizer"]
    refuse_folder("--end-id: expected -1 (none) to 39, found 40", *base, "--end-id", "40")
    refuse_folder("--start-id: expected -1 (none) to 39, found -2", *base, "--start-id", "-2")
    refuse_folder(
        "'max_position_embeddings': expected at least the 65 of --max-context, found 64", *base, "--max-context", "65"
    )
    refuse_folder("'max_position_embeddings'", *base, "--max-context", "0")


def test_files_that_cannot_be_read_or_written(tmp_path, refuse_folder, capsys):
    refuse_folder(f"{CONFIG}: expected a file, found nothing")
    os.mkfifo(tmp_path / CONFIG)  # would wait for ever
    refuse_folder(f"{CONFIG}: expected a file, found something else")
    os.remove(tmp_path / CONFIG)
    write_folder(tmp_path, settings_of(), weights_of(settings_of()))
    before = (tmp_path / WHOLE).read_bytes()
    flags = ["--model", str(tmp_path), "--no-tokenizer", "--out"]
    assert import_hf.main([*flags, str(tmp_path / WHOLE)]) == 1
    assert "--out: expected a file that is no input" in capsys.readouterr().err
    assert (tmp_path / WHOLE).read_bytes() == before
    assert import_hf.main([*flags, str(tmp_path / "no/such/folder")]) == 1
    assert "cannot save" in capsys.readouterr().err


def test_an_older_output_survives_a_failure(tmp_path, capsys):
    weights = weights_of(settings_of())
    weights["lm_head.weight"][0, 0] = np.nan  # the last tensor; q8 cannot express it
    write_folder(tmp_path, settings_of(), weights)
    out = tmp_path / "out.terrace"
    out.write_text("precious")
    assert import_hf.main(["--model", str(tmp_path), "--out", str(out), "--no-tokenizer", "--dtype", "q8"]) == 1
    assert "decoder.logits.weight: holds values that are not finite" in capsys.readouterr().err
    assert out.read_text() == "precious" and not list(tmp_path.glob("*.part"))


def test_the_command_line_exits_as_documented(tmp_path):
    script = [sys.executable, os.path.join(ROOT, "tools/import_hf.py")]
    assert subprocess.run([*script, "--help"], capture_output=True).returncode == 0
    assert subprocess.run(script, capture_output=True).returncode == 2
    done = subprocess.run([*script, "--model", "nothing", "--out", tmp_path / "y"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "import_hf: nothing/config.json: expected a file, found nothing\n"
