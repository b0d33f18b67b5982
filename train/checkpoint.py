# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that resume exactly and are never half written: temporary file, fsync, rename."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import torch

from train.atomic_file import open_atomically
from train.errors import TrainError
from train.settings import TRAIN_DEFAULTS

LIMITS = {"steps", "minutes"}  # a run may be prolonged


def save_checkpoint(path, config, model, optimizers, progress):
    """Everything a run depends on: weights, optimiser state, counters, configuration (randomness
    derives from seed and step)."""
    state = {
        "config": json.dumps(config),
        "model": model.state_dict(),
        "optimizers": [_plain(optimizer.state_dict()) for optimizer in optimizers],
        "progress": json.dumps(progress),
    }
    with open_atomically(path) as out, ThreadPoolExecutor(1) as thread:
        patient = _PatientFile(out)
        thread.submit(torch.save, state, patient).result()
        if patient.error is not None:
            raise patient.error


class _PatientFile:
    """A file whose write never raises: torch.save would end the process, for it writes again while it unwinds. `error`
    is what went wrong. Ctrl-C does not reach the thread that writes."""

    def __init__(self, out):
        self._out, self.error = out, None

    def write(self, data):
        try:
            if self.error is None:
                self._out.write(data)
        except Exception as error:
            self.error = error
        return len(data)

    def flush(self):
        """open_atomically flushes."""


def _plain(state):
    """Optimiser state with its numbers as JSON: the safe unpickler of torch 1.13 reads tensors, but no floats."""
    return {"state": state["state"], "groups": json.dumps(state["param_groups"])}


def load_checkpoint(path, map_location="cpu"):
    """The saved state, its JSON parts decoded. Errors: missing or damaged file."""
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
        for key in ("config", "progress"):
            state[key] = json.loads(state[key])
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        EOFError,
        pickle.UnpicklingError,
        json.JSONDecodeError,
    ) as error:
        raise TrainError(f"{path}: no checkpoint of this trainer: {error}") from error
    return state


def check_same_configuration(path, saved, wanted):
    """A run resumes only under the configuration it began with, but for its length; names the first difference."""
    saved = {**saved, "train": {**TRAIN_DEFAULTS, **saved.get("train", {})}}  # options younger than the run
    for section in ("model", "data", "train"):
        difference = _first_difference(saved.get(section), wanted.get(section), section)
        if difference:
            raise TrainError(f"{path}: belongs to another configuration: {difference}")


def _first_difference(saved, wanted, where):
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for key in sorted((set(saved) | set(wanted)) - LIMITS):
            found = _first_difference(saved.get(key), wanted.get(key), f"{where}.{key}")
            if found:
                return found
        return None
    return None if saved == wanted else f"{where}: saved {json.dumps(saved)}, now {json.dumps(wanted)}"


def restore(state, model, optimizers):
    """Puts a loaded state back; returns the progress counters."""
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"]):
        optimizer.load_state_dict({"state": saved["state"], "param_groups": json.loads(saved["groups"])})
    return state["progress"]
