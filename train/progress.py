# SPDX-License-Identifier: Apache-2.0
"""What a run shows: progress bar, JSON-lines log, TensorBoard (when installed) and a plot of the curves at the end."""

import json
import sys
from pathlib import Path

from train.atomic_file import open_atomically
from train.errors import TrainError


def _clock(seconds):
    minutes, seconds = divmod(int(max(0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class ProgressReport:
    """Writes every figure to log.jsonl; the bar shows loss, bits per byte, tokens/s and the time left."""

    def __init__(self, folder, tensorboard=False):
        self.folder = Path(folder)
        self._log = open(self.folder / "log.jsonl", "a", encoding="utf-8")
        self._board = _tensorboard(self.folder) if tensorboard else None
        self._bar = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm

                self._bar = tqdm(total=1000, bar_format="{percentage:3.0f}%|{bar:24}| {postfix}", file=sys.stderr)
            except ImportError:
                pass  # plain lines do as well

    def step(self, step, share, figures, seconds_left):
        """One training step's figures: loss, bits_per_byte, tokens_per_s, lr, width."""
        text = (
            f"step {step} loss {figures['loss']:.3f} bits/byte {figures['bits_per_byte']:.3f} "
            f"{figures['tokens_per_s']:.0f} tokens/s left {_clock(seconds_left)}"
        )
        if self._bar is not None:
            self._bar.n = int(1000 * share)
            self._bar.set_postfix_str(text)
        else:
            print(text, file=sys.stderr, flush=True)
        self.write("train", step, figures)

    def write(self, kind, step, figures):
        """Appends {"kind", "step", figures} to the log and to TensorBoard."""
        self._log.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        self._log.flush()
        if self._board is not None:
            for name, value in figures.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, text):
        """A line that does not disturb the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self):
        self._log.close()
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.close()


def _tensorboard(folder):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainError("--tensorboard: the Python package 'tensorboard' is not installed") from error
    return SummaryWriter(str(folder / "tensorboard"))


def non_interactive_pyplot():
    """matplotlib.pyplot that draws to files; None where matplotlib is absent."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(pyplot, figure, path):
    """Writes a figure in the form that the name ends in, and closes it. Errors: disk full, no permission."""
    try:
        with open_atomically(path) as out:
            figure.savefig(out, format=Path(path).suffix[1:], dpi=120)
    finally:
        pyplot.close(figure)


def plot_curves(folder):
    """curves.png from log.jsonl; returns its path, or None where matplotlib is absent or nothing was logged."""
    pyplot = non_interactive_pyplot()
    rows = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    if pyplot is None or not rows:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 5))
    train = [row for row in rows if row["kind"] == "train"]
    axes.plot(
        [row["step"] for row in train], [row["bits_per_byte"] for row in train], lw=0.8, alpha=0.5, label="training"
    )
    for width in sorted({row["width"] for row in rows if row["kind"] == "valid"}):
        points = [
            (row["step"], row["bits_per_byte"]) for row in rows if row["kind"] == "valid" and row["width"] == width
        ]
        axes.plot(*zip(*points), marker=".", label=f"held out, width {width}")
    axes.set(xlabel="step", ylabel="bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    path = Path(folder) / "curves.png"
    save_figure(pyplot, figure, path)
    return path
