r"""Memory caching: RNNs with growing memory (Behrouz et al. 2026): the memory of every segment of a sequence is kept.

    C_i = M_0 - sum over segment i of grad loss(M_0; k, v),  loss = -M(k).v        checkpoints, each from a fresh memory
    residual    sum_i C_i(q)
    gated       sum_i w_i C_i(q)                 soup    (sum_i w_i C_i)(q)
    sparse      gated over the few segments that answer the query best

M is a matrix (M_0 = 0, C_i = sum k v': linear attention), or a network x + W_2' s(W_1' x) from weights M_0. Checkpoints
are made here by automatic differentiation; growth and recall are measured on the mixers.
Shapes: q, k, v [sequences, time, dim]; a checkpoint's parts [sequences, segments, in, out].
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.recall import recalled, train_recall
from contexture.claims.run import Run
from contexture.mixers.linear_attention import LinearAttention
from contexture.mixers.memory_caching import MemoryCachingGated
from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.state import state_bytes
from contexture.ops.linear_attention import linear_attention
from contexture.randomness import generator
from contexture.tasks.draws import normal
from contexture.tasks.mqar import MQAR

PAPER = Paper(
    key="memory-caching",
    title="Memory Caching: RNNs with Growing Memory",
    authors="Ali Behrouz, Zeman Li, Yuan Deng, Peilin Zhong, Meisam Razaviyayn, Vahab Mirrokni",
    year=2026,
    arxiv="2602.24281",
    uses=("memory-caching-gated", "linear-attention", "softmax", "sliding-window", "mqar"),
    left_out={
        "caching helps recurrent models at language modelling and long contexts": "needs language models of a billion "
        "parameters trained on tens of billions of tokens",
        "at in-context recall in language it is ahead of other recurrent models and near transformers": "needs the "
        "same models, and the data sets of recall that they are asked",
    },
)

TIME, DIM, LENGTH = 64, 16, 8
SEGMENTS = TIME // LENGTH
Kind = Literal["linear", "deep"]
Parts = tuple[Tensor, ...]


def fresh(run: Run, seed: int, kind: Kind) -> Parts:
    """M_0."""
    if kind == "linear":
        return (torch.zeros(DIM, DIM, dtype=torch.float64),)
    generator = run.generator(seed, "fresh")
    inner, outer = (normal(*shape, generator=generator) for shape in ((DIM, 2 * DIM), (2 * DIM, DIM)))
    return inner / DIM**0.5, outer / (2 * DIM) ** 0.5


def read(parts: Parts, q: Tensor) -> Tensor:
    """M(q), rows [.., dim] for parts [.., in, out]."""
    return q @ parts[0] if len(parts) == 1 else q + F.silu(q @ parts[0]) @ parts[1]


def learned(start: Parts, k: Tensor, v: Tensor) -> Parts:
    """Fresh memories after one step on the loss of all their rows; k, v: [.., rows, dim]."""
    parts = [part.expand(*k.shape[:-2], *part.shape).clone().requires_grad_(True) for part in start]
    with torch.enable_grad():
        gradients = torch.autograd.grad(-(read(tuple(parts), k) * v).sum(), parts)
    return tuple(part.detach() - gradient for part, gradient in zip(parts, gradients, strict=True))


def draw(run: Run, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys of length one, small values; keys and values cut into segments."""
    sequences = run.setting("sequences", smoke=16, cpu=256)
    q, k, v = normal(3, sequences, TIME, DIM, generator=run.generator(seed, "tokens"))
    k, v = (torch.unflatten(x, 1, (SEGMENTS, LENGTH)) for x in (F.normalize(k, dim=-1), v / LENGTH))
    return F.normalize(q, dim=-1), k, v


def residual(run: Run, kind: Kind, name: str, *, by_op: bool = False) -> Samples:
    """How far the sum of all checkpoints' reads is from one memory that has seen everything."""

    def one(seed: int) -> OneSeed:
        q, k, v = draw(run, seed)
        start = fresh(run, seed, kind)
        whole = read(learned(start, k.flatten(1, 2), v.flatten(1, 2)), q)
        if by_op:
            _, state = linear_attention(*(x.flatten(1, 2).unsqueeze(2) for x in (k, k, v)))
            return apart(q @ state.squeeze(1), whole, name)
        return apart(read(learned(start, k, v), q.unsqueeze(1)).sum(1), whole, name)

    return over_seeds(run, one)


