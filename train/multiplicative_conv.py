# SPDX-License-Identifier: Apache-2.0
"""Multiplicative convolutional attention: the sparse QKV of Scaling Transformers (Jaszczur et al. 2021, sec. 3.2).

m = FactoredDense_S(x);  q = Conv_q(m), k = Conv_k(m) (Km 3);  v = Conv_v(m) (Km 1);  y = causal core(q, k, v)
then optionally a FactoredDense and/or a Conv on y. Parameters S*d + d*d/S + 7*Kl*(d/S)^2 without the output part.
"""

from torch import nn

from train.attention_core import dot_product, merge_heads, split_heads
from train.errors import TrainError
from train.norms import Norm
from train.projections import FactoredDense, LocallyConvDense


class MultiplicativeConvAttention(nn.Module):
    """One attention sublayer with its norm; [batch, time, d] to [batch, time, d]."""

    def __init__(self, model, stack, config):
        super().__init__()
        d, self.n_heads = model["d_model"], model["n_heads"]
        modules, time_kernel = config.get("n_modules", self.n_heads), config.get("kernel_size", 3)
        if config.get("v_concat", "none") != "none":
            raise TrainError(f"multiplicative_conv: v_concat '{config['v_concat']}' cannot be trained: expected none")
        if d % modules or d % self.n_heads:
            raise TrainError(
                f"multiplicative_conv: d_model {d} is no multiple of n_modules {modules} and n_heads {self.n_heads}"
            )
        self.norm = Norm(d, model.get("norm", {}), stack.get("center_norm", True))
        self.shared = FactoredDense(d, d, modules)
        self.q = LocallyConvDense(d, d, modules, 3, time_kernel)
        self.k = None if config.get("share_qk", False) else LocallyConvDense(d, d, modules, 3, time_kernel)
        self.v = LocallyConvDense(d, d, modules, 1, time_kernel)
        output = config.get("output", "none")
        self.out_mult = FactoredDense(d, d, modules) if output in ("mult", "multconv") else None
        self.out_conv = LocallyConvDense(d, d, modules, 3, time_kernel) if output in ("conv", "multconv") else None

    def forward(self, x, mode, key_mask=None):
        shared = self.shared(self.norm(x))
        q = self.q(shared)
        k = q if self.k is None else self.k(shared)
        v = self.v(shared)
        heads = [split_heads(part, self.n_heads) for part in (q, k, v)]
        y = merge_heads(dot_product(*heads, causal=True, key_mask=key_mask))
        if self.out_mult is not None:
            y = self.out_mult(y)
        return y if self.out_conv is None else self.out_conv(y)
