# SPDX-License-Identifier: Apache-2.0
"""Does sparsity cost quality? Trains small models in pairs and lets the engine measure them on held-out text.

    python3 -m train.quality --data runs/data --out runs/quality --steps 2000 --terrace build/release/terrace

Every model sees the same tokens in the same order (same seed, same batches). Models of one comparison have equal
parameter counts where the comparison asks for it: the feed-forward width of the second is chosen to match. Bits per
byte come from `terrace perplexity` on <data>/test.txt, not from the trainer. A finished model is not trained again.
Writes results.json, results.md and, where matplotlib is installed, results.svg; a run with --only adds to those.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from train.atomic_file import write_atomically
from train.checkpoint import load_checkpoint
from train.errors import TrainError
from train.export import export_model
from train.families import build_model
from train.progress import non_interactive_pyplot, save_figure
from train.settings import complete_settings, widths_of
from train.token_files import load_report
from train.trainer import Trainer
from train.vocabulary import load_vocabulary

CONTEXT = 256
DENSE_ATTENTION = {"kind": "dot_product"}
SPARSE_ATTENTION = {"kind": "multiplicative_conv", "n_modules": 4, "kernel_size": 3}
DENSE_FF = {"kind": "dense", "activation": "relu"}
SPARSE_FF = {"kind": "sparse", "block_size": 16, "d_lowrank": 32}


@dataclass
class Candidate:
    """A model of a comparison, and the training options in which it differs from the others."""

    model: dict
    options: dict = field(default_factory=dict)


def language_model(vocab_size, attention, ff, logits, d_ff=512, **stack):
    """Configuration of the comparisons' base size: width 128, three blocks."""
    return {
        "family": "transformer_lm",
        "d_model": 128,
        "d_ff": d_ff,
        "n_heads": 4,
        "vocab_size": vocab_size,
        "max_context": CONTEXT,
        "norm": {"kind": "layer_norm", "epsilon": 1e-6},
        "decoder": {
            "n_layers": 3,
            "n_attention": 1,
            "center_norm": True,
            "position": {"kind": "learned", "max_len": CONTEXT},
            "attention": [attention],
            "ff": ff,
            **stack,
        },
        "logits": logits,
        "tokens": {"start": 0, "end": 1, "pad": 0},
    }


def parameter_count(config):
    return sum(parameter.numel() for parameter in build_model(config).parameters())


def matched(config, target):
    """`config` with the d_ff (a multiple of 64) whose parameter count is nearest to `target`."""
    one, two = ({**config, "d_ff": d_ff} for d_ff in (64, 128))
    per_unit = (parameter_count(two) - parameter_count(one)) / 64
    d_ff = 64 * max(1, round((64 + (target - parameter_count(one)) / per_unit) / 64))
    return {**config, "d_ff": d_ff}


def comparisons(vocab_size):
    """{name: Candidate}; names that share a prefix up to '/' are read together."""
    dense_logits, sparse_logits = {"kind": "dense"}, {"kind": "mult", "n_modules": 2}
    dense = language_model(vocab_size, DENSE_ATTENTION, DENSE_FF, dense_logits)
    target = parameter_count(dense)
    sparse_ff = language_model(vocab_size, DENSE_ATTENTION, SPARSE_FF, dense_logits)
    sparse_qkv = language_model(vocab_size, SPARSE_ATTENTION, DENSE_FF, dense_logits)
    sparse_loss = language_model(vocab_size, DENSE_ATTENTION, DENSE_FF, sparse_logits)
    sparse = matched(language_model(vocab_size, SPARSE_ATTENTION, SPARSE_FF, sparse_logits), target)
    candidates = {
        "sparsity/dense": Candidate(dense),
        "sparsity/all three": Candidate(sparse),
        "sparsity/sparse feed-forward": Candidate(matched(sparse_ff, target)),
        "sparsity/sparse QKV": Candidate(matched(sparse_qkv, target)),
        "sparsity/sparse output layer": Candidate(matched(sparse_loss, target)),
    }
    widths = [128, 256, 512]
    nested = {**SPARSE_FF, "widths": widths}
    candidates["widths/nested"] = Candidate(language_model(vocab_size, SPARSE_ATTENTION, nested, sparse_logits))
    for width in widths:
        model = language_model(vocab_size, SPARSE_ATTENTION, SPARSE_FF, sparse_logits, width)
        candidates[f"widths/alone {width}"] = Candidate(model)
    hashed = {
        "kind": "lsh",
        "chunk_len": 32,
        "n_chunks_before": 1,
        "n_chunks_after": 0,
        "n_hashes": 2,
        "n_buckets": 8,
        "mem_len": CONTEXT,
        "drop_len": CONTEXT // 4,
    }
    exact = {"kind": "self", "share_qk": True}
    for name, attention in (("exact shared QK", exact), ("LSH", hashed)):
        candidates[f"attention/{name}"] = Candidate(language_model(vocab_size, attention, DENSE_FF, dense_logits))
    for name, width in (("predictor", 32), ("router decides", 0)):
        depths = {"every": 2, "capacity": 0.125, "predictor_width": width}
        model = language_model(vocab_size, SPARSE_ATTENTION, SPARSE_FF, sparse_logits, mixture_of_depths=depths)
        candidates[f"depth/routed, {name}"] = Candidate(model)
    unrouted = language_model(vocab_size, SPARSE_ATTENTION, SPARSE_FF, sparse_logits)
    candidates["depth/all tokens, three blocks"] = Candidate(unrouted)
    candidates["depth/all tokens, two blocks"] = Candidate(
        {**unrouted, "decoder": {**unrouted["decoder"], "n_layers": 2}}
    )
    candidates["controller/always hard"] = Candidate(sparse, {"quant_prob": 1.0})
    candidates["controller/hard in 30 %, as published"] = Candidate(sparse, {"quant_prob_final": 0.3})
    candidates["controller/no Gumbel noise"] = Candidate(sparse, {"temperature": 0.0})
    return candidates


