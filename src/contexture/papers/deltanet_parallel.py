r"""Parallelizing linear transformers with the delta rule over sequence length (Yang et al. 2024).

    S_t = (I - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t',   o_t = S_t' q_t        the delta rule
    S_t = S_{t-1} + beta_t k_t v_t'                                                 the additive rule

A product of the factors of n tokens is I - K' W with W of n rows only (the WY form), which solves a triangular system:

    W = T diag(beta) K,   U = T diag(beta) V,   T = (I + tril(diag(beta) K K', -1))^-1
    O = Q S + tril(Q K') (U - W S),   S <- S + K' (U - W S)

so that a chunk of tokens takes products of matrices in place of steps. Written out here, and held to the recurrence;
`contexture.ops.delta_rule` is the mixer's own.
Shapes: q, k, v [sequences, time, dim], beta [sequences, time, 1], S [sequences, dim, dim].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.recall import recalled, train_recall
from contexture.claims.run import Run
from contexture.ops.delta_rule import delta_rule, delta_rule_reference
from contexture.ops.linear_attention import linear_attention
from contexture.tasks.draws import normal, uniform
from contexture.tasks.mqar import MQAR

PAPER = Paper(
    key="deltanet-parallel",
    title="Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
    authors="Songlin Yang, Bailin Wang, Yu Zhang, Yikang Shen, Yoon Kim",
    year=2024,
    arxiv="2406.06484",
    uses=("delta-rule", "linear-attention", "sliding-window", "mqar"),
    left_out={
        "with 1.3 billion parameters it is ahead of Mamba and GLA in perplexity and zero-shot tasks": "needs 100 "
        "billion tokens of text and the training of billion-parameter models",
        "hybrids with window attention or two layers of global attention are ahead of transformers": "needs language "
        "models of the same scale",
    },
)

TIME, DIM = 256, 16
SIZES = (1, 4, 16, 64, 256)


class Drawn(NamedTuple):
    """Queries, keys of length one, values and rates."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor


def draw(run: Run, seed: int) -> Drawn:
    """Random tokens; rates between 0 and 1."""
    sequences = run.setting("sequences", smoke=4, cpu=64)
    generator = run.generator(seed, "tokens")
    q, k, v = normal(3, sequences, TIME, DIM, generator=generator)
    beta = uniform(sequences, TIME, 1, generator=generator)
    return Drawn(q / DIM**0.5, k / k.norm(dim=-1, keepdim=True), v, beta)


def recurrence(x: Drawn) -> Tensor:
    """The definition, one token after another."""
    state, out = torch.zeros_like(x.k[:, :1].mT @ x.v[:, :1]), []
    for q, k, v, beta in zip(*(torch.split(part, 1, 1) for part in x), strict=True):
        state = state + k.mT @ (beta * (v - k @ state))
        out.append(q @ state)
    return torch.cat(out, 1)


def by_matrices(x: Drawn) -> Tensor:
    """The same with every I - beta k k' formed."""
    eye = torch.eye(DIM, dtype=x.k.dtype)
    state, out = torch.zeros_like(x.k[:, :1].mT @ x.v[:, :1]), []
    for q, k, v, beta in zip(*(torch.split(part, 1, 1) for part in x), strict=True):
        state = (eye - beta * (k.mT @ k)) @ state + beta * (k.mT @ v)
        out.append(q @ state)
    return torch.cat(out, 1)


def solved(k: Tensor, beta: Tensor, right: Tensor, *, corrects: bool) -> Tensor:
    """T diag(beta) right; without correction T is left out, as if no token of the chunk saw another."""
    right = beta * right
    if not corrects:
        return right
    within = (beta * (k @ k.mT)).tril(-1)
    found: Tensor = torch.linalg.solve_triangular(within, right, upper=False, unitriangular=True)
    return found


def in_chunks(x: Drawn, size: int, *, corrects: bool = True) -> Tensor:
    """The WY form over chunks of `size` tokens."""
    state, out = torch.zeros_like(x.k[:, :1].mT @ x.v[:, :1]), []
    for q, k, v, beta in zip(*(torch.split(part, size, 1) for part in x), strict=True):
        written = solved(k, beta, v, corrects=corrects) - solved(k, beta, k, corrects=corrects) @ state
        out.append(q @ state + (q @ k.mT).tril() @ written)
        state = state + k.mT @ written
    return torch.cat(out, 1)


