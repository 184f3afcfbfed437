r"""Scaling linear attention with sparse state expansion (Pan et al. 2025): memories of which a token uses a few rows.

    row-sparse  a key is a softmax over rows, or the largest entry of one: writing is a choice of the row, a class
    expansion   N memories of d by d; a router's softmax chooses those that a token writes and reads,
                S^n_t = S^n_{t-1} + r_n k_t v_t'  for chosen n,  o_t = sum over chosen n of  r_n S^n_t' q_t

The router's parameters are few and the memories have none, so that the state grows alone. What tokens write is written
out here, and the mixer's op is held to a loop.
Shapes: k, q [sequences, time, heads, dim], shares [sequences, time, partitions].
"""

from typing import Any

import torch
from torch import Tensor, nn

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.recall import recalled, train_recall
from contexture.claims.run import Run
from contexture.mixers.linear_attention import LinearAttention
from contexture.mixers.sse import SparseStateExpansion
from contexture.models.state import state_bytes
from contexture.ops.dispatch import use
from contexture.ops.flops import count_flops
from contexture.ops.routed_linear_attention import routed_linear_attention
from contexture.randomness import generator
from contexture.tasks.draws import integers, normal
from contexture.tasks.mqar import MQAR

PAPER = Paper(
    key="sse",
    title="Scaling Linear Attention with Sparse State Expansion",
    authors="Yuqi Pan, Yongqi An, Zheng Li, Yuhong Chou, Ruijie Zhu, Xiaohui Wang, Mingxuan Wang, Jinqiao Wang, "
    "Guoqi Li",
    year=2025,
    arxiv="2507.16577",
    uses=("sse", "linear-attention", "sliding-window", "mqar"),
    left_out={
        "pure and mixed with attention it is validated on language, retrieval and mathematics": "needs language models "
        "trained on hundreds of billions of tokens",
        "a model of two billion parameters leads small ones on AIME after reinforcement learning": "needs that "
        "model and its reinforcement learning",
    },
)

CLASSES, DIM, TIME = 16, 16, 128


