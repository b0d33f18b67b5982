# SPDX-License-Identifier: Apache-2.0
"""Mixture-of-Depths: a routed block runs on a chosen share of the tokens, the others pass by (Raposo et al. 2024).

    training   the k = ceil(capacity * length) tokens with the largest r = w . x run; x += r * (block(x_sel) - x_sel)
    eval       a token runs where the causal predictor says so: out(relu(in(x))) > 0; the factor r stays the router's

A token that does not run is neither query nor key in the block, and the convolutions' time taps see the previous
tokens that ran. The predictor learns beside the model: its input is detached and its loss (binary cross-entropy
against top-k membership) goes to `mode.losses`. Configuration of a stack:

    "mixture_of_depths": {"every": 2, "capacity": 0.125, "predictor_width": 32}

routes blocks every-1, 2*every-1, ...
"""

import math

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
        self.predictor = nn.ModuleDict({"in": Dense(d, width), "out": Dense(width, 1)})

    def forward(self, x, block, mode):
        """x [batch, time, d] with the routed tokens updated by `block(x_sel, mode)`."""
        score = x @ self.router
        decision = self.predictor["out"](F.relu(self.predictor["in"](x.detach()))).squeeze(-1)
        if not self.training:
            return torch.stack([self._run_row(x[row], score[row], decision[row], block, mode) for row in range(len(x))])
        k = max(1, math.ceil(self.capacity * x.shape[1]))
        chosen = score.topk(k, -1).indices.sort(-1).values
        if mode.losses is not None:
            member = torch.zeros_like(score).scatter_(-1, chosen, 1.0)
            mode.losses.append(F.binary_cross_entropy_with_logits(decision, member))
        index = chosen.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        selected = x.gather(1, index)
        update = (block(selected, mode) - selected) * score.gather(1, chosen).unsqueeze(-1)
        return x.scatter_add(1, index, update)

    @staticmethod
    def _run_row(x, score, decision, block, mode):
        chosen = (decision > 0).nonzero().squeeze(-1)
        if len(chosen) == 0:
            return x
        selected = x[chosen]
        update = (block(selected[None], mode)[0] - selected) * score[chosen, None]
        return x.index_add(0, chosen, update)
