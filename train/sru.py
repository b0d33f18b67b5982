# SPDX-License-Identifier: Apache-2.0
"""The recurrent path beside a feed-forward layer: Simple Recurrent Units (Lei et al. 2018) as Trax wires them.

r, f = sigmoid(.), y linear thirds of W x + b;  c_t = f c_{t-1} + y (1 - f);  h_t = c_t r + x_t (1 - r) sqrt(3)
path(x) = out( cells( in( norm(x) ) ) )
"""

import math

import torch
from torch import nn

from train.norms import Norm
from train.projections import Dense


class SruCell(Dense):
    """Width s to s; weight [3s, s], thirds r, f, y."""

    def __init__(self, width):
        super().__init__(width, 3 * width)

    def forward(self, x):
        r, f, y = super().forward(x).chunk(3, -1)
        r, f = r.sigmoid(), f.sigmoid()
        gated, c, states = y * (1.0 - f), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            c = f[:, t] * c + gated[:, t]
            states.append(c)
        return torch.stack(states, 1) * r + x * (1.0 - r) * math.sqrt(3.0)


class SruPath(nn.Module):
    """Members carry the engine's names: norm, in, cells.<k>, out."""

    def __init__(self, model, stack, config):
        super().__init__()
        d, width = model["d_model"], config.get("width", 32)
        self.norm = Norm(d, model.get("norm", {}), stack.get("center_norm", True))
        self.add_module("in", Dense(d, width))  # a keyword, so no attribute syntax
        self.cells = nn.ModuleList(SruCell(width) for _ in range(config.get("n_layers", 1)))
        self.out = Dense(width, d)

    def forward(self, x):
        h = getattr(self, "in")(self.norm(x))
        for cell in self.cells:
            h = cell(h)
        return self.out(h)
