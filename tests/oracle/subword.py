# SPDX-License-Identifier: Apache-2.0
"""The `.subword` vocabulary (trax/data/text_encoder.py)."""

import re
import unicodedata


class SubwordTextEncoder:
    def __init__(self, text):
        """text: the whole .subword file."""
        self.pieces = []
        lines = text.split("\n")
        if lines and lines[-1] == "":
            lines.pop()
        for s in lines:
            s = s.rstrip()
            if len(s) >= 1 and s[0] in "'\"" and s[0] == s[-1]:
                s = s[1:-1]
            self.pieces.append(s)
        self.id_of = {s: i for i, s in enumerate(self.pieces) if s}
        self.longest = max(len(s) for s in self.pieces)
        self.alphabet = set("\\_u;0123456789").union(*map(set, self.pieces))

    @staticmethod
    def _alnum(c):
        return unicodedata.category(c)[0] in "LN"

    @classmethod
    def tokenize(cls, text):
        """Maximal runs of alphanumeric / non-alphanumeric; inner single spaces vanish."""
        runs = []
        for c in text:
            if runs and cls._alnum(runs[-1][-1]) == cls._alnum(c):
                runs[-1] += c
            else:
                runs.append(c)
        last = len(runs) - 1
        return [r for i, r in enumerate(runs) if r != " " or i in (0, last)]

    def escape(self, tok):
        tok = tok.replace("\\", "\\\\").replace("_", "\\u")
        return "".join(c if c in self.alphabet and c != "\n" else "\\%d;" % ord(c) for c in tok) + "_"

    @staticmethod
    def unescape(piece):
        def sub(m):
            if m.group(1) is None:
                return "_" if m.group(0) == "\\u" else "\\"
            try:
                return chr(int(m.group(1)))
            except (ValueError, OverflowError):
                return "\u3013"
        return re.sub(r"\\u|\\\\|\\([0-9]+);", sub, piece[:-1] if piece.endswith("_") else piece)

    def encode(self, text, n_reserved=0):
        out = []
        for tok in self.tokenize(text):
            s, i = self.escape(tok), 0
            while i < len(s):
                for j in range(min(len(s), i + self.longest), i, -1):
                    if s[i:j] in self.id_of:
                        out.append(self.id_of[s[i:j]] + n_reserved)
                        i = j
                        break
                else:
                    raise ValueError("piece not in vocabulary: %r" % s[i:])
        return out

    def decode(self, ids, n_reserved=0):
        cat = "".join(self.pieces[i - n_reserved] if 0 <= i - n_reserved < len(self.pieces) else ""
                      for i in ids)
        toks = [u for u in (self.unescape(t + "_") for t in cat.split("_") if t) if u]
        out = []
        for i, t in enumerate(toks):
            if i and self._alnum(toks[i - 1][0]) and self._alnum(t[0]):
                out.append(" ")
            out.append(t)
        return "".join(out)
