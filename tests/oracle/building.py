# SPDX-License-Identifier: Apache-2.0
"""From weights by manifest name to layers."""

from .attention import (BidirectionalAttention, CausalFavor, ConfigurableCausalAttention, FavorBidirectional,
                        MultConvCausalAttention, favor_matrix)
from .feed_forward import SRU, block_sparse_ff, dense_ff, sparse_ff_eval, sparse_ff_predict
from .hashed_attention import LSHCore, LSHSelfAttention, PureLSHAttention, SelfAttention, lsh_bucket_plan
from .layers import (ACTIVATIONS, CausalDepthwiseConv, DenseLayer, LocallyConvDense, dense, einsum_dense, factored_dense, layer_norm,
                     locally_connected_dense, low_rank_dense, mult_modular_dense)
from .manifest import _as_dict, sru_sizes
from .positions import pos_axial, pos_fixed_base, pos_infinite, pos_learned, pos_sincos, pos_time_bin


def _dense_of(p, n):
    w, b = p[n + ".w"], p.get(n + ".b")
    return DenseLayer(lambda x: dense(x, w, b))


def _dense_and_dconv_of(p, n):
    return CausalDepthwiseConv(_dense_of(p, n), p[n + ".dconv"]) if n + ".dconv" in p else _dense_of(p, n)


def _factored_of(p, n):
    t = (p[n + ".gating"], p[n + ".proj"], p.get(n + ".b"))
    return DenseLayer(lambda x: factored_dense(x, *t))


def _conv_of(p, n, s):
    return _dense_of(p, n) if s == 1 else LocallyConvDense(p[n + ".w"], p[n + ".b"], s)


def build_attention(p, n, a, cfg, causal=True):
    a, h = _as_dict(a), cfg.n_heads
    kind, s = a["kind"], a.get("sparsity") or cfg.n_heads
    qkvo = lambda f: [f("%s.%s" % (n, r)) for r in "qkvo"]
    if kind == "causal":
        return ConfigurableCausalAttention(*qkvo(lambda m: _dense_and_dconv_of(p, m)), h)
    if kind == "attention":
        return BidirectionalAttention(*qkvo(lambda m: _dense_of(p, m)), h)
    if kind == "favor":
        matrix = None
        if a.get("use_approximate_softmax"):
            width = p[n + ".q.w"].shape[1] // h
            matrix = favor_matrix(a.get("n_random_features", 256), width, a.get("scale_by_norm", False))
        return FavorBidirectional(*qkvo(lambda m: _dense_of(p, m)), h, matrix=matrix,
                                  normalize_data=a.get("normalize_data", False))
    if kind == "causal_favor":
        return CausalFavor(*qkvo(lambda m: _dense_of(p, m)), h)
    if kind == "mult":
        return ConfigurableCausalAttention(*qkvo(lambda m: _factored_of(p, m)), h)
    if kind == "multmod":
        def f(m):
            t = [p[m + e] for e in (".gating", ".kmult", ".kmod", ".b")]
            return DenseLayer(lambda x: mult_modular_dense(x, *t))
        return ConfigurableCausalAttention(*qkvo(f), h)
    if kind == "conv":
        return ConfigurableCausalAttention(*qkvo(lambda m: _conv_of(p, m, s)), h)
    if kind == "modular":
        def g(m):
            if s == 1:
                return _dense_of(p, m)
            w, b = p[m + ".w"], p[m + ".b"]
            return DenseLayer(lambda x: locally_connected_dense(x, w, b))
        return ConfigurableCausalAttention(*qkvo(g), h)
    if kind == "lowrank":
        def lr(m):
            t = [p[m + e] for e in ("1.w", "1.b", "2.w", "2.b")]
            return DenseLayer(lambda x: low_rank_dense(x, *t))
        return ConfigurableCausalAttention(*qkvo(lr), h)
    if kind == "multconv":
        front = (p[n + ".mult.gating"], p[n + ".mult.proj"], p[n + ".mult.b"])
        share = a.get("share_qk", False)
        cq = _conv_of(p, n + (".conv_qk" if share else ".conv_q"), s)
        ck = cq if share else _conv_of(p, n + ".conv_k", s)
        out, o = a.get("output", "none"), []
        if "mult" in out:
            o.append(_factored_of(p, n + ".out_mult"))
        if "conv" in out:
            o.append(_conv_of(p, n + ".out_conv", s))
        return MultConvCausalAttention(front, cq, ck, _conv_of(p, n + ".conv_v", s), o, h, s,
                                       a.get("v_concat", "none"), share)
    if kind == "selfattn":
        bias = [p[n + e] for e in (".bq", ".bk", ".bv") if n + e in p] or None
        return SelfAttention(p[n + ".wq"], p.get(n + ".wk"), p[n + ".wv"], p[n + ".wo"], bias, causal,
                             a.get("share_qk", False), a.get("chunk_len"), a.get("before", 0),
                             a.get("after", 0), a.get("mem_len"), a.get("drop_len"))
    rotations = lambda: a["rotations"] if "rotations" in a else p[n + ".rotations"]
    core = lambda: LSHCore(rotations(), a.get("factors") or lsh_bucket_plan(a["n_buckets"], cfg.max_len, a["chunk_len"]),
                           a["chunk_len"], a.get("before", 1), a.get("after", 0), causal, a.get("mem_len", 2048), a.get("drop_len", 256))
    mixed = dict(std_length=a.get("std_length") or 0, rotary=a.get("rotary", False), causal=causal)
    if kind == "lsh":
        return LSHSelfAttention(p[n + ".wqk"], p[n + ".wv"], p[n + ".wo"], core())
    if kind == "purelsh":
        three = a.get("num_weights", 3) == 3
        if a.get("weights_format", "model") == "sparse":
            s = a.get("sparsity", 16)
            roles = [_conv_of(p, "%s.conv_%s" % (n, r), s) for r in (["q", "k"] if three else ["qk"]) + ["v"]]
            return PureLSHAttention(_factored_of(p, n + ".mult"), roles, None, core(), h, **mixed)
        roles = [_dense_of(p, "%s.%s" % (n, r)) for r in (["q", "k"] if three else ["qk"]) + ["v"]]
        return PureLSHAttention(None, roles, _dense_of(p, n + ".o"), core(), h, **mixed)
    raise ValueError(kind)


