# SPDX-License-Identifier: Apache-2.0
"""`terrace logits` equals the PyTorch model in eval mode, for every family, at every width."""

import subprocess

import numpy as np
import pytest
import torch

from train.export import export_model
from train.mixture_of_depths import DepthRouter
from train.pass_mode import PassMode
from train.settings import widths_of
from train.sparse_ff import SparseFeedForward
from train.tests import tiny
from train.trainer import Trainer

TOLERANCE = 2e-4
# A choice of a controller or router is only comparable where rounding cannot turn it over.
MARGIN = 1e-5


@pytest.fixture(scope="module", params=tiny.ALL_FAMILIES)
def trained(request, corpus, byte_lengths, tmp_path_factory):
    """(name, model after a few steps, folder with model.terrace)."""
    folder = tmp_path_factory.mktemp(request.param)
    config = tiny.settings(tiny.ALL_FAMILIES[request.param], corpus, steps=6)
    trainer = Trainer(config, folder / "run", byte_lengths)
    trainer.run()
    export_model(
        folder / "model.terrace", trainer.model.state_dict(), config["model"], "f32", corpus / "tokenizer.model"
    )
    return request.param, trainer.model.eval(), folder


def engine_logits(terrace, folder, inputs, *flags):
    """`terrace logits` of the given ids; the encoder's come first where there is one."""
    command = [terrace, "logits", "-m", folder / "model.terrace", "--out", folder / "logits.npy", *flags]
    for flag, ids in zip(("--tokens", "--encoder-tokens"), reversed(inputs)):
        path = folder / f"ids{flag}.txt"
        path.write_text(" ".join(str(int(i)) for i in ids[0]))
        command += [flag, path]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return np.load(folder / "logits.npy")


def check_margins(model, inputs, mode):
    """No choice of a controller or router is within rounding noise (else equal picks could not be demanded)."""
    margins = []

    def note(module, _, z):
        top = z.topk(2, -2).values  # [.., N, blocks]
        margins.append((top[..., 0, :] - top[..., 1, :]).min().item())

    def note_decision(module, arguments, _):
        decision = module.scores(arguments[0])[1]
        margins.append(decision.abs().min().item())
        assert (decision > 0).any() and (decision < 0).any(), "all tokens or none run: choose another tiny model"

    hooks = [m.register_forward_hook(note_decision) for m in model.modules() if isinstance(m, DepthRouter)]
    hooks += [m.controller.register_forward_hook(note) for m in model.modules() if isinstance(m, SparseFeedForward)]
    with torch.no_grad():
        model(*inputs, mode)
    for hook in hooks:
        hook.remove()
    return min(margins, default=1.0) > MARGIN


def inputs_of(model):
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, tiny.VOCABULARY, (1, 32), generator=generator)
    ids[0, 0] = 0
    if model.config["family"] != "terraformer":
        return (ids,)
    return (torch.randint(3, tiny.VOCABULARY, (1, 24), generator=generator), ids)


def test_engine_equals_pytorch(terrace, trained):
    name, model, folder = trained
    inputs = inputs_of(model)
    for width in widths_of(model.config):
        mode = PassMode(width=width)
        assert check_margins(model, inputs, mode), f"{name}: a controller is undecided: choose other ids"
        with torch.no_grad():
            expected = model(*inputs, mode)[0].numpy()
        flags = ["--width", str(width)] if width != model.config["d_ff"] else []
        found = engine_logits(terrace, folder, inputs, *flags)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=f"{name} at width {width}")
        assert (found.argmax(-1) == expected.argmax(-1)).all()


def test_the_engine_verifies_the_file(terrace, trained):
    _, _, folder = trained
    result = subprocess.run([str(terrace), "verify", str(folder / "model.terrace")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
