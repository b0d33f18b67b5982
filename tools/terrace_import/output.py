# SPDX-License-Identifier: Apache-2.0
"""Writes the model file: one pass over the checkpoint, one layer in memory."""

import json

import numpy as np

from train.atomic_file import open_atomically
from train.container import ContainerWriter, to_bf16, to_q8
from train.errors import TrainError

from .errors import ImportFailure

DTYPES = ("f32", "bf16", "q8")


def layout_of(outputs, dtype, tokenizer_data):
    """{name: (stored type, shape)} of all tensors; a q8 weight is followed by its scales."""
    layout = {}
    for output in outputs:
        if dtype == "f32" or not output.is_weight:
            layout[output.name] = ("F32", output.shape)
        elif dtype == "bf16":
            layout[output.name] = ("BF16", output.shape)
        else:
            layout[output.name] = ("I8", output.shape)
            layout[output.name + ".scale"] = ("F32", output.shape[:-1])
    if tokenizer_data is not None:
        layout["tokenizer.data"] = ("U8", (len(tokenizer_data),))
    return layout


def write_model(path, checkpoint, outputs, rotations, dtype, metadata, tokenizer_data=None, progress=None):
    """Makes every output from the arrays of the checkpoint, in order, and writes it.

    Returns the names of tensors that hold values that are not finite. `progress(done, total)` is called per tensor.
    """
    layout = layout_of(outputs, dtype, tokenizer_data)
    arrays = _Window(checkpoint, outputs)
    not_finite = []
    try:
        with open_atomically(path) as out:
            writer = ContainerWriter(out, layout, {key: _text(value) for key, value in metadata.items()})
            for done, output in enumerate(outputs):
                values = rotations[output.name] if output.build is None else output.build(*arrays.take(output))
                values = np.asarray(values, dtype="<f4", order="C")
                if values.shape != output.shape:
                    raise ImportFailure(
                        f"{output.name}: made {values.shape} instead of {output.shape}: a bug of the importer"
                    )
                if not np.isfinite(values).all():
                    not_finite.append(output.name)
                _add(writer, output, values, layout)
                if progress:
                    progress(done + 1, len(outputs))
            if tokenizer_data is not None:
                writer.add("tokenizer.data", np.frombuffer(tokenizer_data, "u1"))
            writer.finish()
    except TrainError as error:
        raise ImportFailure(str(error)) from error
    return not_finite


def _add(writer, output, values, layout):
    stored = layout[output.name][0]
    if stored == "F32":
        writer.add(output.name, values)
    elif stored == "BF16":
        writer.add(output.name, to_bf16(values))
    else:
        if not np.isfinite(values).all():
            raise ImportFailure(
                f"{output.name}: holds values that are not finite, which q8 cannot express; import as f32 or bf16"
            )
        weights, scale = to_q8(values)
        writer.add(output.name, weights)
        writer.add(output.name + ".scale", scale)


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


class _Window:
    """The arrays of a pass that are still needed: each is dropped after the last output made from it."""

    def __init__(self, checkpoint, outputs):
        self._stream = enumerate(checkpoint.arrays())
        self._held = {}
        self._uses = {}
        for output in outputs:
            for index in output.sources:
                self._uses[index] = self._uses.get(index, 0) + 1

    def take(self, output):
        while not all(index in self._held for index in output.sources):
            index, array = next(self._stream)
            if index in self._uses:
                self._held[index] = array
        found = [self._held[index] for index in output.sources]
        for index in output.sources:
            self._uses[index] -= 1
            if self._uses[index] == 0:
                del self._held[index]
        return found
