#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Regenerates the figures of docs/performance.md on this machine.

    scripts/performance.py [--quick] [PART ...]      no PART: all of them
    scripts/performance.py --list

Each part runs one command of build/release and replaces what stands between its markers in docs/performance.md,

    <!-- figures: PART -->  ...  <!-- end -->

by the command, its commit and date, the table it printed (of a micro-benchmark the summary), and the chart. Tables,
CSV, JSON, charts and the whole output of micro-benchmarks lie in docs/performance/. Text outside the markers is written
by hand and stays. --quick takes fewer repetitions and smaller shapes, to see that everything runs: its figures are not
for quoting, and go to build/performance/ instead.
A part that fails (a model that does not fit into memory, say) keeps its old figures; the exit status is then 1.
"""

import argparse
import dataclasses
import datetime
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/release"
DOCUMENT = ROOT / "docs/performance.md"


@dataclasses.dataclass(frozen=True)
class Part:
    what: str  # the alternative text of the chart
    command: str  # "bench ...": a subcommand of terrace; "bench_...": a micro-benchmark
    quick: str = ""  # flags with values that replace those of `command` in --quick, or join them
    chart: bool = True

    @property
    def is_micro(self):
        return self.command.startswith("bench_")

    def arguments(self, quick):
        arguments = shlex.split(self.command)
        changes = shlex.split(self.quick) if quick else []
        for flag, value in zip(changes[::2], changes[1::2], strict=True):
            if flag in arguments:
                arguments[arguments.index(flag) + 1] = value
            else:
                arguments += [flag, value]
        return arguments


SMALL = "--blocks 2 -n 8 -r 2"
PARTS = {
    "table1-800M": Part(
        "c4-medium decoder: milliseconds per token of the rows of Table 1",
        "bench --preset c4-medium --dtype q8 -t 2 --table1 --profile -n 32 -r 7",
        SMALL,
    ),
    "table1-800M-layers": Part(
        "c4-medium decoder: milliseconds per token when only the named layers change",
        "bench --preset c4-medium --dtype q8 -t 2 --table1=layers -n 32 -r 5",
        SMALL,
    ),
    "table1-17B": Part(
        "lm-17B, 2 blocks: milliseconds per token of the rows of Table 1",
        "bench --preset lm-17B --dtype q8 -t 2 --table1 --blocks 2 --profile -n 8 -r 5",
        "--blocks 1 -n 2 -r 1 --preset lm1b-24L",
    ),
    "precision": Part(
        "lm1b-24L: milliseconds per token by precision, sparse and dense",
        "bench --preset lm1b-24L --dtype f32,bf16,q8,q4 -t 2 -p 0 -n 32 -r 5",
        "-n 8 -r 1",
    ),
    "context": Part(
        "c4-medium decoder: milliseconds per token against the context length",
        "bench --preset c4-medium --dtype q8 -t 2 -p 0 -n 16 -d 0,512,1024,2048,4096 -r 3",
        f"{SMALL} -d 0,64,256",
    ),
    "long-context": Part(
        "scientific-papers: milliseconds per token against the context length, LSH and exact attention",
        "bench --preset scientific-papers --dtype q8 -t 2 -p 0 -n 16 --attention both -d 0,1000,4000,16000 -r 3",
        f"{SMALL} -d 0,64,256",
    ),
    "llama": Part(
        "llama-0.8B: milliseconds per token against the context length",
        "bench --preset llama-0.8B --dtype q8,q4 -t 2 -p 512 -n 16 -d 0,128,4096 -r 3",
        f"{SMALL} -p 64 -d 0,64",
    ),
    "llama-kv": Part(
        "llama-0.8B with int8 keys and values: milliseconds per token against the context length",
        "bench --preset llama-0.8B --dtype q8 --kv-type q8 -t 2 -p 0 -n 16 -d 0,4096,16384 -r 5",
        f"{SMALL} -d 0,64",
    ),
    "llama-kv4": Part(
        "llama-0.8B with 4-bit keys and values: milliseconds per token against the context length",
        "bench --preset llama-0.8B --dtype q8 --kv-type q4 -t 2 -p 0 -n 16 -d 0,4096,16384 -r 5",
        f"{SMALL} -d 0,64",
    ),
    "block-size": Part(
        "c4-medium decoder: milliseconds per token against the block size N",
        "bench --preset c4-medium --dtype q8 -t 2 --sweep block-size=16,32,64,128,256 -n 32 -r 5",
        SMALL,
    ),
    "rank": Part(
        "c4-medium decoder: milliseconds per token against the rank of the controller",
        "bench --preset c4-medium --dtype q8 -t 2 --sweep rank=24,48,96,192 -n 32 -r 5",
        SMALL,
    ),
    "modules": Part(
        "c4-medium decoder: milliseconds per token against the number of modules S",
        "bench --preset c4-medium --dtype q8 -t 2 --sweep modules=4,8,16,32 -n 32 -r 5",
        SMALL,
    ),
    "experts": Part(
        "lm1b-24L cut into experts: milliseconds per token against their number",
        "bench --preset lm1b-24L --dtype q8 -t 2 --sweep experts=64,128,256,512 -n 32 -r 5",
        SMALL,
    ),
    "threads": Part(
        "c4-medium decoder: milliseconds per token against threads",
        "bench --preset c4-medium --dtype q8 -t 1,2 -p 128 --profile -n 32 -r 5",
        SMALL,
    ),
    "prefill": Part(
        "c4-medium decoder: prefill",
        "bench --preset c4-medium --dtype q8 -t 2 -p 512 -n 0 -r 3",
        "-p 32 -r 1",
        chart=False,
    ),
    "prefill-kernels": Part(
        "linear maps over many tokens beside oneDNN",
        "bench_dense_prefill --threads=2 --dtype=q8 --benchmark_repetitions=5",
        chart=False,
    ),
    "speculation": Part(
        "passes over several tokens, and texts with a draft",
        "bench_speculation --threads=2 --dtype=q8 --benchmark_repetitions=5",
        chart=False,
    ),
    "sessions": Part(
        "fork, rewind, save and load beside a token",
        "bench_session --threads=2 --dtype=q8 --benchmark_repetitions=5",
        chart=False,
    ),
    "fork-join": Part("a phase beyond its work", "bench_thread_team", chart=False),
}


def output_of(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def commit():
    """The commit that runs; "+" when sources differ from it."""
    changed = output_of("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/performance*")
    return output_of("git", "rev-parse", "--short", "HEAD") + ("+" if changed else "")


def machine():
    """A table of what the figures depend on."""
    facts = dict(
        line.split(":", 1) for line in output_of("lscpu").splitlines() if not line.startswith(" ") and ":" in line
    )
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    isas = re.search(r"usable here:\s*(.*)\)", output_of(BUILD / "terrace", "--version"))
    compiler = re.search(r"CMAKE_CXX_COMPILER:\w+=(.*)", (BUILD / "CMakeCache.txt").read_text())
    rows = {
        "CPU": f"{facts.get('Model name', platform.processor())} ({facts.get('CPU(s)', '?')} CPUs, "
        f"{facts.get('Hypervisor vendor', 'no')} hypervisor)",
        "caches": ", ".join(f"{key.split()[0]} {facts[key]}" for key in ("L1d cache", "L2 cache", "L3 cache") if key in facts),
        "memory": f"{int(memory[1]) / 2**20:.1f} GiB" if memory else "?",
        "instruction sets that Terrace uses here": isas[1] if isas else "?",
        "system, compiler": f"{platform.system()} {platform.release()}, "
        f"{output_of(compiler[1], '--version').splitlines()[0] if compiler else '?'}",
        "commit, date": f"{commit()}, {datetime.date.today()}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def summary(text):
    """The lines at the end of a micro-benchmark's output, in order and with ratios; all of it where there are none."""
    console, _, rest = text.partition("\n\nisa ")
    return f"isa {rest}" if rest else console


