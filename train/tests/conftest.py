# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: token files of a tiny corpus, and the engine's binary where it is built."""

import os
from pathlib import Path

import pytest
import torch

from train import prepare
from train.tests import tiny
from train.vocabulary import load_vocabulary

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder of token files of the tiny corpus: sources `words` and `pairs`."""
    pytest.importorskip("sentencepiece", reason="the Python package sentencepiece is not installed")
    folder = tmp_path_factory.mktemp("corpus")
    tiny.write_corpus(folder)
    sources = [("words", [str(folder / "words.txt")]), ("pairs", [str(folder / "pairs.jsonl")])]
    prepare.prepare(folder, sources, {"": "\n\n\n"}, tiny.VOCABULARY, held_out=0.15)
    return folder


@pytest.fixture(scope="session")
def byte_lengths(corpus):
    return load_vocabulary(corpus / "tokenizer.model").byte_lengths()


@pytest.fixture(scope="session")
def terrace():
    """Path of the engine's binary: $TERRACE_BINARY, else build/release/terrace."""
    path = Path(os.environ.get("TERRACE_BINARY", REPOSITORY / "build" / "release" / "terrace"))
    if not path.is_file():
        pytest.skip(f"{path} is not built: set TERRACE_BINARY to compare with the engine")
    return path
