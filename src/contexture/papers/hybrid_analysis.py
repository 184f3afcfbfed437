r"""Hybrid architectures for language models (Bae et al. 2025): attention and state spaces, in turn or side by side.

    sequential    (Mamba-2, MLP) x 4 with attention in place of one, two or four of the mixers
    parallel      (attention | Mamba-2, MLP) x 4: both read the same input, their normed outputs are averaged

All of about 50,000 parameters, trained on phone books in place of text, as in `contexture.papers.mamba_empirical`. What
they keep and what a token costs is counted at a small width.
Shapes: shares of right answers [sequences].
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from contexture.claims.protocol import Axes, Curve, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.stacks import (
    BOOK,
    NUM_MIXERS,
    Learners,
    accuracy,
    ahead,
    backbone,
    kept,
    oracles,
    shares,
    stack,
    trained,
)
from contexture.models.hybrids import parallel_hybrid
from contexture.ops.flops import count_flops

PAPER = Paper(
    key="hybrid-analysis",
    title="Hybrid Architectures for Language Models: Systematic Analysis and Design Insights",
    authors="Sangmin Bae, Bilge Acun, Haroun Habeeb, Seungyeon Kim, Chien-Yu Lin, Liang Luo, Junjie Wang, "
    "Carole-Jean Wu",
    year=2025,
    arxiv="2510.04800",
    uses=("mamba-2", "softmax", "phonebook"),
    left_out={
        "either hybrid's loss on text, and how it falls with compute": "needs language models trained on billions of "
        "tokens at several sizes",
        "throughput of training and generation on accelerators": "needs models of a billion parameters on GPUs; the "
        "work and the bytes of small ones are counted in their place",
    },
)

STEPS = 300
SEQUENTIAL, PARALLEL = stack([NUM_MIXERS]), str(parallel_hybrid(NUM_MIXERS, recurrent="mamba-2").pattern)
WIDTHS: dict[tuple[int, ...], int] = {(): 32, (1,): 34, (4,): 34, (2, 4): 36, (1, 2, 3, 4): 40}
"""The width of each sequential stack by the places of its attention."""
BY_ENTRIES = Axes(x="entries of the phone book; eight in training", y="share of right digits")


def sequential(run: Run, *places: int) -> Learners:
    """Stacks with attention at these of four places."""
    return trained(run, stack(places), width=WIDTHS[places], num_steps=STEPS)


def parallel(run: Run) -> Learners:
    """Stacks with both in every layer."""
    return trained(run, PARALLEL, width=28, num_steps=STEPS)


@claim(
    "Layers of either kind in turn look numbers up far better than attention alone at the same size.",
    threshold=0.1,
    direction="above",
    expected="undecided",
    tried="300 steps, after which seeds differ by more than the models do",
    why="a tenth of the digits more are right",
    kind="trained",
    spread="seeds",
    axes=BY_ENTRIES,
    leaves_out="more than 300 steps at one rate: attention alone has not learned to the end",
)
def in_turn(run: Run) -> Samples:
    """The share with one layer of attention in four less that with four."""
    ours, theirs = sequential(run, 4), sequential(run, 1, 2, 3, 4)
    return ahead(run, ours, theirs, name="in turn", other="attention alone")


@in_turn.reference("looking the name up in the hybrid's place")
def in_turn_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return ahead(run, oracles(run, BOOK), sequential(run, 1, 2, 3, 4), name="lookup")


@in_turn.control("Mamba-2 alone does not")
def in_turn_recurrent(run: Run) -> Samples:
    """The same layers without attention."""
    return ahead(run, sequential(run), sequential(run, 1, 2, 3, 4), name="Mamba-2 alone")


@claim(
    "Side by side in every layer they do so as well.",
    threshold=0.1,
    direction="above",
    expected="undecided",
    tried="300 steps, after which seeds differ by more than the models do",
    why="a tenth of the digits more are right",
    kind="trained",
    spread="seeds",
    axes=BY_ENTRIES,
    leaves_out="other ways to join the two: outputs are normed and averaged here, at equal widths",
)
def side_by_side(run: Run) -> Samples:
    """The share of the parallel stack less that of attention alone."""
    ours, theirs = parallel(run), sequential(run, 1, 2, 3, 4)
    return ahead(run, ours, theirs, name="side by side", other="attention alone")


@side_by_side.reference("looking the name up in the hybrid's place")
def side_by_side_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return ahead(run, oracles(run, BOOK), sequential(run, 1, 2, 3, 4), name="lookup")


@side_by_side.control("Mamba-2 alone does not")
def side_by_side_recurrent(run: Run) -> Samples:
    """The same layers without attention."""
    return ahead(run, sequential(run), sequential(run, 1, 2, 3, 4), name="Mamba-2 alone")


COUNTS: dict[int, tuple[int, ...]] = {0: (), 1: (4,), 2: (2, 4), 4: (1, 2, 3, 4)}


def by_count(run: Run, ours: Learners, name: str) -> Samples:
    """The share of right digits, drawn over how many of the four mixers are attention."""
    found = accuracy(run, ours)
    if not name:
        return found

    def one(seed: int) -> Tensor:
        return torch.stack([shares(run, sequential(run, *places), BOOK, seed).mean() for places in COUNTS.values()])

    line = Curve(x=tuple(map(float, COUNTS)), y=run.each(one))
    return replace(found, curves={name: line})


@claim(
    "Few layers of attention do: with one in four mixers eight of ten digits are right.",
    threshold=0.8,
    direction="above",
    expected="undecided",
    tried="300 steps, after which seeds differ by more than the models do",
    why="eight of ten digits, where one constant digit is right in an eighth",
    kind="trained",
    spread="seeds",
    axes=Axes(x="layers of attention among four mixers", y="share of right digits", rule=True),
    leaves_out="ratios below one in four, which take more layers",
)
def few_layers(run: Run) -> Samples:
    """The last mixer."""
    return by_count(run, sequential(run, 4), "in turn")


@few_layers.reference("looking the name up")
def few_layers_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return by_count(run, oracles(run, BOOK), "")


@few_layers.control("without any they are not")
def few_layers_none(run: Run) -> Samples:
    """Mamba-2 alone."""
    return by_count(run, sequential(run), "")


@claim(
    "Where attention stands matters: in front of the recurrent layers it is worth less than behind them.",
    threshold=0.1,
    direction="above",
    expected="undecided",
    tried="300 steps, after which seeds differ by more than the models do",
    why="a tenth of the digits more are right",
    kind="trained",
    spread="seeds",
    axes=BY_ENTRIES,
    leaves_out="places in the middle of the stack, which the paper recommends",
)
def behind(run: Run) -> Samples:
    """The share with attention as the last mixer less that with attention as the first."""
    return ahead(run, sequential(run, 4), sequential(run, 1), name="the last mixer", other="the first mixer")


@behind.reference("looking the name up in place of the better one")
def behind_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return ahead(run, oracles(run, BOOK), sequential(run, 1), name="lookup")


@behind.control("no attention at all is no better than attention in front")
def behind_none(run: Run) -> Samples:
    """The same layers without attention."""
    return ahead(run, sequential(run), sequential(run, 1), name="none")


LENGTHS = (64, 256, 1024)
SHARE = Axes(x="tokens", y="share of attention's", log_x=True, rule=True)
SHAPES = {"sequential": SEQUENTIAL, "parallel": PARALLEL, "recurrent": stack([]), "attention": stack([1, 2, 3, 4])}


def cost(shape: str, x: Tensor, *, of: Literal["state", "work"]) -> int:
    """Bytes of state after the vectors x [1, time, width], or floating-point operations of reading them."""
    model = backbone(SHAPES[shape], width=x.shape[2])
    if of == "work":
        with torch.no_grad():
            return count_flops(lambda: model(x))
    return kept(model, [x])[0]


def costs(run: Run, shape: str, name: str, *, of: Literal["state", "work"]) -> Samples:
    """A stack's cost at 1,024 tokens over that of attention alone, at equal widths."""

    def one(seed: int) -> OneSeed:
        x = torch.randn(1, LENGTHS[-1], 16, generator=run.generator(seed, "vectors"))
        ratio = torch.tensor(
            [cost(shape, x[:, :length], of=of) / cost("attention", x[:, :length], of=of) for length in LENGTHS],
            dtype=torch.float64,
        )
        return OneSeed(values=ratio[-1:], curves={name: (LENGTHS, ratio)})

    return over_seeds(run, one)


