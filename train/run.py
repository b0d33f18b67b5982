# SPDX-License-Identifier: Apache-2.0
"""Trains a model.

python3 -m train.run --config train/configs/default.json --out runs/default [--resume | --init m.terrace] [--minutes 90]
"""

import argparse
import sys
from pathlib import Path

import torch

from train.errors import TrainError
from train.settings import load_settings
from train.trainer import Trainer
from train.vocabulary import load_vocabulary


def main(argv=None):
    parser = argparse.ArgumentParser(prog="train.run", description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True, help="configuration file, see docs/training.md")
    parser.add_argument("--out", required=True, help="folder of the run")
    parser.add_argument("--data", help="folder of train.prepare (default: the configuration's)")
    parser.add_argument("--resume", action="store_true", help="continue from last.pt in --out")
    parser.add_argument("--init", metavar="MODEL", help="start from the weights of this model file")
    parser.add_argument("--steps", type=int, help="overrides train.steps")
    parser.add_argument("--minutes", type=float, help="overrides train.minutes")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--workers", type=int, default=1, help="single-threaded workers that share a step (CPU only)")
    parser.add_argument("--tensorboard", action="store_true")
    args = parser.parse_args(argv)
    try:
        config = load_settings(args.config)
        if args.data:
            config["data"]["folder"] = args.data
        for name in ("steps", "minutes"):
            if getattr(args, name) is not None:
                config["train"][name] = getattr(args, name)
        if args.threads:
            torch.set_num_threads(args.threads)
        vocabulary = load_vocabulary(Path(config["data"]["folder"]) / "tokenizer.model")
        trainer = Trainer(
            config, args.out, vocabulary.byte_lengths(), args.device, args.resume, args.tensorboard, args.workers
        )
        if args.init:
            trainer.start_from(args.init)
        state = trainer.run()
    except TrainError as error:
        print(f"train.run: {error}", file=sys.stderr)
        return 1
    print(f"{state['step']} steps, {state['tokens']} tokens, best held-out bits/byte {state['best']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
