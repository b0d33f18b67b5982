#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the two small SentencePiece models of the tokenizer tests and prints the ids that spm_encode gives.

    python3 tests/golden/make_sentencepiece.py [FOLDER]      (needs Debian's `sentencepiece`, made with 0.1.97)

tiny_unigram.model  unigram, byte fallback, three rewriting rules, extra spaces removed (the library's default)
tiny_bpe.model      BPE, no fallback, spaces kept as they are, two user-defined symbols
The corpus is made of the word lists below, so the files do not depend on any text outside this script.
"""
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

SUBJECTS = "the old engineer|a small robot|my neighbour|the quiet river|one thread|every kernel|Zoë|our café".split("|")
VERBS = "reads|writes|carries|measures|forgets|remembers|multiplies|waits for|looks at".split("|")
OBJECTS = "a sparse matrix|the long document|two apples|its own shadow|12 numbers|the cache line|naïve questions".split("|")
TAILS = ", slowly.|!|?|. Then it rains.| and nothing else.|; who knows why.|.".split("|")
RULES = {"\u00e9": "e", "\u2026": "...", "\u00a0": " "}
TEXTS = ["the old engineer reads a sparse matrix.", "  two   spaces ", "caf\u00e9 \u2026 \u00fcber \u4f60\u597d \U0001f600", ""]


def corpus(n_lines=2000):
    rng = random.Random(7)
    pick = lambda *lists: " ".join(rng.choice(words) for words in lists)
    return "\n".join(pick(SUBJECTS, VERBS, OBJECTS) + rng.choice(TAILS) for _ in range(n_lines)) + "\n"


def train(scratch, folder, name, **options):
    """Runs inside the scratch folder: the model records the names it was called with, so they must be relative."""
    command = ["spm_train", "--input=corpus.txt", f"--model_prefix={name}", "--minloglevel=2", "--num_threads=1"]
    subprocess.run(command + [f"--{key}={value}" for key, value in options.items()], check=True, cwd=scratch)
    shutil.copy(pathlib.Path(scratch, f"{name}.model"), folder)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    with tempfile.TemporaryDirectory() as scratch:
        pathlib.Path(scratch, "corpus.txt").write_text(corpus(), encoding="utf-8")
        codes = lambda s: " ".join(f"{ord(c):X}" for c in s)
        rules = "".join(f"{codes(a)}\t{codes(b)}\n" for a, b in RULES.items())
        pathlib.Path(scratch, "rules.tsv").write_text(rules, encoding="utf-8")
        train(scratch, folder, "tiny_unigram", vocab_size=370, byte_fallback="true", normalization_rule_tsv="rules.tsv")
        train(scratch, folder, "tiny_bpe", vocab_size=160, model_type="bpe", normalization_rule_name="identity",
              remove_extra_whitespaces="false", user_defined_symbols="<sep>,<sep>>")
    for name in ("tiny_unigram", "tiny_bpe"):
        for line in TEXTS:
            command = ["spm_encode", f"--model={folder / name}.model", "--output_format=id"]
            ids = subprocess.run(command, input=line + "\n", capture_output=True, text=True, check=True).stdout
            print(name, ascii(line), ids.split())


if __name__ == "__main__":
    main()
