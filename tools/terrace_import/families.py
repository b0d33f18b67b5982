# SPDX-License-Identifier: Apache-2.0
"""The models: Trax's order of their tensors, and the configuration of docs/model-file.md."""

from .errors import ImportFailure
from .gin_config import ABSENT
from .positions import position
from .projections import dense, logits, norm
from .stacks import Stack, plan_widths


def read_model(flat):
    """Walks the whole flat list; returns the configuration. Errors name the first tensor that disagrees."""
    try:
        config = {
            "transformer_lm": _language_model,
            "reformer_lm": _language_model,
            "transformer": _transformer,
            "terraformer": _terraformer,
        }[flat.settings.family](flat)
        flat.finish()
    except ImportFailure:
        flat.settings.check_questions()  # an open setting is the likelier cause
        raise
    flat.settings.check_questions()
    return config


def _embedding(flat, name, vocab, d="d_model"):
    """A token table; returns (vocabulary, width)."""
    index = flat.take(name, vocab, d)
    flat.put(name, flat.shapes[index], index, lambda w: w, is_weight=True)
    return flat.shapes[index]


def _position(flat, name, d):
    """(configuration, number of tensors); also settles max_context, the positions that the model was made for."""
    start = flat.at
    config = position(flat, name, d)
    flat.settings.find("max_context", config.get("max_len") or flat.settings.usual("max_len"))
    return config, flat.at - start


def _common(flat, **more):
    """The head of a configuration."""
    known = flat.settings.known
    return {
        "family": flat.settings.family,
        "d_model": known("d_model"),
        "d_ff": known("d_ff"),
        "n_heads": known("n_heads"),
        "max_context": known("max_context"),
        "norm": {"kind": "layer_norm", "epsilon": 1e-6},
        **more,
    }


def _size(settings, name):
    """A size that is given, or None where the tensors will tell."""
    value = settings.known(name)
    return None if value is ABSENT else value


def _language_model(flat):
    """ConfigurableTransformerLM, TransformerLM and ReformerLM, whose last norm sees both streams."""
    settings = flat.settings
    vocab_size, d = _embedding(flat, "decoder.embedding", "vocab_size")
    place, _ = _position(flat, "decoder.position", d)
    stack = Stack(flat, "decoder", settings.need("attention_type"))
    stack.blocks("n_layers", d, _size(settings, "d_ff"))
    reversible = settings.family == "reformer_lm"
    width = 2 * d if reversible else d
    norm(flat, "decoder.norm", width)
    if reversible:
        # Trax builds the sparse loss for d inputs here, which cannot run: only the dense one exists.
        dense(flat, "decoder.logits", width, vocab_size)
        projection = {"kind": "dense"}
    else:
        projection = logits(flat, "decoder.logits", width, vocab_size)
    return _common(flat, vocab_size=vocab_size, decoder={**stack.config(), "position": place}, logits=projection)


def _encoder_input(flat, share=1):
    """The encoder's embedding, or a dense layer for rows that are embedded already; `share` of d_model wide.

    Returns (part of the encoder's configuration, width, vocabulary or None).
    """
    settings = flat.settings
    width = settings.known("d_model")
    width = None if width is ABSENT else int(width * share)
    if settings.known("input_vocab_size") is None:
        d_input = flat.axis(0)
        width = width or flat.axis(1)
        dense(flat, "encoder.input", d_input, width, is_weight=False)
        config, vocab_size = {"d_input": d_input}, None
    else:
        vocab_size, width = _embedding(flat, "encoder.embedding", "input_vocab_size", width or flat.axis(-1))
        config = {"vocab_size": vocab_size}
    settings.find("d_model", int(width / share))
    return config, width, vocab_size


def _decoder_input(flat, width, in_vocab, n_position):
    """The decoder's embedding, where it has one of its own: (vocabulary, whether the encoder's is shared).

    What nothing says the tensors tell: behind the decoder's `n_position` positional tensors a norm [d] follows.
    """
    out_vocab = flat.settings.known("output_vocab_size")
    own = flat.peek(n_position) != (width,) if out_vocab is ABSENT else out_vocab is not None
    if own:
        return _embedding(flat, "decoder.embedding", "output_vocab_size", width)[0], False
    if in_vocab is None:
        raise ImportFailure("input_vocab_size is None: the decoder needs an output_vocab_size (--output-vocab-size)")
    return in_vocab, True


