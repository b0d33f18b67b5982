# SPDX-License-Identifier: Apache-2.0
"""terrace bench: the rows it promises, for presets and files, and what it refuses."""

import csv
import io

import pytest
from conftest import run

KEYS = [
    "model", "variant", "dtype", "threads", "test", "depth", "n_tokens", "tokens_per_s", "tokens_per_s_min",
    "tokens_per_s_max", "ms_per_token", "bytes_per_token", "gb_per_s", "read_bw_gb_per_s", "bw_share",
    "speedup_vs_dense",
]  # fmt: skip
QUICK = ["-n", 4, "-p", 8, "-r", 2]


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
    """35.3 M weights of lm-default's dense variant, two bytes each, and 24.6 kB of keys and values per position."""
    row = next(r for r in rows if (r["variant"], r["dtype"], r["test"], r["depth"]) == ("dense", "bf16", "tg", 0))
    assert row["bytes_per_token"] == pytest.approx(2 * 35.33e6, rel=0.01)
    deeper = next(r for r in rows if (r["variant"], r["dtype"], r["test"], r["depth"]) == ("dense", "bf16", "tg", 16))
    assert deeper["bytes_per_token"] - row["bytes_per_token"] == pytest.approx(16 * 24576)


def test_a_file_is_timed_beside_a_twin_of_equal_size(models):
    rows = run("bench", "-m", models["sparse"], "-t", 1, *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"sparse", "dense"} and {r["model"] for r in rows} == {"sparse.terrace"}
    rows = run("bench", "-m", models["dense"], "-t", 1, *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"dense"}
    rows = run("bench", "-m", models["sparse"], "--variant", "sparse", *QUICK, "--json").json()
    assert {r["variant"] for r in rows} == {"sparse"} and rows[0]["speedup_vs_dense"] is None


def test_tables(models):
    table = run("bench", "-m", models["sparse"], "-t", 1, *QUICK).out.decode()
    assert table.count("\n") == 2 + 4 and "vs dense" in table and "tg4" in table
    lines = list(csv.DictReader(io.StringIO(run("bench", "-m", models["sparse"], *QUICK, "-o", "csv").out.decode())))
    assert list(lines[0]) == KEYS and len(lines) == 4


def test_what_does_not_fit_is_refused_with_figures(tmp_path):
    message = run("bench", "--preset", "lm-17B", "--dtype", "f32", "--dir", tmp_path, code=1).err
    assert "GB" in message and "available" in message
    assert not list(tmp_path.iterdir())
    run("bench", "--preset", "lm-default", "--dir", tmp_path / "missing", *QUICK, code=1)


def test_no_work_is_a_usage_error(models):
    run("bench", "-m", models["sparse"], "-n", 0, "-p", 0, code=2)
    run("bench", "-m", models["sparse"], "--dtype", "q8", code=2)
