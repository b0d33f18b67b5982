# SPDX-License-Identifier: Apache-2.0
"""The steps of a sampling chain (models/sampler.h defines them): logits in, logits out, -inf for what is removed."""

import math

import numpy as np


def softmax(z):
    e = np.exp(z - np.max(z))
    return e / e.sum()


def penalties(z, window, repeat=1.0, frequency=0.0, presence=0.0):
    """Divide positive and multiply other logits of the tokens in the window, then subtract count*frequency + presence."""
    z = z.copy()
    for token in set(window):
        z[token] = z[token] * repeat if z[token] <= 0 else z[token] / repeat
        z[token] -= window.count(token) * frequency + presence
    return z


def top_k(z, k, keep_ties=False):
    if k <= 0 or k >= np.isfinite(z).sum():
        return z
    if keep_ties:
        return np.where(z < np.sort(z)[-k], -np.inf, z)
    keep = np.argsort(-z, kind="stable")[:k]
    out = np.full_like(z, -np.inf)
    out[keep] = z[keep]
    return out


def top_p(z, p):
    """Smallest prefix of the descending order whose mass reaches p."""
    if p >= 1:
        return z
    order = np.argsort(-z, kind="stable")
    n = max(1, int(np.searchsorted(np.cumsum(softmax(z)[order]), p) + 1))
    out = np.full_like(z, -np.inf)
    out[order[:n]] = z[order[:n]]
    return out


def min_p(z, p):
    return z if p <= 0 else np.where(z < np.max(z) + math.log(p), -np.inf, z)


def temperature(z, t):
    if t <= 0:
        out = np.full_like(z, -np.inf)
        out[int(np.argmax(z))] = 0.0
        return out
    return z / t


def distribution(z, window, config):
    """Probabilities after the steps of config["order"]."""
    steps = {
        "penalties": lambda z: penalties(z, window, config["repeat_penalty"], config["frequency_penalty"], config["presence_penalty"]),
        "top_k": lambda z: top_k(z, config["top_k"], config["keep_ties"]),
        "top_p": lambda z: top_p(z, config["top_p"]),
        "min_p": lambda z: min_p(z, config["min_p"]),
        "temperature": lambda z: temperature(z, config["temperature"]),
    }
    for step in config["order"].split(","):
        z = steps[step](z)
    return softmax(z)
