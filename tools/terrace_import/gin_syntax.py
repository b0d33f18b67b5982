# SPDX-License-Identifier: Apache-2.0
"""Reads the text of a gin file into statements; evaluates nothing.

statement := import MODULE | include STRING | NAME = value
value     := number | string... | True | False | None | [value, ...] | (value, ...) | {value: value, ...}
           | @scope/module.Name | @scope/module.Name() | %macro
"""

import ast
import dataclasses
import io
import tokenize

from .errors import ImportFailure

SKIPPED = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


@dataclasses.dataclass(frozen=True)
class Reference:
    """@scope/module.Name, called at once when followed by ()."""

    scopes: tuple
    name: str  # the last part only
    called: bool = False


@dataclasses.dataclass(frozen=True)
class Macro:
    """%name"""

    name: str


@dataclasses.dataclass(frozen=True)
class Statement:
    kind: str  # "import", "include" or "binding"
    target: str
    value: object
    line: int


def parse(text, where):
    """Statements of a gin file. `where` names it in errors, which give the line."""
    try:
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in SKIPPED]
    except (tokenize.TokenError, IndentationError, SyntaxError) as error:
        raise ImportFailure(f"{where}: not a gin file: {error.args[0]}") from error
    return list(_Parser(tokens, where).statements())


class _Parser:
    def __init__(self, tokens, where):
        self.tokens, self.where, self.at = tokens, where, 0

    def statements(self):
        while self.peek().type != tokenize.ENDMARKER:
            if self.peek().type == tokenize.NEWLINE:
                self.at += 1
                continue
            yield self.statement()
            if self.peek().type not in (tokenize.NEWLINE, tokenize.ENDMARKER):
                self.fail("the end of the line")

    def statement(self):
        line = self.peek().start[0]
        if self.peek().string == "import" and self.peek(1).type == tokenize.NAME:
            self.at += 1
            return Statement("import", self.dotted(), None, line)
        if self.peek().string == "include" and self.peek(1).type == tokenize.STRING:
            self.at += 1
            return Statement("include", "", self.value(), line)
        target = self.dotted(separators=(".", "/"))
        self.expect("=")
        return Statement("binding", target, self.value(), line)

    def value(self):
        token = self.peek()
        if token.string in ("[", "(", "{"):
            return self.container()
        if token.string == "@":
            self.at += 1
            return self.reference()
        if token.string == "%":
            self.at += 1
            return Macro(self.dotted(separators=(".", "/")))
        return self.literal()

    def container(self):
        opening = self.take()
        closing = {"[": "]", "(": ")", "{": "}"}[opening]
        items, commas = [], 0
        while self.peek().string != closing:
            item = self.value()
            if opening == "{":
                self.expect(":")
                item = (item, self.value())
            items.append(item)
            if self.peek().string != closing:
                self.expect(",")
                commas += 1
        self.take()
        if opening == "[":
            return items
        if opening == "{":
            return dict(items)
        return items[0] if len(items) == 1 and commas == 0 else tuple(items)

    def reference(self):
        *scopes, selector = self.dotted(separators=(".", "/")).split("/")
        called = self.peek().string == "("
        if called:
            self.expect("(")
            self.expect(")")
        return Reference(tuple(scopes), selector.split(".")[-1], called)

    def literal(self):
        """Numbers with their sign, strings (several in a row are joined), True, False, None."""
        first = self.at
        if self.peek().string in ("-", "+"):
            self.at += 1
        kind = self.peek().type
        self.at += 1
        while kind == tokenize.STRING and self.peek().type == tokenize.STRING:
            self.at += 1
        text = " ".join(t.string for t in self.tokens[first : self.at])
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            self.at = first
            self.fail("a value (literal, list, @reference or %macro)")

    def dotted(self, separators=(".",)):
        text = ""
        while True:
            if self.peek().type != tokenize.NAME:
                self.fail("a name")
            text += self.take()
            if self.peek().string not in separators:
                return text
            text += self.take()

    def peek(self, ahead=0):
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self):
        self.at += 1
        return self.tokens[self.at - 1].string

    def expect(self, text):
        if self.peek().string != text:
            self.fail(f"'{text}'")
        self.at += 1

    def fail(self, expected):
        token = self.peek()
        found = token.string.strip() or "the end of the line"
        raise ImportFailure(f"{self.where}, line {token.start[0]}: expected {expected}, found {found[:40]!r}")
