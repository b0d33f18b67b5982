# SPDX-License-Identifier: Apache-2.0
"""terrace bench: the rows it promises, for presets and files, and what it refuses."""

import csv
import io
import json
import time
import xml.etree.ElementTree

import pytest
from conftest import run

KEYS = [
    "model", "variant", "dtype", "threads", "test", "depth", "n_tokens", "tokens_per_s", "tokens_per_s_min",
    "tokens_per_s_max", "ms_per_token", "bytes_per_token", "gb_per_s", "read_bw_gb_per_s", "bw_share",
    "speedup_vs_dense",
]  # fmt: skip
ZONES = ["embedding", "norms", "projections", "attention", "feed-forward", "sru", "logits", "other"]
DETAILS = [
    "parameters", "blocks", "preset_blocks", "predicted_ms_per_token", "ms_per_block", "ms_per_token_all_blocks",
    "phases_per_token", "sync_share", "leader_alone_share", *(f"ms_{zone}" for zone in ZONES),
]  # fmt: skip
QUICK = ["-n", 4, "-p", 8, "-r", 2]
DECODE = ["-n", 4, "-r", 2, "-t", 2]
PRESET = ["--preset", "lm-default", "--dtype", "q8"]


def svg_of(text):
    """The root of an SVG document whose shapes all lie inside its view box."""
    root = xml.etree.ElementTree.fromstring(text)
    _, _, width, height = map(float, root.get("viewBox").split())
    for shape in root.iter():
        for x, y in (("x", "y"), ("x1", "y1"), ("x2", "y2"), ("cx", "cy")):
            if shape.get(x, "").endswith("%") or shape.get(x) is None:
                continue
            assert 0 <= float(shape.get(x)) <= width and 0 <= float(shape.get(y)) <= height, shape.attrib
    return root


def shapes(root, kind):
    return list(root.iter("{http://www.w3.org/2000/svg}" + kind))


@pytest.fixture(scope="module")
def rows():
    return run("bench", "--preset", "lm-default", "--dtype", "bf16,q8", "-t", "1,2", "-d", "0,16", *QUICK, "-o", "json").json()


def test_one_row_per_variant_dtype_threads_and_test(rows):
    assert all(list(row) == KEYS for row in rows)
    keys = {(r["variant"], r["dtype"], r["threads"], r["test"], r["depth"]) for r in rows}
    assert len(keys) == len(rows) == 2 * 2 * 2 * 3
    assert {r["model"] for r in rows} == {"lm-default"}
    assert {(r["test"], r["depth"], r["n_tokens"]) for r in rows} == {("pp", 0, 8), ("tg", 0, 4), ("tg", 16, 4)}


def test_figures_of_a_row_agree_with_each_other(rows):
    dense = {(r["dtype"], r["threads"], r["test"], r["depth"]): r for r in rows if r["variant"] == "dense"}
    for row in rows:
        assert row["tokens_per_s_min"] <= row["tokens_per_s"] <= row["tokens_per_s_max"]
        assert row["ms_per_token"] == pytest.approx(1e3 / row["tokens_per_s"])
        twin = dense[row["dtype"], row["threads"], row["test"], row["depth"]]
        assert row["speedup_vs_dense"] == pytest.approx(row["tokens_per_s"] / twin["tokens_per_s"])
        if row["test"] == "tg":
            assert row["gb_per_s"] == pytest.approx(row["bytes_per_token"] * row["tokens_per_s"] / 1e9)
            assert row["bw_share"] == pytest.approx(row["gb_per_s"] / row["read_bw_gb_per_s"])
        else:
            assert row["bytes_per_token"] is None


def test_bytes_per_token_are_those_of_the_plan(rows):
    """35.3 M weights of lm-default's dense variant, two bytes each, and 12.3 kB of keys and values per position."""
    row = next(r for r in rows if (r["variant"], r["dtype"], r["test"], r["depth"]) == ("dense", "bf16", "tg", 0))
    assert row["bytes_per_token"] == pytest.approx(2 * 35.33e6, rel=0.01)
    deeper = next(r for r in rows if (r["variant"], r["dtype"], r["test"], r["depth"]) == ("dense", "bf16", "tg", 16))
    assert deeper["bytes_per_token"] - row["bytes_per_token"] == pytest.approx(16 * 12288)


