# SPDX-License-Identifier: Apache-2.0
"""Optimisers: Muon for the matrices inside the blocks, AdamW for everything else, one cosine schedule for both.

Muon (K. Jordan 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found by five Newton-Schulz
steps: every direction of the matrix moves equally far, which needs far fewer steps than Adam on small models.
"""

import math

import torch


def orthogonalise(matrix, steps=5, dtype=torch.float32):
    """Nearest semi-orthogonal matrix of [.., rows, cols] by the quintic Newton-Schulz iteration, computed in `dtype`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.transpose(-1, -2)
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.transpose(-1, -2)).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum with Nesterov, orthogonalised in `dtype`. [F, 2, d] (sparse units) counts as two matrices [F, d]."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0, dtype=torch.float32):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                update = p.grad.add(momentum, alpha=group["momentum"])
                matrix = update.transpose(0, 1) if p.dim() == 3 else update
                rows, cols = matrix.shape[-2:]
                matrix = orthogonalise(matrix, dtype=self.dtype) * max(1.0, rows / cols) ** 0.5
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
                p.sub_(matrix.transpose(0, 1) if p.dim() == 3 else matrix, alpha=group["lr"])


def uses_muon(name, parameter):
    """Matrices inside the blocks that mix channels; not controllers, whose scale decides how sharply they choose."""
    if parameter.dim() < 2 or ".blocks." not in name:
        return False
    return not any(
        part in name for part in (".controller.", ".router", ".norm.", ".predictor.", ".gate", ".rotations")
    ) or (name.endswith(".ff.gate.weight"))


def build_optimizers(model, settings):
    """List of optimisers; every group remembers its peak rate as "peak_lr"."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    muon = [p for name, p in named if settings["muon"] and uses_muon(name, p)]
    chosen = {id(p) for p in muon}
    decayed = [p for _, p in named if id(p) not in chosen and p.dim() >= 2]
    plain = [p for _, p in named if id(p) not in chosen and p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]), eps=1e-10)]
    if muon:
        dtype = torch.bfloat16 if settings["bf16"] else torch.float32
        optimizers.append(Muon(muon, settings["muon_lr"], weight_decay=settings["weight_decay"], dtype=dtype))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate_scale(progress, warmup, final):
    """Factor of the peak rate at `progress` in 0..1: linear warm-up, then a cosine down to `final`."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    share = min(1.0, (progress - warmup) / (1.0 - warmup))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share))


def set_learning_rate(optimizers, scale):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale
