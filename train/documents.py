# SPDX-License-Identifier: Apache-2.0
"""Documents of a text source: UTF-8 text (plain or .xz) cut at a separator, or JSON lines.

Every document belongs to exactly one split. The split is a function of the document's text alone, so that it
survives added files and another order, and so that a duplicate never lands on both sides.
"""

import hashlib
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

from train.errors import TrainError

SPLITS = ("train", "valid", "test")
# A line of at least so many characters was broken by its editor, not by its author; shorter ones (verse, headings, the
# last line of a paragraph) keep their break.
WRAPPED_LINE = 45


@dataclass(frozen=True)
class Document:
    """One text; `summary` is set for the (document, summary) pairs of an encoder-decoder model."""

    text: str
    summary: str = ""


def split_of(document, held_out):
    """Name of the document's split; `held_out` is the share of `valid` and, again, of `test`."""
    digest = hashlib.blake2b(document.text.encode("utf-8"), digest_size=8).digest()
    point = int.from_bytes(digest, "little") / 2.0**64
    if point < held_out:
        return "valid"
    return "test" if point < 2 * held_out else "train"


def unwrap(text):
    """`text` with the hard line breaks inside its paragraphs turned into spaces, as running text has none."""
    lines = text.split("\n")
    joined = [lines[0]]
    for before, line in zip(lines, lines[1:]):
        if len(before) >= WRAPPED_LINE and line and not line[0].isspace():
            joined[-1] += " " + line
        else:
            joined.append(line)
    return "\n".join(joined)


def read_text(path):
    """Contents of a UTF-8 file, decompressed when it ends in .xz. Errors: missing, binary, not UTF-8, empty."""
    path = Path(path)
    try:
        raw = lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()
    except (OSError, lzma.LZMAError) as error:
        raise TrainError(f"{path}: cannot read: {error}") from error
    zero = raw.find(b"\0")
    if zero >= 0:
        raise TrainError(f"{path}: byte {zero} is NUL: expected UTF-8 text, found binary data")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainError(f"{path}: byte {error.start} is no UTF-8: expected UTF-8 text") from error
    if not text.strip():
        raise TrainError(f"{path}: no text: expected at least one document, found {len(raw)} bytes of white space")
    return text.replace("\r\n", "\n")


def read_documents(path, separator):
    """Documents of one file, empty ones left out: JSON lines for *.jsonl[.xz], else text parted by `separator`."""
    text = read_text(path)
    if ".jsonl" in Path(path).suffixes:
        return list(_json_lines(path, text))
    pieces = text.split(separator) if separator else [text]
    return [Document(piece.strip("\n")) for piece in pieces if piece.strip()]


def _json_lines(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise TrainError(f"{path}:{number}: no JSON: {error.msg} at column {error.colno}") from error
        document = record.get("document", record.get("text")) if isinstance(record, dict) else None
        if not isinstance(document, str) or not isinstance(record.get("summary", ""), str):
            raise TrainError(f"{path}:{number}: expected an object with a string 'document' (and 'summary')")
        if document.strip():
            yield Document(document, record.get("summary", ""))
