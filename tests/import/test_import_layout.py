# SPDX-License-Identifier: Apache-2.0
"""The stored tensors, put into the formulas of docs/model-file.md, give the numbers of the oracle's layers."""

import json

import import_trax
import numpy as np
import pytest
from comparison import import_triple
from model_cases import CASES
from oracle.building import build_attention
from oracle.feed_forward import block_sparse_ff, sparse_ff_eval
from oracle.manifest import bind
from oracle.models import TransformerLM
from oracle.positions import pos_axial, pos_fixed_base
from trax_files import small, weights_of
from train.container import from_bf16, read_container

D, N = 16, 9


def imported(tmp_path, cfg, *flags):
    """(tensors of the model file, weights by oracle name)."""
    flat = weights_of(cfg, seed=4)
    tensors, _ = read_container(import_triple(tmp_path, cfg, flat, *flags))
    return {k: t.astype(float) if t.dtype == np.float32 else t for k, t in tensors.items()}, bind(cfg, flat)


def rows(width=D):
    return np.random.default_rng(6).normal(size=(N, width))


def dense(t, name, x):
    return x @ t[name + ".weight"].T + t.get(name + ".bias", 0)


def mult(t, name, x):
    """y[s M + m] = b + sum_d x[d] gate[s, d] proj[m, d]"""
    y = np.einsum("td,sd,md->tsm", x, t[name + ".gate"], t[name + ".proj"])
    return y.reshape(len(x), -1) + t[name + ".bias"]


def mult_modular(t, name, x):
    """y[s M + o] = b + sum_q modules[s, o, q] sum_d shared[q, d] gate[s, d] x[d]"""
    y = np.einsum("soq,qd,sd,td->tso", t[name + ".modules"], t[name + ".shared"], t[name + ".gate"], x)
    return y.reshape(len(x), -1) + t[name + ".bias"]


