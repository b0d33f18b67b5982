# SPDX-License-Identifier: Apache-2.0
"""Linear maps from d_in to d_out channels in the engine's kinds and stored shapes (see docs/model-file.md).

S modules of width M = d_out / S. Weights are stored as the engine reads them: one row per output.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from train.errors import TrainError


def scaled_normal(*shape, fan_in):
    """Parameter with standard deviation 1/sqrt(fan_in)."""
    return nn.Parameter(torch.randn(*shape) / math.sqrt(fan_in))


class Dense(nn.Module):
    """y = W x + b. Weight [out, in]."""

    def __init__(self, d_in, d_out, bias=True):
        super().__init__()
        self.weight = scaled_normal(d_out, d_in, fan_in=d_in)
        if bias:
            self.bias = nn.Parameter(torch.zeros(d_out))
        else:
            self.bias = None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class FactoredDense(nn.Module):
    """Multiplicative layer: y[s*M + m] = b + sum_d x[d] gate[s,d] proj[m,d]. Parameters S*d_in + d_in*M + d_out."""

    def __init__(self, d_in, d_out, n_modules):
        super().__init__()
        if d_out % n_modules:
            raise TrainError(f"mult projection: {d_out} outputs are no multiple of n_modules {n_modules}")
        self.gate = nn.Parameter(torch.randn(n_modules, d_in) * 0.25 + 1.0 if n_modules > 1 else torch.ones(1, d_in))
        self.proj = scaled_normal(d_out // n_modules, d_in, fan_in=d_in)
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x):
        n_modules, d_in = self.gate.shape
        # The product gate * proj is the dense matrix [S*M, d_in] that one matmul uses for all positions.
        weight = (self.gate[:, None, :] * self.proj[None, :, :]).reshape(-1, d_in)
        return F.linear(x, weight, self.bias)


class LocallyConvDense(nn.Module):
    """One kernel shared by all modules, looking Km modules wide and Kl steps into the past.

        y[t, s*units + o] = b[o] + sum_{j<Km, i<Kl, c<C} x[t-(Kl-1)+i, (s+j-(Km-1)/2)*C + c] * w[o, j, i, c]

    zero padding over modules and before the start. Weight [units, Km*Kl*C], the row over (module j, time i, channel c).
    """

    def __init__(self, d_in, d_out, n_modules, module_kernel, time_kernel):
        super().__init__()
        self.n_modules, self.module_kernel, self.time_kernel = n_modules, module_kernel, time_kernel
        if n_modules == 1:  # a single module is a plain dense layer without time taps
            self.module_kernel = self.time_kernel = 1
        fan_in = self.module_kernel * self.time_kernel * d_in // n_modules
        self.weight = scaled_normal(d_out // n_modules, fan_in, fan_in=fan_in)
        self.bias = nn.Parameter(torch.zeros(d_out // n_modules))

    def forward(self, x):
        batch, time, width = x.shape
        channels = width // self.n_modules
        kernel = self.weight.view(-1, self.module_kernel, self.time_kernel, channels).permute(0, 3, 2, 1).contiguous()
        # [batch, channels, time, modules] over memory that lies as [batch, time, modules, channels].
        image = x.view(batch, time, self.n_modules, channels)
        side = (self.module_kernel - 1) // 2
        image = F.pad(image, (0, 0, side, side, self.time_kernel - 1, 0)).permute(0, 3, 1, 2)
        y = F.conv2d(image, kernel, self.bias)
        return y.permute(0, 2, 3, 1).reshape(batch, time, -1)


def build_projection(config, d_in, d_out, bias=True):
    """Projection of a configuration entry such as {"kind": "mult", "n_modules": 4}."""
    kind = config.get("kind", "dense")
    if kind == "dense":
        return Dense(d_in, d_out, bias)
    if kind == "mult":
        return FactoredDense(d_in, d_out, config["n_modules"])
    raise TrainError(f"projection kind '{kind}' cannot be trained: expected dense or mult")


@torch.no_grad()
def start_uniform(projection):
    """Shrinks a fresh output layer so that the first predictions are close to uniform over the vocabulary."""
    for parameter in (getattr(projection, "weight", None), getattr(projection, "proj", None)):
        if parameter is not None:
            parameter.mul_(0.1)
