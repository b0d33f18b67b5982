# SPDX-License-Identifier: Apache-2.0
"""Feed-forward blocks (trax/layers/research/sparsity.py, layers/rnn.py); their input is already normalised."""

import math

import numpy as np

from .layers import dense, relu, sigmoid, softmax


def dense_ff(x, w1, b1, w2, b2, activation=relu):
    return dense(activation(dense(x, w1, b1)), w2, b2)


def sparse_ff_controller(x, m1, m2, mb):
    """Logits [L, B, N] and picks [L, B] (argmax, first index wins); m2 [r, B, N], mb [B, N]."""
    logits = np.einsum("lr,rbn->lbn", x @ m1, m2) + mb
    return logits, np.argmax(logits, -1)


def sparse_ff_eval(x, m1, m2, mb, w1, w2, b2, multiply_by_controller=False):
    """Masked-dense evaluation; w1 [d, B, N], w2 [N, B, d] (note the swapped axes), b2 [d]."""
    logits, pick = sparse_ff_controller(x, m1, m2, mb)
    hid = np.einsum("ld,dbn->lbn", x, w1) * (pick[..., None] == np.arange(w1.shape[2]))
    hid = relu(hid)
    if multiply_by_controller:
        hid = hid * softmax(logits)
    return np.einsum("lbn,nbd->ld", hid, w2) + b2


def sparse_ff_predict(x, m1, m2, mb, w1, w2, b2, multiply_by_controller=False):
    """Row-gather evaluation: B columns of w1 and B rows of w2 per token."""
    logits, pick = sparse_ff_controller(x, m1, m2, mb)
    out = np.empty_like(x)
    blocks = np.arange(w1.shape[1])
    for l in range(x.shape[0]):
        a = relu(np.einsum("d,db->b", x[l], w1[:, blocks, pick[l]]))
        if multiply_by_controller:
            a = a * softmax(logits[l])[blocks, pick[l]]
        out[l] = a @ w2[pick[l], blocks] + b2
    return out


def block_sparse_ff(x, m1, w1, w2, b2, switch=False):
    """BlockSparseFF (switch=False) / SwitchSparseFF (switch=True): one expert block per token.

    m1 [d, E], w1 [d, d_ff], w2 [d_ff, d]; expert e owns columns e*d_ff/E .. (e+1)*d_ff/E.
    """
    logits = x @ m1
    width = w1.shape[1] // m1.shape[1]
    out = np.empty_like(x)
    for l in range(x.shape[0]):
        e = int(np.argmax(logits[l]))
        sl = slice(e * width, (e + 1) * width)
        h = x[l] @ w1[:, sl]
        if switch:
            h = h * softmax(logits[l])[e]
        out[l] = relu(h) @ w2[sl] + b2
    return out


class SRU:
    """c_t = f c_{t-1} + (1-f) y;  h_t = r c_t + (1-r) x sqrt(3);  w [s, 3s] = columns r|f|y."""

    def __init__(self, w, b):
        self.w, self.b = w, b
        self.reset()

    def reset(self):
        self.c = np.zeros(self.w.shape[0])

    def feed(self, x):
        r, f, y = np.split(dense(x, self.w, self.b), 3, -1)
        r, f = sigmoid(r), sigmoid(f)
        h = np.empty_like(x)
        for t in range(x.shape[0]):
            self.c = f[t] * self.c + y[t] * (1.0 - f[t])
            h[t] = self.c * r[t] + x[t] * (1.0 - r[t]) * math.sqrt(3.0)
        return h

    def full(self, x):
        keep, self.c = self.c, np.zeros(self.w.shape[0])
        h = self.feed(x)
        self.c = keep
        return h