def train_one(name, candidate, options, arguments, byte_lengths):
    """Trains unless its run is finished; returns the folder."""
    folder = Path(arguments.out) / re.sub("[^A-Za-z0-9]+", "-", name)
    sources = {source: 1.0 for source, entry in load_report(arguments.data)["sources"].items() if not entry["paired"]}
    data = {"folder": arguments.data, "sources": sources}
    train = {**options, **candidate.options}
    config = complete_settings({"model": candidate.model, "data": data, "train": train})
    trainer = Trainer(config, folder, byte_lengths, arguments.device, resume=True, workers=arguments.workers)
    if trainer.share_done() < 1.0:
        trainer.run()
    return folder


def measure(folder, model, arguments):
    """[{width, bits_per_byte}] of a finished run on <data>/test.txt, by the engine."""
    state = load_checkpoint(folder / "last.pt")["model"]
    text = Path(arguments.data) / "test.txt"
    rows = []
    path = folder / "model.terrace"
    export_model(path, state, model, "f32", Path(arguments.data) / "tokenizer.model")
    for width in widths_of(model):
        command = [arguments.terrace, "perplexity", "-m", path, "-f", text, "-c", CONTEXT, "--json"]
        command += ["--width", width] if width != model["d_ff"] else []
        try:
            result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        except OSError as error:
            raise TrainError(f"--terrace {arguments.terrace}: cannot run: {error.strerror}") from error
        if result.returncode:
            raise TrainError(f"{' '.join(map(str, command))}: {result.stderr.strip()}")
        rows.append({"width": width, "bits_per_byte": json.loads(result.stdout)["bits_per_byte"]})
    return rows


def earlier_results(path):
    """What earlier runs into the same folder measured."""
    if not path.is_file():
        return {}
    try:
        results = json.loads(path.read_text())
        table(results)
    except OSError as error:
        raise TrainError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{path}: no results of this script: {error!r}") from error
    return results


def chosen(candidates, only):
    """The candidates of the comparisons in `only`, a list parted by commas; all where it is empty."""
    known = {name.partition("/")[0] for name in candidates}
    wanted = set(only.split(",")) if only else known
    if wanted - known:
        raise TrainError(f"--only {min(wanted - known)}: no such comparison; there are {', '.join(sorted(known))}")
    return {name: candidate for name, candidate in candidates.items() if name.partition("/")[0] in wanted}


def table(results):
    """Markdown: one row per model and width."""
    lines = ["| comparison | tokens | model | parameters | width | bits/byte |", "|---|---|---|---|---|---|"]
    for name, entry in results.items():
        group, _, model = name.partition("/")
        for row in entry["rows"]:
            counts = f"{entry['tokens']:,}", model, f"{entry['parameters']:,}"
            cells = (group, *counts, row["width"], f"{row['bits_per_byte']:.4f}")
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def plot(results, path):
    """One point per model and width, grouped by comparison. Does nothing where matplotlib is absent."""
    pyplot = non_interactive_pyplot()
    if pyplot is None:
        return
    labels, values, colours, groups = [], [], [], []
    for name, entry in results.items():
        group, _, model = name.partition("/")
        if group not in groups:
            groups.append(group)
        for row in entry["rows"]:
            labels.append(f"{group}, {entry['tokens'] / 1e6:.2f} M tokens: {model}, width {row['width']}")
            values.append(row["bits_per_byte"])
            colours.append(f"C{groups.index(group)}")
    figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(labels) + 1))
    axes.scatter(values, range(len(values)), c=colours)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("held-out bits per byte (less is better)")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    save_figure(pyplot, figure, path)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="train.quality", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of train.prepare")
    parser.add_argument("--out", required=True, help="folder of the runs and of results.json, results.md")
    parser.add_argument("--terrace", default="build/release/terrace", help="the engine's binary")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--only", default="", help="comparisons to run, e.g. sparsity,widths; default: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="train under bf16 autocast")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    options = {
        "steps": args.steps,
        "batch_tokens": args.batch_tokens,
        "contexts": {str(CONTEXT): 1.0},
        "eval_context": CONTEXT,
        "quant_prob_final": 1.0,
        "bf16": args.bf16,
        "seed": args.seed,
    }
    out = Path(args.out)
    try:
        results = earlier_results(out / "results.json")
        vocabulary = load_vocabulary(Path(args.data) / "tokenizer.model")
        for name, candidate in chosen(comparisons(vocabulary.size), args.only).items():
            folder = train_one(name, candidate, options, args, vocabulary.byte_lengths())
            rows = measure(folder, candidate.model, args)
            results[name] = {
                "parameters": parameter_count(candidate.model),
                "tokens": args.steps * args.batch_tokens,
                "rows": rows,
            }
            write_atomically(out / "results.json", json.dumps(results, indent=1).encode())
        write_atomically(out / "results.md", (table(results) + "\n").encode())
        plot(results, out / "results.svg")
    except TrainError as error:
        print(f"train.quality: {error}", file=sys.stderr)
        return 1
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
