# SPDX-License-Identifier: Apache-2.0
"""SelfAttention, LSH, PureLSH (trax/layers/research/efficient_attention.py)."""

import math

import numpy as np

from .attention import _heads, _unheads, attend_where
from .layers import logsumexp
from .positions import rotary

NEG_CAUSAL = 1e9  # subtracted where the key lies in the future of the query
NEG_SELF = 1e5    # subtracted where key and query are the same position (shared QK)
NEG_PAD = 1e9     # subtracted where the key is padding


def length_normalized(k, eps=1e-6):
    return k / np.sqrt((k * k).mean(-1, keepdims=True) + eps)


def _look_adjacent(x, before, after):
    """Chunks [C, c, ..] -> [C, (before+1+after)*c, ..]; wraps around at both ends."""
    return np.concatenate([np.roll(x, -i, axis=0) for i in range(-before, after + 1)], axis=1)


def attend_additive(q, k, v, q_pos, k_pos, causal, exclude_self, masked,
                    chunk_len=None, before=0, after=0, share_qk=False):
    """Chunked attention with additive penalties; returns (out [L, dv], logsumexp [L]).

    q_pos / k_pos are 0-based positions; a padding key carries a NEGATIVE position (its
    true position times -1).  One is added to both before masking, so a padding key at
    true position 0 or 1 is not recognised as padding (Trax quirk, kept here).
    """
    q_pos, k_pos = np.asarray(q_pos) + 1, np.asarray(k_pos) + 1
    if share_qk:
        k = length_normalized(q)
    k = k / math.sqrt(k.shape[-1])
    if chunk_len is None:
        q, k, v = q[None], k[None], v[None]
        q_pos, k_pos = q_pos[None], k_pos[None]
    else:
        q, k, v = [a.reshape(-1, chunk_len, a.shape[-1]) for a in (q, k, v)]
        q_pos, k_pos = q_pos.reshape(-1, chunk_len), k_pos.reshape(-1, chunk_len)
        k, v, k_pos = [_look_adjacent(a, before, after) for a in (k, v, k_pos)]
    s = q @ k.swapaxes(-1, -2)
    qp, kp = q_pos[:, :, None], k_pos[:, None, :]
    if causal:
        s = s - NEG_CAUSAL * (qp < kp)
    if exclude_self:
        s = s - NEG_SELF * (qp == kp)
    if masked:
        s = s - NEG_PAD * (kp < 0)
    lse = logsumexp(s)
    o = np.exp(s - lse) @ v
    return o.reshape(-1, o.shape[-1]), lse.reshape(-1)


class SelfAttention:
    """tl.SelfAttention.  Weights wq [H,d,dk], wk, wv [H,d,dv], wo [H,dv,d] (+ bq, bk, bv).

    With share_qk there is no wk/bk.  Output is the SUM over heads, there is no output bias.
    """

    def __init__(self, wq, wk, wv, wo, bias=None, causal=True, share_qk=False, chunk_len=None,
                 before=0, after=0, mem_len=None, drop_len=None):
        self.wq, self.wk, self.wv, self.wo, self.bias = wq, wk, wv, wo, bias
        self.causal, self.share = causal, share_qk
        self.c, self.b4, self.aft = chunk_len, before, after
        self.mem_len = mem_len or (chunk_len * (1 + before) if chunk_len else None)
        self.drop_len = drop_len or chunk_len
        self.reset()

    def reset(self):
        self.mem = None

    def _qkv(self, x, h):
        q = x @ self.wq[h]
        k = q if self.share else x @ self.wk[h]
        v = x @ self.wv[h]
        if self.bias is not None:
            q = q + self.bias[0][h]
            k = q if self.share else k + self.bias[1][h]
            v = v + self.bias[-1][h]
        return q, k, v

    def full(self, x, mask=None):
        n = x.shape[0]
        pos = np.arange(n)
        kpos = pos if mask is None else pos * np.where(mask, 1, -1)
        out = 0.0
        for h in range(self.wq.shape[0]):
            q, k, v = self._qkv(x, h)
            o, _ = attend_additive(q, k, v, pos, kpos, self.causal, self.share,
                                   mask is not None, self.c, self.b4, self.aft, self.share)
            out = out + o @ self.wo[h]
        return out

    def feed(self, x):
        """One row at a time (Trax rolls a buffer of INPUT rows of length mem_len)."""
        rows = []
        for t in range(x.shape[0]):
            mem = x[:0] if self.mem is None else self.mem
            if self.mem_len is not None and mem.shape[0] + 1 > self.mem_len:
                mem = mem[self.drop_len:]
            self.mem = mem = np.concatenate([mem, x[t:t + 1]])
            n, acc = mem.shape[0], 0.0
            for h in range(self.wq.shape[0]):
                q, k, v = self._qkv(mem, h)
                if self.share:
                    k = length_normalized(k)
                o, _ = attend_additive(q[-1:], k, v, [n - 1], np.arange(n), True, self.share, False)
                acc = acc + o @ self.wo[h]
            rows.append(acc)
        return np.concatenate(rows)


