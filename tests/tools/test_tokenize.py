# SPDX-License-Identifier: Apache-2.0
"""terrace tokenize and detokenize: exact inverses for bytes; the vocabularies of tests/golden where they are."""

import pytest
from conftest import run


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
