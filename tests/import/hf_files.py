# SPDX-License-Identifier: Apache-2.0
"""Random LLaMA-shaped models in the layout of Hugging Face, written without its libraries."""

import json
import struct

import numpy as np
from train.container import BF16, to_bf16

TYPES = {np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", BF16: "BF16", np.dtype("<f8"): "F64", np.dtype("i1"): "I8"}
CONFIG = "config.json"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def settings_of(**changes):
    """config.json of a small model."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "torch_dtype": "float32",
        **changes,
    }


def shapes_of(c):
    """{tensor: shape} in the layout of the public checkpoints."""
    d, f, h = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    h_kv = c.get("num_key_value_heads") or h
    width = c.get("head_dim") or d // h
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], d)}
    for i in range(c["num_hidden_layers"]):
        attention = {"q": (h * width, d), "k": (h_kv * width, d), "v": (h_kv * width, d), "o": (d, h * width)}
        maps = {f"self_attn.{part}_proj": shape for part, shape in attention.items()}
        maps |= {"mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}
        for name, shape in maps.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
            if c.get("attention_bias" if "attn" in name else "mlp_bias"):
                shapes[f"model.layers.{i}.{name}.bias"] = shape[:1]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{i}.{name}.weight"] = (d,)
    shapes["model.norm.weight"] = (d,)
    if not c.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (c["vocab_size"], d)
    return shapes


def weights_of(c, seed=0):
    r = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes_of(c).items():
        w = r.normal(size=shape)
        if name.endswith("bias"):
            w *= 0.3
        else:
            w = 1 + 0.2 * w if len(shape) == 1 else w / np.sqrt(shape[1])
        weights[name] = w.astype("<f4")
    return weights


def safetensors_bytes(tensors, **header_changes):
    """The file; `header_changes`: entries that replace those of the header (None: left out)."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        begin, data = len(data), data + array.tobytes()
        header[name] = {"dtype": TYPES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    for name, entry in header_changes.items():
        header[name] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write_folder(folder, c, weights, n_shards=0):
    """config.json and the weights, whole or in shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(c))
    if not n_shards:
        (folder / WHOLE).write_bytes(safetensors_bytes(weights))
        return folder
    names = sorted(weights)  # as published: a layer may lie in two files
    where = {}
    for i in range(n_shards):
        shard = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        part = names[i * len(names) // n_shards : (i + 1) * len(names) // n_shards]
        (folder / shard).write_bytes(safetensors_bytes({name: weights[name] for name in part}))
        where |= dict.fromkeys(part, shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return folder


def bf16_exact(weights):
    """The same, rounded to bf16: (float32 values, stored arrays)."""
    stored = {name: to_bf16(w) for name, w in weights.items()}
    return {name: (w["bf16"].astype("<u4") << 16).view("<f4") for name, w in stored.items()}, stored


def sentencepiece_model(n_pieces=30):
    """A SentencePiece model (protobuf) with <unk>, <s>, </s>, the word mark and letters."""
    texts = ["<unk>", "<s>", "</s>", "\u2581", *(chr(ord("a") + i) for i in range(26))]
    texts += [f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    kinds = {0: 2, 1: 3, 2: 3}  # unknown, control; others: normal
    data = b""
    for i, text in enumerate(texts[:n_pieces]):
        raw = text.encode()
        piece = b"\x0a" + bytes([len(raw)]) + raw + b"\x15" + struct.pack("<f", -i) + b"\x18" + bytes([kinds.get(i, 1)])
        data += b"\x0a" + bytes([len(piece)]) + piece
    return data
