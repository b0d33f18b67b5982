# SPDX-License-Identifier: Apache-2.0
"""The training loop: nested widths, gradient accumulation, schedule, checkpoints. What is trained on is a task.

Everything random in a step (context, width, windows, Gumbel noise) derives from (seed, step, part), so a resumed run
with a `steps` limit repeats the uninterrupted one bit for bit, whatever the number of workers. With a `minutes` limit
the learning rate follows the clock and only the data order is the same.

On a CPU the parts of a step (`micro_tokens` each) run on worker threads that compute single-threaded: there is no
barrier inside an operation, which matters on a machine that does other work too.
"""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from train import checkpoint
from train.errors import TrainError
from train.families import build_model
from train.optimizer import build_optimizers, learning_rate_scale, set_learning_rate
from train.pass_mode import PassMode
from train.progress import ProgressReport, plot_curves
from train.settings import widths_of
from train.tasks import TASKS, cross_entropy_sum
from train.warm_start import load_weights


def pick_device(name):
    """torch.device of "cpu", "cuda" or "auto". Errors: a GPU that is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise TrainError(f"device {name}: no GPU here that PyTorch {torch.__version__} can use; expected --device cpu")
    return torch.device(name)


def _worker_threads(count):
    """Pool of threads that each compute on one core; None for a single worker, which keeps PyTorch's own threads."""
    if count <= 1:
        return None
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


