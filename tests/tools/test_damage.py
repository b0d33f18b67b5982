# SPDX-License-Identifier: Apache-2.0
"""Model files that are damaged, or whose parts do not fit each other: nothing reads, copies or makes one unnoticed."""

import json

import numpy as np
import pytest
from conftest import SPARSE, patched, reworded, run


def test_verify_tells_missing_checksums_from_damage(models, tmp_path):
    path = reworded(models["dense"], tmp_path / "without", b'"checksums"', b'"Checksums"')
    message = run("verify", path, code=1).err
    assert "tensors have no checksum" in message and "damaged" not in message


def test_tensors_that_are_damaged_are_not_copied(models, tmp_path):
    path, out = tmp_path / "damaged", tmp_path / "out"
    for tensor in ("decoder.embedding", "decoder.blocks.0.ff.w1.weight", "decoder.blocks.1.attention.0.q.bias"):
        patched(models["dense"], path, tensor, np.float32(0.125).tobytes())
        for command in (["quantize", path, out, "--dtype", "q8"], ["quantize", path, out, "--dtype", "f32"], ["moefy", path, out]):
            message = run(*command, code=1).err
            assert f"tensor '{tensor}' is damaged" in message and "damaged'" in message
            assert not out.exists()


def test_files_without_checksums_are_copied_with_a_warning(models, tmp_path):
    path = reworded(models["dense"], tmp_path / "without", b'"checksums"', b'"Checksums"')
    out = tmp_path / "out"
    for command in (["quantize", path, out, "--dtype", "q8", "--json"], ["moefy", path, out, "--json"]):
        result = run(*command)
        assert result.err.count("have no checksum") == 1 and "terrace: warning: " in result.err
        assert run("verify", out, "--json").json()["ok"]
    assert run("quantize", models["dense"], out, "--dtype", "q8", "--json").err == ""


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(models, tmp_path):
    path = reworded(models["dense"], tmp_path / "model", b'\\"offset\\":3', b'\\"offset\\":4')
    for command in (["verify", path], ["inspect", path], ["generate", "-m", path, "-p", "a"]):
        assert "260 ids, more than the vocabulary of 259" in run(*command, code=1).err


@pytest.mark.parametrize("name, id", [("start", 259), ("end", 259), ("pad", 259)])
def test_special_tokens_outside_the_vocabulary_are_refused(models, tmp_path, name, id):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**SPARSE, "tokens": {**SPARSE["tokens"], name: id}}))
    said = f"'tokens.{name}' must be from -1 to 258, found {id}"
    assert said in run("init", "--config", config, "-o", tmp_path / "x", code=1).err
    assert not (tmp_path / "x").exists()
    old = {"start": 0, "end": -1, "pad": 0}[name]
    field, other = (f'\\"{name}\\":{value}'.encode() for value in (old, id))
    loaded = reworded(models["sparse"], tmp_path / "loaded", field, other)
    for command in (["verify", loaded], ["inspect", loaded]):
        assert said in run(*command, code=1).err
