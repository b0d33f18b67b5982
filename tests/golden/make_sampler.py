#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes sampler.json: logits, contexts and configurations with the distribution the oracle draws from.

    python3 tests/golden/make_sampler.py
"""
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from oracle.samplers import distribution  # noqa: E402

LLAMA = "penalties,top_k,top_p,min_p,temperature"
HF = "penalties,temperature,top_k,top_p,min_p"
ORDERS = [LLAMA, HF, LLAMA, HF, "temperature,min_p,top_p,top_k,penalties", "top_k", "min_p,temperature", "top_p,penalties"]
NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "frequency_penalty": 0.0,
           "presence_penalty": 0.0, "repeat_last_n": 64, "keep_ties": False, "order": LLAMA}


def configurations(rng):
    yield dict(NEUTRAL)
    single = {"temperature": [0.0, 0.3, 2.0], "top_k": [1, 5, 100], "top_p": [0.0, 0.5, 0.95], "min_p": [0.02, 0.3, 1.0],
              "repeat_penalty": [1.3, 0.8], "frequency_penalty": [0.4, -0.2], "presence_penalty": [0.6]}
    for key, values in single.items():
        for value in values:
            yield dict(NEUTRAL, **{key: value})
    pick = lambda values: values[rng.integers(len(values))]
    for _ in range(60):
        yield {"temperature": pick([0.0, 0.5, 0.8, 1.0, 2.0]), "top_k": pick([0, 3, 8, 15]), "top_p": pick([1.0, 0.9, 0.6]),
               "min_p": pick([0.0, 0.05, 0.2]), "repeat_penalty": pick([1.0, 1.2]), "frequency_penalty": pick([0.0, 0.3]),
               "presence_penalty": pick([0.0, 0.5]), "repeat_last_n": pick([0, 4, 64, -1]), "keep_ties": bool(rng.integers(2)),
               "order": pick(ORDERS)}


def main():
    rng = np.random.default_rng(8)
    cases = []
    for config in configurations(rng):
        z = np.round(rng.standard_normal(24) * 3, 2).astype(np.float32)
        if rng.integers(3) == 0:
            z = np.round(z)  # ties
        context = rng.integers(0, 24, size=int(rng.integers(0, 12))).tolist()
        n = config["repeat_last_n"]
        window = context if n < 0 else context[len(context) - min(n, len(context)):]
        p = distribution(z.astype(np.float64), window, config)
        cases.append({"config": config, "logits": [round(float(v), 2) for v in z], "context": context,
                      "ids": np.flatnonzero(p).tolist(), "probabilities": [float(f"{v:.12g}") for v in p[p > 0]]})
    out = {"made_by": "tests/golden/make_sampler.py", "cases": cases}
    pathlib.Path(__file__).with_name("sampler.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
