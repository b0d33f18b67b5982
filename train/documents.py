# SPDX-License-Identifier: Apache-2.0
"""Documents of a text source: UTF-8 text (plain or .xz) cut at a separator, or JSON lines.

Every document belongs to exactly one split. The split is a function of the document's text alone, so that it
survives added files and another order, and so that a duplicate never lands on both sides.
"""

import codecs
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
# Bytes that are read at once.
BLOCK = 1 << 20


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
    """Contents of a UTF-8 file, decompressed when it ends in .xz. Errors: absent, damaged, binary, not UTF-8, empty."""
    return "".join(_blocks(path))


def read_documents(path, separator):
    """Documents of one file, one after the other, empty ones left out: JSON lines for *.jsonl[.xz], else text parted by
    `separator`. Of the file no more is in memory than the document and a block; errors are those of read_text."""
    if ".jsonl" in Path(path).suffixes:
        yield from _json_lines(path)
    else:
        yield from (Document(piece.strip("\n")) for piece in _pieces(path, separator) if piece.strip())


def _pieces(path, separator):
    """The text of a file between the separators; the whole text where there is none."""
    held, size, searched = [], 0, 0  # the text behind the last separator, its length, and how much was searched already
    for block in _blocks(path):
        held.append(block)
        size += len(block)
        if separator and size >= 2 * searched:  # a long document is searched again only when it has doubled
            *whole, rest = "".join(held).split(separator)
            yield from whole
            held, size, searched = [rest], len(rest), len(rest)
    text = "".join(held)
    yield from text.split(separator) if separator else [text]


def _blocks(path):
    """Decoded blocks of a UTF-8 file, their lines ended by a line feed alone."""
    path = Path(path)
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    size, has_text, raw, held = 0, False, None, ""
    try:
        with lzma.open(path) if path.suffix == ".xz" else open(path, "rb") as source:
            while raw != b"":
                raw = source.read(BLOCK)
                zero = raw.find(b"\0")
                if zero >= 0:
                    raise TrainError(f"{path}: byte {size + zero} is NUL: expected UTF-8 text, found binary data")
                size += len(raw)
                block = held + decoder.decode(raw, final=raw == b"")
                held = "\r" if raw and block.endswith("\r") else ""  # the line feed may be in the next block
                has_text = has_text or not (block == "" or block.isspace())
                yield block[: len(block) - len(held)].replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        at = size - len(error.object) + error.start
        raise TrainError(f"{path}: byte {at} is no UTF-8: expected UTF-8 text") from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise TrainError(f"{path}: cannot read: {error}") from error
    if not has_text:
        raise TrainError(f"{path}: no text: expected at least one document, found {size} bytes of white space")


def _json_lines(path):
    for number, line in enumerate(_pieces(path, "\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise TrainError(f"{path}:{number}: no JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise TrainError(f"{path}:{number}: no JSON: {error}") from error
        document = record.get("document", record.get("text")) if isinstance(record, dict) else None
        if not isinstance(document, str) or not isinstance(record.get("summary", ""), str):
            raise TrainError(f"{path}:{number}: expected an object with a string 'document' (and 'summary')")
        if document.strip():
            yield Document(document, record.get("summary", ""))
