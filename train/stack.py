# SPDX-License-Identifier: Apache-2.0
"""A stack of blocks: embedding, positions and, per block, attention sublayers and a feed-forward layer."""

import torch
from torch import nn

from train.dense_attention import DotProductAttention
from train.dense_ff import DenseFeedForward
from train.errors import TrainError
from train.lsh_attention import LshAttention, SelfAttention
from train.mixture_of_depths import DepthRouter, is_routed
from train.multiplicative_conv import MultiplicativeConvAttention
from train.positions import build_position
from train.sparse_ff import SparseFeedForward
from train.sru import SruPath

FEED_FORWARDS = {"dense": DenseFeedForward, "sparse": SparseFeedForward}


def build_attention(model, stack, config, causal):
    """Attention sublayer of an entry of the stack's "attention" list."""
    kind = config["kind"]
    if kind == "dot_product":
        return DotProductAttention(model, stack, config, causal)
    if kind == "self":
        return SelfAttention(model, stack, config, causal)
    if kind == "multiplicative_conv" and causal:
        return MultiplicativeConvAttention(model, stack, config)
    if kind == "lsh" and causal:
        return LshAttention(model, stack, config)
    raise TrainError(f"attention kind '{kind}' cannot be trained in {'a decoder' if causal else 'an encoder'}")


def build_feed_forward(model, stack):
    """Feed-forward layer of a stack, with its recurrent path when the configuration has "sru"."""
    config = stack["ff"]
    if config["kind"] not in FEED_FORWARDS:
        raise TrainError(f"ff kind '{config['kind']}' cannot be trained: expected one of {', '.join(FEED_FORWARDS)}")
    ff = FEED_FORWARDS[config["kind"]](model, stack, config)
    if config.get("sru"):
        ff.sru = SruPath(model, stack, config["sru"])
    return ff


class Block(nn.Module):
    """Attention sublayers and one feed-forward layer; the model decides how they are added up."""

    def __init__(self, model, stack, index, causal):
        super().__init__()
        config = stack["attention"][index % len(stack["attention"])]
        n_attention = stack.get("n_attention", 1)
        self.attention = nn.ModuleList(build_attention(model, stack, config, causal) for _ in range(n_attention))
        self.ff = build_feed_forward(model, stack)
        self.depth = DepthRouter(model["d_model"], stack["mixture_of_depths"]) if is_routed(stack, index) else None

    def feed_forward(self, x, mode):
        """F(x), plus the recurrent path beside it."""
        y = self.ff(x, mode)
        return y + self.ff.sru(x) if hasattr(self.ff, "sru") else y

    def forward(self, x, mode):
        """Residual form of a language model: x += A(x); x += F(x), for all tokens or for the routed ones."""
        return self._residual(x, mode) if self.depth is None else self.depth(x, self._residual, mode)

    def _residual(self, x, mode):
        for attention in self.attention:
            x = x + attention(x, mode)
        return x + self.feed_forward(x, mode)


class Stack(nn.Module):
    """Embedding, positions and blocks of one side of a model. Members carry the engine's tensor names."""

    def __init__(self, model, stack, vocab_size, causal):
        super().__init__()
        d = model["d_model"]
        if vocab_size:
            self.embedding = nn.Parameter(torch.randn(vocab_size, d) * 0.02)
        self.position = build_position(stack.get("position", {}), d)
        self.blocks = nn.ModuleList(Block(model, stack, i, causal) for i in range(stack["n_layers"]))

    def embed(self, ids, embedding=None):
        table = self.embedding if embedding is None else embedding
        return self.position(nn.functional.embedding(ids, table))
