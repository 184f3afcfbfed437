r"""Linear transformers with learnable kernel functions are better in-context models (Aksenov et al. 2024).

    Based      p(z) = 1 + z + z^2 / 2,  z = q.k / sqrt(dim):  at least 1/2, whatever q and k
    ReBased    p(z) = z^2,  z = q'.k' / sqrt(dim),  q' = g_q * norm(q) + b_q, k' likewise:  zero where q' and k' are at
               right angles; g and b are learned, and put the zero where it is wanted

Both are linear transformers: the weights are products of features of pairs, and the past is one sum.
Shapes: q, k [sequences, time, dim], v [sequences, time, dim].
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.recall import recalled, train_recall
from contexture.claims.run import Run
from contexture.mixers.rebased import SQUARE
from contexture.ops.quadratic_attention import TAYLOR, quadratic_attention, quadratic_features
from contexture.tasks.draws import normal
from contexture.tasks.mqar import MQAR

PAPER = Paper(
    key="rebased",
    title="Linear Transformers with Learnable Kernel Functions are Better In-Context Models",
    authors="Yaroslav Aksenov, Nikita Balagansky, Sofia Maria Lo Cicero Vaina, Boris Shaposhnikov, Alexey Gorbatovski, "
    "Daniil Gavrilov",
    year=2024,
    arxiv="2402.10644",
    uses=("rebased", "based", "softmax", "sliding-window", "mqar"),
    left_out={
        "the overall loss of language modelling falls as well": "needs the Pile and language models of 150 million "
        "parameters trained on billions of its tokens",
    },
)

TIME, DIM = 64, 16
Kernel = Callable[[Tensor], Tensor]


def based(z: Tensor) -> Tensor:
    """The exponential's first three terms."""
    return 1 + z + z.square() / 2


def normed(x: Tensor) -> Tensor:
    """Without mean and of deviation one, as a layer norm that has learned nothing yet."""
    x = x - x.mean(-1, keepdim=True)
    return x / x.square().mean(-1, keepdim=True).sqrt()


