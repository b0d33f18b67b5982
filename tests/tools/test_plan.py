# SPDX-License-Identifier: Apache-2.0
"""terrace plan: what it says about memory and time, of files and of models that do not exist yet."""

import json

import pytest
from conftest import SPARSE, run

STAGES = ["embedding", "attention", "controller", "feed-forward", "sru", "norm", "logits", "other", "state"]
KEYS = ["model", "parameters", "document", "setting", "rates", "memory", "stages", "total", "points"]
SETTING = ["dtype", "kv_type", "width", "threads", "context", "active_parameters", "ms_per_token"]
STAGE = ["bytes", "multiply_adds", "phases", "ms", "share", "bound_by"]
SPARSE_17B = ["--preset", "lm-17B", "--dtype", "q8"]


def plan(*arguments):
    return run("plan", *arguments, "--json").json()


def test_json_has_the_promised_keys_and_adds_up():
    found = plan("--preset", "c4-medium", "--dtype", "q8", "-c", 2048, "-t", 2)
    assert list(found) == KEYS and list(found["setting"]) == SETTING
    assert list(found["stages"]) == STAGES and all(list(stage) == STAGE for stage in found["stages"].values())
    assert found["setting"]["context"] == 2048 and found["setting"]["kv_type"] == "q8"
    rates = found["rates"]
    assert list(rates) == ["team", "leader", "scattered_bytes_per_s", "state_bytes_per_s", "seconds_per_phase"]
    assert list(rates["team"]) == list(rates["leader"])
    assert all(rate > 0 for threads in ("team", "leader") for rate in rates.pop(threads).values())
    assert all(rate > 0 for rate in rates.values())
    stages, total, memory = found["stages"].values(), found["total"], found["memory"]
    assert sum(stage["share"] for stage in stages) == pytest.approx(1)
    assert sum(stage["ms"] for stage in stages) == pytest.approx(total["ms_per_token"])
    assert sum(stage["bytes"] for stage in stages) == total["bytes_per_token"]
    assert sum(stage["phases"] for stage in stages) == total["phases_per_token"] > 0
    assert {stage["bound_by"] for stage in stages} <= {"reading", "arithmetic", "phases"}
    assert total["tokens_per_s"] == pytest.approx(1000 / total["ms_per_token"])
    assert found["stages"][total["binding_stage"]]["ms"] == max(stage["ms"] for stage in stages)
    assert memory["needed_bytes"] == memory["weight_bytes"] + memory["session_bytes"] + memory["scratch_bytes"]
    # 24 blocks, 2 sublayers, 16 heads: a key and a value of 64 channels with their scales, for 2048 positions. The
    # tails of the convolutions (2 rows of 1024) and the SRU cells (32) beside them.
    tails = 24 * (2 * 2 * 1024 + 32) * 4
    assert found["stages"]["state"]["bytes"] == 2048 * 24 * 2 * 16 * 2 * (64 + 4) + tails


def test_a_preset_needs_no_file_and_seventeen_billion_parameters_no_memory():
    found = plan(*SPARSE_17B, "-c", 16)
    assert found["parameters"] == 17_330_328_224
    assert found["setting"]["active_parameters"] == pytest.approx(171.2e6, rel=1e-3)
    assert found["memory"]["fits"] == (found["memory"]["needed_bytes"] <= found["memory"]["available_bytes"])
    text = run("plan", "--preset", "lm-17B", "--dense", "--dtype", "f32", "-c", 16).out.decode()
    assert "lm-17B, dense" in text and "fit into memory" in text


def test_a_file_and_its_configuration_have_the_same_plan(tmp_path):
    path = tmp_path / "model.terrace"
    run("init", "--preset", "lm-default", "--dtype", "q8", "-o", path)
    of_file, of_preset = plan("-m", path, "-t", 2, "-c", 300), plan("--preset", "lm-default", "--dtype", "q8", "-t", 2, "-c", 300)
    assert of_file["model"] == "model.terrace"
    for stage in STAGES:
        for figure in ("bytes", "multiply_adds", "phases"):
            assert of_file["stages"][stage][figure] == of_preset["stages"][stage][figure], (stage, figure)
    assert of_file["memory"]["weight_bytes"] == of_preset["memory"]["weight_bytes"]
    costs = run("inspect", path, "--json").json()["total"]
    weights = sum(of_file["stages"][stage]["bytes"] for stage in STAGES if stage != "state")
    assert weights == costs["bytes_per_token"]


