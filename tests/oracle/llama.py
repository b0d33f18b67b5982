# SPDX-License-Identifier: Apache-2.0
"""A LLaMA in double precision, written from its formulas.

Touvron et al. 2023; rotary positions: Su et al. 2021; GLU layers: Shazeer 2020; shared keys and values: Ainslie et al.
2023. Names of settings and tensors are those of the public checkpoints, whose maps are [out, in].
"""

import numpy as np

from .layers import ACTIVATIONS, sigmoid, softmax


def act(name, x):
    if name == "silu":
        return x * sigmoid(x)
    return ACTIVATIONS[{"gelu_pytorch_tanh": "fast_gelu", "gelu_new": "fast_gelu"}.get(name, name)](x)


def rms_norm(x, scale, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * scale


def frequencies(half, base, scaling):
    """base^(-i / half), lowered as `scaling` (rope_scaling of config.json) says; llama3: by wavelength."""
    rate = base ** (-np.arange(half) / half)
    if not scaling:
        return rate
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if kind == "linear":
        return rate / factor
    if kind != "llama3":
        return rate
    original, low, high = (
        scaling[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    wavelength = 2 * np.pi / rate
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * rate / factor + smooth * rate
    return np.where(
        wavelength > original / low, rate / factor, np.where(wavelength < original / high, rate, between)
    )


def rotate(x, rate):
    """Rotates the pairs (i, i + half) of x [positions, heads, width] by position * rate[i]."""
    n, _, width = x.shape
    half = width // 2
    turn = np.exp(1j * np.outer(np.arange(n), rate))[:, None, :]
    turned = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate([turned.real, turned.imag], -1)


class Llama:
    """`settings`: those of config.json; `weights`: {name: array}."""

    def __init__(self, settings, weights):
        self.c = settings
        self.w = {name: np.asarray(w, float) for name, w in weights.items()}

    def full(self, ids):
        """Logits [positions, vocabulary]."""
        x = self.w["model.embed_tokens.weight"][np.asarray(ids)]
        for i in range(self.c["num_hidden_layers"]):
            x = x + self._attend(f"model.layers.{i}.self_attn", self._norm(f"model.layers.{i}.input_layernorm", x))
            x = x + self._feed(f"model.layers.{i}.mlp", self._norm(f"model.layers.{i}.post_attention_layernorm", x))
        tied = self.c.get("tie_word_embeddings")
        return self._norm("model.norm", x) @ self.w["model.embed_tokens.weight" if tied else "lm_head.weight"].T

    def _norm(self, name, x):
        return rms_norm(x, self.w[name + ".weight"], self.c["rms_norm_eps"])

    def _map(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w.get(name + ".bias", 0.0)

    def _attend(self, name, x):
        n, h = len(x), self.c["num_attention_heads"]
        h_kv = self.c.get("num_key_value_heads") or h
        q = self._map(f"{name}.q_proj", x).reshape(n, h, -1)
        k = self._map(f"{name}.k_proj", x).reshape(n, h_kv, -1)
        scaling = self.c.get("rope_scaling") or self.c.get("rope_parameters")
        rate = frequencies(q.shape[-1] // 2, self.c.get("rope_theta", 10000.0), scaling)
        q, k = rotate(q, rate), rotate(k, rate)
        v = self._map(f"{name}.v_proj", x).reshape(n, h_kv, -1)
        y = np.empty_like(q)
        for head in range(h):
            group = head // (h // h_kv)
            scores = q[:, head] @ k[:, group].T / np.sqrt(q.shape[-1])
            scores[np.triu_indices(n, 1)] = -np.inf
            y[:, head] = softmax(scores) @ v[:, group]
        return self._map(f"{name}.o_proj", y.reshape(n, -1))

    def _feed(self, name, x):
        gate = act(self.c["hidden_act"], self._map(f"{name}.gate_proj", x))
        return self._map(f"{name}.down_proj", gate * self._map(f"{name}.up_proj", x))
