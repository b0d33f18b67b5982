# SPDX-License-Identifier: Apache-2.0
"""The comparisons of docs/quality.md: equal parameter counts, and figures that the engine measured."""

import json

import pytest

from train import evaluate, quality
from train.checkpoint import load_checkpoint
from train.families import build_model
from train.tests import tiny
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
