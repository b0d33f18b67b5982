# SPDX-License-Identifier: Apache-2.0
"""The four model families (trax/models/research, trax/models/reformer)."""

import numpy as np

from .attention import _heads, _unheads, attend_where, concat_with_padding
from .building import (FeedForward, _conv_of, _dense_of, _factored_of, _ln, add_position, build_attention, loss_layer)
from .layers import dense, embedding
from .manifest import _attn_of, at_width, bind, cross_parts, decoder_elements, encoder_cfg, with_forgetting


class TransformerLM:
    """ConfigurableTransformerLM.  full(tokens) = eval mode; feed(inputs) = predict mode."""

    def __init__(self, cfg, flat, extra=None):
        self.cfg, self.p = cfg, {**bind(cfg, flat), **(extra or {})}
        r = range(cfg.n_layers)
        self.attn = [build_attention(self.p, "dec%d.attn" % i, _attn_of(cfg, i), cfg) for i in r]
        self.ff = [FeedForward(self.p, "dec%d.ff" % i, cfg) for i in r]
        self.reset()

    def reset(self):
        self.pos = 0
        for l in self.attn + self.ff:
            l.reset()

    def _run(self, ids, start, how):
        x = add_position(embedding(ids, self.p["emb"]), self.p, "pos", self.cfg, start)
        for i in range(self.cfg.n_layers):
            x = x + getattr(self.attn[i], how)(_ln(x, self.p, "dec%d.ln" % i))
            x = x + getattr(self.ff[i], how)(x)
        return loss_layer(_ln(x, self.p, "ln_f"), self.p, self.cfg)

    def full(self, tokens):
        """Logits[t] predicts tokens[t]; the sequence is shifted right (0 comes in front)."""
        return self._run(np.concatenate([[0], np.asarray(tokens)[:-1]]), 0, "full")

    def feed(self, inputs):
        """inputs are already shifted: feed 0 first, then each emitted token."""
        y = self._run(np.asarray(inputs), self.pos, "feed")
        self.pos += len(inputs)
        return y


class ReformerLM:
    """Two reversible streams, concatenated before the last LayerNorm."""

    def __init__(self, cfg, flat, extra=None):
        self.cfg, self.p = cfg, {**bind(cfg, flat), **(extra or {})}
        r = range(cfg.n_layers)
        self.attn = [build_attention(self.p, "dec%d.attn0" % i, _attn_of(cfg, i), cfg) for i in r]
        self.ff = [FeedForward(self.p, "dec%d.ff" % i, cfg) for i in r]
        self.reset()

    def reset(self):
        self.pos = 0
        for l in self.attn + self.ff:
            l.reset()

    def _run(self, ids, start, how):
        x1 = add_position(embedding(ids, self.p["emb"]), self.p, "pos", self.cfg, start)
        x2 = x1
        for i in range(self.cfg.n_layers):
            x1 = x1 + getattr(self.attn[i], how)(_ln(x2, self.p, "dec%d.ln0" % i))
            x1, x2 = x2, x1
            x1 = x1 + getattr(self.ff[i], how)(x2)
            x1, x2 = x2, x1
        y = _ln(np.concatenate([x1, x2], -1), self.p, "ln_f")
        return dense(y, self.p["loss.w"], self.p["loss.b"])

    full = TransformerLM.full
    feed = TransformerLM.feed


def _embed_inputs(inputs, p):
    """(rows, mask): token ids, where 0 is padding, or rows that are embedded already, where there is none."""
    inputs = np.asarray(inputs)
    if inputs.ndim == 2:
        return dense(inputs, p["input.w"], p["input.b"]), np.ones(len(inputs), bool)
    return embedding(inputs, p["emb"]), inputs != 0


class Transformer:
    """ConfigurableTransformer (encoder-decoder with cross attention): full() = eval mode; start(), feed() row by row."""

    def __init__(self, cfg, flat, extra=None):
        self.cfg, self.p = cfg, {**bind(cfg, flat), **(extra or {})}
        r = range(cfg.n_layers)
        self.attn = [build_attention(self.p, "dec%d.attn0" % i, _attn_of(cfg, i), cfg) for i in r]
        self.cross = [self._cross_maps("dec%d.xattn" % i) for i in r]
        self.ff = [FeedForward(self.p, "dec%d.ff" % i, cfg) for i in r]

    def _cross_maps(self, n):
        """(q, k, v, out) as lists of layers, each applied after the one before."""
        modules_q, modules_o = cross_parts(self.cfg)

        def part(r, modules):
            m = "%s.%s" % (n, r)
            if not modules:
                return [_dense_of(self.p, m)]
            return [_factored_of(self.p, m), _conv_of(self.p, m + "_conv", modules)]
        return part("q", modules_q), part("k", 0), part("v", 0), [] if modules_o is None else part("o", modules_o)

    def encode(self, inputs):
        cfg, p = self.cfg, self.p
        e, mask = _embed_inputs(inputs, p)
        e = add_position(e, p, "pos_e", cfg, 0)
        for i in range(cfg.n_enc):
            a = build_attention(p, "enc%d.attn" % i, cfg.enc_attn, cfg, causal=False)
            e = e + a.full(_ln(e, p, "enc%d.ln0" % i), mask)
            e = e + FeedForward(p, "enc%d.ff" % i, cfg).full(e)
        return _ln(e, p, "enc_ln"), mask

    def _decode(self, ids, start, how):
        cfg, p, h = self.cfg, self.p, self.cfg.n_heads
        x = add_position(embedding(ids, p["emb_d"] if "emb_d" in p else p["emb"]), p, "pos_d", cfg, start)

        def through(layers, y, how):
            for layer in layers:
                y = getattr(layer, how)(y)
            return y
        for i in range(cfg.n_layers):
            x = x + getattr(self.attn[i], how)(_ln(x, p, "dec%d.ln0" % i))
            to_q, to_k, to_v, to_out = self.cross[i]
            q = _heads(through(to_q, _ln(x, p, "dec%d.lnx" % i), how), h)
            k, v = [_heads(through(m, self.e, "full"), h) for m in (to_k, to_v)]
            x = x + through(to_out, _unheads(attend_where(q, k, v, self.mask[None, None])), how)
            x = x + getattr(self.ff[i], how)(x)
        return loss_layer(_ln(x, p, "ln_f"), p, cfg)

    def full(self, inputs, tok_d):
        self.e, self.mask = self.encode(inputs)
        return self._decode(np.concatenate([[0], np.asarray(tok_d)[:-1]]), 0, "full")

    def start(self, inputs):
        self.e, self.mask = self.encode(inputs)
        self.pos = 0
        for l in self.attn + self.ff + [l for maps in self.cross for part in maps for l in part]:
            l.reset()

    def feed(self, ids):
        y = self._decode(np.asarray(ids), self.pos, "feed")
        self.pos += len(ids)
        return y