def draw(run: Run, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normed queries and keys, and values around one."""
    sequences = run.setting("sequences", smoke=16, cpu=256)
    q, k, v = normal(3, sequences, TIME, DIM, generator=run.generator(seed, "tokens"))
    return normed(q), normed(k), 1 + v


def products(q: Tensor, k: Tensor) -> Tensor:
    """z of every pair."""
    return q @ k.mT / math.sqrt(DIM)


GRID = tuple(n / 8 for n in range(-16, 17))


def least(run: Run, kernel: Kernel, name: str) -> Samples:
    """The least weight that a query gives any of 64 keys, over the mean of its weights."""

    def one(seed: int) -> OneSeed:
        q, k, _ = draw(run, seed)
        weights = kernel(products(q, k))
        line = kernel(torch.tensor([GRID], dtype=torch.float64))[0]
        shares = (weights.amin(-1) / weights.mean(-1)).mean(1)
        return OneSeed(values=shares, curves={name: (GRID, (line / line.mean()).clamp_min(1e-3))})

    return over_seeds(run, one)


def softmax(z: Tensor) -> Tensor:
    """The exponential, four times as sharp as usual."""
    return (4 * (z - z.amax(-1, keepdim=True))).exp()


@claim(
    "The altered kernel lets a query ignore a key: its weights come down to zero, where Based's never do.",
    threshold=0.01,
    direction="below",
    why="a hundredth of the mean weight; Based's least is half of one beside a mean of one and a half",
    axes=Axes(x="product z of query and key", y="weight over its mean on this line, at least 0.001", log_y=True),
)
def weights_vanish(run: Run) -> Samples:
    """The least of 64 weights."""
    return least(run, torch.square, "ReBased")


@weights_vanish.reference("softmax attention, sharpened")
def weights_vanish_softmax(run: Run) -> Samples:
    """Weights that come as near to zero as is wanted."""
    return least(run, softmax, "softmax, sharpened")


@weights_vanish.control(
    "the kernel of Based on the same queries and keys", incompetent="weights are compared, nothing is predicted"
)
def weights_vanish_based(run: Run) -> Samples:
    """1 + z + z^2 / 2."""
    return least(run, based, "Based")


def suppressed(run: Run, which: str, name: str) -> Samples:
    """The weight of one chosen key over the query's mean, after what may be learned was set to make it vanish.

    The offset b that brings the chosen q and k to right angles is -(q.k) k / |k|^2.
    """

    def one(seed: int) -> OneSeed:
        q, k, _ = draw(run, seed)
        unwanted = k[:, :1]
        asked = q[:, :1]
        offset = -(asked * unwanted).sum(-1, keepdim=True) * unwanted / unwanted.square().sum(-1, keepdim=True)
        if which == "offset":
            weights = products(asked + offset, k).square()
        elif which == "fixed":
            weights = products(asked, k).square()
        else:
            weights = products(asked, k).exp().clone()
            weights[..., 0] = 0
        shares = weights[:, 0, 0] / weights[:, 0].mean(-1)
        ordered = (weights[:, 0] / weights[:, 0].mean(-1, keepdim=True)).mean(0)[:16]
        return OneSeed(values=shares, curves={name: (range(1, 17), ordered)})

    return over_seeds(run, one)


@claim(
    "Scale and offset can be learned, so that the zero stands at the key that should be ignored.",
    threshold=0.01,
    direction="below",
    why="a hundredth of the mean weight; a key that nothing was set for has a weight of about the mean",
    axes=Axes(x="key, the first of which should be ignored", y="weight over the mean"),
)
def learnable(run: Run) -> Samples:
    """The square with the offset that is right for one pair."""
    return suppressed(run, "offset", "square with an offset")


@learnable.reference("softmax attention with the key masked")
def learnable_masked(run: Run) -> Samples:
    """A weight of zero by decree."""
    return suppressed(run, "masked", "softmax, masked")


@learnable.control("the square without an offset", incompetent="weights are compared, nothing is predicted")
def learnable_fixed(run: Run) -> Samples:
    """The same kernel with nothing to learn."""
    return suppressed(run, "fixed", "square as it is")


def on_the_match(run: Run, kernel: Kernel, name: str) -> Samples:
    """The share of its weight that a query gives the one key that is equal to it, over the share under Based."""
    counts = (4, 8, 16, 32, 64)

    def one(seed: int) -> OneSeed:
        _, k, _ = draw(run, seed)
        z = products(k, k)
        shares: dict[tuple[str, int], Tensor] = {}
        for way, weigh in (("own", kernel), ("based", based)):
            for count in counts:
                weights = weigh(z[:, :count, :count])
                shares[way, count] = (weights.diagonal(dim1=1, dim2=2) / weights.sum(-1)).mean(1)
        curve = torch.stack([shares["own", count].mean() for count in counts])
        return OneSeed(values=shares["own", TIME], per=shares["based", TIME], curves={name: (counts, curve)})

    return over_seeds(run, one)


@claim(
    "A query gives more of its weight to the key that is equal to it than under the kernel of Based.",
    threshold=1.25,
    direction="above",
    why="a quarter more counts as more; with z = 4 at the match and 1 elsewhere it comes to about one and a half",
    axes=Axes(x="keys", y="share of weight on the key that matches", log_x=True),
)
def sharper(run: Run) -> Samples:
    """Sixty-four normed keys, one of which is asked for."""
    return on_the_match(run, torch.square, "ReBased")


@sharper.reference("softmax attention to the same keys")
def sharper_softmax(run: Run) -> Samples:
    """The exponential that Based's kernel begins."""
    return on_the_match(run, torch.exp, "softmax")


@sharper.control("the kernel of Based", incompetent="shares of weight are compared, nothing is predicted")
def sharper_based(run: Run) -> Samples:
    """1 + z + z^2 / 2."""
    return on_the_match(run, based, "Based")


def one_sum(run: Run, way: str, name: str) -> Samples:
    """How far a way of averaging is from averages under the table of squares."""

    def one(seed: int) -> OneSeed:
        q, k, v = draw(run, seed)
        weights = products(q, k).square().tril()
        wanted = (weights @ v) / weights.sum(-1, keepdim=True)
        asked, values = q / math.sqrt(DIM), torch.cat((v, torch.ones_like(v[..., :1])), -1)
        if way == "recurrence":
            state, sums = torch.zeros(()), []
            read, written = quadratic_features(asked, SQUARE), quadratic_features(k, SQUARE)
            for t in range(TIME):
                state = state + written[:, t].unsqueeze(-1) * values[:, t].unsqueeze(-2)
                sums.append((read[:, t].unsqueeze(-2) @ state).squeeze(-2))
            out = torch.stack(sums, 1)
        else:
            coefficients = SQUARE if way == "op" else TAYLOR
            heads = [x.unsqueeze(2) for x in (asked, k, values)]
            out = quadratic_attention(*heads, coefficients=coefficients)[0].squeeze(2)
        return apart(out[..., :-1] / out[..., -1:], wanted, name)

    return over_seeds(run, one)


@claim(
    "It stays a linear transformer: products of pairs of entries hold the past in one sum of fixed size.",
    threshold=1e-8,
    direction="below",
    why="double precision leaves 1e-14, and more where all weights of a short past are small",
    axes=Axes(x="position", y="difference from the table of squares, relative", log_y=True, rule=True),
)
def linear(run: Run) -> Samples:
    """The mixer's op against the table of squares."""
    return one_sum(run, "op", "sums of features")


@linear.reference("the sum of features, one token after another")
def linear_recurrent(run: Run) -> Samples:
    """A recurrent network."""
    return one_sum(run, "recurrence", "one token after another")


@linear.control("the same sums with the features of Based")
def linear_based(run: Run) -> Samples:
    """Another kernel."""
    return one_sum(run, "based", "Based")


TASK = MQAR(vocabulary=64, length=48, num_pairs=8)


def trained(run: Run, mixer: str, name: str) -> Samples:
    """Recall after 300 steps with queries and keys of 8, behind a first layer that sees one token back."""
    settings: dict[str, dict[str, Any]] = {"sliding-window": {"window": 2}, mixer: {"key_dim": 8}}
    models = train_recall(run, f"sliding-window+none {mixer}+none", task=TASK, num_steps=300, settings=settings)
    return recalled(run, models, TASK, name)


@claim(
    "Trained to recall many pairs, the altered kernel does what Based does not.",
    threshold=0.5,
    direction="above",
    why="half of the values right, sixteen times chance",
    kind="trained",
    spread="seeds",
    axes=Axes(x="tokens between key and query, at most", y="share of values recalled", rule=True),
    leaves_out="the paper's lengths of up to 2,048 and trainings of many epochs: 300 steps on 48 tokens",
)
def recall(run: Run) -> Samples:
    """Eight pairs in 48 tokens."""
    return trained(run, "rebased", "ReBased")


@recall.reference("looking the key up")
def recall_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return recalled(run, TASK.oracle(), TASK, "lookup")


@recall.control("Based with as many features")
def recall_based(run: Run) -> Samples:
    """The kernel before the alteration."""
    return trained(run, "based", "Based")
