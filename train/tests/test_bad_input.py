# SPDX-License-Identifier: Apache-2.0
"""What users get wrong: the message names the place, what was found and what was expected."""

import json

import pytest
import torch

from train import documents, prepare, run
from train.container import read_container, write_container
from train.errors import TrainError
from train.families import build_model
from train.settings import complete_settings
from train.tests import tiny
from train.token_files import TokenMix, open_tokens
from train.trainer import Trainer, pick_device


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "no text"),
        (b" \n\n\t", "no text"),
        (b"abc\0def", "byte 3 is NUL"),
        (b"caf\xe9 au lait", "byte 3 is no UTF-8"),
    ],
)
def test_text_that_is_none(tmp_path, data, message):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(TrainError, match=message):
        documents.read_documents(path, "\n\n\n")


def test_missing_text(tmp_path):
    with pytest.raises(TrainError, match="nowhere.txt: cannot read"):
        documents.read_documents(tmp_path / "nowhere.txt", "\n\n\n")


@pytest.mark.parametrize("line", ["{oops", '{"summary": "s"}', "[1]", '{"document": 3}'])
def test_json_lines_that_are_none(tmp_path, line):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"document": "good"}\n' + line)
    with pytest.raises(TrainError, match="pairs.jsonl:2"):
        list(documents.read_documents(path, ""))


def test_splits_are_by_document_and_stable():
    texts = [documents.Document(f"text number {i}") for i in range(2000)]
    split = [documents.split_of(text, 0.1) for text in texts]
    assert split == [documents.split_of(text, 0.1) for text in texts]
    assert 140 < split.count("valid") < 260 and 140 < split.count("test") < 260


def test_prepare_reports_one_line(tmp_path, capsys):
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    assert prepare.main(["--out", str(tmp_path / "out"), "--source", f"a={tmp_path}/binary.txt"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_document_shorter_than_the_context(corpus, byte_lengths, tmp_path):
    config = tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, contexts={"100000": 1.0})
    with pytest.raises(TrainError, match=r"source 'words' \(train\): \d+ tokens: a context of 100000 needs 100001"):
        Trainer(config, tmp_path, byte_lengths)


def test_token_file_of_another_vocabulary(corpus):
    with pytest.raises(TrainError, match="the model's vocabulary has 5"):
        TokenMix(corpus, {"words": 1.0}, "train", 5)


def test_token_file_cut_in_half(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"abc")
    with pytest.raises(TrainError, match="whole uint16 ids"):
        open_tokens(tmp_path / "x.bin", 300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_absent():
    with pytest.raises(TrainError, match="no GPU here"):
        pick_device("cuda")
    assert pick_device("auto").type == "cpu"


def test_unknown_training_option():
    with pytest.raises(TrainError, match="train.learning_rate: unknown option"):
        complete_settings({"model": {}, "data": {}, "train": {"learning_rate": 1}})


def test_configuration_that_is_no_json(tmp_path, capsys):
    (tmp_path / "c.json").write_text("{")
    assert run.main(["--config", str(tmp_path / "c.json"), "--out", str(tmp_path / "run")]) == 1
    assert "cannot read the configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"family": "reformer_lm"}, "model.family 'reformer_lm'"),
        ({"logits": {"kind": "local"}}, "projection kind 'local'"),
        ({"logits": {"kind": "mult", "n_modules": 7}}, "no multiple of n_modules 7"),
    ],
)
def test_models_that_cannot_be_trained(change, message):
    with pytest.raises(TrainError, match=message):
        build_model({**tiny.ALL_FAMILIES["dense"], **change})


def test_a_run_that_diverges_stops(corpus, byte_lengths, tmp_path):
    trainer = Trainer(tiny.settings(tiny.ALL_FAMILIES["dense"], corpus), tmp_path, byte_lengths)
    with torch.no_grad():
        trainer.model.decoder.embedding.fill_(float("nan"))
    with pytest.raises(TrainError, match="the loss is nan"):
        trainer.step()


def test_damaged_container_is_refused(tmp_path):
    import numpy as np

    path = tmp_path / "m.terrace"
    write_container(path, {"a": np.arange(7, dtype="f4"), "b": np.ones((2, 64), "i1")}, {"config": json.dumps({})})
    good = path.read_bytes()
    assert set(read_container(path)[0]) == {"a", "b"}
    path.write_bytes(good[:-1] + b"\x09")
    with pytest.raises(TrainError, match="'b' is damaged"):
        read_container(path)
    path.write_bytes(good + b"\0" * 64)
    with pytest.raises(TrainError, match="tensors end at"):
        read_container(path)
