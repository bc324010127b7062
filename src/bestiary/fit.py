"""The memory that a model takes and the speed to expect, from its shape alone: before any download.

Weights are counted as they lie in memory: matrices in their format, with its scales; what is no matrix in
what is computed in; embeddings and heads with the rest. Keys and values, for as many tokens as the context
holds. Activations, at their highest moment (run.footprint says what is counted). And the program itself.

On a CPU everything is computed in float32, whatever the weights are held in; on a GPU in 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .roster.published.shapes import Shape

# Bits of a weight: float32; float16 or bfloat16; Q8_0 and Q4_0, blocks of 32 with a scale of 16 bits.
BITS: Mapping[str, float] = {"float32": 32, "16-bit": 16, "8-bit": 8.5, "4-bit": 4.5}
TRAIN = ("full", "lora", "qlora")
# Python, PyTorch and the tokenizer, before a weight is read: 300 MB resident on Linux, torch 2.13. And CUDA's
# context on a GPU.
PROGRAM, PROGRAM_GPU = 300_000_000, 500_000_000
# Tokens of a prompt computed at once (run.session), and tokens by which a cache grows.
CHUNK, ROOM = 512, 256
# Elements of a packed matrix decoded at a time (kernels.matmul).
_TILE = 1 << 20
_MOST = 1 << 22  # tokens: no model is published for more


@dataclass(frozen=True)
class Need:
    """Bytes that a model takes: of a step of answering, or of training.

    gradients are those of training, with its activations; optimizer: AdamW's two averages.
    """

    weights: int
    cache: int
    activations: int
    optimizer: int
    program: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.activations + self.optimizer + self.program


@dataclass(frozen=True)
class Plan:
    """How a model is to run.

    precision: of BITS. context: tokens. batch: sequences at once. gpu: all is computed in 16 bits, in a GPU's
    memory. train: one of TRAIN, on rows of `context` tokens. threads: that compute.
    """

    precision: str
    context: int
    batch: int = 1
    gpu: bool = False
    train: str | None = None
    threads: int = 2


def need(shape: Shape, plan: Plan) -> Need:
    """What a model takes when it runs so."""
    held = weights(shape, plan.precision, gpu=plan.gpu)
    program = PROGRAM_GPU if plan.gpu else PROGRAM
    if plan.train is not None:
        return _training(shape, plan, held, program)
    cache = cache_bytes(shape, room(plan.context), gpu=plan.gpu) * plan.batch
    tokens = plan.context if shape.whole else min(CHUNK, plan.context)
    keys = 1 if shape.kind == "encoder-decoder" else plan.context
    every = shape.half if plan.gpu else shape.step
    highest = max(moment.nbytes(tokens, keys, threads=plan.threads) for moment in every) * plan.batch
    return Need(held, cache, highest + _tile(shape, plan), 0, program)


def weights(shape: Shape, precision: str, *, gpu: bool = False) -> int:
    """Bytes of the weights in memory."""
    bits = BITS[precision]
    # A row that is no multiple of a block's 32 elements stays in 16 bits.
    odd, whole = (shape.odd, shape.matrices - shape.odd) if bits < 16 else (0, shape.matrices)
    rest = shape.params - shape.matrices
    return round(whole * bits / 8) + odd * 2 + rest * (2 if gpu and bits < 32 else 4)


def cache_bytes(shape: Shape, tokens: int, *, gpu: bool = False) -> int:
    """Bytes of the keys and values of so many tokens."""
    return shape.cache * (2 if gpu else 4) * tokens


def room(tokens: int) -> int:
    """For how many tokens a cache is made that has to hold so many."""
    return -(-tokens // ROOM) * ROOM


def largest_context(shape: Shape, plan: Plan, memory: int) -> int:
    """The most tokens with which a model fits in so many bytes, up to those it was published for; 0: none."""
    high = shape.context or _MOST
    if _fits(shape, plan, memory, high):
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(shape, plan, memory, middle) else (low, middle)
    return low


def speed(shape: Shape, plan: Plan, bandwidth: float) -> float:
    """Tokens a second at most, where memory of so many bytes a second is what an answer waits for.

    Every token needs each weight that is used for it once, and all keys and values before it.
    """
    share = weights(shape, plan.precision, gpu=plan.gpu) * shape.read / shape.params
    return bandwidth / (share + cache_bytes(shape, plan.context, gpu=plan.gpu))


def _fits(shape: Shape, plan: Plan, memory: int, context: int) -> bool:
    tried = Plan(plan.precision, context, plan.batch, plan.gpu, plan.train, plan.threads)
    return need(shape, tried).total <= memory


def _tile(shape: Shape, plan: Plan) -> int:
    return 0 if plan.precision == "float32" else 4 * min(_TILE, shape.largest)


def _training(shape: Shape, plan: Plan, held: int, program: int) -> Need:
    """Training in float32, and in 16 bits on a GPU; AdamW's averages have the type of what is trained."""
    width = 2 if plan.gpu else 4
    trained = shape.params if plan.train == "full" else shape.adapters
    every = shape.full if plan.train == "full" else shape.lora
    highest = max(moment.nbytes(plan.context, plan.context, threads=0) for moment in every)
    added = 0 if plan.train == "full" else trained * width
    return Need(
        held + added, 0, highest * plan.batch * width // 4 + _tile(shape, plan), 2 * trained * width, program
    )
