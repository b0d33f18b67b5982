# SPDX-License-Identifier: Apache-2.0
"""Layers in eval mode against the numpy oracle of the Trax layers, weights brought to Trax's shapes."""

import numpy as np
import pytest
import torch

from tests.oracle import attention, feed_forward, hashed_attention, layers, positions
from train.lsh_attention import LshAttention, SelfAttention
from train.multiplicative_conv import MultiplicativeConvAttention
from train.norms import Norm
from train.pass_mode import FULL
from train.positions import SinCosPosition
from train.projections import FactoredDense, LocallyConvDense
from train.sparse_ff import SparseFeedForward
from train.sru import SruCell

D, HEADS, LENGTH = 32, 4, 16
MODEL = {"d_model": D, "d_ff": 64, "n_heads": HEADS}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def rows(width=D, length=LENGTH):
    return torch.randn(1, length, width)


def weights(module):
    """Parameters and buffers as float64, biases made non-zero first so that they count."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def check(module, x, expected, mode=()):
    module.eval()
    with torch.no_grad():
        found = module(x, *mode)[0].double().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def normed(w, x):
    return layers.layer_norm(x[0].double().numpy(), w["norm.scale"], w["norm.bias"])


def factored(w, name):
    return w[name + ".gate"], w[name + ".proj"].T, w[name + ".bias"]


def conv(w, name, modules, module_kernel, time_kernel=3):
    kernel = w[name + ".weight"].reshape(-1, module_kernel, time_kernel, D // modules).transpose(2, 1, 3, 0)
    return layers.LocallyConvDense(kernel, w[name + ".bias"], modules)


def heads(weight, rows_are_outputs=True):
    """[H*dk, d] to Trax's [H, d, dk]; the output matrix [d, H*dv] to [H, dv, d]."""
    if rows_are_outputs:
        return weight.reshape(HEADS, -1, D).transpose(0, 2, 1)
    return weight.reshape(D, HEADS, -1).transpose(1, 2, 0)


@pytest.mark.parametrize("center", [True, False])
def test_norm(center):
    module, x = Norm(D, {}, center), rows()
    w = weights(module)
    check(module, x, layers.layer_norm(x[0].double().numpy(), w["scale"], w["bias"], center))


def test_sin_cos():
    x = rows()
    check(SinCosPosition(D), x, positions.pos_sincos(x[0].double().numpy()))


def test_factored_dense():
    module, x = FactoredDense(D, 24, 3), rows()
    w = weights(module)
    check(module, x, layers.factored_dense(x[0].double().numpy(), w["gate"], w["proj"].T, w["bias"]))


def test_locally_conv_dense():
    module, x = LocallyConvDense(D, D, 4, 3, 3), rows()
    w = {f"c.{name}": value for name, value in weights(module).items()}
    check(module, x, conv(w, "c", 4, 3).full(x[0].double().numpy()))


@pytest.mark.parametrize("multiply", [False, True])
def test_sparse_feed_forward(multiply):
    config = {"kind": "sparse", "block_size": 8, "d_lowrank": 8, "multiply_by_controller": multiply}
    module, x = SparseFeedForward(MODEL, {}, config), rows()
    w = weights(module)
    blocks = 64 // 8
    m2 = w["controller.up"].T.reshape(8, blocks, 8)
    w1 = w["units"][:, 0].reshape(blocks, 8, D).transpose(2, 0, 1)
    w2 = w["units"][:, 1].reshape(blocks, 8, D).transpose(1, 0, 2)
    arguments = (w["controller.down"].T, m2, w["controller.bias"].reshape(blocks, 8), w1, w2, w["bias"], multiply)
    h = normed(w, x)
    check(module, x, feed_forward.sparse_ff_eval(h, *arguments), (FULL,))
    picks = feed_forward.sparse_ff_controller(h, *arguments[:3])[1]
    assert (module.picks(x)[0].numpy() == picks).all()


def test_sru():
    module, x = SruCell(8), rows(8)
    w = weights(module)
    check(module, x, feed_forward.SRU(w["weight"].T, w["bias"]).full(x[0].double().numpy()))


@pytest.mark.parametrize("share_qk", [False, True])
@pytest.mark.parametrize("output", ["none", "mult", "multconv"])
def test_multiplicative_conv_attention(share_qk, output):
    config = {"kind": "multiplicative_conv", "n_modules": 4, "share_qk": share_qk, "output": output}
    module, x = MultiplicativeConvAttention(MODEL, {}, config), rows()
    w = weights(module)
    after = (
        [layers.DenseLayer(lambda y: layers.factored_dense(y, *factored(w, "out_mult")))] if output != "none" else []
    )
    after += [conv(w, "out_conv", 4, 3)] if output == "multconv" else []
    q = conv(w, "q", 4, 3)
    k = q if share_qk else conv(w, "k", 4, 3)
    oracle = attention.MultConvCausalAttention(
        factored(w, "shared"), q, k, conv(w, "v", 4, 1), after, HEADS, 4, share_qk=share_qk
    )
    check(module, x, oracle.full(normed(w, x)), (FULL,))


@pytest.mark.parametrize("share_qk", [False, True])
def test_self_attention(share_qk):
    module, x = SelfAttention(MODEL, {}, {"kind": "self", "share_qk": share_qk}), rows()
    w = weights(module)
    k = None if share_qk else heads(w["k.weight"])
    oracle = hashed_attention.SelfAttention(
        heads(w["q.weight"]), k, heads(w["v.weight"]), heads(w["out.weight"], False), share_qk=share_qk
    )
    check(module, x, oracle.full(normed(w, x)), (FULL,))


@pytest.mark.parametrize("buckets", [4, [4, 6]])
def test_lsh_attention(buckets):
    config = {
        "kind": "lsh",
        "chunk_len": 4,
        "n_chunks_before": 1,
        "n_chunks_after": 1,
        "n_hashes": 2,
        "n_buckets": buckets,
    }
    module, x = LshAttention(MODEL, {}, config), rows()
    w = weights(module)
    rotations = [head.transpose(2, 0, 1) for head in w["rotations"]]
    core = hashed_attention.LSHCore(rotations, module.factors, 4, before=1, after=1)
    oracle = hashed_attention.LSHSelfAttention(
        heads(w["qk.weight"]), heads(w["v.weight"]), heads(w["out.weight"], False), core
    )
    check(module, x, oracle.full(normed(w, x)), (FULL,))
