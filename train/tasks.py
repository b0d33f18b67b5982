# SPDX-License-Identifier: Apache-2.0
"""What a model family trains on: batches cut into parts, the loss of a part, and the held-out figures."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from train.errors import TrainError
from train.pair_files import PairFiles
from train.pass_mode import PassMode
from train.token_files import TokenMix
from train.vocabulary import PAD


@dataclass
class Batch:
    """One optimiser step's data: each part is a tuple of tensors with the predicted ids last."""

    parts: list
    context: int
    tokens: int  # predicted
    bytes: int  # of the predicted tokens' text


class SummedCrossEntropy(torch.autograd.Function):
    """sum over rows of -log softmax(logits)[target] for logits [n, V]; rows whose target is PAD count nothing.

    The gradient softmax(logits) - one_hot(target) is made from the forward pass's own buffer and kept in the logits'
    dtype: the largest tensor of a step is walked over three times instead of seven.
    """

    @staticmethod
    def forward(ctx, logits, targets):
        real = targets != PAD
        log_p = F.log_softmax(logits.float(), -1)
        loss = -log_p.gather(1, targets[:, None])[:, 0][real].sum()
        if ctx.needs_input_grad[0]:
            gradient = log_p.exp_()
            gradient[torch.arange(len(targets), device=targets.device), targets] -= 1.0
            gradient[~real] = 0.0
            ctx.save_for_backward(gradient.to(logits.dtype))
        return loss

    @staticmethod
    def backward(ctx, scale):
        (gradient,) = ctx.saved_tensors
        return gradient * scale, None


def cross_entropy_sum(logits, targets):
    """Nats over real targets: the padding id is never predicted."""
    return SummedCrossEntropy.apply(logits.flatten(0, -2), targets.flatten())


class LanguageTask:
    """Random windows of a weighted mix of token files."""

    def __init__(self, config, byte_lengths):
        data, options, vocab_size = config["data"], config["train"], config["model"]["vocab_size"]
        self.options, self.byte_lengths = options, byte_lengths
        self.contexts = [int(context) for context in options["contexts"]]
        weights = list(options["contexts"].values())
        self.context_weights = [weight / sum(weights) for weight in weights]
        self.train_mix = TokenMix(data["folder"], data["sources"], "train", vocab_size)
        self.valid_mix = TokenMix(data["folder"], data["sources"], "valid", vocab_size)
        self.train_mix.require(max(self.contexts))
        self.valid_mix.require(options["eval_context"])

    def batch(self, generator):
        """A step's windows, `micro_tokens` of them per part."""
        context = int(generator.choice(self.contexts, p=self.context_weights))
        rows = max(1, self.options["batch_tokens"] // context)
        micro = max(1, self.options["micro_tokens"] // context)
        ids = self.train_mix.batch(generator, rows, context, self.options["start_share"])
        parts = [(ids[at : at + micro, :-1], ids[at : at + micro, 1:]) for at in range(0, rows, micro)]
        targets = ids[:, 1:]
        return Batch(parts, context, int((targets != PAD).sum()), int(self.byte_lengths[targets].sum()))

    @torch.no_grad()
    def evaluate(self, model, width):
        """{"loss", "bits_per_byte", "sources"}: sources weigh as in training; every window stands alone."""
        loss = bits = 0.0
        sources = {}
        for name, weight in zip(self.valid_mix.names, self.valid_mix.weights):
            windows = self.valid_mix.fixed_windows(name, self.options["eval_rows"], self.options["eval_context"])
            pairs = [((chunk[:, :-1],), chunk[:, 1:]) for chunk in windows.split(8)]
            nats, tokens, size = summed_loss(model, pairs, self.byte_lengths, width)
            sources[name] = nats / math.log(2.0) / max(size, 1)
            loss += weight * nats / tokens
            bits += weight * sources[name]
        return {"loss": loss, "bits_per_byte": bits, "sources": sources}


class PairTask:
    """(document, summary) pairs: the document goes to the encoder, the summary is predicted."""

    def __init__(self, config, byte_lengths):
        data, options = config["data"], config["train"]
        lengths = (options["encoder_context"], int(max(options["contexts"], key=int)))
        if len(data["sources"]) != 1:
            raise TrainError(f"data.sources: {len(data['sources'])} sources: an encoder-decoder model trains on one")
        self.options, self.byte_lengths = options, byte_lengths
        (name,) = data["sources"]
        vocab_size = config["model"]["vocab_size"]
        self.train_pairs = PairFiles(data["folder"], name, "train", lengths, vocab_size)
        self.valid_pairs = PairFiles(data["folder"], name, "valid", lengths, vocab_size)

    def batch(self, generator):
        """A step's pairs; tokens are counted over encoder and decoder."""
        length = sum(self.train_pairs.lengths)
        rows = max(1, self.options["batch_tokens"] // length)
        micro = max(1, self.options["micro_tokens"] // length)
        encoder_ids, ids = self.train_pairs.rows(generator.integers(0, len(self.train_pairs), size=rows))
        parts = [
            (encoder_ids[at : at + micro], ids[at : at + micro, :-1], ids[at : at + micro, 1:])
            for at in range(0, rows, micro)
        ]
        targets = ids[:, 1:]
        return Batch(parts, length, int((targets != PAD).sum()), int(self.byte_lengths[targets].sum()))

    @torch.no_grad()
    def evaluate(self, model, width):
        """{"loss", "bits_per_byte", "sources"} over the first held-out pairs."""
        count = min(self.options["eval_rows"], len(self.valid_pairs))
        pairs = []
        for at in range(0, count, 4):
            encoder_ids, ids = self.valid_pairs.rows(range(at, min(at + 4, count)))
            pairs.append(((encoder_ids, ids[:, :-1]), ids[:, 1:]))
        nats, tokens, size = summed_loss(model, pairs, self.byte_lengths, width)
        bits = nats / math.log(2.0) / max(size, 1)
        return {"loss": nats / max(tokens, 1), "bits_per_byte": bits, "sources": {}}


TASKS = {"transformer_lm": LanguageTask, "terraformer": PairTask}


@torch.no_grad()
def summed_loss(model, pairs, byte_lengths, width=None):
    """(nats, tokens, bytes) in eval mode over [(inputs, targets)]."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    nats = tokens = size = 0
    for inputs, targets in pairs:
        logits = model(*(part.to(device) for part in inputs), PassMode(width=width))
        nats += cross_entropy_sum(logits, targets.to(device)).item()
        tokens += int((targets != PAD).sum())
        size += int(byte_lengths[targets].sum())
    model.train(was_training)
    return nats, tokens, size