def chunks(run: Run, mixed: Callable[[Drawn, int], Tensor], name: str) -> Samples:
    """The largest relative difference to the recurrence, over sizes of chunks."""

    def one(seed: int) -> OneSeed:
        x = draw(run, seed)
        wanted = recurrence(x)
        parts = [apart(mixed(x, size), wanted, name) for size in SIZES]
        gaps = torch.stack([part.values for part in parts])
        return OneSeed(
            values=gaps.amax(0),
            errors=parts[2].errors,
            zero_errors=parts[2].zero_errors,
            curves={name: (SIZES, gaps.mean(1).clamp_min(torch.finfo(gaps.dtype).eps))},
        )

    return over_seeds(run, one)


@claim(
    "In chunks of any size the WY form computes what the recurrence does.",
    threshold=1e-10,
    direction="below",
    why="double precision leaves about 1e-15 over 256 tokens; a wrong form is off by a tenth and more",
    axes=Axes(x="chunk", y="difference from the recurrence, relative", log_x=True, log_y=True, rule=True),
)
def chunkwise(run: Run) -> Samples:
    """Chunks of 1 to 256 tokens."""
    return chunks(run, in_chunks, "WY form")


@chunkwise.reference("the recurrence with every matrix I - beta k k' formed")
def chunkwise_matrices(run: Run) -> Samples:
    """Step after step, whatever the chunk."""
    return chunks(run, lambda x, _: by_matrices(x), "products of matrices")


@chunkwise.control("chunks whose tokens all correct the memory before the chunk, without the triangular system")
def chunkwise_uncorrected(run: Run) -> Samples:
    """The same products but for T."""
    return chunks(run, partial(in_chunks, corrects=False), "without the triangular system")


def householder(run: Run, *, by: Literal["vectors", "pairs", "uncorrected"], name: str) -> Samples:
    """How far I - K' W is from the product of the factors of 16 tokens, relative to I less the product."""
    count = 16

    def one(seed: int) -> OneSeed:
        _, k, _, beta = (part[:, :count] for part in draw(run, seed))
        eye = torch.eye(DIM, dtype=k.dtype).expand(k.shape[0], -1, -1)
        wanted = eye
        for key, rate in zip(torch.split(k, 1, 1), torch.split(beta, 1, 1), strict=True):
            wanted = (eye - rate * (key.mT @ key)) @ wanted
        if by == "pairs":
            factors = [
                eye - rate * (key.mT @ key)
                for key, rate in zip(torch.split(k, 1, 1), torch.split(beta, 1, 1), strict=True)
            ]
            while len(factors) > 1:
                factors = [later @ earlier for earlier, later in zip(factors[::2], factors[1::2], strict=True)]
            said = eye - factors[0]
        else:
            said = k.mT @ solved(k, beta, k, corrects=by == "vectors")
        return apart(said, eye - wanted, name)

    return over_seeds(run, one)


@claim(
    "A product of Householder-like factors needs no product of matrices: as many vectors hold it.",
    threshold=1e-10,
    direction="below",
    why="double precision leaves 1e-15 over 16 factors",
    axes=Axes(x="row of the product", y="difference from the product, relative", log_y=True, rule=True),
)
def vectors(run: Run) -> Samples:
    """I - K' W for 16 factors."""
    return householder(run, by="vectors", name="sixteen vectors")


@vectors.reference("the factors multiplied pair by pair")
def vectors_pairs(run: Run) -> Samples:
    """Another order of the same products."""
    return householder(run, by="pairs", name="pair by pair")


@vectors.control("the sum of the factors' own vectors, which takes them for orthogonal")
def vectors_uncorrected(run: Run) -> Samples:
    """W without the triangular system."""
    return householder(run, by="uncorrected", name="keys as they are")


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """How many operations are called, one after another."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


LENGTHS = (32, 128, 512)


def calls(run: Run, learner: Literal["chunks", "linear", "recurrence"], name: str) -> Samples:
    """Operations in a row for 512 tokens over those of the recurrence."""

    def counted(which: str, seed: int, length: int) -> int:
        generator = run.generator(seed, "calls")
        q, k, v = torch.randn(3, 1, length, 1, DIM, generator=generator)
        beta = torch.rand(1, length, 1, generator=generator)
        with _Calls() as counter:
            if which == "chunks":
                delta_rule(q, k, v, beta)
            elif which == "linear":
                linear_attention(q, k, v)
            else:
                delta_rule_reference(q, k, v, beta, initial_state=None)
        return int(counter.count)

    def one(seed: int) -> OneSeed:
        found = torch.tensor([counted(learner, seed, length) for length in LENGTHS], dtype=torch.float64)
        whole = counted("recurrence", seed, LENGTHS[-1])
        return OneSeed(values=found[-1:] / whole, curves={name: (LENGTHS, found)})

    return over_seeds(run, one)


@claim(
    "The chunked form takes a small share of the recurrence's steps that have to wait for each other.",
    threshold=0.1,
    direction="below",
    why="operations called one after another are counted; chunks of 32 leave about one in thirty",
    axes=Axes(x="tokens", y="operations in a row", log_x=True, log_y=True),
    leaves_out="seconds on a GPU with kernels of its own; the benchmarks of this repository have those of its paths",
)
def in_parallel(run: Run) -> Samples:
    """The mixer's op for 512 tokens."""
    return calls(run, "chunks", "in chunks")


