# SPDX-License-Identifier: Apache-2.0
"""Scores a text with a checkpoint by the rule of `terrace perplexity`, so that both figures can be compared.

    python3 -m train.evaluate --checkpoint runs/default/best.pt --tokenizer runs/data/tokenizer.model \
        --file held-out.txt

Every token is scored once. A window is the start token and up to context - 1 tokens of text; the first window scores
`context` tokens, every later one its last `stride`.
"""

import argparse
import json
import math
import sys

import torch

from train.checkpoint import load_checkpoint
from train.documents import read_text
from train.errors import TrainError
from train.families import build_model
from train.pass_mode import PassMode
from train.settings import widths_of
from train.vocabulary import START, load_vocabulary


def windows(count, context, stride):
    """(begin, end, scored): a window predicts ids[begin:end], those before `scored` were scored already."""
    scored, end = 0, min(count, context)
    while scored < count:
        yield max(0, end - context), end, scored
        scored, end = end, min(count, end + stride)


@torch.no_grad()
def score_text(model, ids, context, stride, width=None):
    """Sum of -ln p over all ids, in nats."""
    model.eval()
    ids = torch.as_tensor(ids, dtype=torch.long)
    nats = 0.0
    for begin, end, scored in windows(len(ids), context, stride):
        fed = torch.cat([torch.tensor([START]), ids[begin : end - 1]])[None]
        surprise = -model(fed, PassMode(width=width))[0].double().log_softmax(-1)
        nats += surprise[scored - begin :].gather(1, ids[scored:end, None]).sum().item()
    return nats


def bits_per_byte(nats, text):
    return nats / math.log(2.0) / len(text.encode("utf-8"))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="train.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--tokenizer", required=True, help="SentencePiece file")
    parser.add_argument("--file", required=True, help="UTF-8 text, may end in .xz")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--stride", type=int, default=0, help="default: half the context")
    parser.add_argument("--characters", type=int, default=0, help="score only so many from the beginning; 0: all")
    args = parser.parse_args(argv)
    try:
        saved = load_checkpoint(args.checkpoint)
        model = build_model(saved["config"]["model"])
        model.load_state_dict(saved["model"])
        text = read_text(args.file)
        text = text[: args.characters] if args.characters else text
        ids = load_vocabulary(args.tokenizer).encode(text)
        size, stride = len(text.encode("utf-8")), args.stride or args.context // 2
        for width in widths_of(saved["config"]["model"]):
            nats = score_text(model, ids, args.context, stride, width)
            figures = {"width": width, "tokens": len(ids), "bytes": size, "nats_per_token": nats / len(ids)}
            print(json.dumps({**figures, "bits_per_byte": bits_per_byte(nats, text)}))
    except TrainError as error:
        print(f"train.evaluate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
