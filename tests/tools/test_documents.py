# SPDX-License-Identifier: Apache-2.0
"""terrace generate with an encoder-decoder model: reading a document, its progress, its figures, its mistakes."""

import json
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import BINARY, drawn_on_a_terminal, run

MAX_LEN = 600
STACK = {
    "n_layers": 3,
    "position": {"kind": "learned", "max_len": MAX_LEN},
    "attention": [{"kind": "dot_product"}],
    "ff": {"kind": "sparse", "block_size": 8, "d_lowrank": 8, "sru": {"n_layers": 1, "width": 8}},
}
TERRAFORMER = {
    "family": "terraformer",
    "d_model": 32,
    "d_ff": 64,
    "n_heads": 4,
    "vocab_size": 259,
    "max_context": MAX_LEN,
    "shared_embedding": True,
    "encoder": {**STACK, "vocab_size": 259, "reversible": True},
    "decoder": {**STACK, "n_attention": 2, "attention": [{"kind": "multiplicative_conv", "n_modules": 4}]},
    "tokens": {"start": 0, "end": -1, "pad": 0},
}
GREEDY = ["--temp", 0]


def make(folder, name, config):
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / f"{name}.terrace"
    run("init", "--config", folder / "config.json", "--tokenizer", "bytes:3", "--dtype", "f32", "-o", path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("documents"), "terraformer", TERRAFORMER)


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory):
    """Takes tens of thousands of tokens, and long."""
    stack = {**STACK, "position": {"kind": "sin_cos"}}
    config = {
        **TERRAFORMER,
        "max_context": 1000,
        "d_model": 128,
        "d_ff": 512,
        "encoder": {**TERRAFORMER["encoder"], **stack},
        "decoder": {**TERRAFORMER["decoder"], **stack, "attention": [{"kind": "dot_product"}]},
    }
    return make(tmp_path_factory.mktemp("slow"), "slow", config)


def write_ids(path, ids):
    path.write_text(" ".join(map(str, ids)))
    return path


def document(n):
    return [3 + 7 * i % 256 for i in range(n)]


def generate(model, *arguments, **options):
    return run("generate", "-m", model, *arguments, **options)


def test_text_and_ids_are_the_same_document(model, tmp_path):
    text = tmp_path / "paper.txt"
    text.write_bytes(bytes(i - 3 for i in document(200)))
    ids = write_ids(tmp_path / "ids", document(200))
    by_text = generate(model, "-f", text, "-n", 20, *GREEDY, "--ids").out
    assert by_text == generate(model, "--tokens", ids, "-n", 20, *GREEDY, "--ids").out
    assert len(by_text.split()) == 20


def test_padding_changes_neither_text_nor_what_a_token_reads(model, tmp_path):
    def figures(n_padding):
        ids = write_ids(tmp_path / "ids", document(100) + [0] * n_padding)
        arguments = ["--tokens", ids, "-n", 20, *GREEDY, "--ids", "--stats", "--json"]
        result = generate(model, *arguments)
        return result.out, json.loads(result.err)

    text, plain = figures(0)
    padded_text, padded = figures(500)
    assert text == padded_text
    for key in ("bytes_per_token", "kv_bytes", "encoder_tokens", "prompt_tokens"):
        assert plain[key] == padded[key], key


def test_statistics_separate_encoder_prefill_and_decode(model, tmp_path):
    ids = write_ids(tmp_path / "ids", document(150))
    report = generate(model, "--tokens", ids, "-n", 20, *GREEDY, "--stats").err
    assert re.search(r"^encoder +150 tokens, \d+\.\d+ s, ", report, re.M)
    assert re.search(r"^prefill +151 tokens, \d+\.\d+ s, ", report, re.M)
    assert re.search(r"^decode +20 tokens, \d+\.\d+ s, ", report, re.M)
    figures = json.loads(generate(model, "--tokens", ids, "-n", 20, *GREEDY, "--json").err)
    assert (figures["encoder_tokens"], figures["prefill_tokens"], figures["decode_tokens"]) == (150, 151, 20)
    assert figures["encoder_seconds"] > 0 and figures["prefill_seconds"] > 0
    assert figures["encoder_seconds"] + figures["prefill_seconds"] <= figures["prompt_seconds"]


