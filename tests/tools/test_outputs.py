# SPDX-License-Identifier: Apache-2.0
"""Outputs that would destroy what they are made from."""

import json

from conftest import DENSE, ROOT, run


def test_outputs_are_no_inputs(models, tmp_path):
    config, vocabulary = tmp_path / "config.json", tmp_path / "vocabulary"
    config.write_text(json.dumps({**DENSE, "vocab_size": 2000}))
    vocabulary.write_bytes((ROOT / "tests/golden/tiny_bpe.model").read_bytes())
    model, text = tmp_path / "model", tmp_path / "text"
    model.write_bytes(models["dense"].read_bytes())
    text.write_text("1 " * 300)
    link = tmp_path / "link"
    link.symlink_to(model)
    inputs = [config, vocabulary, model, text]
    before = [path.read_bytes() for path in inputs]
    init = ["init", "--config", config, "--tokenizer", f"sentencepiece:{vocabulary}", "-o"]
    for command in ([*init, config], [*init, vocabulary], ["moefy", model, model], ["moefy", model, link],
                    ["moefy", model, text, "-f", text], ["moefy", model, text, "--tokens", text],
                    ["logits", "-m", model, "--tokens", text, "-o", text], ["logits", "-m", link, "--tokens", text, "-o", model],
                    ["logits", "-m", "x", "--tokens", "y", "--encoder-tokens", text, "-o", text],
                    ["logits", "-m", "x", "--tokens", "y", "--encoder-vectors", text, "-o", text]):
        assert "is no input" in run(*command, code=2).err
    assert [path.read_bytes() for path in inputs] == before