def lsh_bucket_plan(n_buckets, length, chunk_len):
    """int or list of even factors; None means 'derive from length'."""
    if n_buckets is None:
        n = 2 * max(1, length // chunk_len)
        if n <= 128:
            return [n]
        a = 2 ** math.ceil(math.log2(math.sqrt(n)))
        return [a, 2 * (n // (2 * a))]
    return [n_buckets] if isinstance(n_buckets, int) else list(n_buckets)


def lsh_hash(vecs, rotations, factors):
    """Cross-polytope hash.  vecs [L, d], rotations [d, R, sum(factors)/2] -> ids [R, L]."""
    r = np.einsum("ld,drb->rlb", vecs, rotations)
    ids, at, mul = 0, 0, 1
    for f in factors:
        part = r[..., at:at + f // 2]
        ids = ids + mul * np.argmax(np.concatenate([part, -part], -1), -1)
        at, mul = at + f // 2, mul * f
    return ids


def lsh_attend(qk, v, buckets, n_total_buckets, chunk_len, before, after, causal, mask=None):
    """One head of LSH attention.  buckets [R, L] without per-round offsets.

    Sort by (round, bucket, position), attend inside the chunk and its neighbours (no
    bucket equality test, no duplicate correction), undo the sort, then mix rounds with
    weights softmax_r(logsumexp).
    """
    n_rounds, n = buckets.shape
    if mask is not None:
        mask = np.asarray(mask, bool)
        buckets = np.where(mask[None], buckets, n_total_buckets)
        n_total_buckets += 1
    key = (buckets + n_total_buckets * np.arange(n_rounds)[:, None]) * n + np.arange(n)
    order = np.argsort(key.reshape(-1), kind="stable")
    st = order % n
    kpos = st if mask is None else st * np.where(mask[st], 1, -1)
    so, slse = attend_additive(qk[st], None, v[st], st, kpos, causal, True, mask is not None,
                               chunk_len, before, after, True)
    o, lse = np.empty_like(so), np.empty_like(slse)
    o[order], lse[order] = so, slse
    o, lse = o.reshape(n_rounds, n, -1), lse.reshape(n_rounds, n, 1)
    if n_rounds == 1:
        return o[0]
    return (o * np.exp(lse - logsumexp(lse, axis=0))).sum(0)


class LSHCore:
    """Multi-head LSH attention on already projected vectors qk, v of shape [H, L, dh].

    rotations: list of H arrays [dk, R, sum(factors)/2] (must be supplied: Trax draws them at random).
    feed() is Trax's one-token predict path and is NOT equal to full() in general;
    prefill() is Trax's first predict call with several tokens (only at position 0).
    """

    def __init__(self, rotations, factors, chunk_len, before=1, after=0, causal=True,
                 mem_len=2048, drop_len=256):
        self.rot, self.factors = rotations, list(factors)
        self.c, self.b4, self.aft, self.causal = chunk_len, before, after, causal
        self.mem_len, self.drop_len = mem_len, drop_len
        self.total = int(np.prod(self.factors))
        self.reset()

    def reset(self):
        self.qk = self.v = self.bk = None
        self.end = 0

    def _alloc(self, qk, v):
        if self.qk is None:
            h, rounds = qk.shape[0], self.rot[0].shape[1]
            self.qk = np.zeros((h, self.mem_len, qk.shape[2]))
            self.v = np.zeros((h, self.mem_len, v.shape[2]))
            self.bk = np.zeros((h, rounds, self.mem_len), int)

    def full(self, qk, v, mask=None):
        return np.stack([lsh_attend(qk[h], v[h], lsh_hash(qk[h], self.rot[h], self.factors), self.total,
                                    self.c, self.b4, self.aft, self.causal, mask)
                         for h in range(qk.shape[0])])

    def feed(self, qk, v):
        self._alloc(qk, v)
        out = np.empty(v.shape)
        for t in range(qk.shape[1]):
            if self.end + 1 > self.mem_len:
                k = self.drop_len
                roll = lambda a, ax: np.concatenate([np.take(a, range(k, self.mem_len), ax),
                                                     np.zeros_like(np.take(a, range(k), ax))], ax)
                self.qk, self.v, self.bk = roll(self.qk, 1), roll(self.v, 1), roll(self.bk, 2)
                self.end -= k
            self.qk[:, self.end], self.v[:, self.end] = qk[:, t], v[:, t]
            for h in range(qk.shape[0]):
                ids = lsh_hash(qk[h, t:t + 1], self.rot[h], self.factors)[:, 0]
                out[h, t] = lsh_step(qk[h, t:t + 1], self.qk[h], self.v[h], self.bk[h], self.end, ids,
                                     self.total, self.c, self.b4)[0]
            self.end += 1
        return out

    def prefill(self, qk, v):
        """First call with n > 1 rows: ordinary LSH attention over a zero-padded buffer."""
        assert self.end == 0
        self._alloc(qk, v)
        n = qk.shape[1]
        size = self.mem_len if n <= self.drop_len and n < self.mem_len else n
        size = -(-size // self.c) * self.c
        grow = lambda a: np.concatenate([a, np.zeros((a.shape[0], size - n, a.shape[2]))], 1)
        q_, v_ = grow(qk), grow(v)
        keep = min(n, self.mem_len)
        for h in range(qk.shape[0]):
            ids = lsh_hash(q_[h], self.rot[h], self.factors) + self.total * np.arange(self.rot[h].shape[1])[:, None]
            self.bk[h, :, :keep] = ids[:, n - keep:n]
        self.qk[:, :keep], self.v[:, :keep] = qk[:, n - keep:], v[:, n - keep:]
        self.end = keep
        return self.full(q_, v_)[:, :n]


class LSHSelfAttention:
    """tl.LSHSelfAttention; weights wqk [H,d,dk], wv [H,d,dv], wo [H,dv,d]; output = sum over heads."""

    def __init__(self, wqk, wv, wo, core):
        self.wqk, self.wv, self.wo, self.core = wqk, wv, wo, core

    def reset(self):
        self.core.reset()

    def _run(self, x, how, **k):
        qk = np.einsum("ld,hdk->hlk", x, self.wqk)
        v = np.einsum("ld,hdk->hlk", x, self.wv)
        return np.einsum("hlk,hkd->ld", getattr(self.core, how)(qk, v, **k), self.wo)

    def full(self, x, mask=None):
        return self._run(x, "full", mask=mask)

    def feed(self, x):
        return self._run(x, "feed")

    def prefill(self, x):
        return self._run(x, "prefill")


class PureLSHAttention:
    """PureLSHSelfAttentionWrapper: projections from other layer types around LSHCore.

    roles: list of per-role maps; 3 roles (q, k, v) average q and k, 2 roles are (qk, v).
    front: optional multiplicative layer applied first ('sparse' format); out: final layer.
    std_length > 0 (MixedLSHSelfAttention): sequences of at most so many rows get the standard core with q = k = qk; in
    feed(), where Trax counts the rows of a call, so do the rows at positions below it.
    """

    def __init__(self, front, roles, out, core, n_heads, std_length=0, rotary=False, causal=True):
        self.front, self.roles, self.out, self.core, self.h = front, roles, out, core, n_heads
        self.std_length, self.rotary, self.causal = std_length, rotary, causal
        self.reset()

    def reset(self):
        for l in self.roles + [self.core]:
            l.reset()
        self.qk = self.v = None  # rows fed so far, by head

    def _projected(self, x, how, start=0):
        m = x if self.front is None else self.front.full(x)
        y = [getattr(r, how)(m) for r in self.roles]
        qk = y[0] if len(y) == 2 else (y[0] + y[1]) / 2.0
        return _heads(rotary(qk, start) if self.rotary else qk, self.h), _heads(y[-1], self.h)

    def _finish(self, o):
        o = _unheads(o)
        return o if self.out is None else self.out.full(o)

    def full(self, x, mask=None):
        qk, v = self._projected(x, "full")
        n = len(x)
        if n > self.std_length:
            return self._finish(self.core.full(qk, v, mask))
        seen = np.ones((n, n), bool) if mask is None else np.broadcast_to(np.asarray(mask, bool), (n, n))
        return self._finish(attend_where(qk, qk, v, np.tril(seen) if self.causal else seen))

    def feed(self, x):
        start = 0 if self.qk is None else self.qk.shape[1]
        qk, v = self._projected(x, "feed", start)
        o = self.core.feed(qk, v)
        self.qk, self.v = [b if a is None else np.concatenate([a, b], 1) for a, b in ((self.qk, qk), (self.v, v))]
        for t in range(max(0, min(len(x), self.std_length - start))):
            keys = slice(0, start + t + 1)
            o[:, t : t + 1] = attend_where(qk[:, t : t + 1], self.qk[:, keys], self.v[:, keys], True)
        return self._finish(o)

    def prefill(self, x):
        qk, v = self._projected(x, "feed")
        return self._finish(self.core.prefill(qk, v))


def lsh_step(q, qk_mem, v_mem, bucket_mem, at, q_buckets, n_total_buckets, chunk_len, before):
    """One-token LSH predict for one head; writes the new bucket ids into bucket_mem."""
    rounds, mem = bucket_mem.shape
    ids = q_buckets + n_total_buckets * np.arange(rounds)
    bucket_mem[:, at] = ids
    same = (bucket_mem == ids[:, None]).any(0)
    i = np.arange(mem)
    prio = np.where(i > at + 1, -(mem + i), i) + mem * same
    pick = np.argsort(prio, kind="stable")[-rounds * chunk_len * (1 + before):]
    o, _ = attend_additive(q, length_normalized(qk_mem[pick]), v_mem[pick], [at], pick,
                           True, True, True)
    return o
