# SPDX-License-Identifier: Apache-2.0
"""LayerNorm and RMSNorm as the engine computes them.

layer_norm            c = x - mean(x);  y = c / sqrt(mean(c^2) + eps) * scale + bias
layer_norm, no centre                   y = x / sqrt(mean(x^2) + eps) * scale        (bias stored, not applied)
rms_norm                                y = x / sqrt(mean(x^2) + eps) * scale        (no bias)
"""

import torch
from torch import nn
from torch.nn import functional as F


class Norm(nn.Module):
    """Norm over the last axis of width `d`."""

    def __init__(self, d, config, center=True):
        super().__init__()
        self.kind = config.get("kind", "layer_norm")
        self.epsilon = config.get("epsilon", 1e-6)
        self.center = center and self.kind == "layer_norm"
        self.scale = nn.Parameter(torch.ones(d))
        if self.kind == "layer_norm":
            self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x):
        x = x.float()  # under autocast too: a sum over bf16 loses what a norm needs
        if self.center:
            return F.layer_norm(x, x.shape[-1:], self.scale, self.bias, self.epsilon)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.scale