def classes(run: Run, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens of sixteen classes: which, logits over rows, noisy values, and what every class stands for."""
    sequences = run.setting("sequences", smoke=16, cpu=512)
    generator = run.generator(seed, "classes")
    which = integers(sequences, TIME, below=CLASSES, generator=generator)
    rows = torch.eye(CLASSES, dtype=torch.float64)
    logits = 5 * rows[which] + normal(sequences, TIME, CLASSES, generator=generator)
    meant = normal(sequences, CLASSES, DIM, generator=generator)
    noise = 0.3 * normal(sequences, TIME, DIM, generator=generator)
    values = meant.gather(1, which.unsqueeze(-1).expand(-1, -1, DIM)) + noise
    return which, logits, values, meant


def interference(run: Run, kind: str, name: str) -> Samples:
    """The squared error of what a memory says of every class, over the square of what the classes stand for."""
    rows = torch.eye(CLASSES, dtype=torch.float64)

    def keys(logits: Tensor, which: Tensor) -> Tensor:
        if kind == "hard":
            shares = logits.softmax(-1)
            return torch.where(shares == shares.amax(-1, keepdim=True), shares, 0.0)
        if kind == "known":
            return rows[which]
        return torch.nn.functional.elu(logits) + 1

    def one(seed: int) -> OneSeed:
        which, logits, values, meant = classes(run, seed)
        written = keys(logits, which)
        asked = keys(5 * rows.expand(meant.shape[0], -1, -1), torch.arange(CLASSES).expand(meant.shape[0], -1))
        said = asked @ (written.mT @ values) / (asked @ written.sum(1).unsqueeze(-1)).clamp_min(1e-9)
        errors, zero = (said - meant).square().mean((1, 2)), meant.square().mean((1, 2))
        curve = (said - meant).square().mean((0, 2)) / meant.square().mean()
        return OneSeed(
            values=errors, per=zero, errors=errors, zero_errors=zero, curves={name: (range(1, CLASSES + 1), curve)}
        )

    return over_seeds(run, one)


@claim(
    "Writing each token to the row of its class keeps classes apart: what they stand for does not mix.",
    threshold=0.2,
    direction="below",
    why="a fifth of the square; eight tokens a class leave a hundredth of noise, mixing leaves most of the square",
    axes=Axes(x="class", y="squared error of recall, relative", log_y=True, rule=True),
    leaves_out="longer receptive fields, which come of rows that fade only when written: the memories here do not fade",
)
def rows_apart(run: Run) -> Samples:
    """The largest entry of a softmax as the key."""
    return interference(run, "hard", "row-sparse keys")


@rows_apart.reference("keys of the true class")
def rows_apart_known(run: Run) -> Samples:
    """Classification without a mistake."""
    return interference(run, "known", "true classes")


@rows_apart.control("the same logits as dense keys, elu + 1 as in linear attention")
def rows_apart_dense(run: Run) -> Samples:
    """Every token writes to every row."""
    return interference(run, "dense", "dense keys")


PARTITIONS = (1, 2, 4, 8, 16)
WIDTH = 32


def growth(run: Run, learner: str, name: str) -> Samples:
    """By what factor parameters grow where the state grows 8.5-fold; the curve is over the state's bytes."""

    def measured(mixer: nn.Module) -> tuple[int, int]:
        held = mixer.init_state(1, device="cpu", dtype=torch.float32)  # type: ignore[operator]
        return sum(parameter.numel() for parameter in mixer.parameters()), state_bytes(held)

    def one(seed: int) -> OneSeed:
        found = []
        for partitions in PARTITIONS:
            drawn = generator("sse", seed)
            if learner == "expanded":
                found.append(
                    measured(SparseStateExpansion(WIDTH, num_heads=2, num_partitions=partitions, generator=drawn))
                )
            elif learner == "widened":
                # The state of linear attention is width^2 / heads, so it grows with the square of the width.
                width = 2 * round(WIDTH * ((1 + partitions) / 2) ** 0.5 / 2)
                found.append(measured(LinearAttention(width, num_heads=2, generator=drawn)))
            else:
                parameters, held = measured(LinearAttention(WIDTH, num_heads=2, generator=drawn))
                found.append((parameters, held * (1 + partitions)))
        sizes, states = torch.tensor(found, dtype=torch.float64).unbind(1)
        return OneSeed(values=sizes[-1:] / sizes[0], curves={name: (states.tolist(), sizes / sizes[0])})

    return over_seeds(run, one)


@claim(
    "Partitions expand the state without the parameters.",
    threshold=1.2,
    direction="below",
    why="parameters are counted while the state grows 8.5-fold; 15 more columns of a router are a tenth of it",
    axes=Axes(x="bytes of state", y="parameters over those of the smallest", log_x=True, log_y=True, rule=True),
)
def decoupled(run: Run) -> Samples:
    """From one partition to sixteen."""
    return growth(run, "expanded", "partitions")


@decoupled.reference("linear attention whose state is copied, with no router at all")
def decoupled_copied(run: Run) -> Samples:
    """No parameter is added."""
    return growth(run, "copied", "copies of one state")


@decoupled.control(
    "linear attention, widened until its state is as large", incompetent="parameters are counted, nothing is predicted"
)
def decoupled_widened(run: Run) -> Samples:
    """State bought with width."""
    return growth(run, "widened", "wider linear attention")


def routed(run: Run, seed: int, *, partitions: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random queries, keys, values, and shares of the partitions."""
    sequences = run.setting("sequences", smoke=8, cpu=64)
    generator = run.generator(seed, "routed")
    q, k, v = normal(3, sequences, TIME, 1, DIM, generator=generator)
    return q, k, v, normal(sequences, TIME, partitions, generator=generator).softmax(-1)


def loop(q: Tensor, k: Tensor, v: Tensor, shares: Tensor) -> Tensor:
    """Token after token, each of which writes and reads the partition with its largest share."""
    largest, chosen = shares.max(-1)
    rows = torch.arange(q.shape[0])
    state, out = torch.zeros(q.shape[0], shares.shape[-1], DIM, DIM, dtype=q.dtype), []
    for t in range(TIME):
        share, which = largest[:, t, None, None], chosen[:, t]
        state = state.clone()
        state[rows, which] += share * k[:, t].mT @ v[:, t]
        out.append(share * q[:, t] @ state[rows, which])
    return torch.stack(out, 1)


def parallel(run: Run, way: str, name: str) -> Samples:
    """How far a way of routing is from the loop."""

    def one(seed: int) -> OneSeed:
        x = routed(run, seed)
        if way == "all":
            said = routed_linear_attention(*x, num_routes=x[3].shape[-1])[0]
        else:
            with use(way):
                said = routed_linear_attention(*x)[0]
        return apart(said, loop(*x), name)

    return over_seeds(run, one)


@claim(
    "It can be computed in parallel: tokens brought together by partition, in chunks, give what one by one gives.",
    threshold=1e-10,
    direction="below",
    why="double precision leaves about 1e-15 over 128 tokens",
    axes=Axes(x="position", y="difference from the loop, relative", log_y=True, rule=True),
)
def in_parallel(run: Run) -> Samples:
    """The mixer's op with eight partitions."""
    return parallel(run, "chunked", "in chunks")


@in_parallel.reference("linear attention over all rows of all partitions, most of them zero")
def in_parallel_dense(run: Run) -> Samples:
    """The same sums at eight times the work."""
    return parallel(run, "dense", "all rows")


@in_parallel.control("tokens that write and read every partition", incompetent="sums over more terms are larger")
def in_parallel_all(run: Run) -> Samples:
    """The same shares without a choice."""
    return parallel(run, "all", "every partition")


def work(run: Run, way: str, name: str) -> Samples:
    """By what factor the operations grow from 2 partitions to 16."""
    counts = (2, 4, 8, 16)

    def one(seed: int) -> OneSeed:
        found = []
        for partitions in counts:
            q, k, v = torch.randn(3, 1, 1024, 1, DIM, generator=run.generator(seed, "work"))
            num_shares = 1 if way == "one" else partitions
            shares = torch.rand(1, 1024, num_shares, generator=run.generator(seed, "shares")).softmax(-1)

            def mixed(x: tuple[Tensor, ...] = (q, k, v, shares)) -> Tensor:
                with use("dense" if way == "dense" else "chunked"):
                    return routed_linear_attention(*x)[0]

            found.append(count_flops(mixed))
        grown = torch.tensor(found, dtype=torch.float64)
        return OneSeed(values=grown[-1:] / grown[0], curves={name: (counts, grown / grown[0])})

    return over_seeds(run, one)


@claim(
    "A larger state costs no more work: a token uses as few partitions as before.",
    threshold=2.0,
    direction="below",
    why="operations for 1,024 tokens are counted while the state grows eightfold; chunks half empty cost some",
    axes=Axes(x="partitions", y="operations over those for two", log_x=True, log_y=True, rule=True),
)
def same_work(run: Run) -> Samples:
    """From 2 to 16 partitions, one of which a token uses."""
    return work(run, "chunked", "one partition a token")


@same_work.reference("linear attention with one partition")
def same_work_one(run: Run) -> Samples:
    """No partition is added at all."""
    return work(run, "one", "one partition")


@same_work.control("all rows of all partitions", incompetent="operations are counted, nothing is predicted")
def same_work_dense(run: Run) -> Samples:
    """Without bringing tokens together."""
    return work(run, "dense", "all rows")


def retrieved(run: Run, partitions: int, name: str, *, table: bool = False) -> Samples:
    """The share of 128 random pairs whose value is the nearest to what is read, over numbers of partitions.

    A random router sends a key and the query that equals it to the same partition.
    """
    sequences = run.setting("sequences", smoke=8, cpu=64)

    def right(seed: int, count: int) -> Tensor:
        generator = run.generator(seed, "pairs")
        k, v = normal(2, sequences, TIME, DIM, generator=generator)
        k, v = k / k.norm(dim=-1, keepdim=True), v / v.norm(dim=-1, keepdim=True)
        router = normal(DIM, count, generator=generator)
        if table:
            said = (k @ k.mT * 64).softmax(-1) @ v
        else:
            chosen = (k @ router).argmax(-1)
            same = chosen.unsqueeze(2) == chosen.unsqueeze(1)
            said = ((k @ k.mT) * same) @ v
        nearest = (said @ v.mT).argmax(-1)
        share: Tensor = (nearest == torch.arange(TIME)).double().mean(1)
        return share

    def one(seed: int) -> OneSeed:
        share = right(seed, partitions)
        curve = torch.stack([right(seed, count).mean() for count in PARTITIONS])
        return OneSeed(
            values=share,
            errors=1 - share,
            zero_errors=torch.full_like(share, 1 - 1 / TIME),
            curves={name: (PARTITIONS, curve)},
        )

    return over_seeds(run, one)


@claim(
    "What can be retrieved grows with the state: sixteen partitions give back most of 128 pairs.",
    threshold=0.7,
    direction="above",
    why="seven in ten; each partition of 16 x 16 has eight pairs on average, and a single memory sixteen times as many",
    axes=Axes(x="partitions", y="share of pairs retrieved", log_x=True, rule=True),
)
def capacity(run: Run) -> Samples:
    """Sixteen partitions and a random router."""
    return retrieved(run, 16, "routed by the key")


@capacity.reference("sharp attention, which keeps every pair")
def capacity_attention(run: Run) -> Samples:
    """A state of all tokens."""
    return retrieved(run, 16, "attention", table=True)


@capacity.control("one partition, of the same keys and values")
def capacity_one(run: Run) -> Samples:
    """The state before it is expanded."""
    return retrieved(run, 1, "routed by the key")


TASK = MQAR(vocabulary=64, length=48, num_pairs=8)


def trained(run: Run, partitions: int, name: str) -> Samples:
    """Recall after 300 steps in heads of eight, behind a first layer that sees one token back."""
    settings: dict[str, dict[str, Any]] = {"sliding-window": {"window": 2}, "sse": {"num_partitions": partitions}}
    models = train_recall(run, "sliding-window+none sse+none", task=TASK, num_steps=300, width=16, settings=settings)
    return recalled(run, models, TASK, name)


@claim(
    "Trained to recall, eight partitions do better than one at nearly the same number of parameters.",
    threshold=0.3,
    direction="above",
    why="three values in ten right, nine times chance",
    kind="trained",
    spread="seeds",
    axes=Axes(x="tokens between key and query, at most", y="share of values recalled", rule=True),
    leaves_out="more than 300 steps at one rate: the layers may not have learned to the end",
)
def recall(run: Run) -> Samples:
    """Eight pairs in 48 tokens, width 16."""
    return trained(run, 8, "eight partitions")


@recall.reference("looking the key up")
def recall_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return recalled(run, TASK.oracle(), TASK, "lookup")


@recall.control("one partition beside the shared memory")
def recall_one(run: Run) -> Samples:
    """The same layer with a smaller state."""
    return trained(run, 1, "one partition")
