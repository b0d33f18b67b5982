#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes subword.json: a small `.subword` vocabulary and what the oracle encodes and decodes with it.

    python3 tests/golden/make_subword.py

The vocabulary holds every oddity of the format: quotes of both kinds, a lone quote, spaces inside quotes and after
them, an empty line, a piece twice, pieces that are no token by themselves, accents, a character beyond the BMP.
"""
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from oracle.subword import SubwordTextEncoder  # noqa: E402

LINES = ["'<pad>'", "'<EOS>'", "'the_'", "'cat'", "'s_'", "'_'", "', _'", "'Stra\u00dfe_'", '"it\'s_"', "'  _'", "'", "'",
         "'re_'  ", "bare_", "\"quote\"\u3000", "'", "", "'the_'", "'\U0001f600_'", "'\u4f60\u597d'", "' . '", "'\\\\u'", "'1'", "'12_'", "' - _'"]
LETTERS = "abcdefghijklmnopqrstuvwxyzTHE \\_u;<>POS,.!-0123456789\u00e9'\"\u00dfqr\u4f60\u597d\U0001f600"
SAMPLES = list("abchetuy_\\;'\" .,-09\n\t") + ["the", " cats ", "\u00e9", "\u0301", "\u00df", "\u0416", "\u4f60\u597d", "\u0664", "\u2167", "\u00b2",
                                         "\u3013", "\ufffd", "\u00a0", "\u2028", "\U0001f600", "\U00010300", "\x00", "\\65;", "\\u", "12", "__"]
TEXTS = ["", " ", "_", "a", "  ", "the cats, the cat", " the cat ", "the,cat", "Hello, world!", "the quick brown fox", "it's - 12 . 1",
         "a_b\\c", "caf\u00e9 \n x", "a  b", "Stra\u00dfe re 12 bare quote", "\u4f60\u597d \u4f60", "\U0001f600 \U0001f601", "\\u \\\\ \\65; \\"]
PARTS = ["\\", "\\u", "\\\\", "65;", "\\9", "1114112;", "\\55296;", "_", "\\u_", "the", "\\12", "99999999999;"]


def main():
    lines = LINES + [f"'{c}'" if c != "'" else "\"'\"" for c in LETTERS] + [f"'{p}'" for p in PARTS]
    vocabulary = "\n".join(lines) + "\n"
    encoder = SubwordTextEncoder(vocabulary)
    rng = random.Random(3)
    texts = TEXTS + ["".join(rng.choice(SAMPLES) for _ in range(rng.randint(1, 14))) for _ in range(120)]
    encoded = [[text, encoder.encode(text)] for text in texts]
    assert all(encoder.decode(ids) == text for text, ids in encoded)
    ids = [[rng.randint(-2, len(lines) + 1) for _ in range(rng.randint(0, 12))] for _ in range(160)]
    decoded = [[row, encoder.decode(row)] for row in ids]
    decoded = [pair for pair in decoded if not any(0xD800 <= ord(c) < 0xE000 for c in pair[1])]  # no text in UTF-8
    out = {"made_by": "tests/golden/make_subword.py", "vocabulary": vocabulary, "pieces": encoder.pieces, "encode": encoded, "decode": decoded}
    pathlib.Path(__file__).with_name("subword.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
