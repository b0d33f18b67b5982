# SPDX-License-Identifier: Apache-2.0
"""The one exception type that training raises for a user's mistake or a full disk."""


class TrainError(Exception):
    """Says what was wrong, where, and what was expected; printed as one line by the command-line tools."""