def test_lists_give_every_combination(models):
    found = plan("-m", models["nested"], "-c", "64,16", "-t", "1,2", "--kv-type", "f32,q8")
    points = found["points"]
    seen = {(p["kv_type"], *p["width"], p["threads"], p["context"]) for p in points}
    assert seen == {(kv, w, t, c) for kv in ("f32", "q8") for w in (32, 64, 128) for t in (1, 2) for c in (64, 16)}
    assert len(points) == len(seen)
    by_place = {(p["kv_type"], *p["width"], p["threads"], p["context"]): p for p in points}
    for (kv, width, threads, context), point in by_place.items():
        # Rates of one number of threads are measured once, so these are no matter of luck.
        if context == 64:
            assert point["ms_per_token"] > by_place[kv, width, threads, 16]["ms_per_token"]
        if width == 128:
            assert point["active_parameters"] > by_place[kv, 32, threads, context]["active_parameters"]
    # Without a budget the model's own width, at the longest context.
    assert found["setting"]["context"] == 64 and found["setting"]["width"] == [128]
    one = plan("-m", models["nested"], "--width", "64,128,64,32")
    assert [p["width"] for p in one["points"]] == [[64, 128, 64, 32]]


def test_a_budget_takes_the_widest_that_fits_or_says_that_nothing_does(models):
    arguments = ["-m", models["nested"], "-c", "64,16", "-t", 1]
    ample = plan(*arguments, "--budget", 1000)
    assert ample["budget"] == {"ms_per_token": 1000, "fits": True}
    assert ample["setting"]["width"] == [128] and all(p["fits_budget"] for p in ample["points"])
    none = plan(*arguments, "--budget", 0.000001)
    assert none["budget"]["fits"] is False and not any(p["fits_budget"] for p in none["points"])
    at_longest = [p["ms_per_token"] for p in none["points"] if p["context"] == 64]
    assert none["setting"]["ms_per_token"] == min(at_longest)
    text = run("plan", *arguments, "--budget", 0.000001).out.decode()
    assert "nothing fits. The fastest is f32 weights" in text and "most of it in the stage" in text
    assert "the widest that fits is f32 weights" in run("plan", *arguments, "--budget", 1000).out.decode()


def test_a_document_is_read_again_with_every_token(tmp_path):
    encoder = {"n_layers": 1, "vocab_size": 259, "position": {"kind": "sin_cos"}, "attention": [{"kind": "dot_product"}],
               "ff": {"kind": "dense"}}  # fmt: skip
    decoder = {**encoder, "position": {"kind": "sin_cos"}}
    del decoder["vocab_size"]
    config = {**SPARSE, "family": "transformer", "encoder": encoder, "decoder": decoder, "logits": {"kind": "dense"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "model.terrace"
    run("init", "--config", tmp_path / "config.json", "--dtype", "f32", "-o", path)
    short, long = (plan("-m", path, "-c", 16, "--document", n) for n in (10, 100))
    assert long["document"] == 100
    # One block: a key and a value of 64 channels.
    assert long["stages"]["state"]["bytes"] - short["stages"]["state"]["bytes"] == 90 * 2 * 64 * 4


def test_tables_align():
    text = run("plan", "--preset", "lm-default", "--dtype", "bf16,q8", "-c", "16,64", "-t", 1).out.decode()
    lines = text.splitlines()
    for title in ("| memory", "| stage", "| dtype"):
        first = next(i for i, line in enumerate(lines) if line.startswith(title))
        table = [line for line in lines[first:] if line][:4]
        assert len({len(line) for line in table}) == 1, table
    assert sum(line.startswith("| q8 ") or line.startswith("| bf16 ") for line in lines) == 2


def test_what_is_no_model_file_is_an_error_of_its_own(tmp_path):
    path = tmp_path / "no.terrace"
    assert "no.terrace" in run("plan", "-m", path, code=1).err
    path.write_bytes(b"not a model")
    assert "no.terrace" in run("plan", "-m", path, code=1).err
