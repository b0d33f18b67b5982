# SPDX-License-Identifier: Apache-2.0
"""Every family trains, checkpoints, exports a valid container, and has the shapes and widths it says."""

import json

import numpy as np
import pytest
import torch

from train.container import read_container
from train.errors import TrainError
from train.export import export_model, is_weight
from train.families import build_model
from train.pass_mode import PassMode
from train.settings import widths_of
from train.tests import tiny
from train.trainer import Trainer


def inputs_of(config, length=32):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, config["vocab_size"], (2, length), generator=generator)
    if config["family"] != "terraformer":
        return (ids,)
    encoder_ids = torch.randint(3, config["vocab_size"], (2, 24), generator=generator)
    encoder_ids[1, 15:] = 0
    return (encoder_ids, ids)


@pytest.mark.parametrize("name", tiny.ALL_FAMILIES)
def test_training_lowers_the_loss_and_exports(name, corpus, byte_lengths, tmp_path):
    config = tiny.settings(tiny.ALL_FAMILIES[name], corpus, steps=12)
    trainer = Trainer(config, tmp_path / "run", byte_lengths)
    before = trainer.task.evaluate(trainer.model, None)["loss"]
    state = trainer.run()
    assert state["step"] == 12
    assert trainer.task.evaluate(trainer.model, None)["loss"] < before - 0.2
    for dtype in ("f32", "bf16", "q8"):
        path = tmp_path / f"{dtype}.terrace"
        export_model(path, trainer.model.state_dict(), config["model"], dtype, corpus / "tokenizer.model")
        tensors, metadata = read_container(path)
        assert metadata["format"] == "terrace" and "tokenizer.data" in tensors
        expected = {key for key in trainer.model.state_dict()}
        assert expected <= set(tensors)


@pytest.mark.parametrize("name", tiny.ALL_FAMILIES)
def test_logits_are_causal(name):
    """A later token never changes an earlier row (LSH sorts the whole sequence, so its rows may change)."""
    if name == "lsh":
        pytest.skip("the sorted chunks of LSH depend on the whole sequence, by definition")
    config = tiny.ALL_FAMILIES[name]
    model = build_model(config).eval()
    *encoder, ids = inputs_of(config)
    changed = ids.clone()
    changed[:, 20:] = 5
    with torch.no_grad():
        a, b = model(*encoder, ids), model(*encoder, changed)
    assert a.shape == (2, 32, config["vocab_size"])
    torch.testing.assert_close(a[:, :20], b[:, :20], rtol=0, atol=1e-5)


def test_padding_of_the_encoder_changes_nothing():
    config = tiny.ALL_FAMILIES["terraformer"]
    model = build_model(config).eval()
    encoder_ids, ids = inputs_of(config)
    longer = torch.cat([encoder_ids, torch.zeros(2, 9, dtype=torch.long)], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(encoder_ids, ids), model(longer, ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["nested", "nested_dense"])
def test_a_width_is_a_prefix_of_the_units(name):
    """A width's feed-forward output does not read the units behind it."""
    model = build_model(tiny.ALL_FAMILIES[name]).eval()
    (ids,) = inputs_of(model.config)
    first = widths_of(model.config)[0]
    with torch.no_grad():
        small, full = model(ids, PassMode(width=first)), model(ids)
        for key, parameter in model.named_parameters():
            if key.endswith(("ff.units", "ff.w1.weight", "ff.controller.up")):
                parameter[first:] = 1e3
            elif key.endswith("ff.w2.weight"):
                parameter[:, first:] = 1e3
        torch.testing.assert_close(model(ids, PassMode(width=first)), small, rtol=0, atol=0)
        assert not torch.allclose(model(ids), full)


def test_a_width_must_be_whole_blocks():
    model = build_model(tiny.ALL_FAMILIES["nested"])
    with pytest.raises(TrainError, match="multiple of 8"):
        model(inputs_of(model.config)[0], PassMode(width=20))


@pytest.mark.parametrize("name, widths", [("nested", [20, 64]), ("nested_dense", [96, 192]), ("nested", [64, 16])])
def test_widths_that_the_engine_would_refuse(name, widths):
    config = tiny.ALL_FAMILIES[name]
    stack = {**config["decoder"], "ff": {**config["decoder"]["ff"], "widths": widths}}
    with pytest.raises(TrainError, match="ff.widths"):
        widths_of({**config, "decoder": stack})


def test_which_tensors_may_be_quantised():
    names = set(build_model(tiny.terraformer(False)).state_dict())
    weights = {name for name in names if is_weight(name)}
    assert "encoder.embedding" in weights and {"decoder.logits.gate", "decoder.logits.proj"} <= weights
    assert "decoder.blocks.0.ff.units" in weights and "decoder.blocks.1.attention.1.q.weight" in weights
    for name in weights:
        assert not name.endswith((".bias", ".scale")) and ".position." not in name and ".sru." not in name


def test_q8_is_within_half_a_step():
    from train.container import to_q8

    values = np.random.default_rng(0).normal(size=(5, 64)).astype("f4")
    q, scale = to_q8(values)
    assert np.abs(q * scale[:, None] - values).max() <= 0.5001 * scale.max()


def test_windows_score_every_token_once():
    from train.evaluate import windows

    for count, context, stride in [(10, 4, 2), (3, 4, 4), (17, 5, 1), (8, 4, 4)]:
        seen = [i for begin, end, scored in windows(count, context, stride) for i in range(scored, end)]
        assert seen == list(range(count))
        assert all(end - begin <= context for begin, end, _ in windows(count, context, stride))


@pytest.mark.parametrize("name", ["nested", "lsh", "mixture_of_depths", "terraformer", "llama_like"])
def test_bf16_autocast_trains(name, corpus, byte_lengths, tmp_path):
    """Weights stay f32 and finite."""
    config = tiny.settings(tiny.ALL_FAMILIES[name], corpus, steps=2, bf16=True)
    trainer = Trainer(config, tmp_path, byte_lengths)
    trainer.run()
    for parameter in trainer.model.parameters():
        assert parameter.dtype == torch.float32 and bool(torch.isfinite(parameter).all())


def test_the_run_leaves_log_and_curves(corpus, byte_lengths, tmp_path):
    Trainer(tiny.settings(tiny.ALL_FAMILIES["nested"], corpus, steps=10), tmp_path, byte_lengths).run()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["width"] for row in rows if row["kind"] == "valid"] == [16, 32, 64]
    assert any(row["kind"] == "train" and row["tokens_per_s"] > 0 for row in rows)
    pytest.importorskip("matplotlib", reason="the Python package matplotlib is not installed: no plot")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_tensorboard_says_when_it_is_missing(corpus, byte_lengths, tmp_path):
    config = tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=1)
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(TrainError, match="'tensorboard' is not installed"):
            Trainer(config, tmp_path, byte_lengths, tensorboard=True)
    else:
        Trainer(config, tmp_path, byte_lengths, tensorboard=True).run()
        assert list((tmp_path / "tensorboard").iterdir())
