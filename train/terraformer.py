# SPDX-License-Identifier: Apache-2.0
"""Terraformer: a reversible encoder-decoder without cross attention (Jaszczur et al. 2021, sec. 4).

Two streams x1, x2 begin as the same embedding; x1 += f(x2) alternates with a swap. The decoder runs on the
concatenation of the encoder's rows and its own, with causal attention over both:

    encoder block   x1 += A(x2); swap; x1 += F(x2); swap (two_swaps)
    join            reversible: streams as they are; else both = norm(join((x1+x2)/2))
    decoder block   n_attention * (y1 += A(y2); swap); y1 += F(y2); swap
    logits          L(norm((y1+y2)/2)) of the decoder's rows

Training keeps the activations (memory grows with depth); the arithmetic is that of the reversible network.
"""

import torch
from torch import nn

from train.errors import TrainError
from train.norms import Norm
from train.pass_mode import FULL
from train.projections import Dense, build_projection, start_uniform
from train.stack import Stack

UNSUPPORTED = ("forget_every", "half_before_layer", "double_after_layer", "mixture_of_depths", "d_input", "parallel")


class Terraformer(nn.Module):
    """Family terraformer. encoder_ids [batch, n] end in zeros where a text is shorter; ids [batch, m]."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        encoder, decoder, d = config["encoder"], config["decoder"], config["d_model"]
        for stack in (encoder, decoder):
            for key in UNSUPPORTED:
                if stack.get(key) not in (None, 0, False):
                    raise TrainError(f"terraformer: '{key}' cannot be trained: expected it to be absent")
        shared = config.get("shared_embedding", False)
        self.encoder = Stack(config, encoder, encoder["vocab_size"], causal=False)
        self.decoder = Stack(config, decoder, None if shared else config["vocab_size"], causal=True)
        self.reversible, self.two_swaps = encoder.get("reversible", False), encoder.get("two_swaps", True)
        if not self.reversible:
            self.encoder.join = Dense(d, d)
            self.encoder.norm = Norm(d, config.get("norm", {}))
        self.decoder.norm = Norm(d, config.get("norm", {}))
        self.decoder.logits = build_projection(config.get("logits", {}), d, config["vocab_size"])
        start_uniform(self.decoder.logits)

    def forward(self, encoder_ids, ids, mode=FULL):
        real = encoder_ids != 0
        e1, e2 = self.encode(encoder_ids, real, mode)
        table = self.decoder.embedding if hasattr(self.decoder, "embedding") else self.encoder.embedding
        rows = self.decoder.embed(ids, table)
        counts = real.sum(1)
        y1, y2 = concatenate(e1, rows, counts), concatenate(e2, rows, counts)
        for block in self.decoder.blocks:
            for attention in block.attention:
                y1, y2 = y2, y1 + attention(y2, mode)
            y1, y2 = y2, y1 + block.feed_forward(y2, mode)
        y = self.decoder.norm((y1 + y2) / 2)
        return self.decoder.logits(strip(y, counts, ids.shape[1]))

    def encode(self, encoder_ids, real, mode):
        """The two streams that the decoder's rows are appended to."""
        x1 = x2 = self.encoder.embed(encoder_ids)
        for block in self.encoder.blocks:
            for attention in block.attention:
                x1, x2 = x2, x1 + attention(x2, mode, real)
            x1 = x1 + block.feed_forward(x2, mode)
            if self.two_swaps:
                x1, x2 = x2, x1
        if self.reversible:
            return x1, x2
        joined = self.encoder.norm(self.encoder.join((x1 + x2) / 2))
        return joined, joined


def concatenate(encoded, rows, counts):
    """[batch, n + m, d]: row b is encoded[b, :counts[b]], then rows[b], then rows that no real row can see."""
    n, m = encoded.shape[1], rows.shape[1]
    place = torch.arange(n + m, device=rows.device)[None, :]
    inside = place < counts[:, None]
    source = torch.where(inside, place, (n + place - counts[:, None]).clamp(max=n + m - 1))
    both = torch.cat([encoded, rows], 1)
    return both.gather(1, source.unsqueeze(-1).expand(-1, -1, both.shape[-1]))


def strip(y, counts, m):
    """The m decoder rows of a concatenation."""
    source = counts[:, None] + torch.arange(m, device=y.device)[None, :]
    return y.gather(1, source.unsqueeze(-1).expand(-1, -1, y.shape[-1]))
