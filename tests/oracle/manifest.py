# SPDX-License-Identifier: Apache-2.0
"""Description of a model, and the names and shapes of the flat weight list of a checkpoint."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Cfg:
    """One description for the three models; names follow the gin parameters."""
    model: str = "lm"                 # 'lm' | 'terraformer' | 'reformer_lm' | 'transformer'
    vocab: int = 32000
    out_vocab: object = None          # separate target vocabulary (own embedding) or None
    d_model: int = 512
    d_ff: int = 2048
    n_layers: int = 6                 # LM layers or decoder layers
    n_enc: int = 6
    n_heads: int = 8
    d_head: object = None             # decoder 'selfattn'/'lsh' only; default d_model // n_heads
    d_value: object = None            # the same for values; default d_head
    max_len: int = 2048
    pos: object = "learned"           # 'learned' | ('lowrank', k) | 'sin-cos' | 'fixed-base' |
    #                                   'infinite' | ('axial', shape, dims) | ('time-bin', length) | 'no'
    attn: object = "causal"           # see attention_manifest(); str or dict(kind=..., ...) or list
    enc_attn: object = "attention"
    n_attn: int = 1                   # attention layers per decoder block (Terraformer: 2)
    ff_sparsity: object = 0           # 0 | N | (N, r) | (N, r, temperature, quant_prob)
    ff_type: str = "1inN"             # '1inN' | 'Block' | 'Switch'
    ff_act: str = "relu"
    ff_sru: object = 0                # 0 | n | (n, units)
    mult_controller: bool = False
    loss_type: str = "mult"
    loss_sparsity: int = 0
    loss_lowrank: int = 0
    loss_prob: object = None
    reversible_encoder: bool = False
    two_swaps: bool = True
    center_ln: bool = True
    n_layers_forget: int = 0
    forget_dense: bool = True
    half_before: int = 0              # terraformer: embeddings, encoder and decoder blocks before this one at half width
    double_after: int = 0             # terraformer: decoder blocks after this one at double width
    d_input: int = 0                  # terraformer, transformer: the encoder's input is rows of this width, not tokens
    cross_sparsity: object = 0        # transformer: 0 | s | (sq, so), as enc_dec_attention_sparsity


def at_width(cfg, block=None):
    """The description at the width of a decoder block; None: of embeddings and encoder."""
    halves = 1 if cfg.half_before and (block is None or block < cfg.half_before) else 2
    if cfg.double_after and block is not None and block > cfg.double_after:
        halves = 4
    scaled = {k: getattr(cfg, k) * halves // 2 for k in ("d_model", "d_ff", "d_head", "d_value") if getattr(cfg, k)}
    return dataclasses.replace(cfg, **scaled)


def encoder_cfg(cfg):
    """The description of a Terraformer's encoder: embedding width, and heads of d / H whatever those of the decoder."""
    return dataclasses.replace(at_width(cfg), d_head=None, d_value=None)


def final_width(cfg):
    return cfg.d_model * (2 if cfg.double_after else 1)


def cross_parts(cfg):
    """(modules of q, modules of the output or None where there is no output layer); 0 = dense."""
    c = cfg.cross_sparsity
    q, o = c if isinstance(c, tuple) else (c, "noop" if c else 0)
    return q or 0, None if o == "noop" else o or 0


def decoder_elements(cfg):
    """Blocks of the decoder and the concatenations between them, as ("block", i) and ("concat", i)."""
    out = []
    for i in range(cfg.n_layers):
        out.append(("block", i))
        if cfg.half_before and i == cfg.half_before - 1 or cfg.double_after and i == cfg.double_after:
            out.append(("concat", i))
    return out


def with_forgetting(elements, every):
    """Inserts ("forget", i) where Trax's terraformer.py does; i numbers the element behind which it stands."""
    out = []
    points = _forget_points(len(elements), every)
    for i, element in enumerate(elements):
        out.append(element)
        if i in points:
            out.append(("forget", i))
    return out


def forget_width(cfg, elements, i):
    """Width of the streams behind element i of the decoder."""
    kind, block = elements[i]
    return at_width(cfg, block).d_model * (2 if kind == "concat" else 1)


def _as_dict(a):
    return dict(kind=a) if isinstance(a, str) else dict(a)


