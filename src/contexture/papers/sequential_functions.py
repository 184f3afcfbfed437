r"""Can transformers learn sequential function classes in context? (Campbell, Guo, Hu, Vir, Hsiao 2023).

A transformer of three layers is trained on linear functions of the last two inputs, y_t = w_0 x_t + w_1 x_{t-1}, with
fresh weights in every prompt, and asked for every y_t from what came before it. Ridge regression on the window
(x_t, x_{t-1}) is optimal. Then a share of the labels that it is shown is random: those of other prompts in their place.
Errors are taken against the true function after twelve to sixteen examples, over those of the predictor of zero.
Shapes: x [episodes, examples, features], y [episodes, examples].
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from contexture.claims.in_context import Predict, predicts, said_by, small_backbone, train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.running_sums import before
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.oracles.window import OnWindow, windows
from contexture.protocols import Pairs
from contexture.tasks.shuffled_labels import shuffle_labels
from contexture.tasks.sliding_window import SlidingWindow

PAPER = Paper(
    key="sequential-functions",
    title="Can Transformers Learn Sequential Function Classes In Context?",
    authors="Ryan Campbell, Emma Guo, Evan Hu, Reya Vir, Ethan Hsiao",
    year=2023,
    arxiv="2312.12655",
    uses=("sliding-window", "on-window", "bayes-ridge", "nearest-neighbour", "softmax"),
)

SETTINGS: dict[str, Any] = {"num_features": 2, "num_points": 17, "length": 2, "noise": 0.1}
TASK = SlidingWindow(**SETTINGS)
LATE = slice(12, 17)
SHORTER = "700 steps of 32 prompts, after which no seed used the window: {}"
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
UNEXPLAINED = TASK.noise**2 + TASK.num_features * (TASK.length - 1) / TASK.length
"""The variance of what a learner that sees the last input alone has to take for noise."""


def trained(run: Run) -> list[Predict]:
    """What each seed's transformer says."""
    backbone = small_backbone(TASK.num_points)
    models = train_in_context(
        run, backbone, task=TASK.card.name, settings=SETTINGS, num_features=TASK.num_features, num_steps=700
    )
    return [predicts(model) for model in models]


def on_window(run: Run) -> list[Predict]:
    """Ridge regression on the window, for every seed."""
    return [said_by(TASK.oracle())] * len(run.seeds)


BEFORE = said_by(BayesRidge(prior_variance=1 / TASK.length, noise_variance=UNEXPLAINED))
"""Ridge regression on the last input alone, the rest of the window taken for noise."""


def truth(drawn: Pairs) -> Tensor:
    """The function without noise."""
    assert drawn.clean is not None
    return drawn.clean


def late(errors: Tensor) -> Tensor:
    """The mean of the last errors of each episode."""
    return errors[:, LATE].mean(1)