class Terraformer:
    """ConfigurableTerraformer.

    full(inputs, tok_d)   eval mode with Trax's padded layout (token ids may end in zeros)
    start(inputs); feed() engine layout: only the n real encoder rows are processed, they are pushed through the decoder
                          together with the first input token.
    """

    def __init__(self, cfg, flat, extra=None):
        self.cfg, self.p = cfg, {**bind(cfg, flat), **(extra or {})}
        p, first = self.p, encoder_cfg(cfg)
        widths = [at_width(cfg, i) for i in range(cfg.n_layers)]
        self.first = first
        self.enc_attn = [build_attention(p, "enc%d.attn" % i, cfg.enc_attn, first, causal=False)
                         for i in range(cfg.n_enc)]
        self.enc_ff = [FeedForward(p, "enc%d.ff" % i, first) for i in range(cfg.n_enc)]
        self.attn = [[build_attention(p, "dec%d.attn%d" % (i, j), _attn_of(cfg, i), widths[i])
                      for j in range(cfg.n_attn)] for i in range(cfg.n_layers)]
        self.ff = [FeedForward(p, "dec%d.ff" % i, widths[i]) for i in range(cfg.n_layers)]

    def encode(self, inputs):
        cfg, p = self.cfg, self.p
        x, mask = _embed_inputs(inputs, p)
        x1 = x2 = add_position(x, p, "pos_e", self.first, 0)
        for kind, i in with_forgetting([("block", i) for i in range(cfg.n_enc)], cfg.n_layers_forget):
            if kind == "forget":
                if cfg.forget_dense:
                    x1 = x2 = dense((x1 + x2) / 2, p["enc%d.forget.w" % i], p["enc%d.forget.b" % i])
                continue
            x1 = x1 + self.enc_attn[i].full(_ln(x2, p, "enc%d.ln0" % i, cfg.center_ln), mask)
            x1, x2 = x2, x1
            x1 = x1 + self.enc_ff[i].full(x2)
            if cfg.two_swaps:
                x1, x2 = x2, x1
        if not cfg.reversible_encoder:
            y = dense((x1 + x2) / 2.0, p["enc_out.w"], p["enc_out.b"])
            x1 = x2 = _ln(y, p, "enc_ln")
        return x1, x2, mask

    def _decode(self, x1, x2, how):
        cfg, p = self.cfg, self.p
        for kind, i in with_forgetting(decoder_elements(cfg), cfg.n_layers_forget):
            if kind == "concat":
                x1 = x2 = np.concatenate([x1, x2], -1)
            elif kind == "forget":
                if cfg.forget_dense:
                    x1 = x2 = dense((x1 + x2) / 2, p["dec.forget%d.w" % i], p["dec.forget%d.b" % i])
            else:
                for j in range(cfg.n_attn):
                    x1 = x1 + getattr(self.attn[i][j], how)(_ln(x2, p, "dec%d.ln%d" % (i, j), cfg.center_ln))
                    x1, x2 = x2, x1
                x1 = x1 + getattr(self.ff[i], how)(x2)
                x1, x2 = x2, x1
        return _ln((x1 + x2) / 2.0, p, "ln_f")

    def _embed_dec(self, ids, start):
        p = self.p
        rows = embedding(ids, p["emb_d"] if "emb_d" in p else p["emb"])
        return add_position(rows, p, "pos_d", self.first, start)

    def full(self, inputs, tok_d):
        e1, e2, mask = self.encode(inputs)
        vd = self._embed_dec(np.concatenate([[0], np.asarray(tok_d)[:-1]]), 0)
        y = self._decode(concat_with_padding(e1, vd, mask), concat_with_padding(e2, vd, mask), "full")
        n = int(np.sum(mask))
        return loss_layer(y[n : n + len(tok_d)], self.p, self.cfg)

    def start(self, inputs):
        e1, e2, mask = self.encode(inputs)
        n = int(np.sum(mask))
        self.pending, self.pos = (e1[:n], e2[:n]), 0
        for l in sum(self.attn, []) + self.ff:
            l.reset()

    def feed(self, ids):
        vd = self._embed_dec(np.asarray(ids), self.pos)
        self.pos += len(ids)
        x1 = x2 = vd
        if self.pending is not None:
            x1, x2 = [np.concatenate([e, vd]) for e in self.pending]
            self.pending = None
        return loss_layer(self._decode(x1, x2, "feed")[-len(ids):], self.p, self.cfg)