def ff_sizes(cfg):
    """(N, d_lowrank) of the 1-in-N block; an int N means d_lowrank = d_ff // N."""
    s = cfg.ff_sparsity
    return (s, cfg.d_ff // s) if isinstance(s, int) else (s[0], s[1])


def sru_sizes(cfg):
    s = cfg.ff_sru
    if not s:
        return 0, 0
    return (s, 32) if isinstance(s, int) else tuple(s)


def m_dense(n, i, o, bias=True):
    return [(n + ".w", (i, o))] + ([(n + ".b", (o,))] if bias else [])


def m_ln(n, d):
    return [(n + ".scale", (d,)), (n + ".bias", (d,))]


def m_factored(n, s, i, o, bias=True):
    m = [(n + ".gating", (s, i)), (n + ".proj", (i, o // s))]
    return m + ([(n + ".b", (o,))] if bias else [])


def m_conv(n, s, i, units, km, kl):
    """LocallyConvDense over inputs of width i; collapses to Dense(units) when s == 1."""
    if s == 1:
        return m_dense(n, i, units)
    return [(n + ".w", (kl, km, i // s, units)), (n + ".b", (units,))]


def attention_manifest(n, a, cfg):
    a, d, h = _as_dict(a), cfg.d_model, cfg.n_heads
    kind = a["kind"]
    if kind in ("causal", "attention", "favor", "causal_favor", "qkv"):
        dconv = [(".dconv", (3, d))] if a.get("use_dconv") else []
        return sum([m_dense("%s.%s" % (n, r), d, d) + [("%s.%s%s" % (n, r, e), z) for e, z in dconv if r != "o"]
                    for r in "qkvo"], [])
    s = a.get("sparsity") or h
    if kind == "mult":
        return sum([m_factored("%s.%s" % (n, r), s, d, d) for r in "qkvo"], [])
    if kind == "multmod":
        out = []
        for r in "qkvo":
            out += [("%s.%s.gating" % (n, r), (s, d)), ("%s.%s.kmult" % (n, r), (d, d // s)),
                    ("%s.%s.kmod" % (n, r), (s, d // s, d // s)), ("%s.%s.b" % (n, r), (d,))]
        return out
    if kind == "conv":
        return sum([m_conv("%s.%s" % (n, r), s, d, d // s, a.get("kernel_size", 1), 1) for r in "qkvo"], [])
    if kind == "modular":
        k = a.get("kernel_size", 1)
        if s == 1:
            return sum([m_dense("%s.%s" % (n, r), d, d) for r in "qkvo"], [])
        return sum([[("%s.%s.w" % (n, r), (s, k, d // s, d // s)), ("%s.%s.b" % (n, r), (s, d // s))]
                    for r in "qkvo"], [])
    if kind == "lowrank":
        k = a.get("lowrank", 64)
        return sum([m_dense("%s.%s1" % (n, r), d, k) + m_dense("%s.%s2" % (n, r), k, d) for r in "qkvo"], [])
    if kind == "multconv":
        kl, dm = a.get("length_kernel_size", 3), d // s
        vi = d if a.get("v_concat", "none") == "none" else 2 * d
        m = m_factored(n + ".mult", s, d, d)
        m += m_conv(n + ".conv_qk" if a.get("share_qk") else n + ".conv_q", s, d, dm, 3, kl)
        if not a.get("share_qk"):
            m += m_conv(n + ".conv_k", s, d, dm, 3, kl)
        m += m_conv(n + ".conv_v", s, vi, dm, 1, kl)
        out = a.get("output", "none")
        if "mult" in out:
            m += m_factored(n + ".out_mult", s, d, d)
        if "conv" in out:
            m += m_conv(n + ".out_conv", s, d, dm, 3, kl)
        return m
    dk = cfg.d_head or d // h
    dv = cfg.d_value or dk
    if kind == "selfattn":
        sh = a.get("share_qk", False)
        roles = ["wq"] + ([] if sh else ["wk"]) + ["wv"]
        m = [("%s.%s" % (n, r), (h, d, dv if r == "wv" else dk)) for r in roles] + [(n + ".wo", (h, dv, d))]
        if a.get("bias"):
            m += [("%s.%s" % (n, r), (h, dv if r == "bv" else dk)) for r in (["bq", "bv"] if sh else ["bq", "bk", "bv"])]
        return m
    if kind == "lsh":
        return [(n + ".wqk", (h, d, dk)), (n + ".wv", (h, d, dv)), (n + ".wo", (h, dv, d))]
    if kind == "purelsh":
        dm_ = dk * h
        if a.get("weights_format", "model") == "sparse":
            s = a.get("sparsity", 16)
            m = m_factored(n + ".mult", s, dm_, dm_)
            names = ["conv_q", "conv_k"] if a.get("num_weights", 3) == 3 else ["conv_qk"]
            for r in names:
                m += m_conv("%s.%s" % (n, r), s, dm_, dm_ // s, 3, 3)
            return m + m_conv(n + ".conv_v", s, dm_, dm_ // s, 1, 3)
        bias = a.get("bias", True)
        roles = ["q", "k", "v"] if a.get("num_weights", 3) == 3 else ["qk", "v"]
        return sum([m_dense("%s.%s" % (n, r), dm_, dm_, bias) for r in roles + ["o"]], [])
    raise ValueError(kind)


def ff_manifest(n, cfg):
    d, f = cfg.d_model, cfg.d_ff
    m = m_ln(n + ".ln", d)
    if cfg.ff_sparsity and cfg.ff_type == "1inN":
        nb, r = ff_sizes(cfg)
        b = f // nb
        m += [(n + ".m1", (d, r)), (n + ".m2", (r, b, nb)), (n + ".mb", (b, nb)),
              (n + ".w1", (d, b, nb)), (n + ".w2", (nb, b, d)), (n + ".b2", (d,))]
    elif cfg.ff_sparsity:
        m += [(n + ".m1", (d, cfg.ff_sparsity)), (n + ".w1", (d, f)), (n + ".w2", (f, d)), (n + ".b2", (d,))]
    else:
        m += m_dense(n + ".d1", d, f) + m_dense(n + ".d2", f, d)
    k, s = sru_sizes(cfg)
    if k:
        m += m_ln(n + ".sru_ln", d) + m_dense(n + ".sru_in", d, s)
        for i in range(k):
            m += m_dense("%s.sru%d" % (n, i), s, 3 * s)
        m += m_dense(n + ".sru_out", s, d)
    return m


def pos_manifest(n, cfg):
    d, p = cfg.d_model, cfg.pos
    if p == "learned":
        return [(n + ".table", (cfg.max_len, d))]
    if p[0] == "lowrank":
        return [(n + ".table", (cfg.max_len, p[1])), (n + ".proj", (p[1], d))]
    if p == "fixed-base":
        return [("%s.base%d.digit%d" % (n, b, i), (1, d // 8)) for b in range(4) for i in range(8)] + \
               [(n + ".start_vec", (1, 1, d))]
    if p == "infinite":
        return [(n + ".w", (d, d))]
    if p[0] == "axial":
        return [("%s.axis%d" % (n, i), (1,) + tuple(s if j == i else 1 for j, s in enumerate(p[1])) + (e,))
                for i, e in enumerate(p[2])]
    return []


def cross_manifest(n, cfg):
    d = cfg.d_model
    q, o = cross_parts(cfg)

    def part(r, s):
        if not s:
            return m_dense("%s.%s" % (n, r), d, d)
        return m_factored("%s.%s" % (n, r), s, d, d) + m_conv("%s.%s_conv" % (n, r), s, d, d // s, 3, 3)
    return part("q", q) + m_dense(n + ".k", d, d) + m_dense(n + ".v", d, d) + ([] if o is None else part("o", o))


def loss_manifest(n, cfg, d_in):
    v = cfg.out_vocab or cfg.vocab

    def one():
        if cfg.loss_type in (None, "None") or cfg.loss_sparsity == 0:
            return m_dense(n, d_in, v)
        if cfg.loss_type == "mult":
            return m_factored(n, cfg.loss_sparsity, d_in, v)
        if cfg.loss_type == "lowrank":
            return m_dense(n + "1", d_in, cfg.loss_lowrank) + m_dense(n + "2", cfg.loss_lowrank, v)
        if cfg.loss_type == "einsum":
            return [(n + ".kernel", (v, d_in)), (n + ".b", (v,))]
        if cfg.loss_type in ("local", "local3"):
            q = cfg.loss_sparsity
            if q == 1:
                return m_dense(n, d_in, v)
            return [(n + ".local", (q, 3 if cfg.loss_type == "local3" else 1, d_in // q, v // q)),
                    (n + ".b", (q, v // q))]
        raise ValueError(cfg.loss_type)

    if cfg.loss_prob is not None:      # both layers are stored; inference uses the sparse one
        return one() + m_dense(n + "_unused_dense", d_in, v)
    return one()


def _attn_of(cfg, i):
    return cfg.attn[i % len(cfg.attn)] if isinstance(cfg.attn, list) else cfg.attn


def _forget_points(n_blocks, every):
    """Indices of blocks that are followed by a forgetting layer."""
    out, done = [], 0
    while every and n_blocks - done > every + 1:
        done += every
        out.append(done - 1)
    return out


def manifest(cfg):
    """[(name, shape)] in exactly the order of Trax's flat weight list."""
    d = cfg.d_model
    if cfg.model == "lm":
        m = [("emb", (cfg.vocab, d))] + pos_manifest("pos", cfg)
        for i in range(cfg.n_layers):
            m += m_ln("dec%d.ln" % i, d) + attention_manifest("dec%d.attn" % i, _attn_of(cfg, i), cfg)
            m += ff_manifest("dec%d.ff" % i, cfg)
        return m + m_ln("ln_f", d) + loss_manifest("loss", cfg, d)
    if cfg.model == "reformer_lm":
        m = [("emb", (cfg.vocab, d))] + pos_manifest("pos", cfg)
        for i in range(cfg.n_layers):
            m += m_ln("dec%d.ln0" % i, d) + attention_manifest("dec%d.attn0" % i, _attn_of(cfg, i), cfg)
            m += ff_manifest("dec%d.ff" % i, cfg)
        return m + m_ln("ln_f", 2 * d) + m_dense("loss", 2 * d, cfg.vocab)
    if cfg.model == "transformer":
        m = _input_manifest(cfg, d) + pos_manifest("pos_e", cfg)
        for i in range(cfg.n_enc):
            m += m_ln("enc%d.ln0" % i, d) + attention_manifest("enc%d.attn" % i, cfg.enc_attn, cfg)
            m += ff_manifest("enc%d.ff" % i, cfg)
        m += m_ln("enc_ln", d)
        if cfg.out_vocab:
            m += [("emb_d", (cfg.out_vocab, d))]
        m += pos_manifest("pos_d", cfg)
        for i in range(cfg.n_layers):
            m += m_ln("dec%d.ln0" % i, d) + attention_manifest("dec%d.attn0" % i, _attn_of(cfg, i), cfg)
            m += m_ln("dec%d.lnx" % i, d) + cross_manifest("dec%d.xattn" % i, cfg)
            m += ff_manifest("dec%d.ff" % i, cfg)
        return m + m_ln("ln_f", d) + loss_manifest("loss", cfg, d)
    assert cfg.model == "terraformer"
    first = encoder_cfg(cfg)
    d = first.d_model
    m = _input_manifest(cfg, d) + pos_manifest("pos_e", first)
    if cfg.out_vocab:
        m += [("emb_d", (cfg.out_vocab, d))]
    m += pos_manifest("pos_d", first)
    for kind, i in with_forgetting([("block", i) for i in range(cfg.n_enc)], cfg.n_layers_forget):
        if kind == "block":
            m += m_ln("enc%d.ln0" % i, d) + attention_manifest("enc%d.attn" % i, cfg.enc_attn, first)
            m += ff_manifest("enc%d.ff" % i, first)
        elif cfg.forget_dense:
            m += m_dense("enc%d.forget" % i, d, d)
    if not cfg.reversible_encoder:
        m += m_dense("enc_out", d, d) + m_ln("enc_ln", d)
    elements = decoder_elements(cfg)
    for kind, i in with_forgetting(elements, cfg.n_layers_forget):
        if kind == "block":
            c = at_width(cfg, i)
            for j in range(cfg.n_attn):
                m += m_ln("dec%d.ln%d" % (i, j), c.d_model)
                m += attention_manifest("dec%d.attn%d" % (i, j), _attn_of(cfg, i), c)
            m += ff_manifest("dec%d.ff" % i, c)
        elif kind == "forget" and cfg.forget_dense:
            width = forget_width(cfg, elements, i)
            m += m_dense("dec.forget%d" % i, width, width)
    return m + m_ln("ln_f", final_width(cfg)) + loss_manifest("loss", cfg, final_width(cfg))


def _input_manifest(cfg, d):
    return m_dense("input", cfg.d_input, d) if cfg.d_input else [("emb", (cfg.vocab, d))]


def bind(cfg, flat):
    """flat list -> {name: array}; checks every shape (3-D learned tables are accepted)."""
    man, out = manifest(cfg), {}
    if len(man) != len(flat):
        raise ValueError("expected %d tensors, file has %d" % (len(man), len(flat)))
    for (name, shape), w in zip(man, flat):
        w = np.asarray(w)
        if tuple(w.shape) != tuple(shape) and not (name.endswith(".table") and w.shape[1:] == tuple(shape)):
            raise ValueError("%s: expected %s, file has %s" % (name, shape, w.shape))
        out[name] = w
    return out


def random_weights(cfg, seed=0, scale=0.4):
    rng = np.random.default_rng(seed)
    flat = []
    for name, shape in manifest(cfg):
        w = rng.normal(size=shape) * scale
        if name.endswith(".scale"):
            w = 1.0 + 0.2 * w
        if name.endswith((".w1", ".w2", ".w")) and len(shape) >= 2:
            w = w * 0.7
        flat.append(w)
    return flat
