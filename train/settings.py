# SPDX-License-Identifier: Apache-2.0
"""The configuration file of a run: {"model": engine configuration, "data": {..}, "train": {..}}."""

import json
from pathlib import Path

from train.errors import TrainError

# Every training option with its default; a key that is not here is a mistake.
TRAIN_DEFAULTS = {
    "steps": 0,  # end after so many steps; 0: only the time limit counts
    "minutes": 0.0,  # end after so much training time (the schedule follows the clock); 0: only steps count
    "batch_tokens": 4096,  # tokens per optimiser step
    "micro_tokens": 2048,  # tokens per forward/backward pass; the rest is gradient accumulation
    "contexts": {"256": 1.0},  # window length -> probability, drawn per step
    "encoder_context": 256,  # encoder-decoder models: tokens of the document; contexts is the summary's length
    "start_share": 0.5,  # windows whose first id is the start token, as the engine's windows begin
    "lr": 3e-3,  # AdamW: embeddings, output layer, gates, controllers, norms
    "muon": True,  # Muon for the matrices inside the blocks
    "muon_lr": 0.02,
    "betas": [0.9, 0.98],
    "weight_decay": 0.01,
    "warmup": 0.01,  # share of the run
    "final_lr": 0.02,  # share of the peak rate at the end
    "clip": 1.0,  # gradient norm limit
    "temperature": 0.1,  # of the controller's Gumbel noise (published value)
    "quant_prob": 0.3,  # share of steps with a hard choice at the start (published value)
    "quant_prob_final": 0.3,  # ... reached linearly halfway through the run
    "width_probability": [],  # per nested width; empty: uniform
    "bf16": False,  # bf16 autocast
    "seed": 1,
    "eval_every": 250,  # steps
    "eval_rows": 24,  # held-out windows per source
    "eval_context": 512,
    "save_minutes": 3.0,
}


def load_settings(path):
    """Reads and completes a configuration file. Errors: no JSON, missing section, unknown training option."""
    try:
        config = json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise TrainError(f"{path}: cannot read the configuration: {error}") from error
    return complete_settings(config, path)


def complete_settings(config, where="configuration"):
    """The configuration with every training option present."""
    for section in ("model", "data"):
        if not isinstance(config.get(section), dict):
            raise TrainError(f"{where}: expected an object '{section}'")
    given = config.get("train", {})
    unknown = sorted(set(given) - set(TRAIN_DEFAULTS))
    if unknown:
        raise TrainError(f"{where}: train.{unknown[0]}: unknown option; known: {', '.join(TRAIN_DEFAULTS)}")
    return {"model": config["model"], "data": config["data"], "train": {**TRAIN_DEFAULTS, **given}}


def widths_of(model_config):
    """Trained nested widths of the decoder, ascending, the last one d_ff; [d_ff] when the model is not nested.

    A width is whole blocks of a sparse layer and a multiple of 64 units of a dense one, as the engine demands.
    """
    ff, d_ff = model_config["decoder"]["ff"], model_config["d_ff"]
    widths = ff.get("widths")
    if not widths:
        return [d_ff]
    unit = ff["block_size"] if ff["kind"] == "sparse" else 64
    if sorted(set(widths)) != list(widths) or widths[-1] != d_ff or any(w <= 0 or w % unit for w in widths):
        raise TrainError(f"ff.widths {widths}: expected ascending multiples of {unit} that end with d_ff {d_ff}")
    return widths
