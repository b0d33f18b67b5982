# SPDX-License-Identifier: Apache-2.0
"""Dot-product attention, FAVOR, joining of encoder and decoder rows (trax/layers/attention.py, research/sparsity.py)."""

import math

import numpy as np

from .layers import factored_dense, relu, softmax
from .prng import prng_key, prng_normal, prng_split

NEG_PAD = 1e9  # substituted where a key is padding or lies in the future


def _heads(x, h):
    """[L, h*dh] -> [h, L, dh]."""
    return x.reshape(x.shape[0], h, -1).transpose(1, 0, 2)


def _unheads(x):
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def attend_where(q, k, v, allowed):
    """Per-head softmax(q k^T / sqrt(dh)) v; disallowed logits are REPLACED by -1e9."""
    s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    return softmax(np.where(allowed, s, -NEG_PAD)) @ v


class DotProductCausal:
    """Causal core with a K/V cache; inputs [L, d] per role, already projected."""

    def __init__(self, n_heads):
        self.h = n_heads
        self.reset()

    def reset(self):
        self.k = self.v = None

    def full(self, q, k, v):
        n = q.shape[0]
        allowed = np.tril(np.ones((n, n), bool))
        return _unheads(attend_where(_heads(q, self.h), _heads(k, self.h), _heads(v, self.h), allowed))

    def feed(self, q, k, v):
        self.k = k if self.k is None else np.concatenate([self.k, k])
        self.v = v if self.v is None else np.concatenate([self.v, v])
        n, tot = q.shape[0], self.k.shape[0]
        allowed = np.arange(tot)[None, :] <= (tot - n + np.arange(n))[:, None]
        return _unheads(attend_where(_heads(q, self.h), _heads(self.k, self.h),
                                     _heads(self.v, self.h), allowed))


class ConfigurableCausalAttention:
    """Branch(q, k, v) -> causal core -> output layer; covers CausalAttention and the
    Multiplicative / MultiplicativeModular / LowRank / Conv / Modular variants."""

    def __init__(self, q, k, v, o, n_heads):
        self.parts, self.core = (q, k, v, o), DotProductCausal(n_heads)

    def reset(self):
        self.core.reset()
        for p in self.parts:
            p.reset()

    def full(self, x, mask=None):
        q, k, v, o = self.parts
        return o.full(self.core.full(q.full(x), k.full(x), v.full(x)))

    def feed(self, x):
        q, k, v, o = self.parts
        return o.feed(self.core.feed(q.feed(x), k.feed(x), v.feed(x)))


class BidirectionalAttention:
    """tl.Attention: padding keys are replaced by -1e9; full sequence only."""

    def __init__(self, q, k, v, o, n_heads):
        self.parts, self.h = (q, k, v, o), n_heads

    def full(self, x, mask=None):
        q, k, v, o = self.parts
        m = np.ones(x.shape[0], bool) if mask is None else np.asarray(mask, bool)
        y = attend_where(_heads(q.full(x), self.h), _heads(k.full(x), self.h),
                         _heads(v.full(x), self.h), m[None, None, :])
        return o.full(_unheads(y))


class MultConvCausalAttention:
    """MultiplicativeConvCausalAttention with every option.

    front: gating/proj/bias of the shared multiplicative layer; conv_q, conv_k (same object
    when share_qk), conv_v: LocallyConvDense; out: list of layers after the merge of heads.
    """

    def __init__(self, front, conv_q, conv_k, conv_v, out, n_heads, n_modules,
                 v_concat="none", share_qk=False):
        self.front, self.cq, self.ck, self.cv, self.out = front, conv_q, conv_k, conv_v, out
        self.s, self.v_concat, self.share = n_modules, v_concat, share_qk
        self.core = DotProductCausal(n_heads)

    def reset(self):
        for p in [self.cq, self.ck, self.cv, self.core] + self.out:
            p.reset()

    def _v_in(self, m, x):
        if self.v_concat == "none":
            return m
        if self.v_concat == "original":
            return np.concatenate([m, x], -1)
        both = [a.reshape(a.shape[0], self.s, -1) for a in (m, x)]
        return np.concatenate(both, -1).reshape(x.shape[0], -1)

    def _run(self, x, how):
        m = factored_dense(x, *self.front)
        q = getattr(self.cq, how)(m)
        k = q if self.share else getattr(self.ck, how)(m)
        y = getattr(self.core, how)(q, k, getattr(self.cv, how)(self._v_in(m, x)))
        for o in self.out:
            y = getattr(o, how)(y)
        return y

    def full(self, x, mask=None):
        return self._run(x, "full")

    def feed(self, x):
        return self._run(x, "feed")