def test_a_file_is_timed_beside_a_twin_of_equal_size(models):
    rows = run("bench", "-m", models["sparse"], "-t", 1, *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"sparse", "dense"} and {r["model"] for r in rows} == {"sparse.terrace"}
    rows = run("bench", "-m", models["dense"], "-t", 1, *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"dense"}
    rows = run("bench", "-m", models["sparse"], "--variant", "sparse", *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"sparse"} and rows[0]["speedup_vs_dense"] is None
    rows = run("bench", "-m", models["sparse"], "--variant", "dense", "-t", 1, *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"dense"}
    rows = run("bench", "-m", models["dense"], "--variant", "dense", "-t", 1, *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"dense"}
    assert "--variant" in run("bench", "-m", models["dense"], "--variant", "sparse", *QUICK, code=2).err


def test_a_name_that_is_no_utf8_or_has_control_characters(models, tmp_path):
    model = tmp_path / "bad\udcff\x01<.terrace"
    model.write_bytes(models["dense"].read_bytes())
    shown = "bad\ufffd\x01<.terrace"
    report = tmp_path / "r"
    rows = run("bench", "-m", model, "-t", 1, *QUICK, "--json", "--report", report).json()
    assert {row["model"] for row in rows} == {shown}
    assert json.loads((tmp_path / "r.json").read_text()) == rows
    words = [text.text for text in shapes(svg_of((tmp_path / "r.svg").read_text()), "text")]
    assert any(word.startswith("bad\ufffd\ufffd<.terrace") for word in words)


def test_tables(models):
    table = run("bench", "-m", models["sparse"], "-t", 1, *QUICK).out.decode()
    assert table.count("\n") == 2 + 4 and "vs dense" in table and "tg4" in table
    lines = list(csv.DictReader(io.StringIO(run("bench", "-m", models["sparse"], *QUICK, "-o", "csv").out.decode())))
    assert list(lines[0]) == KEYS and len(lines) == 4


@pytest.fixture(scope="module")
def table1():
    return {rule: run("bench", *PRESET, f"--table1={rule}", *DECODE, "--json").json() for rule in ("preset", "layers")}


def test_table1_has_the_rows_of_the_paper(table1):
    for rows in table1.values():
        assert [row["variant"] for row in rows] == ["dense", "+FF", "+QKV", "+FF+QKV", "+FF+QKV+output"]
        assert all(list(row) == KEYS + DETAILS for row in rows)
        dense, ff, qkv, both, output = (row["bytes_per_token"] for row in rows)
        assert dense > ff > both > output and qkv > both


def test_table1_keeps_what_its_rule_names(table1):
    sparse = run("bench", *PRESET, "--variant", "sparse", *DECODE, "-p", 0, "--profile", "--json").json()[0]
    rows = table1["preset"]
    assert (rows[-1]["parameters"], rows[-1]["bytes_per_token"]) == (sparse["parameters"], sparse["bytes_per_token"])
    dense, _, qkv, _, _ = table1["layers"]
    d_model, layers, modules = 512, 6, 8
    width = d_model // modules
    sparse_qkv = modules * d_model + d_model * width + d_model + 2 * (9 * width * width + width) + 3 * width * width + width
    assert dense["parameters"] - qkv["parameters"] == layers * (4 * d_model * d_model + 4 * d_model - sparse_qkv)


def test_a_profile_accounts_for_the_token(table1):
    for row in [row for rows in table1.values() for row in rows]:
        zones = {zone: row[f"ms_{zone}"] for zone in ZONES}
        assert all(ms >= 0 for ms in zones.values()) and zones["sru"] == 0
        assert min(zones["projections"], zones["feed-forward"], zones["logits"]) > 0
        assert row["phases_per_token"] >= row["blocks"]
        assert 0 <= row["sync_share"] < 1 and 0 <= row["leader_alone_share"] < 1
        inside = 1 - (zones["embedding"] + zones["logits"]) / sum(zones.values())
        assert row["ms_per_block"] == pytest.approx(row["ms_per_token"] * inside / row["blocks"])
        assert row["predicted_ms_per_token"] > 0
    single = run("bench", *PRESET, "--variant", "sparse", "-n", 4, "-p", 4, "-r", 1, "-t", 1, "--profile", "--json").json()
    assert [row["test"] for row in single] == ["pp", "tg"] and single[0]["ms_norms"] is None
    assert single[1]["phases_per_token"] == 0 and single[1]["sync_share"] == 0 and single[1]["leader_alone_share"] == 1


