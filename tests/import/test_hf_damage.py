# SPDX-License-Identifier: Apache-2.0
"""Weights that are damaged, lie about themselves or point out of the folder are refused."""

import json
import os

import import_hf
import numpy as np
import pytest
from hf_files import INDEX, WHOLE, safetensors_bytes, settings_of, weights_of, write_folder

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
        "a\\b",
        "x\0y",
        "x\n.safetensors",
        "\ud800.safetensors",
        3,
        None,
    ],
)
def test_shards_must_lie_in_the_folder(tmp_path, refuse_folder, shard):
    write_folder(tmp_path, settings_of(), weights_of(settings_of()), n_shards=2)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"][Q] = shard
    (tmp_path / INDEX).write_text(json.dumps(index))
    refuse_folder(f"{INDEX}: tensor '{Q}': expected ")


def test_index_and_shards_must_agree(tmp_path, refuse_folder):
    folder = write_folder(tmp_path, settings_of(), weights_of(settings_of()), n_shards=2)
    text = (folder / INDEX).read_text()
    index = json.loads(text)
    one, two = sorted(set(index["weight_map"].values()))

    def write(**changes):
        content = {"weight_map": {**index["weight_map"], **changes}}
        (folder / INDEX).write_text(json.dumps(content))

    write(**{Q: one})
    refuse_folder(f"{two}: holds tensor '{Q}'; {INDEX} has it in '{one}'")
    write(more=two)
    refuse_folder(f"{two}: expected tensor 'more' by {INDEX}, found none")
    (folder / INDEX).write_text(json.dumps({"weight_map": {k: v for k, v in index["weight_map"].items() if k != Q}}))
    refuse_folder(f"{INDEX} has it in 'no file'")
    write(more="model-00003-of-00002.safetensors")
    refuse_folder("model-00003-of-00002.safetensors: is named in")
    for content in (
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        text[:-5],
        '{"weight_map": {}, "weight_map": {}}',
        "[" * 10**5,
    ):
        (folder / INDEX).write_text(content)
        refuse_folder(INDEX)


def test_pickles_are_not_read(tmp_path, refuse_folder):
    write_folder(tmp_path, settings_of(), {})
    os.remove(tmp_path / WHOLE)
    refuse_folder(f"expected {WHOLE} or {INDEX}, found neither")
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch made'\ntR.")
    refuse_folder(
        "its weights are pickles (pytorch_model.bin), which could run any code and are not read; convert them"
    )


def test_truncated_and_damaged_files_are_refused(tmp_path, refuse_folder):
    write_folder(tmp_path, settings_of(), weights_of(settings_of()))
    whole = (tmp_path / WHOLE).read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / WHOLE).write_bytes(whole[:size])
        refuse_folder(WHOLE)
    (tmp_path / WHOLE).write_bytes(whole + b"\0")
    refuse_folder("truncated or damaged")
    for start in (b"\xff" * 8, (1 << 40).to_bytes(8, "little"), (2).to_bytes(8, "little")):
        (tmp_path / WHOLE).write_bytes(start + whole[8:])
        refuse_folder(WHOLE)


ENTRY = {"dtype": "F32", "shape": [40, 24], "data_offsets": [0, 3840]}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data_offsets": [0, 3836]}, "expected 3840 bytes for F32 [40, 24]"),
        ({"data_offsets": [3840, 0]}, "found data_offsets 3840 to 0"),
        ({"data_offsets": [-4, 3836]}, "expected a dtype, a shape and two data_offsets"),
        ({"data_offsets": [1 << 70, (1 << 70) + 3840]}, "a hole or an overlap"),
        ({"data_offsets": [64, 3904]}, "a hole or an overlap"),
        ({"data_offsets": [0, 3840, 0]}, "two data_offsets"),
        ({"shape": [1 << 40, 1 << 40]}, "found data_offsets 0 to 3840"),
        ({"shape": [40, -24]}, "expected a dtype, a shape"),
        ({"shape": [40, 24.0]}, "expected a dtype, a shape"),
        ({"shape": [1] * 9}, "expected a dtype, a shape"),
        ({"shape": True}, "expected a dtype, a shape"),
        ({"dtype": "F4"}, "dtype 'F4'; expected one of"),
        ({"dtype": ["F32"]}, "dtype ['F32']"),
        ({"dtype": None}, "dtype None"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, refuse_folder, changes, message):
    name = "model.embed_tokens.weight"
    write_folder(tmp_path, settings_of(), {})
    data = safetensors_bytes({name: weights_of(settings_of())[name]}, **{name: {**ENTRY, **changes}})
    (tmp_path / WHOLE).write_bytes(data)
    refuse_folder(f"{WHOLE}: tensor '{name}'")
    refuse_folder(message)


def test_any_byte_of_a_header_may_be_wrong(tmp_path):
    """Another model at worst, never another exception; sizes are those of the file."""
    folder = write_folder(tmp_path, settings_of(), weights_of(settings_of()))
    whole = bytearray((folder / WHOLE).read_bytes())
    length = int.from_bytes(whole[:8], "little")
    r = np.random.default_rng(0)
    flags = ["--model", str(folder), "--out", str(tmp_path / "o"), "--no-tokenizer"]
    for at in r.integers(0, 8 + length, size=300):
        damaged = bytearray(whole)
        damaged[at] = r.integers(256)
        (folder / WHOLE).write_bytes(damaged)
        assert import_hf.main(flags) in (0, 1)
