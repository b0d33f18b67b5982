# SPDX-License-Identifier: Apache-2.0
"""From checkpoints to model files: of Trax, and in hf/ of LLaMA-shaped models.

    checkpoint.py   the flat weight list of either checkpoint generation   <- npy_stream.py, safe_pickle.py
    gin_config.py   bindings, macros and scopes of config.gin              <- gin_syntax.py
    settings.py     one place that answers for a setting: flag, gin file, shapes, or a question to the user
    flat_list.py    walks the flat list, checks every shape, and notes how each tensor of the model file is made
    projections.py, attention.py, feed_forward.py, positions.py, stacks.py, families.py
                    the layers and models in Trax's order, and their part of the configuration
    rotations.py    LSH rotations from the keys in the checkpoint or from a seed
    output.py       writes the model file in one pass over the checkpoint, from rows to rows
    progress.py     how far it is
    program.py      what the command lines of the importers share

Needs numpy and xxhash only.
"""
