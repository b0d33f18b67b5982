# SPDX-License-Identifier: Apache-2.0
"""What an imported model file holds: values, dtypes, tokenizer, the ids that start and end a text."""

import json
import os
import subprocess

import import_hf
import numpy as np
import pytest
from hf_files import WHOLE, bf16_exact, safetensors_bytes, sentencepiece_model, settings_of, weights_of, write_folder
from terrace_import import output
from terrace_import.hf.safetensors_file import read_tensors
from test_import_guide import commands_below, run
from train.container import BF16, from_bf16, read_container

SETTINGS = settings_of()
Q = "model.layers.1.self_attn.q_proj.weight"
OWN_Q = "decoder.blocks.1.attention.0.q.weight"


def imported(folder, *flags):
    """(tensors, configuration, metadata, path) of the folder's model file."""
    out = folder / "out.terrace"
    assert import_hf.main(["--model", str(folder), "--out", str(out), *flags]) == 0
    tensors, metadata = read_container(out)
    return tensors, json.loads(metadata["config"]), metadata, out


def test_a_model_file_keeps_every_bit_of_f32_and_bf16(tmp_path, capsys):
    weights = weights_of(SETTINGS)
    tensors, *_ = imported(write_folder(tmp_path / "f32", SETTINGS, weights), "--no-tokenizer")
    assert np.array_equal(tensors[OWN_Q], weights[Q]) and tensors[OWN_Q].dtype == np.float32
    values, stored = bf16_exact(weights)
    tensors, *_ = imported(write_folder(tmp_path / "bf16", SETTINGS, stored), "--no-tokenizer")
    assert np.array_equal(tensors[OWN_Q], stored[Q]) and tensors[OWN_Q].dtype == BF16
    assert np.array_equal(tensors["decoder.norm.scale"], values["model.norm.weight"])
    assert "BF16 to bf16" in capsys.readouterr().err
    tensors, *_ = imported(tmp_path / "bf16", "--no-tokenizer", "--dtype", "f32")
    assert np.array_equal(tensors[OWN_Q], values[Q])


def test_f16_becomes_f32_and_rounding_is_told(tmp_path, capsys):
    stored = {name: w.astype("<f2") for name, w in weights_of(SETTINGS).items()}
    stored[Q][0, :3] = [6e-8, 65504, -1e-5]  # the smallest, the largest, a denormal one
    folder = write_folder(tmp_path, SETTINGS, stored)
    tensors, *_ = imported(folder, "--no-tokenizer")
    assert np.array_equal(tensors[OWN_Q], stored[Q].astype("<f4"))
    assert "rounded" not in capsys.readouterr().err
    tensors, *_ = imported(folder, "--no-tokenizer", "--dtype", "bf16")
    assert "rounded to bf16, which keeps 8 of 11 bits of F16" in capsys.readouterr().err
    assert np.allclose(from_bf16(tensors[OWN_Q]), stored[Q].astype("<f4"), rtol=2**-8)


def test_tensors_are_read_in_pieces_which_change_nothing(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, SETTINGS, weights_of(SETTINGS))
    for dtype in output.DTYPES:
        monkeypatch.setattr(output, "PIECE", 1 << 22)
        expected = imported(folder, "--no-tokenizer", "--dtype", dtype)[3].read_bytes()
        monkeypatch.setattr(output, "PIECE", 50)
        assert imported(folder, "--no-tokenizer", "--dtype", dtype)[3].read_bytes() == expected
    stored = read_tensors(str(folder / WHOLE))[Q]
    assert np.array_equal(stored[3:5], weights_of(SETTINGS)[Q][3:5])


def test_the_tokenizer_is_put_inside(tmp_path, terrace, capsys):
    folder = write_folder(tmp_path, SETTINGS, weights_of(SETTINGS))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(30))
    tensors, config, metadata, path = imported(folder)
    assert json.loads(metadata["tokenizer"]) == {"kind": "sentencepiece"}
    assert tensors["tokenizer.data"].tobytes() == sentencepiece_model(30)
    assert "the tokenizer has text for 30 of 40 ids" in capsys.readouterr().err
    done = subprocess.run([terrace, "tokenize", "-m", path, "-p", "abc"], capture_output=True, text=True)
    assert done.stdout.split() == ["3", "4", "5", "6"], done.stderr
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(40))
    imported(folder)
    assert "has text for" not in capsys.readouterr().err
    assert "tokenizer.data" not in imported(folder, "--no-tokenizer")[0]


