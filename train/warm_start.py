# SPDX-License-Identifier: Apache-2.0
"""Starting points from a model file: its weights for a run that goes on training, its tokenizer for the data.

q8 and bf16 weights come back as the f32 values they stand for; the optimisers start anew.
"""

import numpy as np
import torch

from train.container import BF16, from_bf16, metadata_object, read_container
from train.errors import TrainError


def stored_values(tensors, name):
    """f32 values of a stored tensor."""
    array = tensors[name]
    if array.dtype == BF16:
        return from_bf16(array)
    if array.dtype == np.int8:
        return array.astype("<f4") * tensors[name + ".scale"][..., None]
    if array.dtype != np.dtype("<f4"):
        raise TrainError(f"tensor '{name}' is stored as {array.dtype}: expected f32, bf16 or q8")
    return array


def load_weights(path, model, config):
    """Fills `model` with the weights of the model file. Errors: another configuration, a tensor that is not there."""
    tensors, metadata = read_container(path)
    found = metadata_object(path, metadata, "config")
    for key in sorted(set(found) | set(config)):
        if found.get(key) != config.get(key):
            raise TrainError(f"{path}: its {key} is {found.get(key)}: expected {config.get(key)}, as this run has it")
    state = model.state_dict()
    with torch.no_grad():
        for name, parameter in state.items():
            if name not in tensors:
                raise TrainError(f"{path}: no tensor '{name}', which this run's model has")
            values = stored_values(tensors, name)
            if values.shape != tuple(parameter.shape):
                raise TrainError(f"{path}: tensor '{name}' is {values.shape}: expected {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(np.array(values)))


def tokenizer_bytes(path):
    """The SentencePiece vocabulary inside a model file."""
    tensors, metadata = read_container(path)
    kind = metadata_object(path, metadata, "tokenizer").get("kind")
    if kind != "sentencepiece":
        raise TrainError(f"{path}: its tokenizer is '{kind}': expected a SentencePiece one")
    if "tokenizer.data" not in tensors:
        raise TrainError(f"{path}: no tensor 'tokenizer.data', which holds the vocabulary")
    return tensors["tokenizer.data"].tobytes()
