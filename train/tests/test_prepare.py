# SPDX-License-Identifier: Apache-2.0
"""From text to token files: complete or absent, few documents in memory, ids that fit into uint16."""

import json
import weakref

import numpy as np
import pytest

from train import prepare
from train.errors import TrainError
from train.tests import tiny
from train.vocabulary import END, START, Vocabulary, load_vocabulary


def prepared(out, sources, **options):
    options = {"vocabulary_size": tiny.VOCABULARY, "held_out": 0.15, **options}
    return prepare.prepare(out, sources, {"": "\n\n\n"}, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def sources(corpus):
    """The tiny corpus; `corpus` skips where sentencepiece is absent."""
    return [("words", [str(corpus / "words.txt")]), ("pairs", [str(corpus / "pairs.jsonl")])]


def test_token_files_hold_every_document_once(corpus, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "ENCODE_BATCH", 7)
    report = prepared(tmp_path, sources)
    vocabulary = load_vocabulary(tmp_path / "tokenizer.model")
    texts = []
    for split in prepare.SPLITS:
        ids = np.fromfile(tmp_path / f"words.{split}.bin", dtype=np.uint16)
        entry = report["sources"]["words"][split]
        rows = np.split(ids, np.flatnonzero(ids == START)[1:])
        assert all(row[0] == START and row[-1] == END for row in rows)
        texts += [vocabulary.decode(row[1:-1]) for row in rows]
        assert entry == {"documents": len(rows), "tokens": ids.size, "bytes": sum(len(t) for t in texts[-len(rows) :])}
    expected = (corpus / "words.txt").read_text().split("\n\n\n")
    assert sorted(texts) == sorted(text.strip("\n") for text in expected)

    pairs = [json.loads(line) for line in (corpus / "pairs.jsonl").read_text().splitlines()]
    found = []
    for split in prepare.SPLITS:
        documents = np.fromfile(tmp_path / f"pairs.{split}.bin", dtype=np.uint16)
        summaries = np.fromfile(tmp_path / f"pairs.{split}.summary.bin", dtype=np.uint16)
        for begin, end, summary_begin, summary_end in np.load(tmp_path / f"pairs.{split}.index.npy"):
            document = vocabulary.decode(documents[begin : end - 1])
            summary = vocabulary.decode(summaries[summary_begin + 1 : summary_end - 1])
            found.append({"document": document, "summary": summary})
    assert sorted(found, key=str) == sorted(pairs, key=str)


def test_few_documents_are_in_memory(corpus, sources, tmp_path, monkeypatch):
    alive, most = weakref.WeakSet(), [0]
    read = prepare.read_documents

    def counted(*arguments):
        for document in read(*arguments):
            alive.add(document)
            most[0] = max(most[0], len(alive))
            yield document

    monkeypatch.setattr(prepare, "read_documents", counted)
    monkeypatch.setattr(prepare, "ENCODE_BATCH", 4)
    prepared(tmp_path, sources)
    assert 4 <= most[0] <= 4 * len(prepare.SPLITS) + 2  # the corpus has 120


@pytest.mark.parametrize("failing", ["words.train.bin", "pairs.train.summary.bin", "test.txt", "data.json"])
def test_a_full_disk_leaves_what_was_there(sources, tmp_path, monkeypatch, failing):
    prepared(tmp_path, sources)
    before = contents(tmp_path)
    prepared(tmp_path, sources, held_out=0.3)
    assert contents(tmp_path)[failing] != before[failing]
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)

    opened = prepare.open_atomically

    def full(path):
        path = str(path)
        return opened("/dev/full/" + path if path.endswith(failing) else path)

    monkeypatch.setattr("train.atomic_file.open_atomically", full)
    monkeypatch.setattr(prepare, "open_atomically", full)
    with pytest.raises(TrainError, match=f"{failing}: cannot save"):
        prepared(tmp_path, sources, held_out=0.3)
    after = contents(tmp_path)
    assert after.keys() == before.keys() and after[failing] == before[failing]


def test_an_interrupted_run_leaves_no_half_file(sources, tmp_path, monkeypatch):
    calls = []

    def encode(_, texts):
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [[3] * len(text) for text in texts]

    monkeypatch.setattr(prepare, "ENCODE_BATCH", 4)
    monkeypatch.setattr(Vocabulary, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, sources)
    assert contents(tmp_path).keys() == {"tokenizer.model"}


def larger(model, size):
    """A SentencePiece file with pieces added at its end: field 1 of the message, with its field 1 a string."""
    pieces = [f"<{i:05x}>".encode() for i in range(size - load_vocabulary(model).size)]
    return model.read_bytes() + b"".join(bytes([10, len(p) + 2, 10, len(p)]) + p for p in pieces)


def test_a_vocabulary_beyond_uint16_is_refused(corpus, sources, tmp_path):
    given = tmp_path / "given.model"
    given.write_bytes(larger(corpus / "tokenizer.model", 65537))
    with pytest.raises(TrainError, match="vocabulary of 65537 pieces: .* at most 65536"):
        prepared(tmp_path / "out", sources, vocabulary_file=given)
    with pytest.raises(TrainError, match="vocabulary of 70000 pieces: .* at most 65536"):
        prepared(tmp_path / "out", sources, vocabulary_size=70000)
    given.write_bytes(b"no such model")
    with pytest.raises(TrainError, match="given.model: no SentencePiece model"):
        prepared(tmp_path / "out", sources, vocabulary_file=given)
    assert not list((tmp_path / "out").iterdir())
    given.write_bytes(larger(corpus / "tokenizer.model", 65536))
    assert prepared(tmp_path / "out", sources, vocabulary_file=given)["vocab_size"] == 65536


def test_an_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("text")
    arguments = ["--out", str(tmp_path / "file"), "--source", f"a={tmp_path}/file"]
    assert prepare.main(arguments) == 1
    assert "cannot make the output folder" in capsys.readouterr().err