class Trainer:
    """One run in one folder: last.pt (resume), best.pt (lowest held-out bits per byte), log.jsonl, curves.png."""

    def __init__(self, config, folder, byte_lengths, device="cpu", resume=False, tensorboard=False, workers=1):
        self.config, self.options = config, config["train"]
        if not (self.options["steps"] or self.options["minutes"]):
            raise TrainError("train.steps and train.minutes are both 0: expected a limit")
        self.folder, self.device = Path(folder), pick_device(device)
        torch.manual_seed(self.options["seed"])
        self.model = build_model(config["model"]).to(self.device)
        self.optimizers = build_optimizers(self.model, self.options)
        self.widths = widths_of(config["model"])
        self.width_weights = self._width_weights()
        self.task = TASKS[config["model"]["family"]](config, byte_lengths)
        self.state = {"step": 0, "tokens": 0, "seconds": 0.0, "best": math.inf}
        self.workers = _worker_threads(workers if self.device.type == "cpu" else 1)
        self._resume(resume)
        self.report = ProgressReport(self.folder, tensorboard)

    def _resume(self, resume):
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "last.pt"
        if not path.exists():
            return
        if not resume:
            raise TrainError(f"{path}: a run is already there: expected --resume or another folder")
        saved = checkpoint.load_checkpoint(path, self.device)
        checkpoint.check_same_configuration(path, saved["config"], self.config)
        self.state = checkpoint.restore(saved, self.model, self.optimizers)

    def start_from(self, path):
        """The weights of a model file, for a run that has not begun."""
        if self.state["step"]:
            raise TrainError(f"--init {path}: this run goes on from step {self.state['step']}: expected a new folder")
        load_weights(path, self.model, self.config["model"])

    def _width_weights(self):
        weights = self.options["width_probability"] or [1.0] * len(self.widths)
        if len(weights) != len(self.widths):
            raise TrainError(
                f"train.width_probability has {len(weights)} entries: expected {len(self.widths)}, one per width"
            )
        return np.array(weights) / sum(weights)

    def share_done(self):
        """0..1: how much of the run is over, by the limit that is nearer."""
        shares = [0.0]
        if self.options["steps"]:
            shares.append(self.state["step"] / self.options["steps"])
        if self.options["minutes"]:
            shares.append(self.state["seconds"] / (60.0 * self.options["minutes"]))
        return max(shares)

    def run(self):
        """Trains to the limit; returns the state with the best held-out bits per byte."""
        saved_at = self.state["seconds"]
        while self.share_done() < 1.0:
            begin = time.monotonic()
            figures = self.step()
            self.state["seconds"] += time.monotonic() - begin
            if self.state["step"] % 10 == 0:
                done = self.share_done()
                left = self.state["seconds"] * (1.0 - done) / max(done, 1e-9)
                self.report.step(self.state["step"], done, figures, left)
            begin = time.monotonic()
            if self.state["step"] % self.options["eval_every"] == 0:
                self.evaluate([self.widths[-1]])
            if self.state["seconds"] - saved_at >= 60.0 * self.options["save_minutes"]:
                saved_at = self.state["seconds"]
                self._save_or_warn()
            self.state["seconds"] += time.monotonic() - begin
        self.evaluate(self.widths)
        self.save()
        try:
            plot_curves(self.folder)
        except TrainError as error:
            self.report.say(f"warning: {error}")
        self.report.close()
        return self.state

    def step(self):
        """One optimiser step on `batch_tokens` tokens; returns its figures."""
        begin = time.monotonic()
        generator = np.random.default_rng([self.options["seed"], self.state["step"]])
        batch = self.task.batch(generator)
        width = int(generator.choice(self.widths, p=self.width_weights))
        progress = self.share_done()
        scale = learning_rate_scale(progress, self.options["warmup"], self.options["final_lr"])
        set_learning_rate(self.optimizers, scale)
        first, last = self.options["quant_prob"], self.options["quant_prob_final"]
        quantise = bool(generator.random() < first + (last - first) * min(1.0, 2.0 * progress))
        seeds = generator.integers(0, 2**62, size=len(batch.parts))
        modes = [self._mode(width, quantise, int(seed)) for seed in seeds]
        self.model.train()
        total = self._gradients(list(zip(batch.parts, modes)), batch.tokens)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(parameters, self.options["clip"])
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.state["step"] += 1
        self.state["tokens"] += batch.tokens
        loss = total.item()
        if not math.isfinite(loss):
            raise TrainError(f"step {self.state['step']}: the loss is {loss}: lower train.lr or train.muon_lr")
        return {
            "loss": loss,
            "bits_per_byte": loss * batch.tokens / max(batch.bytes, 1) / math.log(2.0),
            "tokens": self.state["tokens"],
            "tokens_per_s": batch.tokens / (time.monotonic() - begin),
            "lr_scale": scale,
            "width": width,
            "context": batch.context,
        }

    def _mode(self, width, quantise, seed):
        generator = torch.Generator(device=self.device).manual_seed(seed)
        return PassMode(width, quantise, self.options["temperature"], generator, [])

    def _gradients(self, parts, n_targets):
        """Sets every parameter's gradient of the mean loss over `n_targets` predicted tokens; returns that loss."""
        parameters = list(self.model.parameters())

        def part_gradient(item):
            part, mode = item
            *inputs, targets = (tensor.to(self.device) for tensor in part)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options["bf16"]):
                logits = self.model(*inputs, mode)
            loss = cross_entropy_sum(logits, targets) / n_targets
            auxiliary = sum(mode.losses) / len(parts) if mode.losses else 0.0
            return loss.detach(), torch.autograd.grad(loss + auxiliary, parameters, allow_unused=True)

        total = torch.zeros((), device=self.device)
        results = map(part_gradient, parts) if self.workers is None else self.workers.map(part_gradient, parts)
        for loss, gradients in results:  # in the order of the parts, so that the sum does not depend on the threads
            total += loss
            for parameter, gradient in zip(parameters, gradients):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return total

    def evaluate(self, widths):
        """Held-out figures of the widths; the full width's decides which checkpoint is best."""
        for width in widths:
            figures = self.task.evaluate(self.model, width)
            self.report.write("valid", self.state["step"], {"width": width, "tokens": self.state["tokens"], **figures})
            by_source = " ".join(f"{name} {bits:.3f}" for name, bits in figures["sources"].items())
            self.report.say(f"held out, width {width}: bits/byte {figures['bits_per_byte']:.4f} ({by_source})")
        if figures["bits_per_byte"] < self.state["best"]:
            self.state["best"] = figures["bits_per_byte"]
            self._save_or_warn("best.pt")

    def save(self, name="last.pt"):
        checkpoint.save_checkpoint(self.folder / name, self.config, self.model, self.optimizers, self.state)

    def _save_or_warn(self, name="last.pt"):
        """A full disk must not end a long run: the previous checkpoint is intact and the next save may succeed."""
        try:
            self.save(name)
        except TrainError as error:
            self.report.say(f"warning: {error}")
