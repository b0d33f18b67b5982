# SPDX-License-Identifier: Apache-2.0
"""Going on from a model file: weights and vocabulary come out as they went in; lines that an editor broke are joined."""

import json

import pytest
import torch

from train import prepare
from train.documents import unwrap
from train.errors import TrainError
from train.export import export_model
from train.families import build_model
from train.tests import tiny
from train.trainer import Trainer
from train.warm_start import load_weights


@pytest.mark.parametrize("dtype, largest", [("f32", 0.0), ("bf16", 2.0**-8), ("q8", 0.5 / 127)])
def test_weights_return_from_a_model_file(tmp_path, dtype, largest):
    config = tiny.ALL_FAMILIES["nested"]
    torch.manual_seed(1)
    first, second = build_model(config), build_model(config)
    export_model(tmp_path / "m.terrace", first.state_dict(), config, dtype)
    load_weights(tmp_path / "m.terrace", second, config)
    for name, expected in first.state_dict().items():
        error = (second.state_dict()[name] - expected).abs()
        scale = expected.abs().amax(-1, keepdim=True) if dtype == "q8" else expected.abs()
        assert bool((error <= largest * scale * 1.001).all()), name


def test_another_model_is_refused_by_name(tmp_path):
    config = tiny.ALL_FAMILIES["nested"]
    export_model(tmp_path / "m.terrace", build_model(config).state_dict(), config)
    other = {**config, "d_ff": 2 * config["d_ff"]}
    with pytest.raises(TrainError, match="its d_ff is"):
        load_weights(tmp_path / "m.terrace", build_model(config), other)


def test_a_run_that_has_begun_keeps_its_weights(corpus, byte_lengths, tmp_path):
    config = tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=1)
    Trainer(config, tmp_path, byte_lengths).run()
    with pytest.raises(TrainError, match="goes on from step 1"):
        Trainer(config, tmp_path, byte_lengths, resume=True).start_from(tmp_path / "m.terrace")


def test_the_vocabulary_of_a_model_file(corpus, tmp_path):
    config = tiny.ALL_FAMILIES["dense"]
    model = tmp_path / "m.terrace"
    export_model(model, build_model(config).state_dict(), config, tokenizer=corpus / "tokenizer.model")
    sources = [("words", [str(corpus / "words.txt")])]
    prepare.prepare(tmp_path / "data", sources, {"": "\n\n\n"}, 0, held_out=0.15, vocabulary_file=str(model))
    assert (tmp_path / "data" / "words.train.bin").read_bytes() == (corpus / "words.train.bin").read_bytes()
    export_model(model, build_model(config).state_dict(), config)
    with pytest.raises(TrainError, match="its tokenizer is 'none'"):
        prepare.prepare(tmp_path / "no", sources, {"": "\n\n\n"}, 0, held_out=0.15, vocabulary_file=str(model))


def test_unwrap():
    long = "a line that an editor broke at its seventieth column or so, as here"
    assert unwrap(f"{long}\n{long}\nand ends.") == f"{long} {long} and ends."
    assert unwrap("CHAPTER I\n\nshort\nverses\nstay") == "CHAPTER I\n\nshort\nverses\nstay"
    assert unwrap(f"{long}\n\n{long}\n  indented") == f"{long}\n\n{long}\n  indented"


def test_a_split_does_not_depend_on_joined_lines(tmp_path):
    pytest.importorskip("sentencepiece", reason="the Python package sentencepiece is not installed")
    tiny.write_corpus(tmp_path)
    counts = []
    for wrapped in ((), ("words",)):
        sources = [("words", [str(tmp_path / "words.txt")])]
        prepare.prepare(tmp_path, sources, {"": "\n\n\n"}, tiny.VOCABULARY, held_out=0.15, wrapped=wrapped)
        report = json.loads((tmp_path / "data.json").read_text())["sources"]["words"]
        counts.append([report[split]["documents"] for split in ("train", "valid", "test")])
    assert counts[0] == counts[1]
