#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns a Trax checkpoint into a model file (docs/import.md).

    python3 tools/import_trax.py --config config.gin --weights model.pkl.gz --vocab en_16k.subword --reserved-ids 100 \\
        --out terraformer.terrace
"""

import argparse
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from terrace_import import gin_syntax  # noqa: E402
from terrace_import.checkpoint import open_checkpoint  # noqa: E402
from terrace_import.errors import ImportFailure  # noqa: E402
from terrace_import.families import read_model  # noqa: E402
from terrace_import.flat_list import FlatList  # noqa: E402
from terrace_import.gin_config import GinConfig  # noqa: E402
from terrace_import.output import DTYPES, write_model  # noqa: E402
from terrace_import.program import (  # noqa: E402
    add_details,
    details_of,
    run_program,
    warn_of_values_that_are_not_finite,
)
from terrace_import.progress import Progress  # noqa: E402
from terrace_import.rotations import draw  # noqa: E402
from terrace_import.settings import Settings, show  # noqa: E402
from terrace_import.tokenizer import tokenizer_of  # noqa: E402
from terrace_import.trax_functions import MODELS  # noqa: E402


def arguments(argv):
    parser = argparse.ArgumentParser(description="Trax checkpoint to model file", allow_abbrev=False)
    parser.add_argument("--weights", required=True, metavar="FILE", help="X.weights.npy.gz or X.pkl.gz")
    parser.add_argument("--config", metavar="FILE", help="the config.gin that the model was trained with")
    parser.add_argument("--out", required=True, metavar="FILE", help="the model file to write")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="of the weights (default f32)")
    text = parser.add_argument_group(
        "tokenizer (default: none; the model then takes token ids)"
    ).add_mutually_exclusive_group()
    text.add_argument("--vocab", metavar="FILE", help="a .subword vocabulary")
    text.add_argument("--sentencepiece", metavar="FILE", help="a SentencePiece model")
    text.add_argument("--bytes-offset", type=int, metavar="N", help="bytes as tokens: id = byte + N")
    parser.add_argument(
        "--reserved-ids", type=int, default=0, metavar="N", help="added to the ids of --vocab (default 0)"
    )
    parser.add_argument("--start-id", type=int, default=0, metavar="ID", help="the id that is fed first (default 0)")
    parser.add_argument(
        "--end-id", type=int, default=1, metavar="ID", help="the id that ends a text, -1: none (default 1)"
    )
    parser.add_argument(
        "--rotations-seed",
        type=int,
        metavar="N",
        help="draw LSH rotations from this seed (default: from the checkpoint's state, else seed 0)",
    )
    add_details(parser)
    settings = parser.add_argument_group("settings of the model, before those of --config; values as in a gin file")
    settings.add_argument("--model", metavar="FUNCTION", help=f"one of {', '.join(MODELS)}")
    settings.add_argument(
        "--trax-defaults", action="store_true", help="take Trax's defaults for what nothing else tells"
    )
    settings.add_argument(
        "--gin-param", action="append", default=[], metavar="'LAYER.NAME = VALUE'", help="a binding, as in a gin file"
    )
    for name in sorted({name for _, defaults in MODELS.values() for name in defaults}):
        settings.add_argument(
            f"--{name.replace('_', '-')}", metavar="VALUE", dest=f"model_{name}", help=argparse.SUPPRESS
        )
    settings.description = (
        "Also every parameter of the model function by its name, for instance --n-heads 8 or --ff-activation @Relu."
    )
    return parser.parse_args(argv)


def configuration(args):
    """The gin bindings of file and flags."""
    gin = GinConfig()
    if args.config:
        gin.read_file(args.config)
    if args.model:
        gin.read_text(f"train.model = @{args.model}", "--model")
    for text in args.gin_param:
        gin.read_text(text, "--gin-param")
    given = {
        key[len("model_") :]: value
        for key, value in vars(args).items()
        if key.startswith("model_") and value is not None
    }
    function = Settings(gin).function if given else None
    for name, value in given.items():
        gin.read_text(f"{function}.{name} = {_gin_value(name, value)}", f"--{name.replace('_', '-')}")
    return gin


def _gin_value(name, value):
    """A flag's value in gin's form. Bare words are layers or strings, as the parameter wants them."""
    if value.lower() in ("true", "false", "none"):
        return value.capitalize()
    if value.isidentifier():
        is_layer = name.endswith(("_type", "_activation")) and name not in STRING_TYPES
        return f"@{value}" if is_layer else repr(value)
    try:
        gin_syntax.parse(f"value = {value}", name)
        return value
    except ImportFailure:
        return repr(value)  # a word like fixed-base


STRING_TYPES = ("pos_type", "loss_sparsity_type", "ff_sparsity_type")


def run(args):
    settings = Settings(configuration(args), args.trax_defaults)
    checkpoint = open_checkpoint(args.weights)
    flat = FlatList(checkpoint, settings)
    config = read_model(flat)
    config["tokens"] = {"start": args.start_id, "end": args.end_id, "pad": 0}
    tokenizer, data = tokenizer_of(args, config["vocab_size"])
    rotations, origin = draw(flat.hashed, checkpoint.state, args.rotations_seed)
    metadata = {"config": config, "tokenizer": tokenizer, **details_of(args)}
    not_finite = write_model(args.out, checkpoint, flat.outputs, rotations, args.dtype, metadata, data, Progress())

    count = sum(math.prod(output.shape) for output in flat.outputs)
    print(
        f"{args.out}: {config['family']}, {len(checkpoint.shapes)} tensors of {settings.function}, {count:,} parameters",
        file=sys.stderr,
    )
    if settings.assumed:
        print("Trax's defaults: " + ", ".join(f"{k} = {show(v)}" for k, v in settings.assumed.items()), file=sys.stderr)
    if origin:
        print(f"LSH rotations from {origin}", file=sys.stderr)
    for name in settings.unknown_bindings():
        print(f"warning: {name} is no parameter that the importer knows: it has no effect", file=sys.stderr)
    warn_of_values_that_are_not_finite(not_finite)


def main(argv=None):
    return run_program("import_trax", run, arguments(argv))


if __name__ == "__main__":
    sys.exit(main())