def learns(run: Run, learners: Sequence[Predict], name: str, *, shuffled: bool = False) -> Samples:
    """Late errors per those of zero."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(TASK, episodes, seed=seed)
        if shuffled:
            drawn = shuffle_labels(drawn, generator=run.generator(seed, "shuffle"))
        own, zero = (learners[run.seeds.index(seed)](drawn) - truth(drawn)).square(), truth(drawn).square()
        line = own.mean(0) / zero.mean(0)
        return OneSeed(
            values=late(own),
            per=late(zero),
            errors=late(own),
            zero_errors=late(zero),
            curves={name: (range(drawn.time), line)},
        )

    return over_seeds(run, one)


TOLD = "ridge regression on the window"


@claim(
    "Trained on functions of a sliding window, a transformer learns them in context.",
    threshold=0.25,
    direction="below",
    why="three quarters of the labels' square explained; the last input alone explains a half",
    tried=SHORTER.format(".56 of zero's error"),
    kind="trained",
    axes=Axes(x="examples", y="squared error over zero's"),
)
def learned(run: Run) -> Samples:
    """After twelve to sixteen examples of four weights."""
    return learns(run, trained(run), "transformer")


@learned.reference(TOLD)
def learned_exactly(run: Run) -> Samples:
    """The optimal learner."""
    return learns(run, on_window(run), TOLD)


@learned.control(
    "not where the labels of a prompt are shuffled",
    incompetent="that shuffled labels tell nothing is the point",
)
def learned_shuffled(run: Run) -> Samples:
    """The same transformer, the same inputs and labels."""
    return learns(run, trained(run), "transformer, shuffled labels", shuffled=True)


def scrambled(drawn: Pairs, generator: torch.Generator) -> Pairs:
    """The same pairs in another order: each input keeps its label and loses the one before it."""
    order = torch.rand(drawn.y.shape, generator=generator).argsort(1)
    x = drawn.x.gather(1, order.unsqueeze(-1).expand_as(drawn.x))
    return replace(drawn, x=x, y=drawn.y.gather(1, order), clean=truth(drawn).gather(1, order), latents={})


def beside_last(run: Run, learners: Sequence[Predict], name: str, *, scramble: bool = False) -> Samples:
    """Late errors per those of ridge regression on the last input alone."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(TASK, episodes, seed=seed)
        if scramble:
            drawn = scrambled(drawn, run.generator(seed, "order"))
        own, last = ((say(drawn) - truth(drawn)).square() for say in (learners[run.seeds.index(seed)], BEFORE))
        zero = truth(drawn).square()
        places = range(drawn.time)
        return OneSeed(
            values=late(own),
            per=late(last),
            errors=late(own),
            zero_errors=late(zero),
            curves={
                name: (places, own.mean(0) / zero.mean(0)),
                "ridge on the last input": (places, last.mean(0) / zero.mean(0)),
            },
        )

    return over_seeds(run, one)


@claim(
    "It makes use of the order in which inputs come: no learner that sees the last input alone does nearly as well.",
    threshold=0.5,
    direction="below",
    why="half of the error of the best learner without a window",
    tried=SHORTER.format("1.01"),
    kind="trained",
    axes=Axes(x="examples", y="squared error over zero's"),
)
def order(run: Run) -> Samples:
    """Beside ridge regression that takes the rest of the window for noise."""
    return beside_last(run, trained(run), "transformer")


@order.reference(TOLD)
def order_exactly(run: Run) -> Samples:
    """The optimal learner."""
    return beside_last(run, on_window(run), TOLD)


@order.control(
    "with the pairs of a prompt in another order it does worse than such a learner",
    incompetent="a window of inputs that did not come in a row tells nothing, which is the point",
)
def order_scrambled(run: Run) -> Samples:
    """The same transformer; every input keeps its label."""
    return beside_last(run, trained(run), "transformer, scrambled", scramble=True)


def randomised(drawn: Pairs, share: float, generator: torch.Generator) -> tuple[Pairs, Tensor]:
    """The prompts with a share of their labels taken from other prompts, and which these are."""
    chosen = torch.rand(drawn.y.shape, generator=generator, dtype=torch.float64) < share
    return replace(drawn, y=torch.where(chosen, drawn.y.roll(1, 0), drawn.y)), chosen


def told(drawn: Pairs, chosen: Tensor) -> Tensor:
    """Ridge regression on the window of examples with true labels alone, for every y."""
    x = windows(drawn.x, TASK.length)
    kept = (~chosen).double().unsqueeze(-1)
    second = ((kept * x).unsqueeze(-1) * x.unsqueeze(-2)).cumsum(1)
    first = (kept * x * drawn.y.unsqueeze(-1)).cumsum(1)
    penalty = TASK.length * TASK.noise**2 * torch.eye(x.shape[-1], dtype=x.dtype)
    weights = torch.linalg.solve(second + penalty, first.unsqueeze(-1)).squeeze(-1)
    return (x * before(weights)).sum(-1)


Noisy = Callable[[Pairs, Tensor], Tensor]
"""What is said of prompts some of whose labels are random; a learner may be told which."""


