# SPDX-License-Identifier: Apache-2.0
"""The one exception type of the importer."""


class ImportFailure(Exception):
    """Says what was wrong, where (file, line, tensor), what was expected and what was found."""