def test_the_progress_bar_moves_through_a_document(slow_model, tmp_path):
    ids = write_ids(tmp_path / "ids", document(8000))
    drawn = drawn_on_a_terminal([BINARY, "generate", "-m", slow_model, "--tokens", ids, "-n", "1", "-t", "1"])
    done = [int(n) for n in re.findall(rb"document \[.*?\] (\d+)/8000 tokens", drawn)]
    assert len(set(done)) > 5 and done == sorted(done) and done[-1] == 8000
    assert b" left" in drawn


def test_ctrl_c_stops_the_encoder(slow_model, tmp_path):
    ids = write_ids(tmp_path / "ids", document(60_000))  # the encoder alone would take minutes
    process = subprocess.Popen([BINARY, "generate", "-m", slow_model, "--tokens", ids], stderr=subprocess.PIPE)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == b"terrace generate: cancelled while reading the document\n"


@pytest.mark.parametrize(
    "ids, message",
    [
        ([5, 6, 0, 7], "token 2 of the document is the padding id 0, which may stand at the end only"),
        ([5, 6, 259], "0 to 258"),
        ([5, -1], "0 to 258"),
        ([0, 0], "the document is empty"),
        (document(MAX_LEN + 1), f"the document has {MAX_LEN + 1} tokens, "),
    ],
)
def test_a_document_that_cannot_be_read_is_named(model, tmp_path, ids, message):
    path = write_ids(tmp_path / "paper.ids", ids)
    error = generate(model, "--tokens", path, "-n", 1, code=1)
    assert "paper.ids" in error.err and message in error.err and error.out == b""
    out = tmp_path / "y.npy"
    tokens = write_ids(tmp_path / "tokens", [0, 1])
    for mode in ("full", "step"):
        flags = ["--tokens", tokens, "--encoder-tokens", path, "-o", out, "--mode", mode]
        error = run("logits", "-m", model, *flags, code=1).err
        assert message in error and ("paper.ids" in error or len(ids) > MAX_LEN)
        assert not out.exists() and not list(tmp_path.glob("*.part*"))


def test_rows_instead_of_tokens(tmp_path):
    encoder = {key: value for key, value in TERRAFORMER["encoder"].items() if key != "vocab_size"}
    model = make(tmp_path, "rows", {**TERRAFORMER, "shared_embedding": False, "encoder": {**encoder, "d_input": 5}})
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype("<f4")
    np.save(tmp_path / "rows.npy", rows)
    result = generate(model, "--encoder-vectors", tmp_path / "rows.npy", "-n", 10, *GREEDY, "--ids", "--json")
    assert len(result.out.split()) == 10 and json.loads(result.err)["encoder_tokens"] == 30
    assert "rows of 5 numbers, not tokens" in generate(model, "-p", "abc", code=1).err
    for name, content, message in (
        ("wide", rows[:, :4], "takes rows of 5 numbers, found 4"),
        ("double", rows.astype("<f8"), "expected a float32 matrix in row order"),
        ("columns", np.asfortranarray(rows), "expected a float32 matrix in row order"),
        ("flat", rows.reshape(-1), "expected a float32 matrix in row order"),
        ("none", rows[:0], "the document is empty"),
        ("nan", np.where(rows == rows[7, 3], np.float32("nan"), rows), "row 7, column 3: expected a number, found nan"),
    ):
        np.save(tmp_path / f"{name}.npy", content)
        error = generate(model, "--encoder-vectors", tmp_path / f"{name}.npy", code=1).err
        assert f"{name}.npy" in error and message in error
    whole = (tmp_path / "rows.npy").read_bytes()
    for n in (0, 5, 9, 60, len(whole) - 1):
        (tmp_path / "cut.npy").write_bytes(whole[:n])
        assert "cut.npy" in generate(model, "--encoder-vectors", tmp_path / "cut.npy", code=1).err


def test_rows_for_a_model_without_encoder(models, tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((2, 5), "<f4"))
    generate(models["dense"], "--encoder-vectors", tmp_path / "rows.npy", code=2)
