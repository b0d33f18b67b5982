# SPDX-License-Identifier: Apache-2.0
"""The oracle against loops written from the definitions, and its full() against its feed()."""

import io
import math
import os
import tempfile

import numpy as np

from oracle.attention import concat_with_padding, strip_concatenated
from oracle.checkpoints import load_checkpoint, read_npy_stream, save_checkpoint
from oracle.feed_forward import SRU, block_sparse_ff, sparse_ff_eval, sparse_ff_predict
from oracle.hashed_attention import (LSHCore, LSHSelfAttention, SelfAttention, attend_additive, lsh_attend,
                                     lsh_bucket_plan, lsh_hash)
from oracle.layers import (LocallyConvDense, dense, factored_dense, fast_gelu, gelu, layer_norm,
                           locally_connected_dense, logsumexp, mult_modular_dense, relu, sigmoid, softmax)
from oracle.manifest import Cfg, random_weights
from oracle.models import ReformerLM, Terraformer, TransformerLM
from oracle.prng import _threefry_block, prng_key, prng_normal, prng_split, prng_uniform
from oracle.subword import SubwordTextEncoder


def close(a, b, tol=1e-9, what=""):
    err = float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float))))
    assert err < tol, (what, err)


def fed(layer, x, cuts):
    """Run feed() in pieces and join."""
    layer.reset()
    at, out = 0, []
    for n in cuts:
        out.append(layer.feed(x[at:at + n]))
        at += n
    assert at == x.shape[0]
    return np.concatenate(out)


def test_prng():
    assert prng_split(prng_key(0)).tolist() == [[4146024105, 967050713], [2718843009, 1272950319]]
    close(prng_normal(prng_key(0), (1,)), -0.20584226, 1e-7)
    close(prng_uniform(prng_key(0), ()), 0.41845703, 1e-7)
    a, b = _threefry_block((0x13198A2E, 0x03707344), np.array([0x243F6A88], np.uint32), np.array([0x85A308D3], np.uint32))
    assert (hex(int(a[0])), hex(int(b[0]))) == ("0xc4923a9c", "0x483df7a0")