class FeedForward:
    """LayerNorm + FF, plus the parallel LayerNorm + Dense + SRUs + Dense branch."""

    def __init__(self, p, n, cfg):
        self.p, self.n, self.cfg = p, n, cfg
        k, _ = sru_sizes(cfg)
        self.srus = [SRU(p["%s.sru%d.w" % (n, i)], p["%s.sru%d.b" % (n, i)]) for i in range(k)]

    def reset(self):
        for s in self.srus:
            s.reset()

    def _run(self, x, how):
        p, n, cfg = self.p, self.n, self.cfg
        g = lambda *ks: [p["%s.%s" % (n, k)] for k in ks]
        y = layer_norm(x, *g("ln.scale", "ln.bias"), center=cfg.center_ln)
        if cfg.ff_sparsity and cfg.ff_type == "1inN":
            f = sparse_ff_eval if how == "full" else sparse_ff_predict
            y = f(y, *g("m1", "m2", "mb", "w1", "w2", "b2"), cfg.mult_controller)
        elif cfg.ff_sparsity:
            y = block_sparse_ff(y, *g("m1", "w1", "w2", "b2"), switch=cfg.ff_type == "Switch")
        else:
            y = dense_ff(y, *g("d1.w", "d1.b", "d2.w", "d2.b"), ACTIVATIONS[cfg.ff_act])
        if self.srus:
            s = layer_norm(x, *g("sru_ln.scale", "sru_ln.bias"), center=cfg.center_ln)
            s = dense(s, *g("sru_in.w", "sru_in.b"))
            for u in self.srus:
                s = getattr(u, how)(s)
            y = y + dense(s, *g("sru_out.w", "sru_out.b"))
        return y

    def full(self, x):
        return self._run(x, "full")

    def feed(self, x):
        return self._run(x, "feed")


def add_position(x, p, n, cfg, start):
    pos = cfg.pos
    if pos == "learned":
        return pos_learned(x, p[n + ".table"], start)
    if pos[0] == "lowrank":
        return pos_learned(x, p[n + ".table"], start, p[n + ".proj"])
    if pos == "sin-cos":
        return pos_sincos(x, start)
    if pos == "infinite":
        return pos_infinite(x, p[n + ".w"], start)
    if pos == "fixed-base":
        w = [[p["%s.base%d.digit%d" % (n, b, i)] for i in range(8)] for b in range(4)]
        return pos_fixed_base(x, w, p[n + ".start_vec"], start)
    if pos[0] == "axial":
        return pos_axial(x, [p["%s.axis%d" % (n, i)] for i in range(len(pos[1]))], start)
    if pos[0] == "time-bin":
        return pos_time_bin(x, pos[1], start)
    assert pos == "no"
    return x


def loss_layer(x, p, cfg):
    if "loss.gating" in p:
        return factored_dense(x, p["loss.gating"], p["loss.proj"], p["loss.b"])
    if "loss1.w" in p:
        return low_rank_dense(x, p["loss1.w"], p["loss1.b"], p["loss2.w"], p["loss2.b"])
    if "loss.local" in p:
        return locally_connected_dense(x, p["loss.local"], p["loss.b"])
    if "loss.kernel" in p:
        return einsum_dense(x, p["loss.kernel"], p["loss.b"])
    return dense(x, p["loss.w"], p["loss.b"])


def _ln(x, p, n, center=True):
    return layer_norm(x, p[n + ".scale"], p[n + ".bias"], center)
