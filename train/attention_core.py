# SPDX-License-Identifier: Apache-2.0
"""The dot-product core shared by the attention layers: heads, softmax, weighted sum."""

import math

import torch
from torch.nn import functional as F


def split_heads(x, n_heads):
    """[batch, time, H*dh] to [batch, H, time, dh]; channel h*dh + c belongs to head h."""
    batch, time, width = x.shape
    return x.view(batch, time, n_heads, width // n_heads).transpose(1, 2)


def merge_heads(x):
    """Inverse of split_heads."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def dot_product(q, k, v, causal, key_mask=None):
    """softmax(q k^T / sqrt(dh)) v over [batch, H, time, dh]; `key_mask` [batch, time] marks keys that exist.

    The fused kernel of current PyTorch is used where there is one (it never stores the score matrix);
    torch 1.13 takes the written-out form. Both skip disallowed keys exactly.
    """
    fused = getattr(F, "scaled_dot_product_attention", None)
    if fused is not None:
        mask = None if key_mask is None else key_mask[:, None, None, :]
        if mask is not None and causal:
            mask = mask & causal_mask(q.shape[2], q.device)
        if q.device.type == "cpu":  # whose bf16 kernel is slower than its f32 one
            with torch.autocast("cpu", enabled=False):
                return fused(q.float(), k.float(), v.float(), attn_mask=mask, is_causal=causal and mask is None)
        return fused(q, k, v, attn_mask=mask, is_causal=causal and mask is None)
    score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        score = score.masked_fill(~causal_mask(q.shape[2], q.device), -1e9)
    if key_mask is not None:
        score = score.masked_fill(~key_mask[:, None, None, :], -1e9)
    return score.softmax(-1) @ v


def causal_mask(length, device):
    """bool [length, length], true where key <= query."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
