# SPDX-License-Identifier: Apache-2.0
"""Combinations of options in which every pair of values of two options occurs."""

import itertools
import random


def all_pairs(axes, allowed=lambda row: True):
    """Rows {axis: value's name} for axes {axis: names}; `allowed` refuses combinations (it sees rows in the making, and
    must not refuse a part of a row that it would accept). Greedy: each row starts from a pair that is still missing."""
    rng = random.Random(0)
    names = list(axes)
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in axes[a]
        for y in axes[b]
        if allowed({a: x, b: y})
    }
    rows = []
    while missing:
        row = dict(min(missing))
        rest = [name for name in names if name not in row]
        rng.shuffle(rest)
        for name in rest:
            choices = [value for value in axes[name] if allowed({**row, name: value})]
            row[name] = max(choices, key=lambda value: (gain(row, name, value, names, missing), rng.random()))
        covered = {((a, row[a]), (b, row[b])) for a, b in itertools.combinations(names, 2)}
        if not covered & missing:  # the pair cannot be completed
            missing.discard(min(missing))
            continue
        missing -= covered
        rows.append({name: row[name] for name in names})
    return rows


def gain(row, name, value, names, missing):
    """How many missing pairs a value adds to a row in the making."""
    pairs = (
        ((other, row[other]), (name, value))
        if names.index(other) < names.index(name)
        else ((name, value), (other, row[other]))
        for other in row
    )
    return sum(pair in missing for pair in pairs)
