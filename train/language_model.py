# SPDX-License-Identifier: Apache-2.0
"""The decoder-only language model: x = embed(ids); blocks; logits = L(norm(x)).

logits[t] predicts the token after ids[0..t]; nothing is shifted inside (the caller feeds the start id first), which
is what `terrace logits` computes.
"""

from torch import nn

from train.norms import Norm
from train.pass_mode import FULL
from train.projections import build_projection, start_uniform
from train.stack import Stack


class LanguageModel(nn.Module):
    """Family transformer_lm; `mode` holds the nested width and the training choices of the pass."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.decoder = Stack(config, config["decoder"], config["vocab_size"], causal=True)
        self.decoder.norm = Norm(config["d_model"], config.get("norm", {}))
        self.decoder.logits = build_projection(config.get("logits", {}), config["d_model"], config["vocab_size"])
        start_uniform(self.decoder.logits)

    def forward(self, ids, mode=FULL):
        x = self.decoder.embed(ids)
        for block in self.decoder.blocks:
            x = block(x, mode)
        return self.decoder.logits(self.decoder.norm(x))
