# SPDX-License-Identifier: Apache-2.0
"""Elementary layers, and the sparse replacements of a dense layer (trax/layers/core.py, research/sparsity.py)."""

import math

import numpy as np

LN_EPS = 1e-6


def relu(x):
    return np.where(x <= 0, 0.0, x)


def gelu(x):
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def fast_gelu(x):
    return 0.5 * x * (1.0 + np.tanh(0.7978845608 * x * (1.0 + 0.044715 * x * x)))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


ACTIVATIONS = {"relu": relu, "gelu": gelu, "fast_gelu": fast_gelu}


def logsumexp(x, axis=-1):
    m = np.max(x, axis=axis, keepdims=True)
    return m + np.log(np.sum(np.exp(x - m), axis=axis, keepdims=True))


def softmax(x):
    return np.exp(x - logsumexp(x))


def dense(x, w, b=None):
    """y[j] = b[j] + sum_i x[i] w[i, j]."""
    y = x @ w
    return y if b is None else y + b


def embedding(ids, table):
    """Row lookup with ids clipped into the table."""
    return table[np.clip(np.asarray(ids), 0, table.shape[0] - 1)]


def layer_norm(x, scale, bias, center=True, eps=LN_EPS):
    """LayerNorm; center=False is RMS-norm, where the stored bias is NOT applied."""
    c = x - x.mean(-1, keepdims=True) if center else x
    y = c / np.sqrt((c * c).mean(-1, keepdims=True) + eps) * scale
    return y + bias if center else y


def log_softmax(x):
    return x - logsumexp(x)


def sample_token(logits, temperature=0.0, rng=None):
    """Gumbel-max sampling exactly as Trax: argmax(log p + T * gumbel), first index wins."""
    lp = log_softmax(logits)
    if temperature == 0.0:
        return int(np.argmax(lp))
    u = (rng or np.random.default_rng()).uniform(1e-6, 1.0 - 1e-6, lp.shape)
    return int(np.argmax(lp - temperature * np.log(-np.log(u))))


def factored_dense(x, gating, proj, bias=None):
    """y[n*M + m] = bias + sum_d x[d] gating[n, d] proj[d, m]; gating [S, d_in], proj [d_in, M]."""
    y = np.einsum("ld,nd,dm->lnm", x, gating, proj, optimize=True)
    y = y.reshape(x.shape[0], -1)
    return y if bias is None else y + bias


def low_rank_dense(x, w1, b1, w2, b2):
    return dense(dense(x, w1, b1), w2, b2)


def einsum_dense(x, kernel, bias=None):
    """Dense with the kernel stored transposed, [d_out, d_in]."""
    return dense(x, kernel.T, bias)


def mult_modular_dense(x, gating, kmult, kmod, bias):
    """y[h*M+o] = bias + sum_q kmod[h,q,o] sum_d kmult[d,q] gating[h,d] x[d]."""
    z = np.einsum("ld,hd,dq->lhq", x, gating, kmult, optimize=True)
    return np.einsum("lhq,hqo->lho", z, kmod).reshape(x.shape[0], -1) + bias


def locally_connected_dense(x, w, b):
    """Per-module kernels, circular over modules; w [S, K, d_in/S, M], b [S, M].

    The kernel is indexed by the INPUT module: out[s] = b[s] + sum_k in[j] @ w[j, k],
    j = (s + k - K//2) mod S.
    """
    s, k = w.shape[:2]
    xm = x.reshape(x.shape[0], s, -1)
    y = np.zeros((x.shape[0], s, w.shape[-1])) + b
    for t in range(k):
        j = (np.arange(s) + t - (k - 1) // 2) % s
        y = y + np.einsum("lsp,spo->lso", xm[:, j], w[j, t])
    return y.reshape(x.shape[0], -1)


class LocallyConvDense:
    """Convolution over (length, module); w [Kl, Km, d_in/S, M], b [M] shared by modules.

    out[t, s] = b + sum_{i<Kl, j<Km} x[t-(Kl-1)+i, s+j-Km//2] @ w[i, j], zero outside.
    State: the last Kl-1 input rows.
    """

    def __init__(self, w, b, n_modules):
        self.w, self.b, self.s = w, b, n_modules
        self.reset()

    def reset(self):
        self.tail = None

    def _conv(self, x, left):
        kl, km = self.w.shape[:2]
        n, half = x.shape[0], (km - 1) // 2
        xp = np.concatenate([left, x], 0).reshape(n + kl - 1, self.s, -1)
        xp = np.pad(xp, ((0, 0), (half, half), (0, 0)))
        y = np.zeros((n, self.s, self.w.shape[-1])) + self.b
        for i in range(kl):
            for j in range(km):
                y = y + xp[i:i + n, j:j + self.s] @ self.w[i, j]
        return y.reshape(n, -1)

    def full(self, x):
        return self._conv(x, np.zeros((self.w.shape[0] - 1, x.shape[1])))

    def feed(self, x):
        keep = self.w.shape[0] - 1
        left = np.zeros((keep, x.shape[1])) if self.tail is None else self.tail
        y = self._conv(x, left)
        self.tail = np.concatenate([left, x], 0)[x.shape[0]:]
        return y


class DenseLayer:
    """Stateless map wrapped so that it offers full() and feed()."""

    def __init__(self, fn):
        self.full = self.feed = fn

    def reset(self):
        pass


class CausalDepthwiseConv:
    """y[t] = sum_i z[t - i] w[i] per channel, w [3, d], row 0 = the current step; z = the layer before it."""

    def __init__(self, before, w):
        self.before, self.w = before, w
        self.reset()

    def reset(self):
        self.tail = np.zeros((2, self.w.shape[1]))

    def _run(self, z, tail):
        padded = np.concatenate([tail, z])
        return sum(padded[2 - i : 2 - i + len(z)] * self.w[i] for i in range(3))

    def full(self, x):
        return self._run(self.before.full(x), np.zeros((2, self.w.shape[1])))

    def feed(self, x):
        z = self.before.feed(x)
        y = self._run(z, self.tail)
        self.tail = np.concatenate([self.tail, z])[-2:]
        return y
