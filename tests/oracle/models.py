# SPDX-License-Identifier: Apache-2.0
"""The four model families (section 9)."""

import numpy as np

from .attention import _heads, _unheads, attend_where, concat_with_padding, strip_concatenated
from .building import FeedForward, _dense_of, _ln, add_position, build_attention, loss_layer
from .layers import dense, embedding
from .manifest import _attn_of, _forget_points, bind


class TransformerLM:
    """ConfigurableTransformerLM.  full(tokens) = eval mode; feed(inputs) = predict mode."""

    def __init__(self, cfg, flat):
        self.cfg, self.p = cfg, bind(cfg, flat)
        r = range(cfg.n_layers)
        self.attn = [build_attention(self.p, "dec%d.attn" % i, cfg.attn, cfg) for i in r]
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

    def __init__(self, cfg, flat):
        self.cfg, self.p = cfg, bind(cfg, flat)
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


class Transformer:
    """ConfigurableTransformer (encoder-decoder with cross attention); eval mode only."""

    def __init__(self, cfg, flat):
        self.cfg, self.p = cfg, bind(cfg, flat)

    def full(self, tok_e, tok_d):
        cfg, p = self.cfg, self.p
        mask = np.asarray(tok_e) != 0
        e = add_position(embedding(tok_e, p["emb"]), p, "pos_e", cfg, 0)
        for i in range(cfg.n_enc):
            a = build_attention(p, "enc%d.attn" % i, cfg.enc_attn, cfg, causal=False)
            e = e + a.full(_ln(e, p, "enc%d.ln0" % i), mask)
            e = e + FeedForward(p, "enc%d.ff" % i, cfg).full(e)
        e = _ln(e, p, "enc_ln")
        ids = np.concatenate([[0], np.asarray(tok_d)[:-1]])
        x = add_position(embedding(ids, p.get("emb_d", p["emb"])), p, "pos_d", cfg, 0)
        for i in range(cfg.n_layers):
            a = build_attention(p, "dec%d.attn0" % i, cfg.attn, cfg)
            x = x + a.full(_ln(x, p, "dec%d.ln0" % i))
            q, k, v, o = [_dense_of(p, "dec%d.xattn.%s" % (i, r)).full for r in "qkvo"]
            h, y = cfg.n_heads, _ln(x, p, "dec%d.lnx" % i)
            y = attend_where(_heads(q(y), h), _heads(k(e), h), _heads(v(e), h), mask[None, None])
            x = x + o(_unheads(y))
            x = x + FeedForward(p, "dec%d.ff" % i, cfg).full(x)
        return loss_layer(_ln(x, p, "ln_f"), p, cfg)


class Terraformer:
    """ConfigurableTerraformer.

    full(tok_e, tok_d)   eval mode with Trax's padded layout (tok_e may end in zeros)
    start(tok_e); feed() engine layout: only the n real encoder tokens are processed, they
                         are pushed through the decoder together with the first input token.
    """

    def __init__(self, cfg, flat):
        self.cfg, self.p = cfg, bind(cfg, flat)
        p = self.p
        self.enc_attn = [build_attention(p, "enc%d.attn" % i, cfg.enc_attn, cfg, causal=False)
                         for i in range(cfg.n_enc)]
        self.enc_ff = [FeedForward(p, "enc%d.ff" % i, cfg) for i in range(cfg.n_enc)]
        self.attn = [[build_attention(p, "dec%d.attn%d" % (i, j), _attn_of(cfg, i), cfg)
                      for j in range(cfg.n_attn)] for i in range(cfg.n_layers)]
        self.ff = [FeedForward(p, "dec%d.ff" % i, cfg) for i in range(cfg.n_layers)]

    def encode(self, tok_e):
        cfg, p = self.cfg, self.p
        mask = np.asarray(tok_e) != 0
        x1 = x2 = add_position(embedding(tok_e, p["emb"]), p, "pos_e", cfg, 0)
        forget = _forget_points(cfg.n_enc, cfg.n_layers_forget)
        for i in range(cfg.n_enc):
            x1 = x1 + self.enc_attn[i].full(_ln(x2, p, "enc%d.ln0" % i, cfg.center_ln), mask)
            x1, x2 = x2, x1
            x1 = x1 + self.enc_ff[i].full(x2)
            if cfg.two_swaps:
                x1, x2 = x2, x1
            if i in forget and cfg.forget_dense:
                x1 = x2 = dense((x1 + x2) / 2, p["enc%d.forget.w" % i], p["enc%d.forget.b" % i])
        if not cfg.reversible_encoder:
            y = dense((x1 + x2) / 2.0, p["enc_out.w"], p["enc_out.b"])
            x1 = x2 = _ln(y, p, "enc_ln")
        return x1, x2, mask

    def _decode(self, x1, x2, how):
        cfg, p = self.cfg, self.p
        forget = _forget_points(cfg.n_layers, cfg.n_layers_forget)
        for i in range(cfg.n_layers):
            for j in range(cfg.n_attn):
                x1 = x1 + getattr(self.attn[i][j], how)(_ln(x2, p, "dec%d.ln%d" % (i, j), cfg.center_ln))
                x1, x2 = x2, x1
            x1 = x1 + getattr(self.ff[i], how)(x2)
            x1, x2 = x2, x1
            if i in forget and cfg.forget_dense:
                x1 = x2 = dense((x1 + x2) / 2, p["dec%d.forget.w" % i], p["dec%d.forget.b" % i])
        return _ln((x1 + x2) / 2.0, p, "ln_f")

    def _embed_dec(self, ids, start):
        p = self.p
        return add_position(embedding(ids, p.get("emb_d", p["emb"])), p, "pos_d", self.cfg, start)

    def full(self, tok_e, tok_d):
        e1, e2, mask = self.encode(tok_e)
        vd = self._embed_dec(np.concatenate([[0], np.asarray(tok_d)[:-1]]), 0)
        y = self._decode(concat_with_padding(e1, vd, mask), concat_with_padding(e2, vd, mask), "full")
        return loss_layer(strip_concatenated(y, tok_e, len(tok_d)), self.p, self.cfg)

    def start(self, tok_e):
        tok_e = np.asarray(tok_e)
        e1, e2, _ = self.encode(tok_e[tok_e != 0])
        self.pending, self.pos = (e1, e2), 0
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