@claim(
    "For a linear memory, adding the reads of all checkpoints is the memory that was never cut.",
    threshold=1e-10,
    direction="below",
    why="double precision leaves about 1e-15; a memory that is not linear is off by as much as it says",
    axes=Axes(x="query", y="difference from one memory, relative", log_y=True, rule=True),
)
def residual_is_linear(run: Run) -> Samples:
    """Eight checkpoints of a matrix."""
    return residual(run, "linear", "matrix")


@residual_is_linear.reference("linear attention over the whole sequence")
def residual_by_op(run: Run) -> Samples:
    """The op that sums keys times values."""
    return residual(run, "linear", "linear attention", by_op=True)


@residual_is_linear.control(
    "checkpoints of a network, whose reads do not add up", incompetent="eight reads of a network are far more than one"
)
def residual_deep(run: Run) -> Samples:
    """The same sum with a deep memory."""
    return residual(run, "deep", "network")


def soup(run: Run, kind: Kind, name: str, *, merged: bool = False) -> Samples:
    """How far reading an average of checkpoints is from averaging their reads, under gates from the query."""

    def one(seed: int) -> OneSeed:
        q, k, v = draw(run, seed)
        parts = learned(fresh(run, seed, kind), k, v)
        gates = (4 * q @ k.mean(2).mT).softmax(-1)
        reads = read(parts, q.unsqueeze(1))
        wanted = torch.einsum("bts,bstd->btd", gates, reads)
        if merged:
            said = torch.einsum("bts,bslc,bstc->btl", gates, parts[0].mT, q.unsqueeze(1).expand(-1, SEGMENTS, -1, -1))
            return apart(said, wanted, name)
        mixed = tuple(torch.einsum("bts,bsio->btio", gates, part) for part in parts)
        return apart(read(mixed, q.unsqueeze(2)).squeeze(2), wanted, name)

    return over_seeds(run, one)


@claim(
    "For a linear memory, mixing the checkpoints' weights is the same as weighing what they say.",
    threshold=1e-10,
    direction="below",
    why="double precision leaves about 1e-15; for a network the two differ by half a per cent",
    axes=Axes(x="query", y="difference from gated reads, relative", log_y=True, rule=True),
)
def soup_is_gated(run: Run) -> Samples:
    """Soup against gated reads of matrices."""
    return soup(run, "linear", "matrix")


@soup_is_gated.reference("the gated sum written as one product")
def soup_product(run: Run) -> Samples:
    """The same numbers in another order."""
    return soup(run, "linear", "one product", merged=True)


@soup_is_gated.control("the same for networks: four variants are four for deep memories")
def soup_deep(run: Run) -> Samples:
    """Soup against gated reads of deep memories."""
    return soup(run, "deep", "network")


PAIRS = (8, 16, 32, 64, 128)


