# SPDX-License-Identifier: Apache-2.0
"""What the importers' command lines share."""

import sys

from .errors import ImportFailure

DETAILS = ("name", "source", "license")


def add_details(parser):
    """Flags for what a model file says about where it comes from."""
    for key in DETAILS:
        parser.add_argument(f"--{key}", help=f"metadata '{key}' of the file")


def details_of(args):
    """The metadata of those that were given."""
    return {key: getattr(args, key) for key in DETAILS if getattr(args, key)}


def warn_of_values_that_are_not_finite(names):
    for name in names:
        print(f"warning: {name} holds values that are not finite", file=sys.stderr)


def run_program(name, run, args):
    """Calls run(args); returns the exit status, after a line about what went wrong."""
    try:
        run(args)
    except ImportFailure as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing was written", file=sys.stderr)
        return 1
    return 0
