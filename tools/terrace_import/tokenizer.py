# SPDX-License-Identifier: Apache-2.0
"""The tokenizer that goes into the model file."""

from .errors import ImportFailure


def tokenizer_of(args, vocab_size):
    """(description, bytes of tokenizer.data or None). Errors: unreadable file, more ids than the model has."""
    if args.vocab:
        data = _read(args.vocab)
        if args.reserved_ids < 0:
            raise ImportFailure(f"--reserved-ids: expected 0 or more, found {args.reserved_ids}")
        lines = data.decode("utf-8", errors="replace").split("\n")
        n_pieces = len(lines) - (lines[-1] == "")
        _check_size(
            args.vocab,
            n_pieces + args.reserved_ids,
            f"{n_pieces} pieces and {args.reserved_ids} reserved ids",
            vocab_size,
        )
        return {"kind": "subword", "n_reserved_ids": args.reserved_ids}, data
    if args.sentencepiece:
        return {"kind": "sentencepiece"}, _read(args.sentencepiece)
    if args.bytes_offset is not None:
        return {"kind": "bytes", "offset": args.bytes_offset}, None
    return {"kind": "none"}, None


def _read(path):
    try:
        with open(path, "rb") as source:
            data = source.read()
    except OSError as error:
        raise ImportFailure(f"{path}: cannot read: {error.strerror}") from error
    if not data:
        raise ImportFailure(f"{path}: the file is empty")
    return data


def _check_size(path, n_ids, what, vocab_size):
    if n_ids > vocab_size:
        raise ImportFailure(
            f"{path}: {what} make {n_ids} ids, the model has {vocab_size}: another vocabulary, or wrong --reserved-ids"
        )
