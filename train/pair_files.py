# SPDX-License-Identifier: Apache-2.0
"""Memory-mapped (document, summary) pairs that train.prepare wrote from JSON lines."""

from pathlib import Path

import numpy as np
import torch

from train.errors import TrainError
from train.token_files import open_tokens
from train.vocabulary import PAD


class PairFiles:
    """Pairs of one split, cut to `lengths` = (encoder, decoder) tokens and padded to them."""

    def __init__(self, folder, name, split, lengths, vocab_size):
        stem = Path(folder) / f"{name}.{split}"
        self.lengths = lengths
        self.documents = open_tokens(f"{stem}.bin", vocab_size)
        self.summaries = open_tokens(f"{stem}.summary.bin", vocab_size)
        try:
            self.index = np.load(f"{stem}.index.npy")
        except (OSError, ValueError) as error:
            raise TrainError(f"{stem}.index.npy: no index of pairs: {error}") from error
        if len(self.index) == 0:
            raise TrainError(f"{stem}.index.npy: no pairs: expected JSON lines with 'document' and 'summary'")

    def __len__(self):
        return len(self.index)

    def rows(self, which):
        """(encoder ids [rows, n], decoder ids [rows, m + 1]) of the pairs `which`; zeros fill the ends."""
        n, m = self.lengths
        encoder_ids = np.full((len(which), n), PAD, dtype=np.int64)
        ids = np.full((len(which), m + 1), PAD, dtype=np.int64)
        for row, pair in enumerate(which):
            begin, end, summary_begin, summary_end = self.index[pair]
            document = self.documents[begin : min(end, begin + n)]
            summary = self.summaries[summary_begin : min(summary_end, summary_begin + m + 1)]
            encoder_ids[row, : len(document)] = document
            ids[row, : len(summary)] = summary
        return torch.from_numpy(encoder_ids), torch.from_numpy(ids)
