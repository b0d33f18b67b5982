# SPDX-License-Identifier: Apache-2.0
"""What is decided per pass and not stored in the weights: the nested width and the training choices."""

from dataclasses import dataclass
from typing import Optional

import torch


@dataclass(frozen=True)
class PassMode:
    """Handed down to every layer of one forward pass. The defaults are an eval pass at full width."""

    width: Optional[int] = None  # feed-forward units used; None: all
    quantise: bool = True  # training: controllers choose hard (straight-through) instead of mixing softly
    temperature: float = 0.1  # training: factor of the Gumbel noise on the controllers
    generator: Optional[torch.Generator] = None  # training: source of all noise; None: PyTorch's global one
    losses: Optional[list] = None  # training: auxiliary losses that layers add (depth predictors)
    positions: Optional[torch.Tensor] = None  # int64 [batch, time]: of the rows of a routed block; None: 0, 1, ...


FULL = PassMode()
