# SPDX-License-Identifier: Apache-2.0
"""Dot-product attention with ordinary projections, grouped-query heads and rotary positions.

q [H*dh], k and v [H_kv*dh] = projections of norm(x);  query head h reads key/value head h / (H / H_kv)
"""

import torch
from torch import nn

from train.attention_core import dot_product, merge_heads, split_heads
from train.errors import TrainError
from train.norms import Norm
from train.projections import build_projection


def rotate(x, base, interleaved, positions=None):
    """Rotary positions on [batch, H, time, dh]: pair j, (j, j+dh/2) or (2j, 2j+1), turns by p * base^(-2j/dh).

    `positions` [batch, time]; None: p = 0, 1, ...
    """
    half = x.shape[-1] // 2
    rate = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    if positions is None:
        positions = torch.arange(x.shape[2], device=x.device)[None]
    angle = positions[:, None, :, None].float() * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class DotProductAttention(nn.Module):
    """One attention sublayer with its norm; causal in a decoder, bidirectional (with `key_mask`) in an encoder."""

    def __init__(self, model, stack, config, causal=True):
        super().__init__()
        d, self.n_heads, self.causal = model["d_model"], model["n_heads"], causal
        self.n_kv_heads = config.get("n_kv_heads", self.n_heads)
        d_head = config.get("d_head", d // self.n_heads)
        if self.n_heads % self.n_kv_heads:
            raise TrainError(f"dot_product: n_heads {self.n_heads} is no multiple of n_kv_heads {self.n_kv_heads}")
        if config.get("use_dconv", False):
            raise TrainError("dot_product: use_dconv cannot be trained: expected false")
        projection = config.get("projection", {})
        self.rotary = config.get("rotary")
        if self.rotary and "scaling" in self.rotary:
            raise TrainError("'rotary.scaling': training knows rotary positions without scaling only")
        self.norm = Norm(d, model.get("norm", {}), stack.get("center_norm", True))
        self.q = build_projection(projection, d, self.n_heads * d_head)
        self.k = build_projection(projection, d, self.n_kv_heads * d_head)
        self.v = build_projection(projection, d, self.n_kv_heads * d_head)
        self.out = build_projection(projection, self.n_heads * d_head, d)

    def forward(self, x, mode, key_mask=None):
        x = self.norm(x)
        q = split_heads(self.q(x), self.n_heads)
        k, v = split_heads(self.k(x), self.n_kv_heads), split_heads(self.v(x), self.n_kv_heads)
        if self.rotary:
            base, interleaved = self.rotary.get("base", 10000.0), self.rotary.get("interleaved", False)
            q, k = (rotate(part, base, interleaved, mode.positions) for part in (q, k))
        group = self.n_heads // self.n_kv_heads
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        return self.out(merge_heads(dot_product(q, k, v, self.causal, key_mask)))