def test_small_layers():
    r = np.random.default_rng(1)
    x = r.normal(size=(5, 12))
    s, b = r.normal(size=12), r.normal(size=12)
    y = layer_norm(x, s, b)
    mu, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    close(y, (x - mu) / np.sqrt(var + 1e-6) * s + b)
    close(layer_norm(x, s, b, center=False), x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-6) * s)
    close(relu(np.array([-1.0, 0.0, 2.0])), [0, 0, 2])
    close(fast_gelu(x), gelu(x), 5e-3)
    # factored dense against explicit loops, and its two evaluation orders
    g, p, fb = r.normal(size=(3, 12)), r.normal(size=(12, 4)), r.normal(size=12)
    y = factored_dense(x, g, p, fb)
    for l in range(5):
        for n in range(3):
            for m in range(4):
                v = sum(x[l, d] * g[n, d] * p[d, m] for d in range(12)) + fb[n * 4 + m]
                assert abs(v - y[l, n * 4 + m]) < 1e-9
    close(mult_modular_dense(x, g, p, np.stack([np.eye(4)] * 3), fb), y)
    # a multiplicative layer can express any permutation
    perm = r.permutation(12)
    gate, proj = np.zeros((3, 12)), np.zeros((12, 4))
    for out_i, in_i in enumerate(perm):
        gate[out_i // 4, in_i] = 1.0
        proj[in_i, out_i % 4] = 1.0
    close(factored_dense(x, gate, proj), x[:, perm])
    # circular locally connected layer
    w, lb = r.normal(size=(3, 3, 4, 2)), r.normal(size=(3, 2))
    y = locally_connected_dense(x, w, lb).reshape(5, 3, 2)
    xm = x.reshape(5, 3, 4)
    for s_ in range(3):
        v = lb[s_] + sum(xm[:, (s_ + k - 1) % 3] @ w[(s_ + k - 1) % 3, k] for k in range(3))
        close(y[:, s_], v)


def test_conv():
    r = np.random.default_rng(2)
    for kl, km, s, di, m in [(3, 3, 4, 2, 3), (3, 1, 4, 5, 2), (1, 3, 2, 3, 3), (1, 1, 3, 2, 2), (5, 5, 6, 1, 2)]:
        w, b, x = r.normal(size=(kl, km, di, m)), r.normal(size=m), r.normal(size=(9, s * di))
        layer = LocallyConvDense(w, b, s)
        y = layer.full(x)
        xm = x.reshape(9, s, di)
        for t in range(9):
            for q in range(s):
                v = b.copy()
                for i in range(kl):
                    for j in range(km):
                        tt, ss = t - (kl - 1) + i, q + j - km // 2
                        if tt >= 0 and 0 <= ss < s:
                            v = v + xm[tt, ss] @ w[i, j]
                close(y[t, q * m:(q + 1) * m], v)
        for cuts in ([9], [1] * 9, [4, 1, 1, 3], [2, 7]):
            close(fed(layer, x, cuts), y, what="conv step")


def test_sru():
    r = np.random.default_rng(3)
    u = SRU(r.normal(size=(6, 18)), r.normal(size=18))
    x = r.normal(size=(11, 6))
    y = u.full(x)
    for cuts in ([1] * 11, [5, 1, 5], [11]):
        close(fed(u, x, cuts), y)
    z = dense(x[:1], u.w, u.b)
    rr, ff, yy = sigmoid(z[0, :6]), sigmoid(z[0, 6:12]), z[0, 12:]
    close(y[0], rr * yy * (1 - ff) + (1 - rr) * x[0] * 3 ** 0.5)


def test_sparse_ff():
    r = np.random.default_rng(4)
    d, b, n, k = 8, 5, 4, 3
    w = [r.normal(size=s) for s in [(d, k), (k, b, n), (b, n), (d, b, n), (n, b, d), (d,)]]
    x = r.normal(size=(7, d))
    for mult in (False, True):
        close(sparse_ff_eval(x, *w, mult), sparse_ff_predict(x, *w, mult))
    # loops, from the definition
    m1, m2, mb, w1, w2, b2 = w
    y = sparse_ff_eval(x, *w)
    for l in range(7):
        acc = b2.copy()
        for q in range(b):
            sc = [sum(x[l] @ m1[:, i] * m2[i, q, e] for i in range(k)) + mb[q, e] for e in range(n)]
            e = int(np.argmax(sc))
            acc = acc + max(0.0, x[l] @ w1[:, q, e]) * w2[e, q]
        close(y[l], acc)
    # unit (q, e): column q*n+e of the flattened w1 but row e*b+q of the flattened w2
    assert np.shares_memory(w1.reshape(d, -1), w1)
    close(w1.reshape(d, -1)[:, 2 * n + 3], w1[:, 2, 3])
    close(w2.reshape(-1, d)[3 * b + 2], w2[3, 2])
    e = [r.normal(size=s) for s in [(d, 4), (d, 12), (12, d), (d,)]]
    for sw in (False, True):
        y = block_sparse_ff(x, *e, switch=sw)
        pick = np.argmax(x @ e[0], -1)
        full = np.repeat(pick[:, None] == np.arange(4), 3, axis=1).astype(float)
        if sw:
            full = full * np.repeat(softmax(x @ e[0]), 3, axis=1)
        close(y, relu((x @ e[1]) * full) @ e[2] + e[3])


def _lm(attn, **k):
    base = dict(vocab=19, d_model=16, d_ff=24, n_layers=2, n_heads=4, max_len=40)
    base.update(k)
    return Cfg(attn=attn, **base)


def test_models():
    toks = np.random.default_rng(5).integers(1, 18, size=13)
    shifted = np.concatenate([[0], toks[:-1]])
    variants = [
        _lm("causal"), _lm("causal", pos="sin-cos", ff_act="gelu"), _lm("causal", pos="fixed-base"),
        _lm("causal", pos="infinite"), _lm("causal", pos="no"),
        _lm("causal", pos=("lowrank", 4)), _lm("causal", pos=("axial", (5, 8), (6, 10))),
        _lm("causal", ff_sparsity=4, ff_sru=(2, 6)), _lm("causal", ff_sparsity=(3, 5), mult_controller=True),
        _lm("causal", ff_sparsity=4, ff_type="Block"), _lm("causal", ff_sparsity=4, ff_type="Switch"),
        _lm(dict(kind="mult", sparsity=2), loss_sparsity=19), _lm(dict(kind="multmod", sparsity=4)),
        _lm(dict(kind="lowrank", lowrank=3), loss_type="lowrank", loss_sparsity=1, loss_lowrank=5),
        _lm(dict(kind="conv", sparsity=4, kernel_size=3)), _lm(dict(kind="modular", sparsity=4, kernel_size=3)),
        _lm("causal_favor"), _lm(dict(kind="selfattn", chunk_len=None), d_head=5),
        _lm("causal", loss_type="einsum", loss_sparsity=1), _lm("causal", vocab=20, loss_type="local3", loss_sparsity=4),
    ]
    for share in (False, True):
        for vc in ("none", "original", "fixed"):
            for out in ("none", "mult", "conv", "multconv"):
                variants.append(_lm(dict(kind="multconv", sparsity=8, length_kernel_size=3, share_qk=share,
                                         v_concat=vc, output=out), ff_sparsity=4, ff_sru=1, n_layers=1))
    for c in variants:
        m = TransformerLM(c, random_weights(c))
        y = m.full(toks)
        for cuts in ([1] * 13, [6, 1, 1, 5]):
            close(fed(m, shifted, cuts), y, 1e-8, (c.attn, c.pos))
    # reversible decoder-only model; chunked attention with the default memory is exact
    for a in ([dict(kind="selfattn", chunk_len=4, before=1)],
              [dict(kind="selfattn", chunk_len=4, before=1, share_qk=True), dict(kind="selfattn", chunk_len=2, before=2)]):
        c = Cfg("reformer_lm", vocab=19, d_model=16, d_ff=24, n_layers=2, n_heads=4, max_len=40, attn=a)
        t = np.random.default_rng(6).integers(1, 18, size=16)
        m = ReformerLM(c, random_weights(c))
        close(fed(m, np.concatenate([[0], t[:-1]]), [1] * 16), m.full(t), 1e-8, "reformer")


def test_terraformer():
    r = np.random.default_rng(7)
    for rev in (False, True):
        for swaps in (False, True):
            for attn in ("causal", dict(kind="multconv", sparsity=4, length_kernel_size=3)):
                for enc in ("attention", dict(kind="selfattn"), "favor"):
                    c = Cfg("terraformer", vocab=23, d_model=16, d_ff=24, n_layers=3, n_enc=3, n_heads=4,
                            max_len=64, attn=attn, enc_attn=enc, n_attn=2, ff_sparsity=(4, 5), ff_sru=(1, 7),
                            reversible_encoder=rev, two_swaps=swaps, loss_sparsity=23, n_layers_forget=1)
                    te = np.concatenate([r.integers(1, 22, size=6), np.zeros(3, int)])
                    td = r.integers(1, 22, size=7)
                    m = Terraformer(c, random_weights(c))
                    y = m.full(te, td)
                    close(m.full(te[:6], td), y, 1e-8, "padding must not matter")
                    m.start(te)
                    s = np.concatenate([[0], td[:-1]])
                    got = np.concatenate([m.feed(s[:2]), m.feed(s[2:3]), m.feed(s[3:])])
                    close(got, y, 1e-8, "terraformer step")


def test_lsh():
    r = np.random.default_rng(8)
    n, d, rounds, factors, c = 24, 6, 2, [4, 2], 4
    qk, v = r.normal(size=(n, d)), r.normal(size=(n, d))
    rot = r.normal(size=(d, rounds, sum(factors) // 2))
    b = lsh_hash(qk, rot, factors)
    assert b.max() < 8 and b.shape == (rounds, n)
    close(lsh_hash(qk * 7.5, rot, factors), b)                       # scale free
    y = lsh_attend(qk, v, b, 8, c, 1, 0, True)
    # brute force of the same definition
    out, lse = np.zeros((rounds, n, d)), np.zeros((rounds, n))
    kn = qk / np.sqrt((qk ** 2).mean(-1, keepdims=True) + 1e-6) / math.sqrt(d)
    items = sorted((rd * 8 + b[rd, t], t, rd) for rd in range(rounds) for t in range(n))
    for i, (_, t, rd) in enumerate(items):
        ch = i // c
        keys = [items[j][1] for cc in (ch - 1, ch) for j in range((cc % (len(items) // c)) * c, (cc % (len(items) // c)) * c + c)]
        s = np.array([qk[t] @ kn[u] - 1e9 * (u > t) - 1e5 * (u == t) for u in keys])
        z = logsumexp(s)[0]
        lse[rd, t], out[rd, t] = z, np.exp(s - z) @ v[keys]
    wgt = np.exp(lse - logsumexp(lse, axis=0))
    close(y, (out * wgt[..., None]).sum(0))
    # one bucket round, a single chunk covering everything: plain shared-QK attention
    close(lsh_attend(qk, v, b[:1], 8, n, 0, 0, True),
          attend_additive(qk, None, v, np.arange(n), np.arange(n), True, True, False, share_qk=True)[0])
    # predict with enough slots attends to everything: equals plain shared-QK attention
    w = [r.normal(size=s) for s in [(1, d, d), (1, d, d), (1, d, d)]]
    layer = LSHSelfAttention(*w, LSHCore([rot], factors, chunk_len=8, mem_len=32, drop_len=8))
    x = r.normal(size=(n, d))
    ref = SelfAttention(w[0], None, w[1], w[2], share_qk=True)
    close(fed(layer, x, [1] * n), ref.full(x))
    assert lsh_bucket_plan(None, 1024, 64) == [32] and lsh_bucket_plan(None, 16384, 128) == [16, 16]


def test_concat():
    e, dv = np.arange(10.0).reshape(5, 2), -np.arange(6.0).reshape(3, 2) - 1
    out = concat_with_padding(e, dv, [1, 1, 1, 0, 0])
    close(out[:3], e[:3])
    close(out[3:6], dv)
    close(out[6:], 0)
    out = concat_with_padding(e, dv[:1], [1, 1, 1, 0, 0])
    close(out[4], e[4])                    # leftover encoder pad rows are NOT zeroed
    close(strip_concatenated(out, [7, 7, 7, 0, 0], 1), dv[:1])


def test_text():
    pieces = ["<pad>_", "<EOS>_", "the_", "cat", "s_", "_", ", _"] + sorted(set("abcdefghijklmnopqrstuvwxyz\\u;<>PEOS, 0123456789"))
    enc = SubwordTextEncoder("".join("'%s'\n" % p for p in pieces))
    for text in ["the cats, the cat", " the cat ", "a_b\\c", "caf\u00e9 \n x", "a  b", "", "the,cat"]:
        assert enc.decode(enc.encode(text)) == text, text
        assert enc.decode(enc.encode(text, 100), 100) == text
    assert enc.tokenize("Dude - that's so cool.") == ["Dude", " - ", "that", "'", "s", "so", "cool", "."]
    assert enc.encode("the cats") == [2, 3, 4]


def test_files():
    c = _lm(dict(kind="multconv", sparsity=4), ff_sparsity=4, loss_sparsity=19)
    flat = [w.astype(np.float32) for w in random_weights(c)]
    for new in (True, False):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "model.pkl.gz")
            save_checkpoint(path, flat, new)
            back, _ = load_checkpoint(path)
            assert len(back) == len(flat) and all((a == b).all() for a, b in zip(back, flat))
    buf = io.BytesIO()
    np.save(buf, np.array([0x3F80, 0xC000], np.uint16))
    buf.seek(0)
    close(read_npy_stream(buf)[0], [1.0, -2.0])


def test_options_beside_the_published_models():
    """Widths that change along the depth, embedded input, time bins, depthwise convolutions: full() and feed() agree."""
    r = np.random.default_rng(9)
    base = dict(vocab=23, d_model=16, d_ff=24, n_enc=3, n_heads=2, max_len=64, enc_attn="attention", n_attn=1)
    for k in (dict(n_layers=4, half_before=2), dict(n_layers=4, half_before=1, double_after=2, n_layers_forget=1),
              dict(n_layers=3, double_after=1), dict(n_layers=2, d_input=5, out_vocab=23), dict(n_layers=2, pos=("time-bin", 3))):
        c = Cfg("terraformer", attn="causal", **base, **k)
        m = Terraformer(c, random_weights(c))
        inputs = r.normal(size=(6, 5)) if c.d_input else r.integers(1, 22, size=6)
        td = r.integers(1, 22, size=7)
        y = m.full(inputs, td)
        m.start(inputs)
        s = np.concatenate([[0], td[:-1]])
        close(np.concatenate([m.feed(s[:2]), m.feed(s[2:3]), m.feed(s[3:])]), y, 1e-8, k)
    c = _lm(dict(kind="causal", use_dconv=True))
    m = TransformerLM(c, random_weights(c))
    toks = r.integers(1, 18, size=9)
    close(fed(m, np.concatenate([[0], toks[:-1]]), [4, 1, 1, 3]), m.full(toks), 1e-8, "dconv")
