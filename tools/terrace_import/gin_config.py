# SPDX-License-Identifier: Apache-2.0
"""The bindings of a gin file: which value a parameter of a Trax function or layer has, in which scope."""

import os

from .errors import ImportFailure
from .gin_syntax import Macro, Reference, parse

ABSENT = object()


class UndefinedMacro(ImportFailure):
    """A binding refers to a macro that no file defines."""


class GinConfig:
    """Bindings of one or more texts; a later binding replaces an earlier one of the same scope and name.

    A name is compared by its last part: `trax.layers.LSHSelfAttention.n_hashes` and `LSHSelfAttention.n_hashes` are one.
    """

    def __init__(self):
        self._bindings = {}  # (scope, function, parameter) -> value
        self._macros = {}
        self._missing_includes = []

    def read_file(self, path):
        """Reads a file and, beside it, the files that it includes. An include that is not there is an error only once a
        macro that it might define is needed: published files come without theirs."""
        try:
            with open(path, encoding="utf-8") as source:
                text = source.read()
        except (OSError, UnicodeDecodeError) as error:
            raise ImportFailure(f"{path}: cannot read: {getattr(error, 'strerror', None) or error}") from error
        self._read(text, path, os.path.dirname(path), (os.path.abspath(path),))

    def read_text(self, text, where):
        self._read(text, where, None, ())

    def _read(self, text, where, folder, open_files):
        for statement in parse(text, where):
            if statement.kind == "binding":
                self._bind(statement)
            elif statement.kind == "include":
                self._include(statement, where, folder, open_files)

    def _include(self, statement, where, folder, open_files):
        path = os.path.join(folder or "", str(statement.value))
        if not os.path.exists(path):
            self._missing_includes.append(str(statement.value))
            return
        if os.path.abspath(path) in open_files:
            raise ImportFailure(f"{where}, line {statement.line}: includes itself through {statement.value!r}")
        with open(path, encoding="utf-8") as source:
            self._read(source.read(), path, os.path.dirname(path), open_files + (os.path.abspath(path),))

    def _bind(self, statement):
        *scopes, selector = statement.target.split("/")
        *module, parameter = selector.split(".")
        if not module:  # name = value
            self._macros[statement.target] = statement.value
        elif module == ["macro"] and parameter == "value":  # name/macro.value = value
            self._macros["/".join(scopes)] = statement.value
        else:
            self._bindings["/".join(scopes), module[-1], parameter] = statement.value

    def lookup(self, function, parameter, scopes=()):
        """The bound value with macros replaced, or ABSENT. The longest prefix of `scopes` that has a binding wins."""
        for length in range(len(scopes), -1, -1):
            key = "/".join(scopes[:length]), function, parameter
            if key in self._bindings:
                return self._resolve(self._bindings[key], ())
        return ABSENT

    def bindings(self):
        """(scopes with their slashes, function, parameter) of every binding."""
        return list(self._bindings)

    def functions(self):
        """Names of all functions that have a binding."""
        return {function for _, function, _ in self._bindings}

    def _resolve(self, value, names):
        if isinstance(value, Macro):
            if value.name in names:
                raise ImportFailure(f"gin: macro %{value.name} is defined by itself")
            if value.name not in self._macros:
                hint = (
                    f", perhaps in {', '.join(self._missing_includes)}, which was not found"
                    if self._missing_includes
                    else ""
                )
                raise UndefinedMacro(f"the gin file's %{value.name} is not defined{hint}")
            return self._resolve(self._macros[value.name], names + (value.name,))
        if isinstance(value, (list, tuple)):
            return type(value)(self._resolve(item, names) for item in value)
        if isinstance(value, dict):
            return {key: self._resolve(item, names) for key, item in value.items()}
        return value


def is_reference(value):
    return isinstance(value, Reference)
