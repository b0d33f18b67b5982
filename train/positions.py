# SPDX-License-Identifier: Apache-2.0
"""Positional encodings that are added to the embedding: learned table, low-rank table, sin-cos, none."""

import math

import torch
from torch import nn

from train.errors import TrainError


class LearnedPosition(nn.Module):
    """x[t] += table[t]; table [max_len, d]. Errors: more positions than the table has."""

    def __init__(self, max_len, d):
        super().__init__()
        self.table = nn.Parameter(torch.randn(max_len, d) * 0.02)

    def forward(self, x):
        check_length(x.shape[1], self.table.shape[0])
        return x + self.table[: x.shape[1]]


class LowRankPosition(nn.Module):
    """x[t] += proj table[t]; table [max_len, k], proj [d, k]."""

    def __init__(self, max_len, d, rank):
        super().__init__()
        self.table = nn.Parameter(torch.randn(max_len, rank) * 0.02)
        self.proj = nn.Parameter(torch.randn(d, rank) / math.sqrt(rank))

    def forward(self, x):
        check_length(x.shape[1], self.table.shape[0])
        return x + self.table[: x.shape[1]] @ self.proj.t()


class SinCosPosition(nn.Module):
    """Channels 0..d/2-1: sin(p w_j), d/2..: cos(p w_j), w_j = exp(-2j ln(10000)/d)."""

    def __init__(self, d):
        super().__init__()
        self.d = d

    def forward(self, x):
        rate = torch.exp(torch.arange(self.d // 2, device=x.device) * (-2.0 * math.log(10000.0) / self.d))
        angle = torch.arange(x.shape[1], device=x.device)[:, None] * rate
        return x + torch.cat([angle.sin(), angle.cos()], -1).to(x.dtype)


def check_length(length, max_len):
    """Learned tables bound the context."""
    if length > max_len:
        raise TrainError(f"{length} positions: the learned position table has {max_len}")


def build_position(config, d):
    """Position module of a stack's "position" entry."""
    kind = config.get("kind", "learned")
    if kind == "learned":
        return LearnedPosition(config["max_len"], d)
    if kind == "low_rank":
        return LowRankPosition(config["max_len"], d, config["rank"])
    if kind == "sin_cos":
        return SinCosPosition(d)
    if kind == "none":
        return nn.Identity()
    raise TrainError(f"position kind '{kind}' cannot be trained: expected learned, low_rank, sin_cos or none")