@pytest.mark.parametrize(
    "changes, more, flags, tokens",
    [
        ({}, None, [], (1, 2)),
        ({"bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 40}, None, [], (5, 6)),
        ({"bos_token_id": None, "eos_token_id": None, "pad_token_id": -1}, None, [], (-1, -1)),
        ({"eos_token_id": [7, 8, 9]}, None, [], (1, 7)),
        ({"eos_token_id": [7, 8, 9]}, None, ["--end-id", "9"], (1, 9)),
        ({}, {"add_bos_token": False}, [], (-1, 2)),
        ({}, {"add_bos_token": True}, ["--start-id", "-1"], (-1, 2)),
    ],
)
def test_ids_that_start_and_end_a_text(tmp_path, capsys, changes, more, flags, tokens):
    settings = settings_of(**changes)
    folder = write_folder(tmp_path, settings, weights_of(settings))
    if more is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(more))
    config = imported(folder, "--no-tokenizer", *flags)[1]
    assert config["tokens"] == {"start": tokens[0], "end": tokens[1], "pad": -1}
    others = [i for i in (7, 8, 9) if i != tokens[1]]
    told = f"a text ends at {tokens[1]}, not at {others}" in capsys.readouterr().err
    assert told == isinstance(changes.get("eos_token_id"), list)


def test_a_shorter_context_makes_room_for_a_window(tmp_path):
    settings = settings_of(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=32)
    folder = write_folder(tmp_path, settings, weights_of(settings))
    assert imported(folder, "--no-tokenizer", "--max-context", "32")[1]["max_context"] == 32


def test_links_of_a_download_cache_are_followed(tmp_path):
    folder = write_folder(tmp_path / "blobs", SETTINGS, weights_of(SETTINGS))
    (tmp_path / "snapshot").mkdir()
    for name in os.listdir(folder):
        (tmp_path / "snapshot" / name).symlink_to(folder / name)
    assert OWN_Q in imported(tmp_path / "snapshot", "--no-tokenizer")[0]


def test_metadata_is_written(tmp_path):
    folder = write_folder(tmp_path, SETTINGS, weights_of(SETTINGS))
    metadata = imported(folder, "--no-tokenizer", "--name", "n", "--source", "s", "--license", "l")[2]
    assert [metadata[key] for key in ("name", "source", "license")] == ["n", "s", "l"]


def test_values_that_are_not_finite_are_reported(tmp_path, capsys):
    weights = weights_of(SETTINGS)
    weights[Q][2, 2] = np.inf
    folder = write_folder(tmp_path, SETTINGS, weights)
    imported(folder, "--no-tokenizer")
    assert f"warning: {OWN_Q} holds values that are not finite" in capsys.readouterr().err


def test_the_reader_takes_any_order_and_no_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({}))
    assert read_tensors(str(path)) == {}
    a, b = np.arange(4, dtype="<f4"), np.zeros((0, 3), "<f2")
    whole = safetensors_bytes({"a": a, "b": b}, c={"dtype": "F32", "shape": [], "data_offsets": [16, 20]})
    path.write_bytes(whole + np.float32(7).tobytes())
    tensors = read_tensors(str(path))
    assert tensors["a"][1:3].tolist() == [1, 2] and tensors["b"][...].shape == (0, 3) and tensors["c"][...] == 7


def test_the_commands_of_the_guide(tmp_path, terrace):
    settings = settings_of(hidden_act="relu", max_position_embeddings=256)  # room for 100 tokens
    folder = write_folder(tmp_path / "relu-llama", settings, weights_of(settings))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(settings["vocab_size"]))
    letters = np.random.default_rng(0).integers(26, size=4000)
    (tmp_path / "text.txt").write_text(
        " ".join("".join(chr(97 + c) for c in letters[i : i + 8]) for i in range(0, 4000, 8))
    )
    commands = commands_below("LLaMA-shaped models")
    assert len(commands) == 5
    *_, generated = [run(command, tmp_path, terrace) for command in commands]
    assert generated.stdout.startswith("abc") or generated.stdout.strip()
