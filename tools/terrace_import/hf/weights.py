# SPDX-License-Identifier: Apache-2.0
"""The tensors of a folder, in one file or in shards."""

import os

from ..errors import ImportFailure
from .json_file import read_object
from .safetensors_file import read_tensors

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth")


def open_weights(folder):
    """{name: StoredTensor} of the folder."""
    if os.path.isfile(os.path.join(folder, WHOLE)):
        return read_tensors(os.path.join(folder, WHOLE))
    if os.path.isfile(os.path.join(folder, INDEX)):
        return _shards(folder)
    try:
        pickles = sorted(name for name in os.listdir(folder) if name.endswith(PICKLES))
    except OSError as error:
        raise ImportFailure(f"{folder}: cannot read: {error.strerror}") from error
    if pickles:
        raise ImportFailure(
            f"{folder}: its weights are pickles ({pickles[0]}), which could run any code and are not read; convert them: "
            "load the model with transformers, then save_pretrained(..., safe_serialization=True)"
        )
    raise ImportFailure(f"{folder}: expected {WHOLE} or {INDEX}, found neither")


def _shards(folder):
    path = os.path.join(folder, INDEX)
    where = read_object(path).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ImportFailure(f"{path}: expected 'weight_map' with the file of every tensor")
    for name, shard in where.items():
        # A name, not a path: nothing outside the folder is read. (The file may be a link, as in a download cache.)
        if not isinstance(shard, str) or shard != os.path.basename(shard) or "\\" in shard or not shard.isprintable():
            raise ImportFailure(f"{path}: tensor {name!r}: expected the name of a file in the folder, found {shard!r}")
        if not shard.endswith(".safetensors"):
            raise ImportFailure(f"{path}: tensor {name!r}: expected a .safetensors file, found {shard!r}")
    tensors = {}
    for shard in sorted(set(where.values())):
        shard_path = os.path.join(folder, shard)
        if not os.path.isfile(shard_path):
            raise ImportFailure(f"{shard_path}: is named in {INDEX}, and there is no such file")
        for name, tensor in read_tensors(shard_path).items():
            if where.get(name) != shard:
                raise ImportFailure(
                    f"{shard_path}: holds tensor {name!r}; {INDEX} has it in {where.get(name, 'no file')!r}"
                )
            tensors[name] = tensor
    for name, shard in where.items():
        if name not in tensors:
            raise ImportFailure(f"{os.path.join(folder, shard)}: expected tensor {name!r} by {INDEX}, found none")
    return tensors
