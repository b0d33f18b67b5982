# SPDX-License-Identifier: Apache-2.0
"""The hand-written gradients of training equal those that PyTorch derives."""

import torch
from torch.nn import functional as F

from train.pass_mode import PassMode
from train.sparse_ff import SparseFeedForward, StraightThroughOneHot, by_element
from train.tasks import cross_entropy_sum
from train.vocabulary import PAD


def test_cross_entropy_and_its_gradient_skip_padding():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 7, 11, generator=generator, requires_grad=True)
    targets = torch.randint(1, 11, (3, 7), generator=generator)
    targets[1, 4:] = PAD
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum")
    found = cross_entropy_sum(logits, targets)
    torch.testing.assert_close(found, expected)
    (a,) = torch.autograd.grad(expected * 0.25, logits)
    (b,) = torch.autograd.grad(found * 0.25, logits)
    torch.testing.assert_close(b, a)
    assert (b[1, 4:] == 0).all()


def test_straight_through_is_one_hot_forward_and_softmax_backward():
    z = torch.randn(2, 5, 8, 3, generator=torch.Generator().manual_seed(4), requires_grad=True)
    weight = torch.randn(z.shape, generator=torch.Generator().manual_seed(5))
    choice = StraightThroughOneHot.apply(z, z.detach())
    assert (choice.sum(-2) == 1).all() and (choice.argmax(-2) == z.argmax(-2)).all()
    (found,) = torch.autograd.grad((choice * weight).sum(), z)
    (expected,) = torch.autograd.grad((z.softmax(-2) * weight).sum(), z)
    torch.testing.assert_close(found, expected)


def test_units_are_reordered_by_element():
    stored = torch.arange(12)[:, None]  # 4 blocks of 3 elements
    assert by_element(stored, 12, 3)[:, 0].tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert by_element(stored, 6, 3)[:, 0].tolist() == [0, 3, 1, 4, 2, 5]


def feed_forward():
    torch.manual_seed(6)
    return SparseFeedForward({"d_model": 16, "d_ff": 64}, {}, {"block_size": 8, "d_lowrank": 8})


def test_without_noise_a_hard_training_pass_is_the_eval_pass():
    module, x = feed_forward(), torch.randn(2, 9, 16)
    trained = module.train()(x, PassMode(quantise=True, temperature=0.0))
    torch.testing.assert_close(trained, module.eval()(x, PassMode()))


def test_noise_turns_some_choices_and_follows_its_generator():
    module, x = feed_forward().train(), torch.randn(2, 9, 16)

    def passed(seed, temperature):
        mode = PassMode(quantise=True, temperature=temperature, generator=torch.Generator().manual_seed(seed))
        return module(x, mode)

    assert torch.equal(passed(1, 1.0), passed(1, 1.0))
    assert not torch.equal(passed(1, 1.0), passed(2, 1.0))
    assert not torch.equal(passed(1, 1.0), passed(1, 0.0))
