r"""HybridNorm: towards stable and efficient transformer training via hybrid normalization (Zhuo et al., 2025).

Eight layers, 32 wide, on linear functions of three features in context, by AdamW at equal steps and data, with norms

    pre       x + mixer(norm(x));  x + network(norm(x))
    post      norm(x + mixer(x));  norm(x + network(x))
    hybrid    x + mixer(x), queries, keys and values normed in it;  h = norm(x),  h + network(h)

and the hybrid without normed heads: see `contexture.blocks.hybrid_norm` and the setting `qkv_norm` of softmax
attention. The number is the error on the last example.
"""

from typing import Literal, NamedTuple

from torch import Tensor

from contexture.claims.in_context import train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.learners.in_context import InContext
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel
from contexture.tasks.linear_regression import LinearRegression
from contexture.training.config import OptimiserConfig

PAPER = Paper(
    key="hybridnorm",
    title="HybridNorm: Towards Stable and Efficient Transformer Training via Hybrid Normalization",
    authors="Zhijian Zhuo, Yutao Zeng, Ya Wang, Sijun Zhang, Jian Yang, Xiaoqing Li, Xun Zhou, Jinwen Ma",
    year=2025,
    arxiv="2503.04598",
    uses=("linear-regression", "ridge", "softmax"),
    left_out={
        "the same for sparse architectures, and the best results on benchmarks of language": "needs language models "
        "with experts, trained on hundreds of billions of tokens",
    },
)

SETTINGS = {"num_features": 3, "num_points": 8, "noise": 0.1}
TASK = LinearRegression(num_features=3, num_points=8, noise=0.1)
LOW, HIGH = 3e-3, 1e-2
BY_EXAMPLE = Axes(x="examples", y="squared error over that of zero", log_y=True)


class Norms(NamedTuple):
    """Where the norms stand, and whether queries, keys and values are normed."""

    residual: Literal["pre-norm", "post-norm", "hybrid-norm"]
    qkv: bool = False

    @property
    def name(self) -> str:
        """As the figures call it."""
        return self.residual + (" and normed heads" if self.qkv else "")


HYBRID, PRE, POST = Norms("hybrid-norm", qkv=True), Norms("pre-norm"), Norms("post-norm")
HALF = Norms("hybrid-norm")


def trained(run: Run, norms: Norms, rate: float) -> list[PairsModel]:
    """Models with these norms, one for each seed."""
    settings = {"softmax": {"qkv_norm": True}} if norms.qkv else {}
    backbone = BackboneConfig(
        pattern="softmax*8", width=32, num_heads=2, expansion=2.0, residual=norms.residual, settings=settings
    )
    return train_in_context(
        run,
        backbone,
        task="linear-regression",
        settings=SETTINGS,
        num_features=TASK.num_features,
        num_steps=400,
        optimiser=OptimiserConfig(rate=rate),
        warm_up=20,
    )


def errors(run: Run, norms: Norms | None, rate: float, seed: int) -> tuple[Tensor, Tensor]:
    """Squared errors at every example, and those of zero, [episodes, examples]; without norms, ridge regression's."""
    drawn = run.sample(TASK, run.setting("prompts", smoke=256, cpu=2000), seed=seed)
    if norms is None:
        said = TASK.oracle().prequential(drawn).mean
    else:
        model = trained(run, norms, rate)[run.seeds.index(seed)]
        said = InContext(model).prequential(drawn).mean
    assert said is not None
    return (said - drawn.y).square(), drawn.y.square()


def beside(run: Run, norms: Norms | None, others: tuple[Norms, ...], *, rate: float = LOW) -> Samples:
    """The error on the last example over that of the best of other placements, or over that of zero where none is."""

    def one(seed: int) -> OneSeed:
        own, zero = errors(run, norms, rate, seed)
        found = {other.name: errors(run, other, rate, seed)[0] for other in others}
        per = min(found.values(), key=lambda error: float(error[:, -1].mean()), default=zero)
        shown = {norms.name if norms else "ridge regression": own, **found}
        return OneSeed(
            values=own[:, -1],
            per=per[:, -1],
            errors=own[:, -1],
            zero_errors=zero[:, -1],
            curves={name: (range(TASK.num_points), part.mean(0) / zero.mean(0)) for name, part in shown.items()},
        )

    return over_seeds(run, one)


LESS = "a twentieth less error than another placement at equal steps and data; more than seeds differ by is asked for"


@claim(
    "With equal steps and data the hybrid of norms leaves less error than the better of pre-norm and post-norm.",
    threshold=0.95,
    direction="below",
    kind="trained",
    why=LESS,
    axes=BY_EXAMPLE,
    leaves_out="language, and models that are larger than eight layers of width 32",
    expected="not-held",
    tried="one setting alone: at a rate of 0.003 and 400 steps pre-norm leaves 0.11 of zero's error, post-norm 0.145 "
    "and the hybrid 0.15; after 200 steps of one seed, without clipping, the hybrid led with 0.25 to 0.29 and 0.32",
)
def beats_both(run: Run) -> Samples:
    """Both halves of the hybrid."""
    return beside(run, HYBRID, (PRE, POST))


@beats_both.reference("ridge regression with the penalty of the noise")
def beats_both_ridge(run: Run) -> Samples:
    """What can be known."""
    return beside(run, None, (PRE, POST))


@beats_both.control("the norm around the network alone, without normed queries, keys and values, does not")
def beats_both_outside(run: Run) -> Samples:
    """The same block with plain attention."""
    return beside(run, HALF, (PRE, POST))


@claim(
    "With equal steps and data it leaves less error than post-norm.",
    threshold=0.95,
    direction="below",
    kind="trained",
    why=LESS,
    axes=BY_EXAMPLE,
    leaves_out="language, and models that are larger than eight layers of width 32",
    expected="undecided",
    tried="one setting alone: both come to about 0.15 of zero's error, and normed heads change nothing that three "
    "seeds could show",
)
def beats_post(run: Run) -> Samples:
    """Both halves of the hybrid."""
    return beside(run, HYBRID, (POST,))


@beats_post.reference("ridge regression with the penalty of the noise")
def beats_post_ridge(run: Run) -> Samples:
    """What can be known."""
    return beside(run, None, (POST,))


@beats_post.control("the norm around the network alone, without normed queries, keys and values, does not")
def beats_post_outside(run: Run) -> Samples:
    """The same block with plain attention."""
    return beside(run, HALF, (POST,))


@claim(
    "It trains stably where post-norm does not: eight layers at a rate of 0.01.",
    threshold=0.5,
    direction="below",
    kind="trained",
    why="half of what the zero predictor leaves, after 400 steps",
    axes=BY_EXAMPLE,
    expected="not-held",
    tried="in all three seeds both stop learning at this rate; with 200 steps of one seed, half of them at the full "
    "rate and without clipping, the hybrid left 0.32 and post-norm 0.95",
)
def stable(run: Run) -> Samples:
    """The hybrid at three times the rate of the other claims."""
    return beside(run, HYBRID, (), rate=HIGH)


@stable.reference("ridge regression with the penalty of the noise")
def stable_ridge(run: Run) -> Samples:
    """What can be known."""
    return beside(run, None, (), rate=HIGH)


@stable.control("post-norm does not train at this rate", incompetent="failing to train is what the claim is about")
def stable_post(run: Run) -> Samples:
    """Post-norm with the same steps and data."""
    return beside(run, POST, (), rate=HIGH)