def run_part(name, part, folder, quick):
    """Runs a part; the text for the document."""
    arguments = part.arguments(quick)
    if part.is_micro:
        text = output_of(BUILD / "bench" / arguments[0], *arguments[1:])
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        table = f"```\n{summary(text)}\n```"
    elif part.chart:
        table = output_of(BUILD / "terrace", *arguments, "--report", folder / name)
    else:
        table = output_of(BUILD / "terrace", *arguments)
    chart = f"\n\n![{part.what}](performance/{name}.svg)" if part.chart else ""
    program = "" if part.is_micro else "terrace "
    return f"`{program}{shlex.join(arguments)}` ({commit()}, {datetime.date.today()})\n\n{table}{chart}"


def replace(document, name, text):
    """The document with `text` between the markers of `name`."""
    pattern = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"docs/performance.md: expected '<!-- figures: {name} --> ... <!-- end -->', found none")
    return pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", document)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="parts to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; results in build/performance/")
    parser.add_argument("--list", action="store_true", help="list the parts and their commands")
    options = parser.parse_args()
    if options.list:
        for name, part in PARTS.items():
            print(f"{name:20}{part.command}")
        return 0
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; known: {', '.join(PARTS)}")

    document = DOCUMENT.read_text(encoding="utf-8")
    target, folder = DOCUMENT, DOCUMENT.with_suffix("")
    if options.quick:
        target, folder = ROOT / "build/performance.md", ROOT / "build/performance"
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    document = replace(document, "machine", machine())
    for name in options.parts or PARTS:
        start = time.monotonic()
        try:
            document = replace(document, name, run_part(name, PARTS[name], folder, options.quick))
            target.write_text(document, encoding="utf-8")  # an interrupt later keeps what there is
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            failures += 1
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            print(f"{name}: failed, old figures stay: {said[-1] if said else error}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
