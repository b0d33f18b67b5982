# SPDX-License-Identifier: Apache-2.0
"""Shared-QK attention, exact (`self`) and by locality-sensitive hashing (`lsh`), as Trax defines them.

    score(i,j) = q_i . k_j,  k_j = q_j / sqrt(mean(q_j^2) + 1e-6) / sqrt(dk)      (shared QK)
    minus 1e9 where j > i in a causal layer, minus 1e5 where j = i                 (a row sees itself only when alone)

LSH sorts all rows of every hash round by (round, bucket, position), cuts the sorted list into chunks, attends inside
a chunk and its neighbours (wrapping around, no test for equal buckets), and mixes the rounds by softmax of their
logsumexp. Sources: Kitaev et al. 2020 (Reformer); Trax `SelfAttention`, `LSHSelfAttention`.
Cost of lsh per head: length * n_hashes * chunk_len * (1 + before + after) scores instead of length^2.
"""

import math

import torch
from torch import nn

from train.attention_core import causal_mask, dot_product, merge_heads, split_heads
from train.errors import TrainError
from train.norms import Norm
from train.projections import Dense


def length_normalised(k):
    """k / sqrt(mean(k^2) + 1e-6) over the last axis."""
    return k * torch.rsqrt(k.square().mean(-1, keepdim=True) + 1e-6)


