# SPDX-License-Identifier: Apache-2.0
"""Imports an oracle model from files in the published layout, runs it, and compares its logits with the oracle's."""

import subprocess

import import_trax
import numpy as np
from oracle.models import ReformerLM, Terraformer, Transformer, TransformerLM
from trax_files import weights_of, write_triple
from train.container import read_container

MODELS = {"lm": TransformerLM, "reformer_lm": ReformerLM, "transformer": Transformer, "terraformer": Terraformer}
TOLERANCE = 2e-5
N_TOKENS, N_INPUTS, N_PADDING = 16, 11, 1  # inputs with padding, and the tokens too: whole chunks of 4


def import_triple(folder, cfg, flat, *flags, **options):
    """Writes the published files, imports them; returns the model file."""
    config, pkl, _ = write_triple(folder, cfg, flat, **options)
    out = folder / "out.model"
    assert import_trax.main(["--config", str(config), "--weights", str(pkl), "--out", str(out), *flags]) == 0
    return out


def run_logits(terrace, model, folder, ids, inputs=None, mode="full"):
    """Logits after each of `ids`; `inputs` are the encoder's: ids, or rows for pre-embedded input."""
    (folder / "ids").write_text(" ".join(map(str, ids)))
    command = [terrace, "logits", "-m", model, "--tokens", folder / "ids", "--out", folder / "y.npy"]
    command += ["--mode", mode, "-t", "1"]
    if inputs is not None and np.ndim(inputs) == 2:
        np.save(folder / "rows.npy", np.asarray(inputs, np.float32))
        command += ["--encoder-vectors", folder / "rows.npy"]
    elif inputs is not None:
        (folder / "encoder").write_text(" ".join(map(str, inputs)))
        command += ["--encoder-tokens", folder / "encoder"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "y.npy")


def check_close(found, expected, what):
    error = np.max(np.abs(found - expected))
    assert error <= TOLERANCE * max(1.0, np.max(np.abs(expected))), (what, error)


def oracle_of(cfg, flat, model=None):
    """The oracle with these weights; the rotations of LSH layers are those of the model file."""
    extra = {}
    if model is not None:
        for name, tensor in read_container(model)[0].items():
            if name.endswith(".rotations"):  # [heads, hashes, rotations, d_head]
                extra[oracle_layer(cfg, name) + ".rotations"] = list(tensor.astype(float).transpose(0, 3, 1, 2))
    return MODELS[cfg.model](cfg, [np.asarray(w, float) for w in flat], extra)


def oracle_layer(cfg, name):
    """decoder.blocks.1.attention.0.rotations -> dec1.attn0 (dec1.attn in the models with one attention per block)."""
    side, _, block, _, sublayer, _ = name.split(".")
    return f"{side[:3]}{block}.attn" + ("" if side == "encoder" or cfg.model == "lm" else sublayer)


def encoder_inputs(cfg, r):
    """Tokens with padding behind them, or rows; None for language models."""
    if cfg.model not in ("terraformer", "transformer"):
        return None
    if cfg.d_input:
        return r.normal(size=(N_INPUTS + N_PADDING, cfg.d_input)).astype(np.float32)
    return np.concatenate([r.integers(1, cfg.vocab, size=N_INPUTS), np.zeros(N_PADDING, int)])


def oracle_logits(oracle, inputs, tokens):
    """(whole sequence, row by row), both of the same length as `tokens`."""
    shifted = np.concatenate([[0], tokens[:-1]])
    if inputs is None:
        whole = oracle.full(tokens)
        oracle.reset()
    else:
        whole = oracle.full(inputs, tokens)
        oracle.start(inputs)
    return whole, np.concatenate([oracle.feed([i]) for i in shifted])


def check_model(terrace, folder, cfg, seed):
    """Whole sequence, row by row, and a prefill of 5 followed by rows: all equal the oracle."""
    r = np.random.default_rng(seed)
    flat = weights_of(cfg, seed)
    model = import_triple(folder, cfg, flat, "--rotations-seed", str(seed))
    tokens = r.integers(1, cfg.out_vocab or cfg.vocab, size=N_TOKENS)
    shifted = np.concatenate([[0], tokens[:-1]])
    inputs = encoder_inputs(cfg, r)
    whole, stepped = oracle_logits(oracle_of(cfg, flat, model), inputs, tokens)
    check_close(run_logits(terrace, model, folder, shifted, inputs, "full"), whole, "full")
    found = run_logits(terrace, model, folder, shifted, inputs, "step")
    check_close(found, stepped, "step")
    assert np.array_equal(found, run_logits(terrace, model, folder, shifted, inputs, "prefill:5"))
