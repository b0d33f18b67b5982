#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes attention.json: inputs and outputs of positions, attention cores and the random generator, from the oracle.

    python3 tests/golden/make_attention.py

Inputs are multiples of 1/16, so that they are exact in f32, and written times 16; the oracle computes in double.
"""
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from oracle import attention as dot_product  # noqa: E402
from oracle import hashed_attention as hashed  # noqa: E402
from oracle import positions, prng  # noqa: E402

RNG = np.random.default_rng(2021)


def numbers(*shape, scale=1.0):
    return np.round(RNG.normal(size=shape) * scale * 16) / 16


def given(x):
    """An input as a flat list of integers."""
    return np.rint(np.asarray(x) * 16).astype(int).ravel().tolist()


def packed(x):
    """An output as a flat list of short numbers."""
    return [float("%.6g" % v) for v in np.asarray(x, float).ravel()]


def position_cases():
    d = 16
    table, small, proj = numbers(20, d), numbers(20, 4), numbers(4, d)
    digits, start_vec = numbers(4, 8, d // 8, scale=0.1), numbers(d)
    axes = [numbers(1, 4, 1, 6), numbers(1, 1, 5, 10)]
    weight = numbers(d, d, scale=0.3)
    by_digit = [[digits[b, i][None] for i in range(8)] for b in range(4)]
    kinds = {
        "learned": (lambda x, s: positions.pos_learned(x, table, s), {"table": given(table)}),
        "low_rank": (lambda x, s: positions.pos_learned(x, small, s, proj),
                     {"table": given(small), "proj": given(proj.T)}),
        "sin_cos": (lambda x, s: positions.pos_sincos(x, s), {}),
        "fixed_base": (lambda x, s: positions.pos_fixed_base(x, by_digit, start_vec, s),
                       {"digits": given(digits), "start": given(start_vec)}),
        "axial": (lambda x, s: positions.pos_axial(x, axes, s),
                  {"axis0": given(axes[0]), "axis1": given(axes[1])}),
        "infinite": (lambda x, s: positions.pos_infinite(x, weight, s), {"weight": given(weight.T)}),
        "time_bin": (lambda x, s: positions.pos_time_bin(x, 3, s), {}),
        "rotary": (lambda x, s: positions.rotary(x, s), {}),
    }
    for name, (encode, weights) in kinds.items():
        for first in (0, 7):
            x = numbers(5, d)
            yield dict(kind=name, first=first, x=given(x), y=packed(encode(x, first)), **weights)


def heads_side_by_side(outputs):
    return np.concatenate(outputs, -1)


def self_attention_cases():
    h, dk, dv = 2, 4, 3
    full = [dict(n=12), dict(n=12, share=True), dict(n=12, causal=True), dict(n=12, causal=True, share=True),
            dict(n=12, share=True, n_real=7), dict(n=12, n_real=7), dict(n=4, share=True, n_real=1),
            dict(n=12, chunk=4, before=1, causal=True, share=True), dict(n=12, chunk=4, before=1, after=1, n_real=9),
            dict(n=16, chunk=2, before=2, share=True), dict(n=8, chunk=4, before=2, after=1, share=True),
            dict(n=6, chunk=2, after=1, causal=True)]
    for c in full:
        n, chunk, share = c["n"], c.get("chunk"), c.get("share", False)
        n_real = c.get("n_real", n)
        q, k, v = numbers(n, h * dk), numbers(n, h * dk), numbers(n, h * dv)
        pos = np.arange(n)
        key_pos = np.where(pos < n_real, pos, -pos)
        out = [hashed.attend_additive(q[:, i * dk:(i + 1) * dk], k[:, i * dk:(i + 1) * dk], v[:, i * dv:(i + 1) * dv],
                                      pos, key_pos, c.get("causal", False), share, n_real < n, chunk,
                                      c.get("before", 0), c.get("after", 0), share)[0] for i in range(h)]
        # A row that sees padding only has weights that depend on the precision; nothing real depends on it.
        rows = n if n_real == n else max(n_real, 2)
        yield dict(form="full", n=n, n_real=n_real, rows=rows, share_qk=share, causal=c.get("causal", False),
                   chunk_len=chunk or 0, before=c.get("before", 0), after=c.get("after", 0), mem_len=0, drop_len=0,
                   q=given(q), k=given(k), v=given(v), y=packed(heads_side_by_side(out)[:rows]))
    step = [dict(), dict(share=True), dict(chunk=4, before=1, share=True), dict(chunk=3, mem=7, drop=2),
            dict(chunk=3, mem=5, drop=5, share=True), dict(mem=1, drop=1, share=True), dict(mem=6, drop=1)]
    for c in step:
        n, share = 16, c.get("share", False)
        q, k, v = numbers(n, h * dk), numbers(n, h * dk), numbers(n, h * dv)
        out = []
        for i in range(h):
            x = np.concatenate([q[:, i * dk:(i + 1) * dk], k[:, i * dk:(i + 1) * dk], v[:, i * dv:(i + 1) * dv]], -1)
            pick = np.eye(x.shape[1])
            layer = hashed.SelfAttention(pick[None, :, :dk], pick[None, :, dk:2 * dk], pick[None, :, 2 * dk:],
                                         np.eye(dv)[None], None, True, share, c.get("chunk"), c.get("before", 0), 0,
                                         c.get("mem"), c.get("drop"))
            out.append(layer.feed(x))
        yield dict(form="step", n=n, n_real=n, rows=n, share_qk=share, causal=True, chunk_len=c.get("chunk", 0),
                   before=c.get("before", 0), after=0, mem_len=c.get("mem", 0), drop_len=c.get("drop", 0),
                   q=given(q), k=given(k), v=given(v), y=packed(heads_side_by_side(out)))


def hash_margin(qk, rotations, factors):
    """How far the winner of every argmax is ahead: below rounding noise a case would be no test."""
    u = np.einsum("ld,drb->rlb", qk, rotations)
    at, least = 0, np.inf
    for f in factors:
        part = u[..., at:at + f // 2]
        both = np.sort(np.concatenate([part, -part], -1), -1)
        least = min(least, np.min(both[..., -1] - both[..., -2]))
        at += f // 2
    return least


def lsh_cases():
    h, dk, dv, n = 2, 6, 4, 24
    cases = [dict(form="full", factors=[4, 2], rounds=2, chunk=4, before=1, causal=True),
             dict(form="full", factors=[8], rounds=1, chunk=6, before=1, after=1, causal=False),
             dict(form="full", factors=[8], rounds=2, chunk=4, before=1, after=0, causal=False, n_real=17),
             dict(form="full", factors=None, rounds=3, chunk=4, before=1, causal=True),
             dict(form="full", factors=[4], rounds=2, chunk=24, before=2, causal=True),
             dict(form="step", factors=[4, 2], rounds=2, chunk=2, before=1, mem=32, drop=8),
             dict(form="step", factors=[6], rounds=1, chunk=4, before=1, mem=10, drop=3),
             dict(form="step", factors=[4], rounds=2, chunk=1, before=0, mem=7, drop=7),
             dict(form="step", factors=[2], rounds=1, chunk=1, before=0, mem=9, drop=2),
             dict(form="step", factors=[2, 2], rounds=3, chunk=2, before=2, mem=16, drop=5)]
    for c in cases:
        factors = c["factors"] or hashed.lsh_bucket_plan(None, n, c["chunk"])
        while True:
            qk, v = numbers(n, h * dk), numbers(n, h * dv)
            rot = [numbers(dk, c["rounds"], sum(factors) // 2) for _ in range(h)]
            per_head = [(qk[:, i * dk:(i + 1) * dk], v[:, i * dv:(i + 1) * dv]) for i in range(h)]
            if min(hash_margin(a, r, factors) for (a, _), r in zip(per_head, rot)) > 1e-3:
                break
        n_real = c.get("n_real", n)
        core = hashed.LSHCore(rot, factors, c["chunk"], c["before"], c.get("after", 0), c.get("causal", True),
                              c.get("mem", 2048), c.get("drop", 256))
        args = [np.stack([a for a, _ in per_head]), np.stack([b for _, b in per_head])]
        if c["form"] == "full":
            y = core.full(*args, mask=None if n_real == n else np.arange(n) < n_real)
        else:
            y = core.feed(*args)
        yield dict(form=c["form"], n=n, n_real=n_real, causal=c.get("causal", True), n_buckets=c["factors"] or [],
                   n_hashes=c["rounds"], chunk_len=c["chunk"], before=c["before"], after=c.get("after", 0),
                   mem_len=c.get("mem", 2048), drop_len=c.get("drop", 256), qk=given(qk), v=given(v),
                   rotations=given(np.stack([np.transpose(r, (1, 2, 0)) for r in rot])),
                   y=packed(heads_side_by_side(list(y))[:n_real]))


class Given:
    """A projection that hands out columns of its input: lets the oracle's layers run on given q, k, v."""

    def __init__(self, begin, end):
        self.full = self.feed = lambda x: x[:, begin:end]