def untold(learners: Sequence[Predict]) -> list[Noisy]:
    """Learners that are not told."""

    def deaf(say: Predict) -> Noisy:
        return lambda drawn, _: say(drawn)

    return [deaf(say) for say in learners]


def under_noise(
    run: Run, learners: Sequence[Noisy], name: str, share: float, *, beyond: float | None = None
) -> Samples:
    """Late errors at a share of random labels over zero's; with `beyond`, what they add to the errors at that share."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn, say = run.sample(TASK, episodes, seed=seed), learners[run.seeds.index(seed)]

        def error(at: float) -> Tensor:
            shown, chosen = randomised(drawn, at, run.generator(seed, "random labels"))
            return late((say(shown, chosen) - truth(drawn)).square())

        found, zero = error(share), late(truth(drawn).square())
        line = torch.stack([error(at).mean() for at in SHARES]) / zero.mean()
        return OneSeed(
            values=found if beyond is None else found - error(beyond),
            per=zero,
            errors=found,
            zero_errors=zero,
            curves={name: (SHARES, line)},
        )

    return over_seeds(run, one)


def neighbour(run: Run) -> list[Noisy]:
    """The label of the nearest window, for every seed."""
    return untold([said_by(OnWindow(length=TASK.length, learner=NearestNeighbour()))] * len(run.seeds))


BY_SHARE = Axes(x="share of random labels", y="squared error over zero's", rule=True)
KNOWS = "ridge regression on the window, told which labels are random"
ONE_LABEL = "the nearest window's label, which trusts a single one"


@claim(
    "With a quarter of the labels random it still learns in context.",
    threshold=0.5,
    direction="below",
    why="half of the function's square is still explained",
    tried=SHORTER.format(".68 of zero's error"),
    kind="trained",
    axes=BY_SHARE,
)
def retains(run: Run) -> Samples:
    """Labels of other prompts in their place."""
    return under_noise(run, untold(trained(run)), "transformer", 0.25)


@retains.reference(KNOWS)
def retains_told(run: Run) -> Samples:
    """What the true labels are worth."""
    return under_noise(run, [told] * len(run.seeds), "told", 0.25)


@retains.control(ONE_LABEL)
def retains_neighbour(run: Run) -> Samples:
    """On the same prompts."""
    return under_noise(run, neighbour(run), "nearest window", 0.25)


@claim(
    "It deteriorates as more labels are random.",
    threshold=0.1,
    direction="above",
    why="a tenth of the function's square, between a quarter and a half of random labels",
    kind="trained",
    axes=Axes(x=BY_SHARE.x, y=BY_SHARE.y),
)
def deteriorates(run: Run) -> Samples:
    """What a half adds to the error at a quarter."""
    return under_noise(run, untold(trained(run)), "transformer", 0.5, beyond=0.25)


@deteriorates.reference("ridge regression on the window, not told")
def deteriorates_ridge(run: Run) -> Samples:
    """It trusts every label."""
    return under_noise(run, untold(on_window(run)), "ridge on the window", 0.5, beyond=0.25)


@deteriorates.control(KNOWS)
def deteriorates_told(run: Run) -> Samples:
    """The true labels that are left are enough."""
    return under_noise(run, [told] * len(run.seeds), "told", 0.5, beyond=0.25)


@claim(
    "Even with half of the labels random it does better than one who always says zero.",
    threshold=0.9,
    direction="below",
    why="a tenth of the function's square is still explained; whom random labels mislead does worse than zero",
    kind="trained",
    axes=BY_SHARE,
)
def robust(run: Run) -> Samples:
    """Labels of other prompts in their place."""
    return under_noise(run, untold(trained(run)), "transformer", 0.5)


@robust.reference(KNOWS)
def robust_told(run: Run) -> Samples:
    """What the true labels are worth."""
    return under_noise(run, [told] * len(run.seeds), "told", 0.5)


@robust.control(ONE_LABEL, incompetent="that it is misled by half of the labels is the point")
def robust_neighbour(run: Run) -> Samples:
    """On the same prompts."""
    return under_noise(run, neighbour(run), "nearest window", 0.5)
