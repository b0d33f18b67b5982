# SPDX-License-Identifier: Apache-2.0
"""Text to token files: documents, splits, a SentencePiece vocabulary, and memory-mapped uint16 tokens.

    python3 -m train.prepare --out runs/data --source wiki=a.txt,b.txt.xz --source stories=c.jsonl

writes to the output folder
    tokenizer.model           SentencePiece BPE with byte fallback (pad 0, end 1, unknown 2)
    <source>.<split>.bin      uint16 ids; every document is `start, pieces.., end`
    <source>.<split>.summary.bin, .index.npy   only for JSON lines with summaries: pairs of spans
    valid.txt, test.txt       a sample of the held-out documents as text, for `terrace perplexity`
    data.json                 sources, token and byte counts, vocabulary size
"""

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from train.atomic_file import open_atomically, write_atomically
from train.documents import SPLITS, read_documents, split_of, unwrap
from train.errors import TrainError
from train.vocabulary import END, START, load_vocabulary, parse_vocabulary, train_vocabulary
from train.warm_start import tokenizer_bytes

# Characters of text that the vocabulary is trained on; more changes the pieces little and costs minutes.
VOCABULARY_SAMPLE = 24_000_000
# Characters of each source's held-out text that go to <split>.txt.
HELD_OUT_TEXT = 400_000
HELD_OUT = ("valid", "test")
ENCODE_BATCH = 512
LARGEST_VOCABULARY = 1 << 16


def parse_source(text):
    """`name=path[,path..]` to (name, paths)."""
    name, _, paths = text.partition("=")
    if not name.isidentifier() or not paths:
        raise TrainError(f"--source {text}: expected name=path[,path..] with a plain name")
    return name, paths.split(",")


def check_vocabulary_size(size):
    """Errors: more pieces than the ids of a token file can number."""
    if size > LARGEST_VOCABULARY:
        raise TrainError(f"vocabulary of {size} pieces: token files hold uint16 ids, at most {LARGEST_VOCABULARY}")


@dataclass(frozen=True)
class Source:
    """Text files of one kind; `wrapped` ones have hard line breaks inside their paragraphs."""

    name: str
    paths: list
    separator: str
    wrapped: bool
    held_out: float

    def documents(self):
        """(split, document), one after the other. The split goes by the text as found, before its lines are joined."""
        for path in self.paths:
            for document in read_documents(path, self.separator):
                split = split_of(document, self.held_out)
                yield split, replace(document, text=unwrap(document.text)) if self.wrapped else document