def test_profile_and_table1_as_text():
    text = run("bench", *PRESET, "--table1", *DECODE, "--profile").out.decode()
    table, profile = text.split("\n\n")
    assert table.count("\n") == 1 + 5 and "ms/block" in table and "all blocks" not in table
    assert all(name in profile for name in (*ZONES, "synchronisation", "leader alone"))


def test_blocks_run_fewer_and_say_what_all_would_take():
    rows = run("bench", *PRESET, "--blocks", 2, *DECODE, "-p", 0, "--json").json()
    assert [(row["blocks"], row["preset_blocks"]) for row in rows] == [(2, 6), (2, 6)]
    for row in rows:
        assert row["ms_per_token_all_blocks"] == pytest.approx(row["ms_per_token"] + 4 * row["ms_per_block"])
    assert "not measured" in run("bench", *PRESET, "--blocks", 1, "--table1", "-n", 2, "-r", 1).out.decode()
    assert "6 blocks" in run("bench", *PRESET, "--blocks", 7, *DECODE, code=2).err


@pytest.mark.parametrize("parameter, values", [("block-size", (16, 32, 64)), ("rank", (128, 64, 32)), ("output-modules", (2, 4)), ("experts", (64, 32, 16))])
def test_sweeps_change_what_a_token_reads(parameter, values):
    rows = run("bench", *PRESET, "--sweep", f"{parameter}={','.join(map(str, values))}", *DECODE, "--json").json()
    assert [row["variant"] for row in rows] == ["dense", *(f"{parameter}={value}" for value in values)]
    read = [row["bytes_per_token"] for row in rows]
    assert read == sorted(read, reverse=True) and len(set(read)) == len(read)
    assert all(row["speedup_vs_dense"] for row in rows)


@pytest.mark.parametrize(
    "sweep, said",
    [
        ("block-size=32,33", "block-size=33"),  # does not divide d_ff
        ("modules=7", "modules=7"),
        ("modules=0", "found '0'"),
        ("rank=1.5", "found '1.5'"),
        ("rank=8,", "found ''"),
        ("rank", "rank=16,32"),
        ("width=8", "block-size"),
        ("rank=-1", "found '-1'"),
        ("experts=7", "experts=7"),
    ],
)
def test_sweeps_that_cannot_be_are_usage_errors(sweep, said):
    assert said in run("bench", *PRESET, "--sweep", sweep, *DECODE, code=2).err


def test_a_report_holds_all_formats_of_one_run(tmp_path):
    path = tmp_path / "report"
    shown = run("bench", *PRESET, "--sweep", "block-size=16,32", *DECODE, "--report", path, "-o", "csv").out
    assert path.with_suffix(".csv").read_bytes() == shown
    assert "block-size=32" in path.with_suffix(".md").read_text() and path.with_suffix(".json").exists()
    root = svg_of(path.with_suffix(".svg").read_text())
    assert len(shapes(root, "circle")) == 2 * 2  # measured and predicted
    words = [text.text for text in shapes(root, "text")]
    assert {"block-size", "ms per token", "16", "32", "dense", "sparse", "sparse, predicted"} <= set(words)
    assert "existing folder" in run("bench", *PRESET, *DECODE, "--report", tmp_path / "no" / "report", code=2).err


