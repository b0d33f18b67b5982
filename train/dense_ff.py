# SPDX-License-Identifier: Apache-2.0
"""The dense feed-forward layer, plain or gated (GLU).

plain  y = w2 act(w1 x + b1) + b2
gated  y = w2 (act(gate x) * (w1 x + b1)) + b2
"""

import torch
from torch import nn
from torch.nn import functional as F

from train.errors import TrainError
from train.norms import Norm
from train.projections import Dense


def fast_gelu(x):
    """x/2 (1 + tanh(0.7978845608 x (1 + 0.044715 x^2)))."""
    return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * x * (1.0 + 0.044715 * x * x)))


ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "fast_gelu": fast_gelu, "silu": F.silu}


class DenseFeedForward(nn.Module):
    """w1 [F, d], w2 [d, F], gate [F, d]. A nested width is a prefix of the F units."""

    def __init__(self, model, stack, config):
        super().__init__()
        d, self.d_ff = model["d_model"], model["d_ff"]
        if config.get("activation", "relu") not in ACTIVATIONS:
            raise TrainError(f"dense ff: activation '{config['activation']}': expected one of {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[config.get("activation", "relu")]
        self.norm = Norm(d, model.get("norm", {}), stack.get("center_norm", True))
        self.w1, self.w2 = Dense(d, self.d_ff), Dense(self.d_ff, d)
        self.gate = Dense(d, self.d_ff, bias=False) if config.get("gated", False) else None

    def forward(self, x, mode):
        width = self.d_ff if mode.width is None else mode.width
        x = self.norm(x)
        hidden = F.linear(x, self.w1.weight[:width], self.w1.bias[:width])
        if self.gate is None:
            hidden = self.activation(hidden)
        else:
            hidden = hidden * self.activation(F.linear(x, self.gate.weight[:width]))
        return F.linear(hidden, self.w2.weight[:, :width], self.w2.bias)