@in_parallel.reference("linear attention in chunks, which has no correction to wait for")
def in_parallel_linear(run: Run) -> Samples:
    """The additive rule."""
    return calls(run, "linear", "linear attention")


@in_parallel.control(
    "the recurrence takes a step for every token", incompetent="operations are counted, nothing is predicted"
)
def in_parallel_recurrence(run: Run) -> Samples:
    """The definition."""
    return calls(run, "recurrence", "recurrence")


PAIRS = (2, 4, 8, 12, 16)


def stored(run: Run, rule: Literal["delta", "additive", "least squares"], name: str) -> Samples:
    """The squared error of recalling eight pairs from a memory of 16 by 16 that has seen each pair eight times."""
    sequences = run.setting("sequences", smoke=64, cpu=1024)

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "pairs")
        curve = []
        for count in PAIRS:
            k, v = normal(2, sequences, count, 1, DIM, generator=generator)
            k = k / k.norm(dim=-1, keepdim=True)
            if rule == "least squares":
                memory = torch.linalg.pinv(k.squeeze(2)) @ v.squeeze(2)
            elif rule == "delta":
                keys, values = (x.repeat(1, 8, 1, 1) for x in (k, v))
                memory = delta_rule(keys, keys, values, torch.ones_like(keys[..., 0]))[1].squeeze(1)
            else:
                memory = linear_attention(k, k, v)[1].squeeze(1)
            curve.append(((k.squeeze(2) @ memory - v.squeeze(2)).square().mean((1, 2)), v.square().mean((1, 2, 3))))
        errors, zero = curve[PAIRS.index(8)]
        means = torch.stack([error.mean() / size.mean() for error, size in curve])
        return OneSeed(
            values=errors,
            per=zero,
            errors=errors,
            zero_errors=zero,
            curves={name: (PAIRS, means.clamp_min(torch.finfo(means.dtype).eps))},
        )

    return over_seeds(run, one)


@claim(
    "Written over what is recalled, a memory returns pairs whose keys overlap; the additive rule mixes them up.",
    threshold=0.1,
    direction="below",
    why="a tenth of the values' square; random keys leave the additive rule an error of (n - 1) / dim, here 7 / 16",
    axes=Axes(x="pairs in a memory of 16 x 16", y="squared error of recall, relative", log_y=True, rule=True),
    leaves_out="the additive rule sees each pair once: to see it again would only scale its sum",
)
def overlapping_keys(run: Run) -> Samples:
    """The delta rule at rate one, eight times over eight pairs."""
    return stored(run, "delta", "delta rule")


@overlapping_keys.reference("the least-squares memory of the same pairs")
def overlapping_keys_solved(run: Run) -> Samples:
    """What endless rounds would come to."""
    return stored(run, "least squares", "least squares")


@overlapping_keys.control("the additive rule over the same pairs, in a memory of the same size")
def overlapping_keys_additive(run: Run) -> Samples:
    """Linear attention's update."""
    return stored(run, "additive", "additive rule")


TASK = MQAR(vocabulary=64, length=48, num_pairs=8)


def trained(run: Run, mixer: str, settings: dict[str, Any], name: str) -> Samples:
    """Recall after 300 steps, behind a first layer that sees one token back."""
    both = {"sliding-window": {"window": 2}, mixer: settings}
    models = train_recall(run, f"sliding-window+none {mixer}+none", task=TASK, num_steps=300, settings=both)
    return recalled(run, models, TASK, name)


@claim(
    "Trained to recall, a layer with the delta rule is ahead of one with the additive rule and as large a state.",
    threshold=0.5,
    direction="above",
    why="half of the values right, sixteen times chance",
    kind="trained",
    spread="seeds",
    axes=Axes(x="tokens between key and query, at most", y="share of values recalled", rule=True),
    leaves_out="more than 300 steps at one rate: the layers may not have learned to the end",
)
def recall(run: Run) -> Samples:
    """Eight pairs in 48 tokens; no convolution, so that the layers differ in their rule and features alone."""
    return trained(run, "delta-rule", {"short_convolution": 1}, "delta rule")


@recall.reference("looking the key up")
def recall_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return recalled(run, TASK.oracle(), TASK, "lookup")


@recall.control("linear attention, with 16 numbers more of state in each head")
def recall_additive(run: Run) -> Samples:
    """Another rule in the second layer."""
    return trained(run, "linear-attention", {}, "linear attention")
