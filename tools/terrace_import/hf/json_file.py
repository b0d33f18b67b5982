# SPDX-License-Identifier: Apache-2.0
"""JSON objects from files that may hold anything."""

import os

from train.container import json_object
from train.errors import TrainError

from ..errors import ImportFailure

MOST_BYTES = 100_000_000


def read_file(path, most=MOST_BYTES):
    """The bytes of a regular file (a pipe or a device would have no end). Errors: not there, larger than `most`."""
    try:
        if not os.path.isfile(path):
            found = "something else" if os.path.lexists(path) else "nothing"
            raise ImportFailure(f"{path}: expected a file, found {found}")
        with open(path, "rb") as source:
            data = source.read(most + 1)
    except OSError as error:
        raise ImportFailure(f"{path}: cannot read: {error.strerror}") from error
    if len(data) > most:
        raise ImportFailure(f"{path}: more than {most} bytes")
    return data


def parse_object(path, what, data):
    try:
        return json_object(path, what, data)
    except TrainError as error:
        raise ImportFailure(str(error)) from error


def read_object(path):
    """The object in a JSON file; no key appears twice in it."""
    return parse_object(path, "the file", read_file(path))
