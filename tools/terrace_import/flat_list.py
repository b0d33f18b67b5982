# SPDX-License-Identifier: Apache-2.0
"""Walks the flat list of a checkpoint in Trax's order and notes how each tensor of the model file is made from it."""

from .errors import ImportFailure
from .gin_config import ABSENT
from .output import Output


class FlatList:
    """A cursor over the shapes of a checkpoint.

    take() states the shape that the model demands. An axis may be a number or the name of a setting: a setting that is
    not known yet gets the number that is found, a known one must agree.
    """

    def __init__(self, checkpoint, settings):
        self.shapes, self._is_zero = checkpoint.shapes, checkpoint.is_zero
        self.settings = settings
        self.at = 0
        self.outputs = []
        self.hashed = []  # LSH layers, whose rotations are drawn later

    def peek(self, ahead=0):
        """Shape of a tensor to come; () behind the end."""
        index = self.at + ahead
        return self.shapes[index] if index < len(self.shapes) else ()

    def axis(self, axis, ahead=0):
        """Size of one axis of a tensor to come; 1 where there is none, so that the take() that follows reports it."""
        shape = self.peek(ahead)
        return shape[axis] if -len(shape) <= axis < len(shape) else 1

    @property
    def remaining(self):
        return len(self.shapes) - self.at

    def is_zero(self, index):
        return self._is_zero[index]

    def take(self, name, *axes, or_shapes=()):
        """Index of the next tensor, whose shape must be `axes` or one of `or_shapes`."""
        index = self.at
        expected = [self._known(axis) for axis in axes]
        if index == len(self.shapes):
            raise ImportFailure(
                f"the checkpoint ends after {index} tensors; expected tensor {index} ({name}) of shape {self._show(axes, expected)}"
            )
        found = tuple(self.shapes[index])
        same_rank = len(found) == len(expected)
        if found not in or_shapes:
            if not same_rank or any(e not in (None, n) for e, n in zip(expected, found)):
                raise ImportFailure(
                    f"tensor {index} of {len(self.shapes)} ({name}): expected shape {self._show(axes, expected)}, found {list(found)}"
                )
            for axis, number in zip(axes, found):
                if isinstance(axis, str):
                    self.settings.find(axis, number)
        self.at += 1
        return index

    def put(self, name, shape, sources, build, is_weight=False):
        sources = (sources,) if isinstance(sources, int) else tuple(sources)
        self.outputs.append(Output(name, tuple(int(n) for n in shape), sources, build, is_weight))

    def finish(self):
        if self.remaining:
            raise ImportFailure(
                f"the checkpoint holds {len(self.shapes)} tensors, the model only {self.at}: tensor {self.at} of shape "
                f"{list(self.peek())} belongs to nothing"
            )

    def _known(self, axis):
        if not isinstance(axis, str):
            return axis
        value = self.settings.known(axis)
        return None if value is ABSENT else value

    @staticmethod
    def _show(axes, expected):
        parts = [
            (
                axis
                if isinstance(axis, str) and value is None
                else f"{axis} = {value}" if isinstance(axis, str) else str(value)
            )
            for axis, value in zip(axes, expected)
        ]
        return "[" + ", ".join(parts) + "]"