def dot_product_cases():
    h, d, n = 2, 8, 11
    for n_real in (11, 6):
        x = numbers(n, 3 * d)
        parts = [Given(0, d), Given(d, 2 * d), Given(2 * d, 3 * d), Given(0, d)]
        mask = np.arange(n) < n_real
        for name, layer in (("causal", dot_product.ConfigurableCausalAttention(*parts, h)),
                            ("full", dot_product.BidirectionalAttention(*parts, h)),
                            ("favor_causal", dot_product.CausalFavor(*parts, h)),
                            ("favor_full", dot_product.FavorBidirectional(*parts, h))):
            if "causal" in name and n_real < n:
                continue
            yield dict(kind=name, n=n, n_real=n_real, q=given(x[:, :d]), k=given(x[:, d:2 * d]),
                       v=given(x[:, 2 * d:]), y=packed(layer.full(x, mask)[:n_real]))
    # FAVOR with softmax features: not part of the oracle, written from the formula.
    m, dh, n_real = 10, d // h, 7
    q, k, v, w = numbers(n, d), numbers(n, d), numbers(n, d), numbers(m, dh)
    out = []
    for i in range(h):
        s = slice(i * dh, (i + 1) * dh)
        aq, ak = q[:, s] @ w.T, k[:n_real, s] @ w.T
        bq, bk = (q[:, s] ** 2).sum(-1, keepdims=True) / 2, (k[:n_real, s] ** 2).sum(-1, keepdims=True) / 2
        fq = (np.exp(aq - bq - aq.max(-1, keepdims=True)) + 1e-4) / np.sqrt(m)
        fk = (np.exp(ak - bk - ak.max()) + 1e-4) / np.sqrt(m)
        a = fq @ fk.T
        out.append(a / a.sum(-1, keepdims=True) @ v[:n_real, s])
    yield dict(kind="favor_softmax", n=n, n_real=n_real, q=given(q), k=given(k), v=given(v), features=given(w),
               y=packed(heads_side_by_side(out)))


def random_cases():
    key = prng.prng_key(0)
    odd = prng.prng_key(0x123456789ABCDEF)
    yield dict(seed=0, split=prng.prng_split(key).ravel().tolist(), split5=prng.prng_split(key, 5).ravel().tolist())
    yield dict(seed=0x123456789ABCDEF, split=prng.prng_split(odd).ravel().tolist(),
               split5=prng.prng_split(odd, 5).ravel().tolist())


def main():
    golden = {"positions": list(position_cases()), "self": list(self_attention_cases()), "lsh": list(lsh_cases()),
              "dot_product": list(dot_product_cases()), "random": list(random_cases())}
    path = pathlib.Path(__file__).with_name("attention.json")
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
