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
from dataclasses import replace
from pathlib import Path

import numpy as np

from train.documents import SPLITS, read_documents, split_of, unwrap
from train.errors import TrainError
from train.vocabulary import END, START, load_vocabulary, train_vocabulary
from train.warm_start import tokenizer_bytes

# Characters of text that the vocabulary is trained on; more changes the pieces little and costs minutes.
VOCABULARY_SAMPLE = 24_000_000
# Characters of each source's held-out text that go to <split>.txt.
HELD_OUT_TEXT = 400_000
ENCODE_BATCH = 512


def parse_source(text):
    """`name=path[,path..]` to (name, paths)."""
    name, _, paths = text.partition("=")
    if not name.isidentifier() or not paths:
        raise TrainError(f"--source {text}: expected name=path[,path..] with a plain name")
    return name, paths.split(",")


def encode_split(vocabulary, documents, path):
    """Writes one token file; returns (tokens, bytes of text). Streams in batches: memory stays small."""
    tokens = size = 0
    with open(path, "wb") as out:
        for begin in range(0, len(documents), ENCODE_BATCH):
            batch = [document.text for document in documents[begin : begin + ENCODE_BATCH]]
            for text, ids in zip(batch, vocabulary.encode(batch)):
                row = np.array([START, *ids, END], dtype=np.uint16)
                row.tofile(out)
                tokens += row.size
                size += len(text.encode("utf-8"))
    return tokens, size


def encode_pairs(vocabulary, documents, stem):
    """(document, summary) pairs: two token files and an index [n, 4] of begin/end in each. Returns the pair count."""
    spans = []
    with open(f"{stem}.bin", "wb") as text_out, open(f"{stem}.summary.bin", "wb") as summary_out:
        at = [0, 0]
        for begin in range(0, len(documents), ENCODE_BATCH):
            batch = documents[begin : begin + ENCODE_BATCH]
            texts = vocabulary.encode([document.text for document in batch])
            summaries = vocabulary.encode([document.summary for document in batch])
            for ids, summary in zip(texts, summaries):
                row = np.array([*ids, END], dtype=np.uint16)
                target = np.array([START, *summary, END], dtype=np.uint16)
                row.tofile(text_out)
                target.tofile(summary_out)
                spans.append((at[0], at[0] + row.size, at[1], at[1] + target.size))
                at = [spans[-1][1], spans[-1][3]]
    np.save(f"{stem}.index.npy", np.array(spans, dtype=np.int64).reshape(-1, 4))
    return len(spans)


def read_source(paths, separator, held_out, wrapped):
    """{split: documents} of one source. The split goes by the text as found, before its lines are joined."""
    by_split = {split: [] for split in SPLITS}
    for path in paths:
        for document in read_documents(path, separator):
            members = by_split[split_of(document, held_out)]
            members.append(replace(document, text=unwrap(document.text)) if wrapped else document)
    return by_split


def prepare(out, sources, separators, vocabulary_size, held_out, vocabulary_file=None, threads=2, wrapped=()):
    """Runs the whole preparation; returns the contents of data.json. `wrapped`: sources with hard line breaks."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    documents = {}
    for name, paths in sources:
        documents[name] = read_source(paths, separators.get(name, separators[""]), held_out, name in wrapped)
        print(f"{name}: {sum(map(len, documents[name].values()))} documents", file=sys.stderr)
    if vocabulary_file:
        given = Path(vocabulary_file)
        inside = given.suffix == ".terrace"
        try:
            (out / "tokenizer.model").write_bytes(tokenizer_bytes(given) if inside else given.read_bytes())
        except OSError as error:
            raise TrainError(f"--vocabulary {given}: cannot read: {error.strerror}") from error
        vocabulary = load_vocabulary(out / "tokenizer.model")
    else:
        share = VOCABULARY_SAMPLE // len(sources)
        sample = [doc.text for by_split in documents.values() for doc in _sample(by_split["train"], share)]
        train_vocabulary(sample, vocabulary_size, out / "tokenizer.model", threads)
        vocabulary = load_vocabulary(out / "tokenizer.model")
    report = {"vocab_size": vocabulary.size, "held_out": held_out, "sources": {}}
    held_out_text = {"valid": [], "test": []}
    for name, by_split in documents.items():
        paired = any(doc.summary for docs in by_split.values() for doc in docs)
        entry = report["sources"][name] = {"paired": paired}
        for split, members in by_split.items():
            stem = out / f"{name}.{split}"
            if paired:
                entry[split] = {"pairs": encode_pairs(vocabulary, members, stem)}
            else:
                tokens, size = encode_split(vocabulary, members, f"{stem}.bin")
                entry[split] = {"documents": len(members), "tokens": tokens, "bytes": size}
            if split != "train":
                held_out_text[split].extend(doc.text for doc in _sample(members, HELD_OUT_TEXT))
        print(f"{name}: {entry}", file=sys.stderr)
    for split, texts in held_out_text.items():
        (out / f"{split}.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    (out / "data.json").write_text(json.dumps(report, indent=1))
    return report


def _sample(documents, characters):
    """Evenly spaced documents of about `characters` in total (at least one when there are any)."""
    total = sum(len(document.text) for document in documents)
    stride = max(1, -(-total // characters))
    return documents[::stride]


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
