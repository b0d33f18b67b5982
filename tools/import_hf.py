#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns a LLaMA-shaped model in the layout of Hugging Face into a model file (docs/import.md).

python3 tools/import_hf.py --model FOLDER --out llama.terrace
"""

import argparse
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from terrace_import.errors import ImportFailure  # noqa: E402
from terrace_import.hf.architecture import read_architecture  # noqa: E402
from terrace_import.hf.json_file import read_object  # noqa: E402
from terrace_import.hf.settings import Settings  # noqa: E402
from terrace_import.hf.tensors import TensorPlan  # noqa: E402
from terrace_import.hf.text import read_tokenizer, read_tokens  # noqa: E402
from terrace_import.hf.weights import open_weights  # noqa: E402
from terrace_import.output import DTYPES, write_model  # noqa: E402
from terrace_import.program import (  # noqa: E402
    add_details,
    details_of,
    run_program,
    warn_of_values_that_are_not_finite,
)
from terrace_import.progress import Progress  # noqa: E402

BITS = {"F32": 24, "F16": 11, "BF16": 8}  # significant bits


def arguments(argv):
    parser = argparse.ArgumentParser(description="LLaMA-shaped model to model file", allow_abbrev=False)
    parser.add_argument(
        "--model", required=True, metavar="FOLDER", help="with config.json, model.safetensors or its shards"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the model file to write")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights (default: bf16 if they are bf16, else f32: nothing is lost)"
    )
    parser.add_argument(
        "--no-tokenizer", action="store_true", help="leave the tokenizer out: the model takes token ids"
    )
    parser.add_argument(
        "--max-context", type=int, metavar="N", help="positions (default max_position_embeddings of config.json)"
    )
    parser.add_argument(
        "--start-id", type=int, metavar="ID", help="the id that is fed first, -1: none (default bos_token_id)"
    )
    parser.add_argument(
        "--end-id", type=int, metavar="ID", help="the id that ends a text, -1: none (default eos_token_id)"
    )
    add_details(parser)
    return parser.parse_args(argv)


def run(args):
    config_path = os.path.join(args.model, "config.json")
    settings = Settings(config_path, read_object(config_path))
    architecture = read_architecture(settings, args.max_context)
    tokens, more_ends = read_tokens(args.model, settings, architecture.vocab_size, args.start_id, args.end_id)
    settings.finish()
    tokenizer, data, n_texts = read_tokenizer(args.model, architecture.vocab_size, not args.no_tokenizer)
    plan = TensorPlan(config_path, open_weights(args.model), architecture)
    for path in plan.paths():
        if os.path.exists(args.out) and os.path.samefile(args.out, path):
            raise ImportFailure(f"--out: expected a file that is no input, found {args.out}, which is {path}")

    stored = plan.weight_dtypes()
    dtype = args.dtype or ("bf16" if stored == ["BF16"] else "f32")
    metadata = {"config": architecture.config(tokens), "tokenizer": tokenizer, **details_of(args)}
    not_finite = write_model(args.out, plan, plan.outputs, {}, dtype, metadata, data, Progress())

    count = sum(math.prod(output.shape) for output in plan.outputs)
    print(f"{args.out}: {architecture.name}, {count:,} parameters, {', '.join(stored)} to {dtype}", file=sys.stderr)
    if dtype == "bf16" and stored != ["BF16"]:
        kept = ", ".join(f"{BITS['BF16']} of {BITS[name]} bits of {name}" for name in stored if name != "BF16")
        print(f"rounded to bf16, which keeps {kept}", file=sys.stderr)
    if architecture.tied:
        print("the table that embedding and logits share is written twice", file=sys.stderr)
    if data is not None and n_texts < architecture.vocab_size:
        print(
            f"the tokenizer has text for {n_texts} of {architecture.vocab_size} ids (others: padding, added tokens)",
            file=sys.stderr,
        )
    if more_ends:
        print(f"a text ends at {tokens['end']}, not at {more_ends}: a model file holds one (--end-id)", file=sys.stderr)
    warn_of_values_that_are_not_finite(not_finite)


def main(argv=None):
    return run_program("import_hf", run, arguments(argv))


if __name__ == "__main__":
    sys.exit(main())
