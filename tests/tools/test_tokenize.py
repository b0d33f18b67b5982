# SPDX-License-Identifier: Apache-2.0
"""terrace tokenize and detokenize: exact inverses for bytes; the vocabularies of tests/golden where they are."""

import json

import pytest
from conftest import DENSE, run


@pytest.mark.parametrize("content", [b"hello", b"", b"\x00\xff\xfe", "naïve 😀\n".encode(), bytes(range(256))])
def test_bytes_round_trip(models, tmp_path, content):
    path = tmp_path / "text"
    path.write_bytes(content)
    ids = run("tokenize", "-m", models["dense"], "-f", path).out
    assert len(ids.split()) == len(content)
    assert run("detokenize", "-m", models["dense"], stdin=ids).out == content
    (tmp_path / "ids").write_bytes(ids)
    assert run("detokenize", "-m", models["dense"], "--tokens", tmp_path / "ids").out == content


def test_json_lists_ids_and_pieces(models):
    tokens = run("tokenize", "-m", models["dense"], "-p", "ab", "--json").json()
    assert [t["piece"] for t in tokens] == ["a", "b"]
    assert tokens[1]["id"] == tokens[0]["id"] + 1


def test_a_model_without_tokenizer_says_so(models):
    assert "tokenizer" in run("tokenize", "-m", models["bare"], "-p", "a", code=1).err


def test_an_id_that_stands_for_nothing_is_an_error(models):
    run("detokenize", "-m", models["dense"], stdin=b"300", code=1)


@pytest.mark.parametrize("bad", ["-1", "99999"])
def test_every_tokenizer_knows_its_ids(models, tmp_path, bad):
    config, vocabulary, model = tmp_path / "config.json", tmp_path / "vocabulary", tmp_path / "subword.terrace"
    config.write_text(json.dumps({**DENSE, "vocab_size": 1000}))
    vocabulary.write_text("".join(f"'{c}'\n" for c in "abc_"))
    run("init", "--config", config, "--tokenizer", f"subword:{vocabulary}:100", "-o", model)
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("100 101 103")
    assert run("detokenize", "-m", model, tokens).out == b"ab"
    tokens.write_text(f"100 {bad}")
    for path in (model, models["dense"]):
        message = run("detokenize", "-m", path, tokens, code=1).err
        assert "tokens.txt: word 2: expected a token id from 0 to" in message and f"found {bad}" in message


def test_ids_of_a_model_without_tokenizer_have_no_text(models):
    message = run("detokenize", "-m", models["bare"], stdin=b"1", code=1).err
    assert "bare.terrace: expected a tokenizer" in message and "instead of text" not in message