@claim(
    "In turn, few layers of attention keep little of a long context.",
    threshold=0.4,
    direction="below",
    why="a quarter of the layers keep every token, beside states as large as some twenty tokens",
    axes=SHARE,
)
def memory(run: Run) -> Samples:
    """Bytes of state after 1,024 tokens."""
    return costs(run, "sequential", "in turn", of="state")


@memory.reference("states of constant size alone")
def memory_recurrent(run: Run) -> Samples:
    """Mamba-2."""
    return costs(run, "recurrent", "Mamba-2 alone", of="state")


@memory.control(
    "side by side in every layer, attention of the same width keeps all of it",
    incompetent="bytes are counted, nothing is predicted",
)
def memory_parallel(run: Run) -> Samples:
    """Both in every layer."""
    return costs(run, "parallel", "side by side", of="state")


@claim(
    "They take about a third of attention's work on a long sequence.",
    threshold=0.5,
    direction="below",
    why="half of it; a quarter of the layers has the work that grows with the square of the length",
    axes=SHARE,
    leaves_out="seconds: operations of reading a sequence are counted",
)
def work(run: Run) -> Samples:
    """Operations for 1,024 tokens."""
    return costs(run, "sequential", "in turn", of="work")


@work.reference("work in proportion to the length alone")
def work_recurrent(run: Run) -> Samples:
    """Mamba-2."""
    return costs(run, "recurrent", "Mamba-2 alone", of="work")


@work.control(
    "side by side in every layer takes more than attention alone",
    incompetent="operations are counted, nothing is predicted",
)
def work_parallel(run: Run) -> Samples:
    """Both in every layer."""
    return costs(run, "parallel", "side by side", of="work")
