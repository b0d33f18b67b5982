# SPDX-License-Identifier: Apache-2.0
"""Writes the model file in one pass over the checkpoint."""

import dataclasses
import json
import math

import numpy as np

from train.atomic_file import open_atomically
from train.container import ContainerWriter, to_bf16, to_q8
from train.errors import TrainError

from .errors import ImportFailure

DTYPES = ("f32", "bf16", "q8")
PIECE = 1 << 22  # elements that are converted at a time


@dataclasses.dataclass(frozen=True)
class Output:
    """A tensor of the model file: `build` makes it from the arrays at `sources` of the checkpoint.

    It is an array, or has a shape and gives runs of its rows as arrays: tensor[begin:end].
    """

    name: str
    shape: tuple
    sources: tuple
    build: object
    is_weight: bool  # may have any dtype; all others are float32


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
                if tuple(values.shape) != output.shape:
                    raise ImportFailure(
                        f"{output.name}: made {values.shape} instead of {output.shape}: a bug of the importer"
                    )
                if not _add(writer, output, values, layout):
                    not_finite.append(output.name)
                if progress:
                    progress(done + 1, len(outputs))
            if tokenizer_data is not None:
                writer.add("tokenizer.data", np.frombuffer(tokenizer_data, "u1"))
            writer.finish()
    except TrainError as error:
        raise ImportFailure(str(error)) from error
    return not_finite


def _add(writer, output, values, layout):
    """Returns whether all values are finite."""
    stored = layout[output.name][0]
    finite, scales = [], []

    def convert(piece):
        finite.append(bool(np.isfinite(piece).all()))
        if stored == "F32":
            return piece
        if stored == "BF16":
            return to_bf16(piece)
        if not finite[-1]:
            raise ImportFailure(
                f"{output.name}: holds values that are not finite, which q8 cannot express; import as f32 or bf16"
            )
        weights, scale = to_q8(piece)
        scales.append(scale)
        return weights

    writer.add_pieces(output.name, map(convert, _pieces(values)))
    if stored == "I8":
        writer.add_pieces(output.name + ".scale", scales)
    return all(finite)


def _pieces(values):
    """Runs of rows as float32."""
    if len(values.shape) < 2:
        yield np.asarray(values[...], dtype="<f4")
        return
    step = max(1, PIECE // max(1, math.prod(values.shape[1:])))
    for begin in range(0, values.shape[0], step):
        yield np.asarray(values[begin : begin + step], dtype="<f4", order="C")


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
