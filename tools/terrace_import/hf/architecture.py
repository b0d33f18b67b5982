# SPDX-License-Identifier: Apache-2.0
"""LLaMA and Mistral: the settings that they have, and the model file's configuration.

    x = x + out(attention(rotary(q h), rotary(k h), v h)),   h = rms_norm(x)
    x = x + w2 (act(gate h) * (w1 h)),                       h = rms_norm(x)

with keys and values that groups of heads share (Touvron et al. 2023, Jiang et al. 2023).
"""

import dataclasses

from .settings import Settings

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "fast_gelu",
    "gelu_pytorch_tanh": "fast_gelu",
}
MODEL_TYPES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral"}
# What the engine takes (models/config_check.cpp).
MAX_WIDTH, MAX_HEADS, MAX_LAYERS, MAX_VOCABULARY, MAX_CONTEXT = 1 << 20, 1 << 15, 4096, 1 << 24, 1 << 28
# Keys of a kind of scaling, and what the model file calls them.
SCALINGS = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_max_len",
    },
}
MISTRAL_WINDOW = 4096  # where its config.json says nothing


@dataclasses.dataclass(frozen=True)
class Architecture:
    name: str
    vocab_size: int
    d_model: int
    d_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    max_context: int
    epsilon: float
    rotary: dict  # of an attention layer in the model file
    activation: str
    tied: bool
    attention_bias: bool
    ff_bias: bool

    def config(self, tokens):
        """The model file's configuration."""
        attention = {"kind": "dot_product", "rotary": self.rotary}
        if self.n_kv_heads != self.n_heads:
            attention["n_kv_heads"] = self.n_kv_heads
        if self.d_head * self.n_heads != self.d_model:
            attention["d_head"] = self.d_head
        return {
            "family": "transformer_lm",
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "n_heads": self.n_heads,
            "vocab_size": self.vocab_size,
            "max_context": self.max_context,
            "norm": {"kind": "rms_norm", "epsilon": self.epsilon},
            "decoder": {
                "n_layers": self.n_layers,
                "position": {"kind": "none"},
                "attention": [attention],
                "ff": {"kind": "dense", "activation": self.activation, "gated": True},
            },
            "logits": {"kind": "dense"},
            "tokens": tokens,
        }