class Counts:
    """Documents and characters of each split of a source, and whether any has a summary."""

    def __init__(self, source):
        self.documents, self.characters = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        self.paired = False
        for split, document in source.documents():
            self.documents[split] += 1
            self.characters[split] += len(document.text)
            self.paired = self.paired or bool(document.summary)

    def stride(self, split, characters):
        """Every stride-th document of the split makes about `characters` in total."""
        return max(1, -(-self.characters[split] // characters))


class TextWriter:
    """One token file of a split: every document is `start, pieces.., end`."""

    def __init__(self, vocabulary, stem, files):
        self._vocabulary = vocabulary
        self._out = files.enter_context(open_atomically(f"{stem}.bin"))
        self.counts = {"documents": 0, "tokens": 0, "bytes": 0}

    def write(self, batch):
        for document, ids in zip(batch, self._vocabulary.encode([document.text for document in batch])):
            row = np.array([START, *ids, END], dtype=np.uint16)
            self._out.write(row.tobytes())
            self.counts["documents"] += 1
            self.counts["tokens"] += row.size
            self.counts["bytes"] += len(document.text.encode("utf-8"))

    def finish(self):
        """Nothing is left to write."""


class PairWriter:
    """(document, summary) pairs of a split: two token files and an index [n, 4] of begin/end in each."""

    def __init__(self, vocabulary, stem, files):
        self._vocabulary = vocabulary
        parts = ("bin", "summary.bin", "index.npy")
        self._texts, self._summaries, self._index = (
            files.enter_context(open_atomically(f"{stem}.{part}")) for part in parts
        )
        self._spans = []
        self.counts = {"pairs": 0}

    def write(self, batch):
        texts = self._vocabulary.encode([document.text for document in batch])
        summaries = self._vocabulary.encode([document.summary for document in batch])
        for text, summary in zip(texts, summaries):
            row = np.array([*text, END], dtype=np.uint16)
            target = np.array([START, *summary, END], dtype=np.uint16)
            self._texts.write(row.tobytes())
            self._summaries.write(target.tobytes())
            _, at, _, summary_at = self._spans[-1] if self._spans else (0, 0, 0, 0)
            self._spans.append((at, at + row.size, summary_at, summary_at + target.size))
            self.counts["pairs"] += 1

    def finish(self):
        np.save(self._index, np.array(self._spans, dtype=np.int64).reshape(-1, 4))


def encode_source(vocabulary, source, counts, out):
    """Writes the token files of all splits, a batch of documents in memory for each.

    Returns ({split: counts}, {split: sampled texts} of the held-out splits).
    """
    strides = {split: counts.stride(split, HELD_OUT_TEXT) for split in HELD_OUT}
    seen, batches, texts = dict.fromkeys(SPLITS, 0), {split: [] for split in SPLITS}, {split: [] for split in HELD_OUT}
    with ExitStack() as files:
        kind = PairWriter if counts.paired else TextWriter
        writers = {split: kind(vocabulary, out / f"{source.name}.{split}", files) for split in SPLITS}
        for split, document in source.documents():
            if split in HELD_OUT and seen[split] % strides[split] == 0:
                texts[split].append(document.text)
            seen[split] += 1
            batches[split].append(document)
            if len(batches[split]) == ENCODE_BATCH:
                writers[split].write(batches[split])
                batches[split] = []
        for split, writer in writers.items():
            writer.write(batches[split])
            writer.finish()
    return {split: writer.counts for split, writer in writers.items()}, texts


def vocabulary_sample(sources, counts):
    """Evenly spaced training documents, about VOCABULARY_SAMPLE characters of all sources together."""
    for source in sources:
        stride = counts[source.name].stride("train", VOCABULARY_SAMPLE // len(sources))
        texts = (document.text for split, document in source.documents() if split == "train")
        yield from islice(texts, 0, None, stride)


def write_vocabulary(path, sources, counts, size, given=None, threads=2):
    """Writes the SentencePiece file, a new one or the `given` one; returns the vocabulary."""
    if given is None:
        check_vocabulary_size(size)
        train_vocabulary(vocabulary_sample(sources, counts), size, path, threads)
        return load_vocabulary(path)
    given = Path(given)
    try:
        content = tokenizer_bytes(given) if given.suffix == ".terrace" else given.read_bytes()
    except OSError as error:
        raise TrainError(f"--vocabulary {given}: cannot read: {error.strerror}") from error
    vocabulary = parse_vocabulary(content, given)
    check_vocabulary_size(vocabulary.size)
    write_atomically(path, content)
    return vocabulary


def prepare(out, sources, separators, vocabulary_size, held_out, vocabulary_file=None, threads=2, wrapped=()):
    """Runs the whole preparation; returns the contents of data.json. `wrapped`: sources with hard line breaks.

    The sources are read up to three times (to count, for the vocabulary's sample, to encode) and never held.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{out}: cannot make the output folder: {error.strerror}") from error
    sources = [
        Source(name, paths, separators.get(name, separators[""]), name in wrapped, held_out) for name, paths in sources
    ]
    counts = {}
    for source in sources:
        counts[source.name] = Counts(source)
        print(f"{source.name}: {sum(counts[source.name].documents.values())} documents", file=sys.stderr)
    vocabulary = write_vocabulary(out / "tokenizer.model", sources, counts, vocabulary_size, vocabulary_file, threads)
    report = {"vocab_size": vocabulary.size, "held_out": held_out, "sources": {}}
    held_out_text = {split: [] for split in HELD_OUT}
    for source in sources:
        splits, texts = encode_source(vocabulary, source, counts[source.name], out)
        entry = report["sources"][source.name] = {"paired": counts[source.name].paired, **splits}
        for split in HELD_OUT:
            held_out_text[split] += texts[split]
        print(f"{source.name}: {entry}", file=sys.stderr)
    for split, texts in held_out_text.items():
        write_atomically(out / f"{split}.txt", "\n\n\n".join(texts).encode("utf-8"))
    write_atomically(out / "data.json", json.dumps(report, indent=1).encode())
    return report


def main(argv=None):
    parser = argparse.ArgumentParser(prog="train.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="output folder")
    parser.add_argument("--source", action="append", required=True, help="name=path[,path..]; may be repeated")
    parser.add_argument(
        "--separator", action="append", default=[], help="[name=]text between documents; default: two blank lines"
    )
    parser.add_argument(
        "--unwrap", action="append", default=[], metavar="NAME", help="join the hard line breaks of this source"
    )
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--vocabulary", help="SentencePiece file, or model file that holds one, instead of a new one")
    parser.add_argument("--held-out", type=float, default=0.01, help="share of documents for valid and for test")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    separators = {"": "\n\n\n"}
    for item in args.separator:
        name, sign, text = item.partition("=")
        separators[name if sign else ""] = text if sign else item
    try:
        sources = [parse_source(item) for item in args.source]
        unknown = sorted(set(args.unwrap) - {name for name, _ in sources})
        if unknown:
            raise TrainError(f"--unwrap {unknown[0]}: no --source of that name")
        prepare(
            args.out, sources, separators, args.vocab_size, args.held_out, args.vocabulary, args.threads, args.unwrap
        )
    except TrainError as error:
        print(f"train.prepare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
