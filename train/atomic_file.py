# SPDX-License-Identifier: Apache-2.0
"""Files that appear complete or not at all: temporary file beside the target, fsync, rename."""

import contextlib
import os
from pathlib import Path

from train.errors import TrainError


@contextlib.contextmanager
def open_atomically(path):
    """A binary file that replaces `path` when the block ends; if anything fails, the temporary file goes and what was at
    `path` stays. Errors of the file system (disk full, no permission) become TrainError."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # what matters is the error itself and the previous file
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise TrainError(f"{path}: cannot save: {error.strerror}; the previous file is kept") from error
        raise


def write_atomically(path, data):
    """Replaces `path` by `data`; on any failure the previous file is untouched. Errors: disk full, no permission."""
    with open_atomically(path) as out:
        out.write(data)
