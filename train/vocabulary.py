# SPDX-License-Identifier: Apache-2.0
"""The SentencePiece vocabulary: BPE with byte fallback, lossless (no normalisation, no added prefix space)."""

import io
from pathlib import Path

import numpy as np

from train.atomic_file import write_atomically
from train.errors import TrainError

PAD = START = 0  # the engine feeds id 0 first; it never occurs inside a text
END = 1
UNKNOWN = 2


def _sentencepiece():
    try:
        import sentencepiece
    except ImportError as error:
        raise TrainError("the Python package 'sentencepiece' is not installed: needed to make token files") from error
    return sentencepiece


def train_vocabulary(texts, size, path, threads=2):
    """Trains on the lines of `texts` and writes the model file. 256 of the pieces are the bytes."""
    sentencepiece = _sentencepiece()
    model = io.BytesIO()
    lines = (line for text in texts for line in text.split("\n") if line.strip())
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=lines,
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            split_digits=True,
            max_sentence_length=1 << 16,
            pad_id=PAD,
            eos_id=END,
            unk_id=UNKNOWN,
            bos_id=-1,
            num_threads=threads,
            minloglevel=1,
        )
    except RuntimeError as error:
        raise TrainError(f"vocabulary of {size} pieces: SentencePiece refused: {error}") from error
    write_atomically(path, model.getvalue())


class Vocabulary:
    """Encodes and decodes; knows how many bytes of text each id stands for."""

    def __init__(self, processor):
        self._processor = processor
        self.size = processor.GetPieceSize()

    def encode(self, text):
        """Ids of a string, or of each string of a list."""
        return self._processor.Encode(text)

    def decode(self, ids):
        return self._processor.Decode([int(i) for i in ids])

    def byte_lengths(self):
        """int64 [vocab]: bytes of UTF-8 text per id; 0 for control ids, 1 for a byte piece."""
        lengths = np.zeros(self.size, dtype=np.int64)
        for i in range(self.size):
            if self._processor.IsByte(i):
                lengths[i] = 1
            elif not (self._processor.IsControl(i) or self._processor.IsUnknown(i)):
                lengths[i] = len(self._processor.IdToPiece(i).replace("\u2581", " ").encode("utf-8"))
        return lengths


def load_vocabulary(path):
    """Reads a SentencePiece model file. Errors: missing or damaged file."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TrainError(f"{path}: no SentencePiece model: {error.strerror}") from error
    return parse_vocabulary(content, path)


def parse_vocabulary(content, where):
    """The vocabulary of a SentencePiece model file's contents; errors call it `where`."""
    processor = _sentencepiece().SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except (OSError, RuntimeError) as error:
        raise TrainError(f"{where}: no SentencePiece model: {error}") from error
    return Vocabulary(processor)