class CausalFavor:
    """P_t += k' v^T, z_t += k', out = q'P / q'z with q',k' = relu(.) + 1e-3, no 1/sqrt(dh)."""

    def __init__(self, q, k, v, o, n_heads, stabilizer=1e-3):
        self.parts, self.h, self.eps = (q, k, v, o), n_heads, stabilizer
        self.reset()

    def reset(self):
        self.p = self.z = None

    def feed(self, x):
        q, k, v, o = self.parts
        qh = relu(_heads(q.feed(x), self.h)) + self.eps
        kh = relu(_heads(k.feed(x), self.h)) + self.eps
        vh = _heads(v.feed(x), self.h)
        if self.p is None:
            self.p = np.zeros((self.h, kh.shape[-1], vh.shape[-1]))
            self.z = np.zeros((self.h, kh.shape[-1]))
        out = np.empty((self.h, x.shape[0], vh.shape[-1]))
        for t in range(x.shape[0]):
            self.p = self.p + kh[:, t, :, None] * vh[:, t, None, :]
            self.z = self.z + kh[:, t]
            num = np.einsum("hm,hmd->hd", qh[:, t], self.p)
            out[:, t] = num / np.einsum("hm,hm->h", qh[:, t], self.z)[:, None]
        return o.feed(_unheads(out))

    def full(self, x, mask=None):
        q, k, v, o = self.parts
        qh = relu(_heads(q.full(x), self.h)) + self.eps
        kh = relu(_heads(k.full(x), self.h)) + self.eps
        a = np.tril(qh @ kh.swapaxes(-1, -2))
        y = (a / a.sum(-1, keepdims=True)) @ _heads(v.full(x), self.h)
        return o.full(_unheads(y))


def favor_matrix(n_rows, n_columns, scale_by_norm):
    """Random features of the softmax approximation: orthogonal blocks from PRNG key 0, with rows of length
    sqrt(n_columns), or of the lengths of as many normal vectors."""
    key, blocks = prng_key(0), []
    for _ in range(-(-n_rows // n_columns)):
        key, sub = prng_split(key)
        blocks.append(np.linalg.qr(prng_normal(sub, (n_columns, n_columns)).astype(float))[0].T)
    rows = np.concatenate(blocks)[:n_rows]
    if scale_by_norm:
        return rows * np.linalg.norm(prng_normal(prng_key(0), (n_rows, n_columns)).astype(float), axis=1)[:, None]
    return rows * math.sqrt(n_columns)


class FavorBidirectional:
    """tl.Favor; padding keys have k' = 0. `matrix`: features of the softmax approximation, None for relu features. The
    maximum that steadies the exponentials of the keys is taken over those that are no padding."""

    def __init__(self, q, k, v, o, n_heads, stabilizer=1e-3, matrix=None, normalize_data=False, epsilon=1e-4):
        self.parts, self.h, self.eps = (q, k, v, o), n_heads, stabilizer
        self.matrix, self.normalize, self.epsilon = matrix, normalize_data, epsilon

    def _features(self, x, m, is_query):
        if self.matrix is None:
            return relu(x) + self.eps
        if self.normalize:
            x = x / x.shape[-1] ** 0.25
        a = x @ self.matrix.T
        top = a.max(-1, keepdims=True) if is_query else a[:, m > 0].max((1, 2), keepdims=True)
        return (np.exp(a - (x * x).sum(-1, keepdims=True) / 2 - top) + self.epsilon) / math.sqrt(len(self.matrix))

    def full(self, x, mask=None):
        q, k, v, o = self.parts
        m = np.ones(x.shape[0]) if mask is None else np.asarray(mask, float)
        qh = self._features(_heads(q.full(x), self.h), m, True)
        kh = self._features(_heads(k.full(x), self.h), m, False) * m[None, :, None]
        a = qh @ kh.swapaxes(-1, -2)
        return o.full(_unheads((a / a.sum(-1, keepdims=True)) @ _heads(v.full(x), self.h)))


def concat_with_padding(vec_e, vec_d, mask_e):
    """Write vec_d over [vec_e ; zeros] starting at the number of real encoder tokens."""
    n = int(np.sum(mask_e))
    out = np.concatenate([vec_e, np.zeros_like(vec_d)])
    out[n:n + vec_d.shape[0]] = vec_d
    return out


def strip_concatenated(vec_ed, tok_e, n_dec):
    n = int(np.sum(np.asarray(tok_e) != 0))
    return vec_ed[n:n + n_dec]
