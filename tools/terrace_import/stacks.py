# SPDX-License-Identifier: Apache-2.0
"""A stack of blocks: attention sublayers, feed-forward, forgetting layers, changes of width."""

from . import attention, hashed_attention
from .errors import ImportFailure
from .favor import favor
from .feed_forward import feed_forward
from .gin_config import ABSENT
from .gin_syntax import Reference
from .projections import dense, mult, conv, norm

ATTENTION_LAYERS = {
    "CausalAttention": attention.dot_product,
    "Attention": attention.dot_product,
    "Favor": favor,
    "CausalFavor": favor,
    "MultiplicativeCausalAttention": attention.multiplicative,
    "MultiplicativeModularCausalAttention": attention.multiplicative_modular,
    "ConvCausalAttention": attention.convolutional,
    "ModularCausalAttention": attention.modular,
    "LowRankCausalAttention": attention.low_rank_attention,
    "MultiplicativeConvCausalAttention": attention.multiplicative_conv,
    "SelfAttention": attention.self_attention,
    "LSHSelfAttention": hashed_attention.lsh,
    "PureLSHSelfAttentionWrapper": hashed_attention.pure_lsh,
}
BIDIRECTIONAL = ("Attention", "Favor")
# The model function says which way these look; all others are causal wherever they stand.
EITHER_WAY = ("SelfAttention", "LSHSelfAttention", "PureLSHSelfAttentionWrapper")
SMALLEST_BLOCK = 9  # tensors: norm 2, LSH attention 3, dense feed-forward 4 without its norm


class Stack:
    """The blocks of `side` ("encoder" or "decoder"); config() is the stack's part of the configuration."""

    def __init__(self, flat, side, layers):
        self.flat, self.side, self.settings = flat, side, flat.settings
        self.layers = layers if isinstance(layers, (list, tuple)) else [layers]
        for layer in self.layers:
            if not isinstance(layer, Reference) or layer.name not in ATTENTION_LAYERS:
                raise ImportFailure(
                    f"{side}: attention {layer!r} is not known; known are {', '.join('@' + n for n in ATTENTION_LAYERS)}"
                )
            if side == "decoder" and layer.name in BIDIRECTIONAL:
                raise ImportFailure(f"decoder: @{layer.name} is bidirectional, a decoder needs a causal layer")
        self._attention = [None] * len(self.layers)
        self._ff = None
        self._norm_biases = []
        self.n_blocks = 0

    def block(self, d, d_ff, n_attention=1, cross=None, widest=None):
        """One block; `cross` adds the cross attention of an encoder-decoder model, `widest` is the largest d_ff of the
        stack. Returns d_ff."""
        name = f"{self.side}.blocks.{self.n_blocks}"
        layer = self.layers[self.n_blocks % len(self.layers)]
        for j in range(n_attention):
            self._norm_biases.append(norm(self.flat, f"{name}.attention.{j}.norm", d))
            config = ATTENTION_LAYERS[layer.name](self.flat, f"{name}.attention.{j}", layer, d)
            if self.side == "encoder" and layer.name not in BIDIRECTIONAL + EITHER_WAY:
                config["causal"] = True
            self._attention[self.n_blocks % len(self.layers)] = self._same(
                f"{name}.attention.{j}", self._attention[self.n_blocks % len(self.layers)], config
            )
        if cross is not None:
            norm(self.flat, f"{name}.cross.norm", d)
            _cross_attention(self.flat, f"{name}.cross", d, cross)
        config, d_ff, norm_bias = feed_forward(self.flat, f"{name}.ff", d, d_ff, widest)
        self._norm_biases.append(norm_bias)
        self._ff = self._same(f"{name}.ff", self._ff, config)
        self.n_blocks += 1
        return d_ff

    @staticmethod
    def _same(name, before, config):
        if before not in (None, config):
            raise ImportFailure(
                f"{name}: {config} differs from {before} of an earlier block: no model of Trax has such tensors"
            )
        return config

    def blocks(self, setting, d, d_ff):
        """As many blocks as `setting` says; where nothing says it, as many as there are tensors for."""
        count = self.settings.known(setting)
        while self.n_blocks < count if count is not ABSENT else self.flat.remaining >= SMALLEST_BLOCK:
            d_ff = self.block(d, d_ff)
        self.settings.find(setting, self.n_blocks)
        self.settings.find("d_ff", d_ff)
        return d_ff

    def forget(self, d):
        """The dense forgetting layer behind the block before."""
        dense(self.flat, f"{self.side}.blocks.{self.n_blocks - 1}.forget", d, d, is_weight=False)

    def center_norm(self):
        """Whether the norms of the blocks subtract the mean: given; or true where a bias is not zero, for without the
        mean Trax never applies the bias, so training leaves it at zero; otherwise a question."""
        given = self.settings.given("center_layernorm")
        if given is ABSENT and any(not self.flat.is_zero(i) for i in self._norm_biases):
            return True
        return bool(self.settings.need("center_layernorm") if given is ABSENT else given)

    def config(self):
        return {"n_layers": self.n_blocks, "attention": self._attention, "ff": self._ff}


def plan_widths(n_blocks, every, half_before=None, double_after=None, scale=None):
    """Steps of a stack as ("block" | "concatenate" | "forget", widths in halves of the plain ones).

    Blocks before `half_before` run at half, blocks behind `double_after` at double width; a forgetting layer stands
    after each `every` elements while more than every + 1 remain, a concatenation counting as an element.
    """
    scale = scale or (1 if half_before else 2)
    elements = []
    for i in range(n_blocks):
        elements.append(("block", scale))
        if (half_before and i == half_before - 1) or (double_after and i == double_after):
            elements.append(("concatenate", scale))
            scale *= 2
    if not every:
        return elements
    steps, done = [], 0
    while len(elements) - done > every + 1:
        steps += elements[done : done + every]
        done += every
        steps.append(("forget", elements[done][1]))
    return steps + elements[done:]


def _cross_attention(flat, name, d, cross):
    """AttentionQKV: q from the decoder, k and v from the encoder; q and out may be FactoredDense + LocallyConvDense."""

    def part(part_name, modules):
        if not modules:
            return dense(flat, f"{name}.{part_name}", d, d)
        mult(flat, f"{name}.{part_name}", modules, d, d)
        return conv(flat, f"{name}.{part_name}_conv", modules, d, d // modules, 3, 3)

    part("q", cross["q_modules"])
    dense(flat, f"{name}.k", d, d)
    dense(flat, f"{name}.v", d, d)
    if cross["has_output"]:
        part("out", cross["out_modules"])
