#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How an encoder-decoder model reads long documents: seconds, milliseconds per token afterwards, peak memory.

    python3 bench/document.py 1000 1000:15360 15000

A document is LENGTH, or LENGTH:PADDED with zeros behind the real tokens. The model is a preset with random weights, the
documents are random ids. Runs are interleaved, the table gives the median of each figure over --repeat runs.
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", metavar="LENGTH[:PADDED]")
    parser.add_argument("--terrace", default=ROOT / "build/release/terrace", metavar="FILE")
    parser.add_argument("--preset", default="c4-medium")
    parser.add_argument("--dtype", default="bf16", help="of the weights")
    parser.add_argument("--kv-type", default="f32", help="of keys and values in the decoder")
    parser.add_argument("-n", type=int, default=16, help="tokens to generate (default 16)")
    parser.add_argument("-t", default="2", metavar="THREADS")
    parser.add_argument("--repeat", type=int, default=1)
    return parser.parse_args()


def run(args, model, document, folder):
    """Figures of one generation."""
    length, _, padded = document.partition(":")
    draw = random.Random(length)
    ids = [draw.randrange(1, 30000) for _ in range(int(length))]
    ids += [0] * (int(padded or length) - len(ids))
    path = folder / "ids"
    path.write_text(" ".join(map(str, ids)))
    command = [args.terrace, "generate", "-m", model, "--tokens", path, "-n", str(args.n), "-c", str(args.n + 1)]
    command += ["--temp", "0", "--ids", "--json", "-t", args.t, "--kv-type", args.kv_type]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return json.loads(done.stderr)


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = folder / "model.terrace"
        init = ["init", "--preset", args.preset, "--dtype", args.dtype, "-o", model]
        subprocess.run([args.terrace, *init], check=True)
        runs = {document: [] for document in args.documents}
        for _ in range(args.repeat):
            for document in args.documents:
                runs[document].append(run(args, model, document, folder))
        file_mb = model.stat().st_size / 1e6
    print(f"{args.preset}, weights {args.dtype} ({file_mb:.0f} MB), keys and values {args.kv_type}, {args.t} threads\n")
    print("| real:padded | encoder s | prefill s | decode ms/token | K/V MB | peak MB (model file included) |")
    print("|---|---|---|---|---|---|")
    for document, figures in runs.items():
        def median(key, scale=1.0):
            return scale * statistics.median(f[key] for f in figures)

        print(
            f"| {document} | {median('encoder_seconds'):.2f} | {median('prefill_seconds'):.2f} |"
            f" {median('ms_per_token'):.2f} | {median('kv_bytes', 1e-6):.0f} | {median('peak_rss_bytes', 1e-6):.0f} |"
        )


if __name__ == "__main__":
    main()