def _transformer(flat):
    """ConfigurableTransformer and Transformer: an encoder, and a decoder with cross attention."""
    settings = flat.settings
    inputs, d, in_vocab = _encoder_input(flat)
    encoder = Stack(flat, "encoder", settings.need("encoder_attention_type"))
    decoder = Stack(flat, "decoder", settings.need("encoder_decoder_attention_type"))
    inputs["position"], n_position = _position(flat, "encoder.position", d)
    d_ff = _size(settings, "d_ff")
    for _ in range(settings.need("n_encoder_layers")):
        d_ff = encoder.block(d, d_ff)
    norm(flat, "encoder.norm", d)

    vocab_size, shared = _decoder_input(flat, d, in_vocab, n_position)
    place, _ = _position(flat, "decoder.position", d)
    cross = _cross(settings)
    for _ in range(settings.need("n_decoder_layers")):
        d_ff = decoder.block(d, d_ff, cross=cross)
    settings.find("d_ff", d_ff)
    settings.need("n_heads")
    norm(flat, "decoder.norm", d)
    projection = logits(flat, "decoder.logits", d, vocab_size)
    is_plain = cross == {"q_modules": 0, "out_modules": 0, "has_output": True}
    return _common(
        flat,
        vocab_size=vocab_size,
        shared_embedding=shared,
        encoder={**encoder.config(), **inputs},
        decoder={**decoder.config(), "position": place, **({} if is_plain else {"cross": cross})},
        logits=projection,
    )


def _cross(settings):
    """enc_dec_attention_sparsity: 0 | s (sparse q, no output map) | (q, out), where 0 or None is dense, 'noop' nothing."""
    value = settings.need("enc_dec_attention_sparsity")
    q, out = value if isinstance(value, (list, tuple)) else (value, "noop" if value else 0)
    if q == "noop":
        raise ImportFailure("enc_dec_attention_sparsity: queries without a projection are not offered")
    return {"q_modules": int(q or 0), "out_modules": 0 if out == "noop" else int(out or 0), "has_output": out != "noop"}


def _terraformer(flat):
    """ConfigurableTerraformer: two residual streams, the decoder runs over encoder rows and its own."""
    settings = flat.settings
    half, double = settings.usual("half_before_layer") or None, settings.usual("double_after_layer") or None
    first = 1 if half else 2  # halves of d_model that embeddings and encoder run at
    inputs, d_first, in_vocab = _encoder_input(flat, first / 2)
    inputs["position"], n_position = _position(flat, "encoder.position", d_first)
    vocab_size, shared = _decoder_input(flat, d_first, in_vocab, n_position)
    place, _ = _position(flat, "decoder.position", d_first)
    every = _forget_every(settings)
    encoder = Stack(flat, "encoder", settings.need("encoder_attention_type"))
    decoder = Stack(flat, "decoder", settings.need("encoder_decoder_attention_type"))
    d_ff = _run_plan(
        encoder, plan_widths(settings.need("n_encoder_layers"), every, scale=first), _size(settings, "d_ff")
    )
    reversible = _is_reversible(flat, d_first)
    if not reversible:
        dense(flat, "encoder.join", d_first, d_first, is_weight=False)
        norm(flat, "encoder.norm", d_first)

    n_attention = settings.need("n_decoder_attention_layers")
    plan = plan_widths(settings.need("n_decoder_layers"), every, half, double)
    d_ff = _run_plan(decoder, plan, d_ff, n_attention)
    settings.find("d_ff", d_ff)
    settings.need("n_heads")
    width = settings.known("d_model") * plan[-1][1] // 2 * (2 if plan[-1][0] == "concatenate" else 1)
    norm(flat, "decoder.norm", width)
    projection = logits(flat, "decoder.logits", width, vocab_size)

    both = {
        "center_norm": decoder.center_norm() and encoder.center_norm(),
        **({"forget_every": every, "forget_dense": True} if every else {}),
    }
    swaps = bool(settings.need("use_two_swaps_per_encoder_block"))
    widths = {key: value for key, value in (("half_before_layer", half), ("double_after_layer", double)) if value}
    return _common(
        flat,
        vocab_size=vocab_size,
        shared_embedding=shared,
        encoder={**encoder.config(), **inputs, **both, "two_swaps": swaps, "reversible": reversible},
        decoder={**decoder.config(), "position": place, **both, **widths, "n_attention": n_attention},
        logits=projection,
    )


def _run_plan(stack, plan, d_ff, n_attention=1):
    """Walks the steps of a stack at their widths; d_ff (None: unknown) is that of the plain width, and so returned."""
    d = stack.settings.known("d_model")
    most = max(scale for _, scale in plan)
    for kind, scale in plan:
        if kind == "forget":
            stack.forget(d * scale // 2)
        elif kind == "block":
            widest = d_ff and d_ff * most // 2
            d_ff = stack.block(d * scale // 2, d_ff and d_ff * scale // 2, n_attention, widest=widest) * 2 // scale
    return d_ff


def _forget_every(settings):
    """n_layers_forget, or 0 where forgetting layers are no-ops."""
    return (settings.usual("n_layers_forget") or 0) if settings.usual("forget_dense") else 0


def _is_reversible(flat, d):
    """reversible_encoder: given, or seen from the dense layer that a plain encoder ends with."""
    given = flat.settings.given("reversible_encoder")
    return flat.peek() != (d, d) if given is ABSENT else bool(given)
