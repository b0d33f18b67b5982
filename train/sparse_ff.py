# SPDX-License-Identifier: Apache-2.0
"""The 1-of-N sparse feed-forward layer and its trainable controller (Jaszczur et al. 2021, sec. 3.1).

    z[q,e] = bias[q,e] + up (down x);  e*(q) = argmax_e z[q,e];  y = bias + sum_q relu(w1[q,e*] . x) w2[q,e*]

Training replaces the argmax by a straight-through one-hot: forward argmax of log_softmax(z) + temperature * Gumbel
noise, backward the softmax. With probability 1 - quant_prob a whole batch uses the softmax itself as the mask.
A nested width is a prefix of whole blocks. Cost in training is that of a dense layer (the mask hides N-1 of N units).

Units are stored block by block; a pass reads them element by element, so that every reduction over the N elements of
a block runs over the last axis but one, which PyTorch vectorises on a CPU (over a last axis of 16 it does not).
"""

import torch
from torch import nn
from torch.nn import functional as F

from train.errors import TrainError
from train.norms import Norm
from train.projections import scaled_normal


class StraightThroughOneHot(torch.autograd.Function):
    """Forward: 1 where `noisy` is greatest on the last axis but one. Backward: the gradient of softmax(z)."""

    @staticmethod
    def forward(ctx, z, noisy):
        ctx.save_for_backward(z)
        return (noisy == noisy.amax(-2, keepdim=True)).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        p = z.softmax(-2)
        gradient = p * gradient
        return gradient.sub_(p.mul_(gradient.sum(-2, keepdim=True))), None


def by_element(stored, width, block_size):
    """The first `width` of [F, ..] rows stored as block * N + element, reordered to element * blocks + block."""
    return stored[:width].unflatten(0, (width // block_size, block_size)).transpose(0, 1).flatten(0, 1)


class Controller(nn.Module):
    """Logits z [.., N, blocks] of the choice inside each block: down [r, d], up [F, r], bias [F]."""

    def __init__(self, d, d_ff, block_size, rank):
        super().__init__()
        self.block_size = block_size
        self.down = scaled_normal(rank, d, fan_in=d)
        self.up = scaled_normal(d_ff, rank, fan_in=rank)
        self.bias = nn.Parameter(torch.zeros(d_ff))

    def forward(self, x, width):
        # In f32 under autocast too: bf16 logits tie often, and a tie has no single choice.
        with torch.autocast(x.device.type, enabled=False):
            up, bias = (by_element(part, width, self.block_size) for part in (self.up, self.bias))
            z = F.linear(F.linear(x.float(), self.down), up, bias)
        return z.unflatten(-1, (self.block_size, width // self.block_size))


class SparseFeedForward(nn.Module):
    """Units [F, 2, d]: unit block * N + element, its w1 row, then its w2 row. Output bias [d] is never sliced."""

    def __init__(self, model, stack, config):
        super().__init__()
        d, self.d_ff, self.block_size = model["d_model"], model["d_ff"], config["block_size"]
        if self.d_ff % self.block_size:
            raise TrainError(f"sparse ff: d_ff {self.d_ff} is no multiple of block_size {self.block_size}")
        rank = config.get("d_lowrank", self.d_ff // self.block_size)
        self.multiply = config.get("multiply_by_controller", False)
        self.norm = Norm(d, model.get("norm", {}), stack.get("center_norm", True))
        self.controller = Controller(d, self.d_ff, self.block_size, rank)
        # Only 1 in N of the F outputs is ever on, so w2 is scaled for a fan-in of F/N.
        w1 = torch.randn(self.d_ff, d) / d**0.5
        w2 = torch.randn(self.d_ff, d) / (self.d_ff / self.block_size) ** 0.5
        self.units = nn.Parameter(torch.stack([w1, w2], 1))
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x, mode):
        width = self.d_ff if mode.width is None else mode.width
        if width % self.block_size or not 0 < width <= self.d_ff:
            raise TrainError(f"sparse ff: width {width}: expected a multiple of {self.block_size} up to {self.d_ff}")
        x = self.norm(x)
        z = self.controller(x, width)
        w1, w2 = (by_element(self.units[:, side], width, self.block_size) for side in (0, 1))
        hidden = F.relu(F.linear(x, w1)).view_as(z)
        hidden = hidden * self.mask(z, mode).to(hidden.dtype)
        return F.linear(hidden.flatten(-2), w2.t(), self.bias)

    def mask(self, z, mode):
        """What each unit's activation is multiplied by: the choice, times its probability when that is configured."""
        if not self.training:
            choice = torch.zeros_like(z).scatter_(-2, z.argmax(-2, keepdim=True), 1.0)
        elif mode.quantise:
            choice = StraightThroughOneHot.apply(z, self.noisy(z.detach(), mode))
        else:
            choice = z.softmax(-2)
        return choice * z.softmax(-2) if self.multiply else choice

    @staticmethod
    def noisy(z, mode):
        """z + temperature * Gumbel noise, drawn for one window and shared by all windows of the pass.

        Noise of its own for each window took a twelfth of a step on a CPU.
        """
        # Gumbel noise is -log(-log(u)); u keeps clear of 0 and 1, where it would be infinite.
        u = torch.rand(z.shape[1:], generator=mode.generator, device=z.device, dtype=torch.float32)
        anti_noise = u.clamp_(1e-6, 1.0 - 1e-6).log_().neg_().log_()
        return torch.sub(z, anti_noise, alpha=mode.temperature)

    def picks(self, x, width=None):
        """int64 [.., blocks]: the unit each block chooses in eval mode (first index on ties)."""
        return self.controller(self.norm(x), self.d_ff if width is None else width).argmax(-2)