def test_a_report_that_cannot_be_written_is_refused_before_any_work(models, tmp_path):
    for bad in (f"{tmp_path}/", tmp_path / "..", f"{tmp_path}/."):
        assert "--report" in run("bench", *PRESET, *DECODE, "--report", bad, code=2).err
    (tmp_path / "r.svg").mkdir()
    started = time.monotonic()
    result = run("bench", *PRESET, "-n", 4, "-r", 10000, "--report", tmp_path / "r", code=1)
    assert "r.svg" in result.err and result.out == b"" and time.monotonic() - started < 10
    run("bench", *PRESET, *DECODE, "--report", "/proc/r", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["r.svg"]
    model = tmp_path / "model.md"
    model.write_bytes(models["dense"].read_bytes())
    assert "is no input" in run("bench", "-m", model, "--report", tmp_path / "model", code=2).err


def encoder_decoder(folder, positions, **of_encoder):
    stack = {"n_layers": 1, "position": {"kind": "learned", "max_len": positions}, "attention": [{"kind": "dot_product"}],
             "ff": {"kind": "sparse", "block_size": 8, "d_lowrank": 8}}  # fmt: skip
    config = {"family": "transformer", "d_model": 32, "d_ff": 64, "n_heads": 4, "vocab_size": 96, "max_context": 64,
              "encoder": {**stack, **of_encoder}, "decoder": stack, "tokens": {"start": 0, "end": -1, "pad": 1}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    run("init", "--config", folder / "config.json", "-o", folder / "model.terrace")
    return folder / "model.terrace"


@pytest.mark.parametrize("encoder", [{"vocab_size": 96}, {"d_input": 24}])
@pytest.mark.parametrize("positions", [20, 64])
def test_encoders_of_any_length_and_kind(tmp_path, encoder, positions):
    model = encoder_decoder(tmp_path, positions, **encoder)
    rows = run("bench", "-m", model, "--variant", "sparse", "-t", 1, *QUICK, "--json").json()
    assert [row["test"] for row in rows] == ["pp", "tg"] and rows[1]["bytes_per_token"] > 0


def test_charts_follow_what_differs():
    depths = svg_of(run("bench", *PRESET, "-d", "0,8,32", *DECODE, "-p", 0, "-o", "svg").out.decode())
    assert len(shapes(depths, "polyline")) == 2 and len(shapes(depths, "circle")) == 2 * 3
    threads = svg_of(run("bench", *PRESET, "-n", 4, "-r", 1, "-t", "1,2", "-p", 0, "-o", "svg").out.decode())
    assert len(shapes(threads, "polyline")) == 2 and len(shapes(threads, "circle")) == 2 * 2
    bars = svg_of(run("bench", *PRESET, "--table1", *DECODE, "-o", "svg").out.decode())
    assert len(shapes(bars, "rect")) == 1 + 5  # the background and the bars
    run("bench", *PRESET, "-n", 0, "-p", 4, "-o", "svg", code=2)


def test_what_does_not_fit_is_refused_with_figures(tmp_path):
    message = run("bench", "--preset", "lm-17B", "--dtype", "f32", "--dir", tmp_path, code=1).err
    assert "GB" in message and "available" in message
    assert not list(tmp_path.iterdir())
    run("bench", "--preset", "lm-default", "--dir", tmp_path / "missing", *QUICK, code=1)


def test_no_work_is_a_usage_error(models):
    run("bench", "-m", models["sparse"], "-n", 0, "-p", 0, code=2)
    run("bench", "-m", models["sparse"], "--dtype", "q8", code=2)
    for flags in (["--table1"], ["--sweep", "rank=8"], ["--blocks", 1]):
        run("bench", "-m", models["sparse"], *flags, code=2)
        run("bench", *PRESET, *flags, "-n", 0, code=2)
    run("bench", *PRESET, "--table1", "--sweep", "rank=8", code=2)
    assert "sparse" in run("bench", "--preset", "llama-0.8B", "--table1", code=2).err


def test_lsh_attention_beside_exact_attention_reads_no_more_however_long_the_context():
    rows = run(
        "bench", "--preset", "scientific-papers", "--dtype", "q8", "--blocks", 1, "--attention", "both", "-t", 2, "-p", 0,
        "-n", 2, "-r", 1, "-d", "550,650", "--json",
    ).json()  # fmt: skip
    variants = ["sparse", "sparse exact", "dense", "dense exact"]
    assert [r["variant"] for r in rows] == 2 * variants
    growth = {a["variant"]: b["bytes_per_token"] - a["bytes_per_token"] for a, b in zip(rows[:4], rows[4:], strict=True)}
    a_position = 2 * 8 * 2 * (128 + 4)  # two layers of eight heads: a key and a value of 128 bytes, and their scales
    assert growth == {"sparse": 0, "sparse exact": 100 * a_position, "dense": 0, "dense exact": 100 * a_position}


def test_attention_of_what_has_no_lsh_layers_is_refused(models):
    message = run("bench", *PRESET, "--attention", "both", "-n", 1, code=2).err
    assert "--attention both: the sparse model has no LSH attention" in message
    run("bench", "-m", models["sparse"], "--attention", "both", code=2)
