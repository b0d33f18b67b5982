# SPDX-License-Identifier: Apache-2.0
"""The comparisons of docs/quality.md: equal parameter counts, and figures that the engine measured."""

import json
from unittest import mock

import pytest

from train import evaluate, progress, quality
from train.checkpoint import load_checkpoint
from train.errors import TrainError
from train.families import build_model
from train.tests import tiny
from train.trainer import Trainer
from train.vocabulary import load_vocabulary


def test_models_of_the_sparsity_comparison_have_equal_parameters():
    counts = {
        name: quality.parameter_count(candidate.model)
        for name, candidate in quality.comparisons(4096).items()
        if name.startswith("sparsity/")
    }
    assert len(counts) == 5
    for name, count in counts.items():
        assert count == pytest.approx(counts["sparsity/dense"], rel=0.015), name


def test_a_comparison_from_training_to_table(corpus, terrace, tmp_path, monkeypatch, capsys):
    candidates = {"small/nested": quality.Candidate(tiny.ALL_FAMILIES["nested"], {"lr": 1e-3})}
    monkeypatch.setattr(quality, "CONTEXT", 32)
    monkeypatch.setattr(quality, "comparisons", lambda _: candidates)
    arguments = ["--data", str(corpus), "--out", str(tmp_path), "--terrace", str(terrace)]
    assert quality.main([*arguments, "--steps", "2", "--batch-tokens", "128", "--device", "cpu"]) == 0
    (entry,) = json.loads((tmp_path / "results.json").read_text()).values()
    assert [row["width"] for row in entry["rows"]] == [16, 32, 64] and entry["tokens"] == 256
    assert capsys.readouterr().out.count("| small | 256 | nested |") == 3

    saved = load_checkpoint(tmp_path / "small-nested" / "last.pt")
    assert saved["config"]["train"]["lr"] == 1e-3
    model = build_model(saved["config"]["model"])
    model.load_state_dict(saved["model"])
    text = (corpus / "test.txt").read_text(encoding="utf-8")
    ids = load_vocabulary(corpus / "tokenizer.model").encode(text)
    for row in entry["rows"]:
        nats = evaluate.score_text(model, ids, 32, 16, row["width"])
        bits = evaluate.bits_per_byte(nats, text)
        assert row["bits_per_byte"] == pytest.approx(bits, rel=1e-4)


def test_results_of_earlier_runs_are_kept_and_damaged_ones_named(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "comparisons", lambda _: {})
    rows = [{"width": 8, "bits_per_byte": 1.5}]
    earlier = {"a/model": {"parameters": 1234, "tokens": 5000, "rows": rows}}
    (tmp_path / "results.json").write_text(json.dumps(earlier))
    arguments = ["--data", str(corpus), "--out", str(tmp_path)]
    assert quality.main(arguments) == 0
    assert "| a | 5,000 | model | 1,234 | 8 | 1.5000 |" in (tmp_path / "results.md").read_text()
    (tmp_path / "results.json").write_text("{")
    assert quality.main(arguments) == 1
    assert "results.json: no results of this script" in capsys.readouterr().err


CANDIDATES = {"a/one": None, "a/two": None, "b/one": None}


def test_only_takes_names_that_exist():
    assert list(quality.chosen(CANDIDATES, "")) == list(CANDIDATES)
    assert list(quality.chosen(CANDIDATES, "a")) == ["a/one", "a/two"]
    assert list(quality.chosen(CANDIDATES, "b,a")) == list(CANDIDATES)
    for only in ("sparsty", "a,sparsty"):
        with pytest.raises(TrainError, match="--only sparsty: no such comparison; there are a, b"):
            quality.chosen(CANDIDATES, only)


class Pyplot:
    """Stands in for matplotlib: counts the figures that are open."""

    def __init__(self):
        self.open = 0
        self.axes = mock.MagicMock()

    def subplots(self, **_):
        self.open += 1
        return self, self.axes

    def close(self, _):
        self.open -= 1

    def tight_layout(self):
        pass

    def savefig(self, out, **_):
        out.write(b"a picture")


@pytest.fixture
def pyplot(monkeypatch):
    stand_in = Pyplot()
    monkeypatch.setattr(quality, "non_interactive_pyplot", lambda: stand_in)
    monkeypatch.setattr(progress, "non_interactive_pyplot", lambda: stand_in)
    return stand_in


@pytest.mark.parametrize("failing", ["results.md", "results.svg"])
def test_files_that_cannot_be_written_end_in_one_line(corpus, tmp_path, monkeypatch, capsys, pyplot, failing):
    monkeypatch.setattr(quality, "comparisons", lambda _: {})
    (tmp_path / failing).mkdir()
    assert quality.main(["--data", str(corpus), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("train.quality: ") and f"{failing}: cannot save" in error and error.count("\n") == 1
    assert pyplot.open == 0


def test_only_that_does_not_exist_ends_in_one_line(corpus, tmp_path, capsys):
    assert quality.main(["--data", str(corpus), "--out", str(tmp_path), "--only", "sparsty"]) == 1
    assert "--only sparsty: no such comparison; there are attention, controller, depth" in capsys.readouterr().err


def test_an_engine_that_is_not_there_ends_in_one_line(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "CONTEXT", 32)
    candidate = quality.Candidate(tiny.ALL_FAMILIES["dense"])
    monkeypatch.setattr(quality, "comparisons", lambda _: {"small/dense": candidate})
    arguments = ["--data", str(corpus), "--out", str(tmp_path), "--terrace", str(tmp_path / "nowhere")]
    assert quality.main([*arguments, "--steps", "1", "--batch-tokens", "128", "--device", "cpu"]) == 1
    assert "nowhere: cannot run: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", '{"a/model": 3}', '{"a/model": {"rows": [{}]}}'])
def test_results_that_another_program_wrote_are_named(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(TrainError, match="results.json: no results of this script"):
        quality.earlier_results(tmp_path / "results.json")


def test_curves_of_a_run(tmp_path, pyplot):
    (tmp_path / "log.jsonl").write_text("")
    assert progress.plot_curves(tmp_path) is None and pyplot.open == 0
    assert not (tmp_path / "curves.png").exists()
    rows = [{"kind": kind, "step": 1, "bits_per_byte": 2.0, "width": 8} for kind in ("train", "valid")]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert progress.plot_curves(tmp_path) == tmp_path / "curves.png" and pyplot.open == 0
    assert (tmp_path / "curves.png").read_bytes() == b"a picture"
    (tmp_path / "curves.png").unlink()
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(TrainError, match="curves.png: cannot save"):
        progress.plot_curves(tmp_path)
    assert pyplot.open == 0


def test_a_run_whose_curves_cannot_be_written_warns(corpus, byte_lengths, tmp_path, pyplot, capsys):
    trainer = Trainer(tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=1), tmp_path, byte_lengths)
    (tmp_path / "curves.png").mkdir()
    assert trainer.run()["step"] == 1
    assert "warning: " in capsys.readouterr().err


def test_characters_are_not_cut(corpus, byte_lengths, tmp_path, capsys):
    trainer = Trainer(tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=1), tmp_path, byte_lengths)
    trainer.run()
    (tmp_path / "text.txt").write_text("\u00e9\u6f22\U0001f600 and more", encoding="utf-8")
    arguments = ["--checkpoint", str(tmp_path / "last.pt"), "--tokenizer", str(corpus / "tokenizer.model")]
    arguments += ["--file", str(tmp_path / "text.txt"), "--context", "32", "--characters", "3"]
    capsys.readouterr()
    assert evaluate.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 2 + 3 + 4
