r"""LoopFormer: elastic-depth looped transformers for latent reasoning via shortcut modulation (Jeddi et al., 2026).

One transformer layer looped eight times, told at every loop how far it is and how far the next step goes, and trained
on the full trajectory beside a shorter one drawn at random (`contexture.models.elastic`). Against it: the same loop
trained on the full trajectory alone, and one that is trained alike and told nothing. All are 32 wide, on linear
functions of three features with seven examples: a stand-in for language, on which the paper measures. Numbers are the
share of the zero predictor's error that is left on the last example.
"""

from dataclasses import replace

import torch
from torch import Tensor

from contexture.claims.in_context import train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.models.backbone import BackboneConfig
from contexture.models.elastic import ElasticBackbone, ElasticConfig, even_steps
from contexture.models.forms import Interleaved
from contexture.models.pairs import PairsModel
from contexture.protocols import Pairs
from contexture.tasks.linear_regression import LinearRegression

PAPER = Paper(
    key="loopformer",
    title="LoopFormer: Elastic-Depth Looped Transformers for Latent Reasoning via Shortcut Modulation",
    authors="Ahmadreza Jeddi, Marco Ciccone, Babak Taati",
    year=2026,
    arxiv="2602.11451",
    uses=("linear-regression", "ridge", "softmax"),
    left_out={
        "perplexity and answers of language models at every budget": "needs language models trained on billions of "
        "tokens, and benchmarks of reasoning",
    },
)

LOOPS = 8
TASK = LinearRegression(num_features=3, num_points=8, noise=0.1)
LAYER = BackboneConfig(pattern="softmax", width=32, num_heads=2, expansion=2.0)
ELASTIC = ElasticConfig(backbone=LAYER, loops=LOOPS)
FIXED = replace(ELASTIC, short=0.0, consistency=0.0)
UNTOLD = replace(ELASTIC, conditioned=False)
BY_LOOPS = Axes(x="loops", y="share of the error left", log_y=True, rule=True)


def named(backbone: ElasticConfig) -> str:
    """As the figures call it."""
    return "fixed depth" if not backbone.short else "elastic" if backbone.conditioned else "told nothing"


def trained(run: Run, backbone: ElasticConfig) -> list[PairsModel]:
    """Models of one kind, one for each seed."""
    return train_in_context(
        run,
        backbone,
        task="linear-regression",
        settings={"num_features": 3, "num_points": 8, "noise": 0.1},
        num_features=TASK.num_features,
        num_steps=500,
    )


@torch.no_grad()
def by_budget(model: PairsModel, drawn: Pairs, *, deaf: bool = False) -> Tensor:
    """Squared errors on the last example with one loop, two, .., [budgets, episodes]; deaf: told the start always."""
    backbone = model.backbone
    assert isinstance(backbone, ElasticBackbone)
    assert isinstance(model.form, Interleaved)
    told = backbone.config
    backbone.config = replace(told, conditioned=told.conditioned and not deaf)
    tokens, found = model.form.tokens(model.embed, drawn.x.float(), drawn.y.float()), []
    for loops in range(1, LOOPS + 1):
        hidden = backbone.along(tokens, even_steps(loops, LOOPS), every=2)
        found.append(model.head(hidden[:, -1]).squeeze(-1).double() - drawn.y[:, -1])
    backbone.config = told
    return torch.stack(found).square()


def measured(run: Run, backbone: ElasticConfig | None, seed: int, *, deaf: bool = False) -> tuple[Tensor, Tensor]:
    """Errors for every budget, [budgets, episodes], and those of zero; without a backbone, ridge regression's."""
    drawn = run.sample(TASK, run.setting("prompts", smoke=256, cpu=2000), seed=seed)
    zero = drawn.y[:, -1].square()
    if backbone is not None:
        return by_budget(trained(run, backbone)[run.seeds.index(seed)], drawn, deaf=deaf), zero
    said = TASK.oracle().prequential(drawn).mean
    assert said is not None
    return (said - drawn.y)[:, -1].square().expand(LOOPS, -1), zero


