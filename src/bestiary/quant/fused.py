"""All blocks of a model in one native call: for the tokens of one sequence, or of many.

For one token a block is seven products of a matrix and a vector, each of a few microseconds, and the calls
around them cost as much; for the tokens of many sequences the C code computes each as if it were alone.
`fuse` puts FusedBlocks in the place of a model's Blocks, with the same blocks in it: weights, names, adapters
and cache slots stay where they were. Every other situation (other contexts, training, torch.compile, hooks,
another device or dtype) runs the blocks' own forward, and so does every block that the C kernels do not know.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..bricks import Unplaced
from ..context import Context
from ..kernels import native
from ..models import Blocks, Decoder, EncoderDecoder, Model, causal
from .fused_modules import FusedLinear, FusedRMSNorm
from .fused_plan import Plan
from .fused_step import Step
from .fusible import is_rms_norm, refusal, tensor_refusal
from .linear import PackedEmbedding, PackedLinear

__all__ = ["FusedBlocks", "FusedLinear", "FusedRMSNorm", "fuse", "refusal", "row_independent"]


def fuse(model: Model) -> int:
    """Let the C kernels compute every block they can; return how many they can.

    RMSNorms and a head of plain floats become native ones. Call it when the weights are in place. `refusal`
    says why a block is left as it is.
    """
    for path, module in list(model.named_modules()):
        if is_rms_norm(module):
            model.set_submodule(path, FusedRMSNorm(module))
    stack = model.decoder if isinstance(model, EncoderDecoder) else model
    stack.layers = FusedBlocks(stack.layers)
    if type(stack.head) is nn.Linear:
        stack.head = FusedLinear(stack.head)
    return sum(refusal(block) is None for block in stack.layers)


def row_independent(model: nn.Module) -> str | None:
    """Return None where each token's logits are the same bits whatever is computed beside it, or the reason.

    It is said of a fused model under a Paged context of float32 pages: alone or beside other sequences, with
    its prompt whole or in pieces, on any pages and any number of threads, every operation of the forward pass
    computes a token's row in one order. A model that trains or is watched by hooks is not asked about.
    """
    if type(model) is not Decoder or not isinstance(model.layers, FusedBlocks):
        return "it is not a fused decoder"
    if model.reader is not causal:
        return "its prompts are read as wholes"
    if type(model.positions) is not Unplaced or model.bias is not None:
        return "its positions are added to the stream"
    refusals = (refusal(block) for block in model.layers)
    blocks = (f"block {i}: {reason}" for i, reason in enumerate(refusals) if reason is not None)
    return next(blocks, None) or _ends_refusal(model)


def _ends_refusal(model: Decoder) -> str | None:
    """Return why a row's way into or out of the blocks may depend on others, or None."""
    if type(model.embed) not in (nn.Embedding, PackedEmbedding):
        return f"its embedding is a {type(model.embed).__name__}"
    if not isinstance(model.norm, FusedRMSNorm):
        return f"its last norm is a {type(model.norm).__name__}"
    if type(model.head) is PackedLinear:
        return tensor_refusal(model.head.weight, torch.uint8)
    if type(model.head) is FusedLinear:
        return tensor_refusal(model.head.weight, torch.float32)
    return f"its head is a {type(model.head).__name__}"


class FusedBlocks(Blocks):
    """Blocks with a shortcut in float32 on a CPU, outside of autograd: see Step for the contexts it takes."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks)
        self.train(blocks.training)
        self._plan: Plan | None = None

    def __getstate__(self) -> dict[str, object]:
        # A copy has its own weights, and addresses cannot be copied: it makes its own plan.
        return self.__dict__ | {"_plan": None}

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or native.absence() is not None:
            return super().forward(x, ctx)
        step = Step.of(x, ctx)
        if step is None:
            return super().forward(x, ctx)
        if self._plan is None or not self._plan.current():
            self._plan = Plan(self)
        return super().forward(x, ctx) if self._plan.watched() else self._plan.run(x, step)
