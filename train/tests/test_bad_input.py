# SPDX-License-Identifier: Apache-2.0
"""What users get wrong: the message names the place, what was found and what was expected."""

import json
import lzma
import struct

import numpy as np
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
from train.warm_start import tokenizer_bytes


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
        list(documents.read_documents(path, "\n\n\n"))


def test_missing_text(tmp_path):
    with pytest.raises(TrainError, match="nowhere.txt: cannot read"):
        list(documents.read_documents(tmp_path / "nowhere.txt", "\n\n\n"))


@pytest.mark.parametrize("name", ["text.txt.xz", "pairs.jsonl.xz"])
def test_xz_file_that_is_cut_short(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(lzma.compress(b'{"document": "a text"}\n' * 2000)[:-40])
    for read in (documents.read_text, lambda path: list(documents.read_documents(path, "\n\n\n"))):
        with pytest.raises(TrainError, match=f"{name}: cannot read: Compressed file ended"):
            read(path)
    path.write_bytes(b"not compressed")
    with pytest.raises(TrainError, match=f"{name}: cannot read"):
        documents.read_text(path)


@pytest.mark.parametrize("separator", ["\n\n\n", "--", ""])
@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
def test_documents_do_not_depend_on_the_blocks_that_are_read(tmp_path, monkeypatch, separator, block):
    path = tmp_path / "text.txt"
    text = "one\ntwo\r\n\n\n\nthr\u00e9e\r\r\n--\n\U0001f600four--\r\n\r\n \n-- \n\n\nfi\ufeffve"
    text += "\nsix" * 50 + "---\r"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    monkeypatch.setattr(documents, "BLOCK", block)
    text = text.replace("\r\n", "\n")
    expected = [piece.strip("\n") for piece in (text.split(separator) if separator else [text]) if piece.strip()]
    assert [document.text for document in documents.read_documents(path, separator)] == expected
    assert documents.read_text(path) == text


@pytest.mark.parametrize("block", [1, 2, 1000])
@pytest.mark.parametrize("data, place", [(b"abc\xc3\xa9\0", 5), (b"caf\xc3\xa9 \xe9", 6), (b"caf\xc3\xa9 \xe9\x82", 6)])
def test_places_of_wrong_bytes_do_not_depend_on_the_blocks(tmp_path, monkeypatch, block, data, place):
    monkeypatch.setattr(documents, "BLOCK", block)
    (tmp_path / "text.txt").write_bytes(data)
    with pytest.raises(TrainError, match=f"byte {place} is"):
        documents.read_text(tmp_path / "text.txt")


@pytest.mark.parametrize(
    "line", ["{oops", '{"summary": "s"}', "[1]", '{"document": 3}', pytest.param("[" * 200_000, id="deep")]
)
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


def write_header(path, header, data=bytes(64)):
    """A model file with any bytes as its header."""
    header += b" " * (-(8 + len(header)) % 64)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


METADATA = {"format": "terrace", "format_version": "1", "checksums": "{}"}
ENTRY = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    "header, message",
    [
        (b"{", "the header: expected JSON"),
        (b'{"a\xff": 1}', "the header: expected JSON: 'utf-8' codec"),
        pytest.param(b"[" * 200_000, "the header: expected JSON", id="deep"),
        (b"[]", "the header: expected a JSON object, found list"),
        (b'{"a": 1, "a": 2}', "m.terrace: the header: expected JSON: a key appears twice"),
        (b"{}", "not a terrace model file"),
        (b'{"__metadata__": 3}', "not a terrace model file"),
        ({"__metadata__": {**METADATA, "checksums": 3}, "a": ENTRY}, "metadata: no 'checksums'"),
        ({"__metadata__": {**METADATA, "checksums": "{"}, "a": ENTRY}, "metadata 'checksums': expected JSON"),
        ({"__metadata__": {**METADATA, "checksums": "[]"}, "a": ENTRY}, "expected a JSON object, found list"),
        ({"__metadata__": METADATA, "a": ENTRY}, "checksums and tensors differ"),
        ({"__metadata__": METADATA, "a": 3}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {}}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "dtype": "F64"}}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "dtype": []}}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "shape": [16.0]}}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "shape": ""}}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "data_offsets": [64]}}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "data_offsets": None}}, "tensor 'a': expected dtype"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "shape": [2**40, 2**40]}}, "tensor 'a': .* leaves a hole"),
        ({"__metadata__": METADATA, "a": {**ENTRY, "shape": [2**70, 0], "data_offsets": [0, 0]}}, "tensor 'a': shape"),
    ],
)
def test_headers_that_no_writer_makes_are_refused(tmp_path, header, message):
    path = tmp_path / "m.terrace"
    write_header(path, header if isinstance(header, bytes) else json.dumps(header).encode())
    with pytest.raises(TrainError, match=message):
        read_container(path)


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({}, "metadata: no 'tokenizer'"),
        ({"tokenizer": "{"}, "metadata 'tokenizer': expected JSON"),
        ({"tokenizer": "{}"}, "its tokenizer is 'None'"),
        ({"tokenizer": '{"kind": "sentencepiece"}'}, "no tensor 'tokenizer.data'"),
    ],
)
def test_model_files_without_a_vocabulary(tmp_path, metadata, message):
    write_container(tmp_path / "m.terrace", {"a": np.zeros(3, "f4")}, metadata)
    with pytest.raises(TrainError, match=message):
        tokenizer_bytes(tmp_path / "m.terrace")
