# SPDX-License-Identifier: Apache-2.0
"""Which tensor of the folder becomes which of the model file. Both store a map [out, in], so none is rearranged."""

import numpy as np

from ..errors import ImportFailure
from ..output import Output
from .safetensors_file import FLOATS

COMPARED_ROWS = 256
ATTENTION = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "out"}
FEED_FORWARD = {"up_proj": "w1", "gate_proj": "gate", "down_proj": "w2"}


class TensorPlan:
    """The outputs in the order of the model file, and arrays(): what each is made from, in the same order."""

    def __init__(self, config_path, tensors, architecture):
        self._config_path = config_path
        self._left = dict(tensors)
        self.outputs, self._sources = [], []
        a = architecture
        self._put("decoder.embedding", "model.embed_tokens", (a.vocab_size, a.d_model))
        for i in range(a.n_layers):
            self._block(f"decoder.blocks.{i}", f"model.layers.{i}", a)
        self._norm("decoder.norm", "model.norm", a)
        self._logits(a)
        self._finish(a)

    def arrays(self):
        return iter(self._sources)

    def weight_dtypes(self):
        """Stored types of the weights, sorted."""
        pairs = zip(self.outputs, self._sources)
        return sorted({source.dtype for output, source in pairs if output.is_weight})

    def paths(self):
        return {source.path for source in self._sources}

    def _block(self, to, name, a):
        d_q, d_kv = a.n_heads * a.d_head, a.n_kv_heads * a.d_head
        shapes = {
            "q_proj": (d_q, a.d_model),
            "k_proj": (d_kv, a.d_model),
            "v_proj": (d_kv, a.d_model),
            "o_proj": (a.d_model, d_q),
            "up_proj": (a.d_ff, a.d_model),
            "gate_proj": (a.d_ff, a.d_model),
            "down_proj": (a.d_model, a.d_ff),
        }
        self._norm(f"{to}.attention.0.norm", f"{name}.input_layernorm", a)
        for part, own in ATTENTION.items():
            self._map(f"{to}.attention.0.{own}", f"{name}.self_attn.{part}", shapes[part], a.attention_bias)
        self._norm(f"{to}.ff.norm", f"{name}.post_attention_layernorm", a)
        for part, own in FEED_FORWARD.items():
            self._map(f"{to}.ff.{own}", f"{name}.mlp.{part}", shapes[part], a.ff_bias)

    def _norm(self, to, name, a):
        self._put(f"{to}.scale", name, (a.d_model,), is_weight=False)

    def _map(self, to, name, shape, has_bias):
        self._put(f"{to}.weight", name, shape)
        if has_bias:
            self._put(f"{to}.bias", name, shape[:1], of="bias", is_weight=False)

    def _logits(self, a):
        """A model file has no tied tensors: a shared table is written twice."""
        head = (a.vocab_size, a.d_model)
        if not a.tied:
            return self._put("decoder.logits.weight", "lm_head", head)
        table = self._sources[0]
        if "lm_head.weight" in self._left and not _equal(table, self._take("lm_head.weight", head)):
            raise ImportFailure(
                f"{table.path}: tensor 'lm_head.weight': expected the values of '{table.name}', as {self._config_path} "
                "says 'tie_word_embeddings', found others"
            )
        return self._note("decoder.logits.weight", table, is_weight=True)

    def _put(self, to, name, shape, of="weight", is_weight=True):
        self._note(to, self._take(f"{name}.{of}", shape), is_weight)

    def _note(self, to, tensor, is_weight):
        self.outputs.append(Output(to, tensor.shape, (len(self._sources),), _as_it_is, is_weight))
        self._sources.append(tensor)

    def _take(self, name, shape):
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise ImportFailure(
                f"tensor '{name}': expected shape {list(shape)} by {self._config_path}, found no such tensor"
            )
        if tensor.shape != shape:
            raise ImportFailure(
                f"{tensor.path}: tensor '{name}': expected shape {list(shape)} by {self._config_path}, "
                f"found {list(tensor.shape)}"
            )
        if tensor.dtype not in FLOATS:
            raise ImportFailure(f"{tensor.path}: tensor '{name}': expected {', '.join(FLOATS)}, found {tensor.dtype}")
        return tensor

    def _finish(self, a):
        for i in range(a.n_layers):  # older files keep the rotary frequencies
            name = f"model.layers.{i}.self_attn.rotary_emb.inv_freq"
            if name in self._left:
                _check_frequencies(self._take(name, (a.d_head // 2,)), a)
        for name, tensor in self._left.items():
            raise ImportFailure(
                f"{tensor.path}: tensor {name!r} of shape {list(tensor.shape)}: expected the tensors of a {a.name} by "
                f"{self._config_path}, found this one too"
            )


def _as_it_is(tensor):
    return tensor


def _equal(a, b):
    return all(
        np.array_equal(a[at : at + COMPARED_ROWS], b[at : at + COMPARED_ROWS])
        for at in range(0, a.shape[0], COMPARED_ROWS)
    )


def _check_frequencies(tensor, a):
    base = a.rotary["base"]
    expected = base ** (-np.arange(0, a.d_head, 2) / a.d_head)
    found = tensor[...]
    if not np.allclose(found, expected, rtol=0.01, atol=1e-7):  # they may be stored as f16
        worst = int(np.argmax(np.abs(found - expected)))
        raise ImportFailure(
            f"{tensor.path}: tensor '{tensor.name}': expected the frequencies of rope_theta {base}, "
            f"element {worst} is {expected[worst]:.4g}, found {found[worst]:.4g}"
        )