def read_architecture(settings: Settings, max_context=None):
    """`max_context`: fewer positions than config.json gives; a sliding window of as many changes nothing then."""
    name = _name(settings)
    is_mistral = MODEL_TYPES[name] == "mistral"
    d_model = settings.integer("hidden_size", 1, MAX_WIDTH)
    n_heads = settings.integer("num_attention_heads", 1, MAX_HEADS)
    n_kv_heads = settings.integer("num_key_value_heads", 1, n_heads, None if is_mistral else n_heads)
    if n_heads % n_kv_heads:
        settings.fail("num_key_value_heads", f"a divisor of num_attention_heads ({n_heads})", n_kv_heads)
    if settings.get("head_dim") is None and d_model % n_heads:
        settings.fail("num_attention_heads", f"a divisor of hidden_size ({d_model}), or 'head_dim'", n_heads)
    d_head = settings.integer("head_dim", 1, MAX_WIDTH // n_heads, d_model // n_heads)
    if d_head % 2:
        settings.fail("head_dim", "an even number, for rotary positions", d_head)
    context = settings.integer("max_position_embeddings", 1, MAX_CONTEXT)
    if max_context is not None:
        if not 1 <= max_context <= context:
            settings.fail("max_position_embeddings", f"at least the {max_context} of --max-context", context)
        context = max_context
    _check_window(settings, context, MISTRAL_WINDOW if is_mistral else None)
    activation = settings.get("hidden_act")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        settings.fail("hidden_act", "one of " + ", ".join(ACTIVATIONS), activation)
    biases = {key: settings.flag(key) for key in ("attention_bias", "mlp_bias")}
    for key, given in biases.items():
        if is_mistral and given:
            settings.fail(key, "false: a Mistral has no biases", given)
    return Architecture(
        name=name,
        vocab_size=settings.integer("vocab_size", 1, MAX_VOCABULARY),
        d_model=d_model,
        d_ff=settings.integer("intermediate_size", 1, MAX_WIDTH),
        n_layers=settings.integer("num_hidden_layers", 1, MAX_LAYERS),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        max_context=context,
        epsilon=settings.number("rms_norm_eps", "a number between 0 and 1", lambda e: 0 < e < 1),
        rotary=_rotary(settings),
        activation=ACTIVATIONS[activation],
        tied=settings.flag("tie_word_embeddings"),
        attention_bias=biases["attention_bias"],
        ff_bias=biases["mlp_bias"],
    )


def _name(settings):
    names = settings.get("architectures")
    known = " or ".join(MODEL_TYPES)
    if not isinstance(names, list) or len(names) != 1 or names[0] not in list(MODEL_TYPES):
        settings.fail("architectures", known, names)
    model_type = settings.get("model_type", MODEL_TYPES[names[0]])
    if model_type != MODEL_TYPES[names[0]]:
        settings.fail("model_type", f"'{MODEL_TYPES[names[0]]}', as the architecture is {names[0]}", model_type)
    return names[0]


def _check_window(settings, context, default):
    """A row sees the last `window` rows, which are all if the context has no more."""
    window = settings.get("sliding_window", None if settings.has("sliding_window") else default)
    layers = settings.get("layer_types")
    kinds = ("full_attention", "sliding_attention")
    if layers is not None and not (isinstance(layers, list) and all(kind in kinds for kind in layers)):
        settings.fail("layer_types", " or ".join(kinds), layers)
    if window is not None and (type(window) is not int or window < context):
        settings.fail(
            "sliding_window",
            f"null or at least the context ({context}), as the engine has no such windows; "
            "--max-context takes fewer positions",
            window,
        )


def _rotary(settings):
    """The rotary part of a model file's attention, from rope_theta and rope_scaling, or from rope_parameters."""
    theta = settings.get("rope_theta")
    scaling = None
    for key in ("rope_scaling", "rope_parameters"):
        rope = settings.get(key)
        if rope is None:
            continue
        kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
        if not isinstance(kind, str) or kind not in SCALINGS:
            settings.fail(key, f"null or one of the types {', '.join(SCALINGS)}", kind)
        found = {"kind": kind} if SCALINGS[kind] else None
        for name, value in rope.items():
            if name in SCALINGS[kind]:
                found[SCALINGS[kind][name]] = settings.check_number(
                    f"{key}.{name}", value, "a positive number", lambda n: 0 < n < 1e9
                )
            elif name == "rope_theta" and theta in (None, value):
                theta = value
            elif name not in ("rope_type", "type"):
                settings.fail(key, f"a type and the same rope_theta everywhere, not '{name}'", value)
        for name in SCALINGS[kind]:
            if SCALINGS[kind][name] not in found:
                settings.fail(f"{key}.{name}", f"a positive number, as the type is {kind}", None)
        if scaling not in (None, found):
            settings.fail(key, "the same scaling as 'rope_scaling'", kind)
        scaling = found
    base = settings.check_number(
        "rope_theta", 10000 if theta is None else theta, "a positive number", lambda t: 0 < t < 1e30
    )
    rotary = {"base": base, "interleaved": False}
    return rotary if scaling is None else rotary | {"scaling": _checked(settings, scaling)}


def _checked(settings, scaling):
    """What the engine takes (models/config_check.cpp)."""
    if scaling["factor"] < 1:
        settings.fail("rope_scaling", "a factor of at least 1", scaling["factor"])
    if scaling["kind"] == "llama3":
        scaling["original_max_len"] = int(scaling["original_max_len"])
        if scaling["low_freq_factor"] >= scaling["high_freq_factor"] or scaling["original_max_len"] < 1:
            settings.fail("rope_scaling", "low_freq_factor below high_freq_factor, positions of the original", scaling)
    return scaling
