# SPDX-License-Identifier: Apache-2.0
"""A resumed run is the uninterrupted run; the number of workers changes nothing."""

import os
import resource
import signal
import subprocess
import sys
import tracemalloc

import pytest
import torch

from train import checkpoint
from train.checkpoint import load_checkpoint, save_checkpoint
from train.errors import TrainError
from train.tests import tiny
from train.trainer import Trainer


def weights_after(config, folder, byte_lengths, **arguments):
    trainer = Trainer(config, folder, byte_lengths, **arguments)
    trainer.run()
    return trainer.model.state_dict()


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("name", ["nested", "terraformer", "mixture_of_depths", "lsh"])
def test_resume_repeats_the_uninterrupted_run(name, corpus, byte_lengths, tmp_path):
    model = tiny.ALL_FAMILIES[name]
    whole = weights_after(tiny.settings(model, corpus, steps=6), tmp_path / "whole", byte_lengths)
    first = Trainer(tiny.settings(model, corpus, steps=6), tmp_path / "parts", byte_lengths)
    for _ in range(3):
        first.step()
    first.save()
    config = tiny.settings(model, corpus, steps=6)
    resumed = weights_after(config, tmp_path / "parts", byte_lengths, resume=True)
    assert_same(whole, resumed)


def test_workers_do_not_change_the_result(corpus, byte_lengths, tmp_path):
    config = tiny.settings(tiny.ALL_FAMILIES["nested"], corpus, steps=3)
    one = weights_after(config, tmp_path / "one", byte_lengths, workers=1)
    two = weights_after(config, tmp_path / "two", byte_lengths, workers=2)
    assert_same(one, two)


def test_a_run_is_not_overwritten(corpus, byte_lengths, tmp_path):
    config = tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=1)
    weights_after(config, tmp_path, byte_lengths)
    with pytest.raises(TrainError, match="--resume"):
        Trainer(config, tmp_path, byte_lengths)


def test_another_configuration_is_refused_by_name(corpus, byte_lengths, tmp_path):
    weights_after(tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=1), tmp_path, byte_lengths)
    other = tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=1, lr=5e-3)
    with pytest.raises(TrainError, match="train.lr: saved 0.01, now 0.005"):
        Trainer(other, tmp_path, byte_lengths, resume=True)


def test_a_run_may_be_prolonged(corpus, byte_lengths, tmp_path):
    model = tiny.ALL_FAMILIES["dense"]
    weights_after(tiny.settings(model, corpus, steps=2), tmp_path, byte_lengths)
    weights_after(tiny.settings(model, corpus, steps=5), tmp_path, byte_lengths, resume=True)
    assert load_checkpoint(tmp_path / "last.pt")["progress"]["step"] == 5


def test_a_full_disk_keeps_the_previous_checkpoint(corpus, byte_lengths, tmp_path, monkeypatch):
    trainer = Trainer(tiny.settings(tiny.ALL_FAMILIES["dense"], corpus, steps=2), tmp_path, byte_lengths)
    trainer.step()
    trainer.save()
    before = (tmp_path / "last.pt").read_bytes()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    trainer.step()
    with pytest.raises(TrainError, match="No space left on device; the previous file is kept"):
        trainer.save()
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
    assert load_checkpoint(tmp_path / "last.pt")["progress"]["step"] == 1


def test_a_damaged_checkpoint_is_named(corpus, byte_lengths, tmp_path):
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainError, match="last.pt: no checkpoint"):
        Trainer(tiny.settings(tiny.ALL_FAMILIES["dense"], corpus), tmp_path, byte_lengths, resume=True)


def layers(count, width=256):
    return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(count)))


def test_saving_needs_memory_for_a_tensor_not_for_the_checkpoint(tmp_path):
    model = layers(16)
    tracemalloc.start()
    save_checkpoint(tmp_path / "c.pt", {}, model, [], {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "c.pt").stat().st_size / 3
    assert_same(load_checkpoint(tmp_path / "c.pt")["model"], model.state_dict())


def save_beyond_the_limit(path):
    """Saves a small checkpoint, then one that is larger than any file may be from now on."""
    save_checkpoint(path, {}, layers(1), [], {"step": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    try:
        save_checkpoint(path, {}, layers(16), [], {"step": 2})
    except TrainError as error:
        print(error)


def test_a_disk_that_fills_up_while_saving(tmp_path):
    """In a process of its own, which torch would end."""
    script = f"from train.tests import test_resume; test_resume.save_beyond_the_limit({str(tmp_path / 'c.pt')!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "c.pt: cannot save: File too large; the previous file is kept" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]
    assert load_checkpoint(tmp_path / "c.pt")["progress"]["step"] == 1


def test_ctrl_c_while_saving_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {}, layers(1), [], {"step": 1})
    write = checkpoint._PatientFile.write

    def interrupted(file, data):
        if len(data) > 100_000:
            os.kill(os.getpid(), signal.SIGINT)
        return write(file, data)

    monkeypatch.setattr(checkpoint._PatientFile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {}, layers(1), [], {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]
    assert load_checkpoint(path)["progress"]["step"] == 1