def conv(t, name, x, n_modules, modules_seen, n_steps):
    """A row runs over (module j, time i, channel c); i = Kl-1 is the current step; zeros outside."""
    w = t[name + ".weight"].reshape(-1, modules_seen, n_steps, x.shape[1] // n_modules)
    half, xm = (modules_seen - 1) // 2, x.reshape(len(x), n_modules, -1)
    padded = np.pad(xm, ((n_steps - 1, 0), (half, half), (0, 0)))
    y = [
        [
            sum(padded[step + i, s + j] @ w[:, j, i].T for i in range(n_steps) for j in range(modules_seen))
            + t[name + ".bias"]
            for s in range(n_modules)
        ]
        for step in range(len(x))
    ]
    return np.array(y).reshape(len(x), -1)


def local(t, name, x, modules_seen):
    """Row (s, o) over (tap k, channel c); tap k sees input module (s + k - (Km-1)/2) mod S."""
    w = t[name + ".weight"]
    n_modules, units, _ = w.shape
    xm, w = x.reshape(len(x), n_modules, -1), w.reshape(n_modules, units, modules_seen, -1)
    y = [
        sum(xm[:, (s + k - (modules_seen - 1) // 2) % n_modules] @ w[s, :, k].T for k in range(modules_seen))
        + t[name + ".bias"][s]
        for s in range(n_modules)
    ]
    return np.concatenate(y, -1)


def low_rank(t, name, x):
    return dense(t, name + ".up", dense(t, name + ".down", x))


PROJECTIONS = {
    "lm": dense,
    "lm-mult": mult,
    "lm-mult-modular": mult_modular,
    "lm-low-rank-attention": low_rank,
    "lm-conv": lambda t, n, x: conv(t, n, x, 4, 3, 1),
    "lm-modular": lambda t, n, x: local(t, n, x, 3),
    "lm-modular-5": lambda t, n, x: local(t, n, x, 5),
    "lm-conv-one": dense,
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_projections(name, tmp_path):
    cfg = CASES[name]
    t, p = imported(tmp_path, cfg)
    x = rows()
    for i in range(cfg.n_layers):
        layer = build_attention(p, f"dec{i}.attn", cfg.attn, cfg)
        for part, oracle_part in zip(("q", "k", "v", "out"), layer.parts):
            found = PROJECTIONS[name](t, f"decoder.blocks.{i}.attention.0.{part}", x)
            assert np.allclose(found, oracle_part.full(x), atol=1e-5), part


@pytest.mark.parametrize(
    "name", [n for n in CASES if n.startswith("lm-multconv-") and ("-none-" in n or "multconv" in n[12:])]
)
def test_multiplicative_conv(name, tmp_path):
    cfg = CASES[name]
    t, p = imported(tmp_path, cfg)
    a, x, n = cfg.attn, rows(), "decoder.blocks.0.attention.0"
    s, steps = a["sparsity"], a["length_kernel_size"]
    layer = build_attention(p, "dec0.attn", a, cfg)
    layer.reset()
    m = mult(t, n + ".shared", x)
    assert np.allclose(conv(t, n + ".q", m, s, 3, steps), layer.cq.full(m), atol=1e-5)
    assert (n + ".k.weight" in t) != a.get("share_qk", False)
    if a.get("v_concat", "none") == "none":
        assert np.allclose(conv(t, n + ".v", m, s, 1, steps), layer.cv.full(m), atol=1e-5)
    else:
        both = layer._v_in(m, x)
        assert np.allclose(conv(t, n + ".v", both, s, 1, steps), layer.cv.full(both), atol=1e-5)
    if "conv" in a.get("output", "none"):
        assert np.allclose(conv(t, n + ".out_conv", m, s, 3, steps), layer.out[-1].full(m), atol=1e-5)


def test_heads_of_self_attention(tmp_path):
    """out = sum_h (p_h v_h) wo_h, with the heads side by side in one matrix."""
    cfg = small("reformer_lm", attn={"kind": "selfattn", "chunk_len": None}, d_head=5)
    t, p = imported(tmp_path, cfg)
    n, x = "decoder.blocks.1.attention.0", rows()
    for part in "qkv":
        expected = np.concatenate([x @ p[f"dec1.attn0.w{part}"][h] for h in range(4)], -1)
        assert np.allclose(x @ t[f"{n}.{part}.weight"].T, expected, atol=1e-5)
    v = rows(20)
    expected = sum(v[:, 5 * h : 5 * h + 5] @ p["dec1.attn0.wo"][h] for h in range(4))
    assert np.allclose(v @ t[n + ".out.weight"].T, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["lm-1inN", "lm-1inN-rank", "lm-1inN-string"])
def test_units_of_the_sparse_feed_forward(name, tmp_path):
    """Unit block * N + element is its w1 row, then its w2 row; the controller's rows are numbered alike."""
    cfg = CASES[name]
    t, p = imported(tmp_path, cfg)
    n, q, x = "decoder.blocks.1.ff", "dec1.ff", rows()
    width = cfg.ff_sparsity if isinstance(cfg.ff_sparsity, int) else cfg.ff_sparsity[0]
    logits = x @ t[n + ".controller.down"].T @ t[n + ".controller.up"].T + t[n + ".controller.bias"]
    picks = logits.reshape(N, -1, width).argmax(-1)
    y = np.zeros((N, D)) + t[n + ".bias"]
    for row in range(N):
        for block, element in enumerate(picks[row]):
            w1, w2 = t[n + ".units"][block * width + element]
            y[row] += max(0.0, x[row] @ w1) * w2
    expected = sparse_ff_eval(x, *[p[f"{q}.{k}"] for k in ("m1", "m2", "mb", "w1", "w2", "b2")])
    assert np.allclose(y, expected, atol=1e-5)


def test_the_controller_multiplies_where_the_gin_file_says_so(tmp_path):
    """No gin file of Trax itself says it, for Trax does not register its SparseFF; no tensor tells."""
    flat = weights_of(CASES["lm-1inN"])
    for name, flags, expected in (
        ("plain", [], None),
        ("off", ["--gin-param", "SparseFF.multiply_by_controller_output = False"], None),
        ("on", ["--gin-param", "trax.layers.SparseFF.multiply_by_controller_output = True"], True),
    ):
        _, metadata = read_container(import_triple(tmp_path / name, CASES["lm-1inN"], flat, *flags))
        assert json.loads(metadata["config"])["decoder"]["ff"].get("multiply_by_controller") is expected


@pytest.mark.parametrize("name, switch", [("lm-block", False), ("lm-switch-sru", True)])
def test_units_of_experts(name, switch, tmp_path):
    cfg = CASES[name]
    t, p = imported(tmp_path, cfg)
    n, x = "decoder.blocks.0.ff", rows()
    scores = x @ t[n + ".router"].T
    y = np.zeros((N, D)) + t[n + ".bias"]
    for row in range(N):
        e = scores[row].argmax()
        chance = np.exp(scores[row] - scores[row].max())
        scale = chance[e] / chance.sum() if switch else 1.0
        for w1, w2 in zip(*t[n + ".units"][e]):
            y[row] += max(0.0, x[row] @ w1 * scale) * w2
    assert np.allclose(
        y, block_sparse_ff(x, *[p[f"dec0.ff.{k}"] for k in ("m1", "w1", "w2", "b2")], switch=switch), atol=1e-5
    )


def test_sru_branch(tmp_path):
    """Thirds r, f, y of a cell's rows."""
    cfg = CASES["lm-fast-gelu-sru"]
    t, p = imported(tmp_path, cfg)
    n, x = "decoder.blocks.0.ff.sru", rows(6)
    for k in range(2):
        cell = x @ t[f"{n}.cells.{k}.weight"].T + t[f"{n}.cells.{k}.bias"]
        assert np.allclose(cell, x @ p[f"dec0.ff.sru{k}.w"] + p[f"dec0.ff.sru{k}.b"], atol=1e-5)
    assert np.allclose(dense(t, n + ".in", rows()), rows() @ p["dec0.ff.sru_in.w"] + p["dec0.ff.sru_in.b"], atol=1e-5)
    assert np.allclose(dense(t, n + ".out", x), x @ p["dec0.ff.sru_out.w"] + p["dec0.ff.sru_out.b"], atol=1e-5)


def test_positions(tmp_path):
    t, p = imported(tmp_path / "a", CASES["lm-axial-3"])
    tables, zeros = [t[f"decoder.position.axis.{a}"] for a in range(3)], np.zeros((64, D))
    index = np.unravel_index(np.arange(64), (4, 2, 8))
    found = np.concatenate([table[i] for table, i in zip(tables, index)], -1)
    assert np.allclose(found, pos_axial(zeros, [p[f"pos.axis{a}"] for a in range(3)]))

    t, p = imported(tmp_path / "b", CASES["lm-fixed-base"])
    digits = np.array(
        [[position // base**i % base for i in range(8)] for base in (11, 13, 14, 15) for position in (7, 170)]
    )
    digits = digits.reshape(4, 2, 8).transpose(1, 0, 2)  # [position, base, digit]
    found = np.einsum("pbi,bic->pic", digits, t["decoder.position.digits"]).reshape(2, -1)
    weights = [[p[f"pos.base{b}.digit{i}"] for i in range(8)] for b in range(4)]
    for row, position in zip(found, (7, 170)):
        assert np.allclose(row, pos_fixed_base(np.zeros((1, D)), weights, p["pos.start_vec"], position)[0], atol=1e-4)
    assert np.allclose(t["decoder.position.start"], p["pos.start_vec"].reshape(-1))

    t, p = imported(tmp_path / "c", CASES["lm-low-rank"])
    assert np.allclose(
        t["decoder.position.table"] @ t["decoder.position.proj"].T, p["pos.table"] @ p["pos.proj"], atol=1e-5
    )


@pytest.mark.parametrize(
    "name", ["lm-loss-mult", "lm-loss-low-rank", "lm-loss-einsum", "lm-loss-local", "lm-loss-local3", "lm-loss-spare"]
)
def test_loss_layers(name, tmp_path):
    from oracle.building import loss_layer

    cfg = CASES[name]
    t, p = imported(tmp_path, cfg)
    x, n = rows(), "decoder.logits"
    kind = cfg.loss_type
    found = {
        "mult": mult,
        "lowrank": low_rank,
        "einsum": dense,
        "local": lambda t, n, x: local(t, n, x, 1),
        "local3": lambda t, n, x: local(t, n, x, 3),
    }[kind](t, n, x)
    assert np.allclose(found, loss_layer(x, p, cfg), atol=1e-5)


def test_narrow_types_round_as_documented(tmp_path):
    """bf16 to the nearest even; q8 within half a step of a row's scale; everything not marked W stays float32."""
    cfg = CASES["lm-all-sparse"]
    exact, _ = imported(tmp_path / "f", cfg)
    half, _ = imported(tmp_path / "h", cfg, "--dtype", "bf16")
    eighth, _ = imported(tmp_path / "q", cfg, "--dtype", "q8")
    n = "decoder.blocks.0."
    for name in ("ff.units", "ff.controller.up", "attention.0.q.weight", "attention.0.shared.proj"):
        assert np.allclose(from_bf16(half[n + name]), exact[n + name], rtol=2**-8, atol=0)
        scale = eighth[n + name + ".scale"][..., None]
        assert np.all(np.abs(eighth[n + name].astype(float) * scale - exact[n + name]) <= scale * 0.5001)
    for name in ("ff.bias", "attention.0.shared.gate", "ff.sru.in.weight", "ff.norm.scale"):
        assert half[n + name].dtype == np.float64 and np.array_equal(half[n + name], exact[n + name])
        assert np.array_equal(eighth[n + name], exact[n + name])


def test_order_of_tensors_follows_a_token(tmp_path):
    """Embedding first, logits last: a pass over the file reads forwards."""
    names = list(imported(tmp_path, CASES["lm-all-sparse"])[0])
    assert names[0] == "decoder.embedding" and names[-1] == "decoder.logits.bias"
    blocks = [int(name.split(".")[2]) for name in names if name.startswith("decoder.blocks")]
    assert blocks == sorted(blocks)


def test_the_importer_runs_in_memory_of_a_layer(tmp_path):
    """Arrays are dropped once used."""
    from terrace_import.checkpoint import Checkpoint
    from terrace_import.output import Output, _Window

    checkpoint = Checkpoint("x", lambda: iter([np.full(1, i, np.float32) for i in range(6)]))
    outputs = [
        Output("a", (1,), (1,), None, False),
        Output("b", (1,), (2, 3), None, False),
        Output("c", (1,), (1, 4), None, False),
    ]
    window = _Window(checkpoint, outputs)
    assert [a[0] for a in window.take(outputs[0])] == [1]
    assert [a[0] for a in window.take(outputs[1])] == [2, 3]
    assert set(window._held) == {1}
    assert [a[0] for a in window.take(outputs[2])] == [1, 4]
    assert not window._held


def test_transformer_lm_of_the_old_function(tmp_path):
    """TransformerLM has no options; its settings come by flag where there is no gin file."""
    from oracle.checkpoints import save_checkpoint

    cfg = CASES["lm"]
    flat = weights_of(cfg, seed=1)
    save_checkpoint(str(tmp_path / "m.pkl.gz"), flat, new_format=False)
    out = tmp_path / "m.model"
    flags = ["--model", "TransformerLM", "--n-heads", "4", "--ff-activation", "Relu"]
    assert import_trax.main([*flags, "--weights", str(tmp_path / "m.pkl.gz"), "--out", str(out)]) == 0
    assert np.array_equal(read_container(out)[0]["decoder.embedding"], flat[0])
    assert TransformerLM(cfg, flat).full([1, 2, 3]).shape == (3, cfg.vocab)
