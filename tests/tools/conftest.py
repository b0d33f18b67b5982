# SPDX-License-Identifier: Apache-2.0
"""Runs the built `terrace` binary (TERRACE_BINARY, else build/release/terrace) on tiny models that it makes itself."""

import json
import os
import pathlib
import pty
import struct
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("TERRACE_BINARY", ROOT / "build/release/terrace"))
LIMIT_SECONDS = 300

# One stack of every kind of state: K/V, convolution tails (multiplicative conv) and an SRU cell.
SPARSE = {
    "family": "transformer_lm",
    "d_model": 64,
    "d_ff": 128,
    "n_heads": 4,
    "vocab_size": 259,
    "max_context": 256,
    "norm": {"kind": "layer_norm", "epsilon": 1e-6},
    "decoder": {
        "n_layers": 2,
        "position": {"kind": "learned", "max_len": 256},
        "attention": [{"kind": "multiplicative_conv", "n_modules": 4, "kernel_size": 3}],
        "ff": {"kind": "sparse", "block_size": 16, "d_lowrank": 16, "sru": {"n_layers": 1, "width": 32}},
    },
    "logits": {"kind": "mult", "n_modules": 1},
    "tokens": {"start": 0, "end": -1, "pad": 0},
}
DENSE = {
    **SPARSE,
    "decoder": {
        "n_layers": 2,
        "position": {"kind": "learned", "max_len": 256},
        "attention": [{"kind": "dot_product"}],
        "ff": {"kind": "dense", "activation": "relu"},
    },
    "logits": {"kind": "dense"},
}
# Every other block runs on a part of the tokens.
ROUTED = {**SPARSE, "decoder": {**SPARSE["decoder"], "n_layers": 4, "mixture_of_depths": {"every": 2, "capacity": 0.5}}}
# The other widths may draft.
NESTED = {**ROUTED, "decoder": {**ROUTED["decoder"], "ff": {**ROUTED["decoder"]["ff"], "widths": [32, 64, 128]}}}


class Result:
    def __init__(self, completed):
        self.code = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr.decode()

    def json(self):
        return json.loads(self.out)


def run(*arguments, code=0, stdin=b"", env=None, **options):
    """Runs terrace and checks its exit status; on failure there must be exactly one line on stderr."""
    completed = subprocess.run(
        [BINARY, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        env={**os.environ, **(env or {})},
        check=False,
        **options,
    )
    result = Result(completed)
    assert result.code == code, (arguments, result.code, result.err)
    if code != 0:
        assert result.err.count("\n") == 1 and result.err.endswith("\n"), result.err
    return result


def header(path):
    """What stands before the tensors of a model file, and the offset of the first one."""
    content = path.read_bytes()
    size = struct.unpack_from("<Q", content)[0]
    return json.loads(content[8 : 8 + size]), 8 + size


def patched(model, path, tensor, values, at=0):
    """A copy of a model file in which a tensor has these bytes from offset `at` on."""
    content = bytearray(model.read_bytes())
    entries, data = header(model)
    begin = data + entries[tensor]["data_offsets"][0] + at
    content[begin : begin + len(values)] = values
    path.write_bytes(content)
    return path


def reworded(model, path, old, new):
    """A copy of a model file with other words in its header; checksums of tensors stay true."""
    content = model.read_bytes()
    _, data = header(model)
    text = content[8:data]
    assert old in text
    text = text.replace(old, new).rstrip()
    assert len(text) <= data - 8
    path.write_bytes(content[:8] + text.ljust(data - 8) + content[data:])
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Model files by name: sparse, dense, routed, nested (all with the byte tokenizer) and bare (no tokenizer)."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    configs = {"sparse": SPARSE, "dense": DENSE, "routed": ROUTED, "nested": NESTED, "bare": DENSE}
    for name, config in configs.items():
        tokenizer = "none" if name == "bare" else "bytes:3"
        description = folder / f"{name}.json"
        description.write_text(json.dumps(config))
        paths[name] = folder / f"{name}.terrace"
        run("init", "--config", description, "--tokenizer", tokenizer, "--dtype", "f32", "--seed", 1, "-o", paths[name])
    return paths


@pytest.fixture(scope="session")
def words_model(tmp_path_factory):
    """A model with SentencePiece: tokens of several characters, and seconds for megabytes of text."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "config.json").write_text(json.dumps({**DENSE, "vocab_size": 160}))
    path, vocabulary = folder / "words.terrace", ROOT / "tests/golden/tiny_bpe.model"
    run("init", "--config", folder / "config.json", "--tokenizer", f"sentencepiece:{vocabulary}", "--dtype", "f32", "-o", path)
    return path


@pytest.fixture
def ids(tmp_path):
    """A file of token ids."""
    path = tmp_path / "ids.txt"
    path.write_text(" ".join(str(7 * i % 259) for i in range(40)))
    return path


def drawn_on_a_terminal(command):
    """What `command` draws on its stderr when that is a terminal. It must succeed."""
    leader, follower = pty.openpty()
    subprocess.run(command, stderr=follower, stdout=subprocess.DEVNULL, check=True)
    os.close(follower)
    drawn = b""
    try:
        while chunk := os.read(leader, 4096):
            drawn += chunk
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    return drawn
