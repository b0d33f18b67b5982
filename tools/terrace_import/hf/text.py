# SPDX-License-Identifier: Apache-2.0
"""tokenizer.model, and the ids that start and end a text."""

import os

from ..errors import ImportFailure
from .json_file import read_file, read_object

SENTENCEPIECE = "tokenizer.model"
OTHERS = ("tokenizer.json", "vocab.json")
PIECES = 1  # field number in sentencepiece_model.proto
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # wire types


def read_tokenizer(folder, vocab_size, wanted=True):
    """(description, bytes of tokenizer.data or None, number of ids that have text)."""
    if not wanted:
        return {"kind": "none"}, None, 0
    path = os.path.join(folder, SENTENCEPIECE)
    if not os.path.lexists(path):
        others = [name for name in OTHERS if os.path.lexists(os.path.join(folder, name))]
        found = f"only {others[0]}, a kind that the engine does not have" if others else "none"
        raise ImportFailure(
            f"{folder}: expected {SENTENCEPIECE} (SentencePiece), found {found}; --no-tokenizer imports a model that takes "
            "token ids"
        )
    data = read_file(path)
    n_pieces = count_pieces(path, data)
    if n_pieces > vocab_size:
        raise ImportFailure(f"{path}: expected at most {vocab_size} pieces by 'vocab_size', found {n_pieces}")
    return {"kind": "sentencepiece"}, data, n_pieces


def count_pieces(path, data):
    """Pieces of a SentencePiece model: a protobuf message with a field for each."""
    at = n_pieces = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == VARINT:
                _, at = _varint(data, at)
            elif kind == BYTES:
                size, at = _varint(data, at)
                at += size
                n_pieces += tag >> 3 == PIECES
            else:
                at += {EIGHT_BYTES: 8, FOUR_BYTES: 4}[kind]
    except (IndexError, KeyError):
        n_pieces = 0
    if n_pieces == 0 or at != len(data):
        raise ImportFailure(
            f"{path}: expected a SentencePiece model, found another format or a damaged file; --no-tokenizer imports a "
            "model that takes token ids"
        )
    return n_pieces


def _varint(data, at):
    value = 0
    for i in range(10):
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value, at + i + 1
    raise IndexError


def read_tokens(folder, settings, vocab_size, start=None, end=None):
    """({"start", "end", "pad"}, other ids of the folder that end a text: a model file holds one)."""
    starts = _ids(settings, "bos_token_id", 1, vocab_size)
    ends = _ids(settings, "eos_token_id", 2, vocab_size)
    path = os.path.join(folder, "tokenizer_config.json")
    if os.path.lexists(path) and read_object(path).get("add_bos_token") is False:
        starts = []
    for flag, given in (("--start-id", start), ("--end-id", end)):
        if given is not None and not -1 <= given < vocab_size:
            raise ImportFailure(f"{flag}: expected -1 (none) to {vocab_size - 1}, found {given}")
    start = start if start is not None else (starts or [-1])[0]
    end = end if end is not None else (ends or [-1])[0]
    return {"start": start, "end": end, "pad": -1}, [i for i in ends if i != end]


def _ids(settings, key, default, vocab_size):
    """The ids under a key, which may be one, a list, null or -1 (none)."""
    value = settings.get(key, None if settings.has(key) else default)
    ids = value if isinstance(value, list) else [] if value in (None, -1) else [value]
    for i in ids:
        if type(i) is not int or not 0 <= i < vocab_size:
            settings.fail(key, f"token ids from 0 to {vocab_size - 1}", i)
    return ids