def stored(run: Run, way: str, name: str) -> Samples:
    """The share of 128 pairs whose value is the nearest to what is read, by the number of pairs.

    Eight pairs that follow each other have keys on one topic, so that a query resembles the mean of its segment.
    """
    sequences = run.setting("sequences", smoke=16, cpu=128)

    def right(seed: int, count: int) -> Tensor:
        generator = run.generator(seed, "pairs", count)
        size = 2 * DIM
        topics = normal(sequences, count // LENGTH, 1, size, generator=generator)
        k = F.normalize(0.7 * topics + normal(sequences, count // LENGTH, LENGTH, size, generator=generator), dim=-1)
        v = F.normalize(normal(sequences, count // LENGTH, LENGTH, size, generator=generator), dim=-1)
        q, values = k.flatten(1, 2), v.flatten(1, 2)
        checkpoints = k.mT @ v
        if way == "attention":
            said = (64 * q @ q.mT).softmax(-1) @ values
        elif way == "one memory":
            said = q @ checkpoints.sum(1)
        else:
            scores = q @ k.mean(2).mT
            kept = scores >= scores.topk(min(2, scores.shape[-1]), -1).values[..., -1:]
            gates = (16 * scores).masked_fill(~kept, -torch.inf).softmax(-1)
            said = torch.einsum("bts,bsio,bti->bto", gates, checkpoints, q)
        return ((said @ values.mT).argmax(-1) == torch.arange(count)).double().mean(1)

    def one(seed: int) -> OneSeed:
        shares = [right(seed, count) for count in PAIRS]
        return OneSeed(
            values=shares[-1],
            errors=1 - shares[-1],
            zero_errors=torch.full_like(shares[-1], 1 - 1 / PAIRS[-1]),
            curves={name: (PAIRS, torch.stack([share.mean() for share in shares]))},
        )

    return over_seeds(run, one)


@claim(
    "Cached checkpoints let the capacity grow with the sequence: a query finds its pair among 128.",
    threshold=0.7,
    direction="above",
    why="seven in ten; a matrix of 32 x 32 that holds all pairs of 16 topics returns far fewer",
    axes=Axes(x="pairs", y="share of pairs recalled", log_x=True, rule=True),
)
def capacity(run: Run) -> Samples:
    """Sparse selection of two checkpoints, gated by the means of their keys."""
    return stored(run, "sparse", "two of the checkpoints")


@capacity.reference("sharp attention to all pairs")
def capacity_attention(run: Run) -> Samples:
    """A memory of every token."""
    return stored(run, "attention", "attention")


@capacity.control("one matrix for the whole sequence")
def capacity_fixed(run: Run) -> Samples:
    """A recurrent network's fixed memory."""
    return stored(run, "one memory", "one memory")


LENGTHS = (64, 128, 256, 512)
WIDTH = 32


def kept(run: Run, learner: str, name: str, *, segment: int = 32) -> Samples:
    """Bytes kept after 512 tokens over those after 64."""

    def made(drawn: torch.Generator) -> nn.Module:
        if learner == "cached":
            return MemoryCachingGated(WIDTH, num_heads=4, segment_length=segment, memory="linear", generator=drawn)
        kind = SoftmaxAttention if learner == "softmax" else LinearAttention
        return kind(WIDTH, num_heads=4, generator=drawn)

    def one(seed: int) -> OneSeed:
        mixer = made(generator("memory-caching", "kept"))
        x = torch.randn(1, LENGTHS[-1], WIDTH, generator=run.generator(seed, "kept"))
        found = []
        with torch.no_grad():
            for length in LENGTHS:
                state = mixer.init_state(1, device="cpu", dtype=torch.float32)  # type: ignore[operator]
                found.append(state_bytes(mixer.stream(x[:, :length], state)[1]))  # type: ignore[operator]
        sizes = torch.tensor(found, dtype=torch.float64)
        return OneSeed(values=sizes[-1:] / sizes[0], curves={name: (LENGTHS, sizes)})

    return over_seeds(run, one)


@claim(
    "The memory grows with the sequence as a transformer's does, one checkpoint a segment.",
    threshold=7.0,
    direction="above",
    why="bytes are counted over eight times the tokens: a memory that grows in proportion gives 8, a fixed one 1",
    axes=Axes(x="tokens seen", y="bytes of state", log_x=True, log_y=True),
)
def grows(run: Run) -> Samples:
    """Gated caching of segments of 32 tokens."""
    return kept(run, "cached", "cached every 32 tokens")


@grows.reference("softmax attention's keys and values")
def grows_softmax(run: Run) -> Samples:
    """The growing end."""
    return kept(run, "softmax", "softmax attention")


@grows.control("linear attention's fixed memory", incompetent="bytes are counted, nothing is predicted")
def grows_linear(run: Run) -> Samples:
    """The fixed end."""
    return kept(run, "linear", "linear attention")


TASK = MQAR(vocabulary=64, length=48, num_pairs=8)


def trained(run: Run, segment: int, name: str) -> Samples:
    """Recall after 300 steps in a matrix memory, behind a first layer that sees one token back."""
    settings: dict[str, dict[str, Any]] = {
        "sliding-window": {"window": 2},
        "memory-caching-gated": {"segment_length": segment, "memory": "linear"},
    }
    pattern = "sliding-window+none memory-caching-gated+none"
    models = train_recall(run, pattern, task=TASK, num_steps=300, width=16, settings=settings)
    return recalled(run, models, TASK, name)


@claim(
    "Trained to recall, a layer that caches its memory every four tokens recalls more than one that does not.",
    threshold=0.3,
    direction="above",
    why="three values in ten right, nine times chance",
    kind="trained",
    spread="seeds",
    axes=Axes(x="tokens between key and query, at most", y="share of values recalled", rule=True),
    leaves_out="more than 300 steps at one rate: the layers may not have learned to the end",
)
def recall(run: Run) -> Samples:
    """Eight pairs in 48 tokens; matrices of 8 by 8, cached every four tokens."""
    return trained(run, 4, "cached every 4 tokens")


@recall.reference("looking the key up")
def recall_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return recalled(run, TASK.oracle(), TASK, "lookup")


@recall.control("the same layer with one segment for the whole sequence")
def recall_fixed(run: Run) -> Samples:
    """A fixed memory."""
    return trained(run, TASK.length, "never cached")