class SelfAttention(nn.Module):
    """Unchunked causal attention with stacked head matrices and no output bias; `share_qk` drops the key matrix."""

    def __init__(self, model, stack, config, causal=True):
        super().__init__()
        d, self.n_heads, self.share_qk, self.causal = (
            model["d_model"],
            model["n_heads"],
            config.get("share_qk", False),
            causal,
        )
        if config.get("chunk_len", 0):
            raise TrainError("self attention: chunk_len cannot be trained: expected 0")
        d_head = config.get("d_head", d // self.n_heads)
        d_value = config.get("d_value", d_head)
        self.norm = Norm(d, model.get("norm", {}), stack.get("center_norm", True))
        self.q = Dense(d, self.n_heads * d_head, bias=False)
        if not self.share_qk:
            self.k = Dense(d, self.n_heads * d_head, bias=False)
        self.v = Dense(d, self.n_heads * d_value, bias=False)
        self.out = Dense(self.n_heads * d_value, d, bias=False)

    def forward(self, x, mode, key_mask=None):
        x = self.norm(x)
        q, v = split_heads(self.q(x), self.n_heads), split_heads(self.v(x), self.n_heads)
        if not self.share_qk:
            y = dot_product(q, split_heads(self.k(x), self.n_heads), v, self.causal, key_mask)
            return self.out(merge_heads(y))
        score = q @ length_normalised(q).transpose(-1, -2) / math.sqrt(q.shape[-1])
        length = q.shape[2]
        if self.causal:
            score = score - 1e9 * (~causal_mask(length, x.device)).to(score.dtype)
        score = score - 1e5 * torch.eye(length, device=x.device, dtype=score.dtype)
        if key_mask is not None:
            score = score.masked_fill(~key_mask[:, None, None, :], -1e9)
        return self.out(merge_heads(score.softmax(-1) @ v))


class LshAttention(nn.Module):
    """LSH attention of a causal decoder. Training draws new rotations for every pass, eval uses the stored ones."""

    def __init__(self, model, stack, config):
        super().__init__()
        d, self.n_heads = model["d_model"], model["n_heads"]
        d_head = config.get("d_head", d // self.n_heads)
        d_value = config.get("d_value", d_head)
        self.chunk_len, self.n_hashes = config.get("chunk_len", 128), config.get("n_hashes", 1)
        self.before, self.after = config.get("n_chunks_before", 1), config.get("n_chunks_after", 0)
        buckets = config.get("n_buckets")
        self.factors = [buckets] if isinstance(buckets, int) else list(buckets or [])
        if not self.factors or any(f < 2 or f % 2 for f in self.factors):
            raise TrainError(f"lsh attention: n_buckets {buckets}: expected an even number or a list of even numbers")
        self.norm = Norm(d, model.get("norm", {}), stack.get("center_norm", True))
        self.qk = Dense(d, self.n_heads * d_head, bias=False)
        self.v = Dense(d, self.n_heads * d_value, bias=False)
        self.out = Dense(self.n_heads * d_value, d, bias=False)
        self.register_buffer("rotations", torch.randn(self.n_heads, self.n_hashes, sum(self.factors) // 2, d_head))

    def forward(self, x, mode, key_mask=None):
        length = x.shape[1]
        if self.n_hashes * length % self.chunk_len:
            raise TrainError(
                f"lsh attention: {length} positions: n_hashes * length must be a multiple of {self.chunk_len}"
            )
        x = self.norm(x)
        qk, v = split_heads(self.qk(x), self.n_heads), split_heads(self.v(x), self.n_heads)
        rotations = self.rotations
        if self.training:
            rotations = torch.randn(rotations.shape, generator=mode.generator, device=x.device)
        order = self._sorted(qk.detach(), rotations)
        return self.out(merge_heads(self._attend(qk, v, order)))

    def buckets(self, qk, rotations):
        """int64 [batch, H, n_hashes, length]: cross-polytope hash, one digit per factor, the first the lowest."""
        turned = torch.einsum("bhld,hrfd->bhrlf", qk.float(), rotations)
        bucket, place = 0, 1
        for part, factor in zip(turned.split([f // 2 for f in self.factors], -1), self.factors):
            bucket = bucket + place * torch.cat([part, -part], -1).argmax(-1)
            place *= factor
        return bucket

    def _sorted(self, qk, rotations):
        """int64 [batch, H, n_hashes * length]: entry (round * length + position) at every place of the sorted list."""
        bucket = self.buckets(qk, rotations)
        total, length = math.prod(self.factors), qk.shape[2]
        rounds = torch.arange(self.n_hashes, device=qk.device)[:, None] * total
        key = (rounds + bucket) * length + torch.arange(length, device=qk.device)
        return key.flatten(2).argsort(-1)

    def _attend(self, qk, v, order):
        batch, heads, length, _ = qk.shape
        position = order % length
        q = _gather_rows(qk, position)
        k = length_normalised(q) / math.sqrt(qk.shape[-1])
        q, k, value = (self._chunks(part) for part in (q, k, _gather_rows(v, position)))
        k, value = self._with_neighbours(k), self._with_neighbours(value)
        query_at = position.unflatten(-1, (-1, self.chunk_len))
        key_at = self._with_neighbours(query_at)
        score = q @ k.transpose(-1, -2)
        query_at, key_at = query_at[..., :, None], key_at[..., None, :]
        score = score - 1e9 * (query_at < key_at).to(score.dtype) - 1e5 * (query_at == key_at).to(score.dtype)
        lse = score.logsumexp(-1, keepdim=True)
        attended = torch.exp(score - lse) @ value
        # Back to (round, position) order; place[entry] is where that entry lies in the sorted list.
        place = order.argsort(-1)
        attended = _gather_rows(attended.flatten(2, 3), place).unflatten(2, (self.n_hashes, length))
        lse = lse.flatten(2).gather(-1, place).unflatten(2, (self.n_hashes, length))
        return (attended * lse.softmax(2).unsqueeze(-1)).sum(2)

    def _chunks(self, x):
        return x.unflatten(2, (-1, self.chunk_len))

    def _with_neighbours(self, x):
        """Appends to every chunk (axis 2) the rows (axis 3) of its neighbours: previous ones, itself, next ones."""
        return torch.cat([torch.roll(x, -i, 2) for i in range(-self.before, self.after + 1)], 3)


def _gather_rows(x, index):
    """x [.., n, d], index [.., m] to [.., m, d]."""
    return x.gather(2, index.unsqueeze(-1).expand(*index.shape, x.shape[-1]))
