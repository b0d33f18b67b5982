# SPDX-License-Identifier: Apache-2.0
"""Mixture-of-Depths: a routed block runs on a chosen share of the tokens, the others pass by (Raposo et al. 2024).

    training   the k = ceil(capacity * length) tokens with the largest r = w . x run; x += r * (block(x_sel) - x_sel)
    eval       a token runs where s > 0, s = out(relu(in(x))) of a causal predictor, or s = r where there is none

A token that does not run is neither query nor key in the block, and the convolutions' time taps see the previous
tokens that ran; rotary positions stay those of the whole sequence. Binary cross-entropy of s against top-k
membership goes to `mode.losses`: the predictor learns beside the model, its input detached; without one the loss
shapes the router itself. Configuration of a stack:

    "mixture_of_depths": {"every": 2, "capacity": 0.125, "predictor_width": 32}      (0: no predictor)

routes blocks every-1, 2*every-1, ...
"""

import math
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from train.projections import Dense, scaled_normal


def is_routed(stack, index):
    """Whether block `index` of a stack is routed."""
    config = stack.get("mixture_of_depths")
    return bool(config) and index % config.get("every", 2) == config.get("every", 2) - 1


class DepthRouter(nn.Module):
    """Router [d] and predictor of one routed block (tensors blocks.<i>.depth.*)."""

    def __init__(self, d, config):
        super().__init__()
        width = config.get("predictor_width", 32)
        self.capacity = config.get("capacity", 0.125)
        self.router = scaled_normal(d, fan_in=d)
        self.predictor = nn.ModuleDict({"in": Dense(d, width), "out": Dense(width, 1)}) if width else None

    def forward(self, x, block, mode):
        """x [batch, time, d] with the routed tokens updated by `block(x_sel, mode)`."""
        score, decision = self.scores(x)
        if not self.training:
            return torch.stack([self._run_row(x[row], score[row], decision[row], block, mode) for row in range(len(x))])
        k = max(1, math.ceil(self.capacity * x.shape[1]))
        chosen = score.topk(k, -1).indices.sort(-1).values
        if mode.losses is not None:
            member = torch.zeros_like(score).scatter_(-1, chosen, 1.0)
            mode.losses.append(F.binary_cross_entropy_with_logits(decision, member))
        index = chosen.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        selected = x.gather(1, index)
        update = block(selected, replace(mode, positions=chosen)) - selected
        return x.scatter_add(1, index, update * score.gather(1, chosen).unsqueeze(-1))

    def scores(self, x):
        """r and s [batch, time]."""
        score = x @ self.router
        if self.predictor is None:
            return score, score
        return score, self.predictor["out"](F.relu(self.predictor["in"](x.detach()))).squeeze(-1)

    @staticmethod
    def _run_row(x, score, decision, block, mode):
        chosen = (decision > 0).nonzero().squeeze(-1)
        if len(chosen) == 0:
            return x
        selected = x[chosen]
        update = block(selected[None], replace(mode, positions=chosen[None]))[0] - selected
        return x.index_add(0, chosen, update * score[chosen, None])