def left(run: Run, backbone: ElasticConfig | None, *, loops: range) -> Samples:
    """The share of the error left with so many loops, on average over them; competent by the full trajectory."""

    def one(seed: int) -> OneSeed:
        errors, zero = measured(run, backbone, seed)
        name = "ridge regression" if backbone is None else named(backbone)
        return OneSeed(
            values=errors[loops.start - 1 : loops.stop - 1].mean(0),
            per=zero,
            errors=errors[-1],
            zero_errors=zero,
            curves={name: (range(1, LOOPS + 1), errors.mean(1) / zero.mean())},
        )

    return over_seeds(run, one)


@claim(
    "With half of its loops it still answers.",
    threshold=0.3,
    direction="below",
    kind="trained",
    why="three tenths of the zero predictor's error; one gradient step at the best rate leaves 0.36",
    axes=BY_LOOPS,
    leaves_out="loops of several layers, and language",
)
def graceful(run: Run) -> Samples:
    """Four loops of eight."""
    return left(run, ELASTIC, loops=range(4, 5))


@graceful.reference("ridge regression with the penalty of the noise")
def graceful_ridge(run: Run) -> Samples:
    """What can be known."""
    return left(run, None, loops=range(4, 5))


@graceful.control("the same loop, trained on the full trajectory alone, does not")
def graceful_fixed(run: Run) -> Samples:
    """Without shorter trajectories and without the pull towards the full one."""
    return left(run, FIXED, loops=range(4, 5))


@claim(
    "It is robust to tight budgets: with three loops of eight less than half of the error is left.",
    threshold=0.5,
    direction="below",
    kind="trained",
    why="half of what the zero predictor leaves",
    axes=BY_LOOPS,
)
def tight(run: Run) -> Samples:
    """Three loops of eight."""
    return left(run, ELASTIC, loops=range(3, 4))


@tight.reference("ridge regression with the penalty of the noise")
def tight_ridge(run: Run) -> Samples:
    """What can be known."""
    return left(run, None, loops=range(3, 4))


@tight.control("the same loop, trained on the full trajectory alone, is not")
def tight_fixed(run: Run) -> Samples:
    """Without shorter trajectories and without the pull towards the full one."""
    return left(run, FIXED, loops=range(3, 4))


@claim(
    "Being told time and step lets it answer at every budget: over three to eight loops little error is left.",
    threshold=0.3,
    direction="below",
    expected="undecided",
    tried="500 steps; who is told neither time nor step comes to .38, not surely above the threshold",
    kind="trained",
    why="three tenths of the zero predictor's error, on average over six budgets",
    axes=BY_LOOPS,
)
def told(run: Run) -> Samples:
    """From three loops to eight."""
    return left(run, ELASTIC, loops=range(3, LOOPS + 1))


@told.reference("ridge regression with the penalty of the noise")
def told_ridge(run: Run) -> Samples:
    """What can be known."""
    return left(run, None, loops=range(3, LOOPS + 1))


@told.control("a loop that is trained alike and told nothing does not")
def told_nothing(run: Run) -> Samples:
    """The same short trajectories and the same pull, with time and step kept at zero."""
    return left(run, UNTOLD, loops=range(3, LOOPS + 1))


def refined(run: Run, backbone: ElasticConfig | None, name: str, *, deaf: bool = False) -> Samples:
    """The error of the full trajectory over that of three loops which are told the time."""

    def one(seed: int) -> OneSeed:
        errors, zero = measured(run, backbone, seed, deaf=deaf)
        per, _ = measured(run, ELASTIC, seed)
        return OneSeed(
            values=errors[-1],
            per=per[2],
            errors=per[-1],
            zero_errors=zero,
            curves={name: (range(1, LOOPS + 1), errors.mean(1) / zero.mean())},
        )

    return over_seeds(run, one)


@claim(
    "Longer trajectories go on refining: eight loops leave less than half of the error that three leave.",
    threshold=0.5,
    direction="below",
    kind="trained",
    why="half of the error of three loops",
    axes=Axes(x="loops", y="share of the error left", log_y=True),
)
def refines(run: Run) -> Samples:
    """The full trajectory."""
    return refined(run, ELASTIC, "elastic")


@refines.reference("ridge regression with the penalty of the noise")
def refines_ridge(run: Run) -> Samples:
    """What can be known."""
    return refined(run, None, "ridge regression")


@refines.control("the same weights, told at every loop that it is the first moment, do not")
def refines_deaf(run: Run) -> Samples:
    """Eight loops that do not know how far they are."""
    return refined(run, ELASTIC, "the same, told the first moment", deaf=True)
