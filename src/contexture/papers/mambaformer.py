r"""Can Mamba learn how to learn? A comparative study on in-context learning tasks (Park et al., 2024).

Three kinds of model, 32 wide, on the same prompts with the same steps: a transformer of two layers, three bare Mamba
layers, and MambaFormer, a Mamba layer before attention without positions and Mamba in the place of its network
(`contexture.models.hybrids`). Their tasks: linear functions of three features; parities of two of four signs, which two
is secret; and the values of six keys among 32 tokens. Mamba layers are as wide as the model, with states of four.
"""

from typing import Any

import torch
from torch import Tensor

from contexture.claims.in_context import train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.recall import recalled, train_recall
from contexture.claims.run import Run
from contexture.learners.in_context import InContext
from contexture.models.backbone import BackboneConfig
from contexture.models.hybrids import mambaformer
from contexture.models.pairs import PairsModel
from contexture.models.tokens import TokenModel
from contexture.protocols import Learner, Pairs
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.mqar import MQAR
from contexture.tasks.sparse_parity import SparseParity

PAPER = Paper(
    key="mambaformer",
    title="Can Mamba Learn How to Learn? A Comparative Study on In-Context Learning Tasks",
    authors="Jongho Park, Jaeseung Park, Zheyang Xiong, Nayoung Lee, Jaewoong Cho, Samet Oymak, Kangwook Lee, "
    "Dimitris Papailiopoulos",
    year=2024,
    arxiv="2402.04248",
    uses=("linear-regression", "sparse-parity", "mqar", "ridge", "mamba", "softmax"),
)

LINEAR = LinearRegression(num_features=3, num_points=8, noise=0.1)
PARITY = SparseParity(num_features=4, num_points=16)
RECALL = MQAR(vocabulary=32, length=32, num_pairs=6)
SMALL: dict[str, dict[str, Any]] = {"mamba": {"state_size": 4, "expand": 1}}
SHAPE: dict[str, Any] = {"width": 32, "num_heads": 2, "expansion": 2.0}
MODELS = {
    "transformer": BackboneConfig(pattern="softmax*2", **SHAPE),
    "Mamba": BackboneConfig(pattern="mamba+none*3", settings=SMALL, **SHAPE),
    "MambaFormer": mambaformer(1, settings=SMALL, **SHAPE),
}


def of_lines(run: Run, name: str) -> list[PairsModel]:
    """Models of one kind trained on linear functions, one for each seed."""
    return train_in_context(
        run,
        MODELS[name],
        task="linear-regression",
        settings={"num_features": 3, "num_points": 8, "noise": 0.1},
        num_features=3,
        num_steps=500,
        batch=32,
    )


def squares(run: Run, name: str | None, drawn: Pairs, seed: int, *, shuffled: bool = False) -> Tensor:
    """Squared errors at every example; without a name those of ridge regression. Shuffled: of another prompt's y."""
    learner: Learner = InContext(of_lines(run, name)[run.seeds.index(seed)]) if name else LINEAR.oracle()
    shown = Pairs(x=drawn.x, y=drawn.y.roll(1, 0), schema=drawn.schema) if shuffled else drawn
    said = learner.prequential(shown).mean
    assert said is not None
    return (said - drawn.y).square()


def learnt(run: Run, name: str | None, *, shuffled: bool = False) -> Samples:
    """What a model explains of the last example, over what the transformer explains.

    Where the transformer has learnt next to nothing, a twentieth of the zero predictor's error stands for that.
    """

    def one(seed: int) -> OneSeed:
        drawn = run.sample(LINEAR, run.setting("prompts", smoke=256, cpu=2000), seed=seed)
        zero, own = drawn.y.square(), squares(run, name, drawn, seed, shuffled=shuffled)
        other = squares(run, "transformer", drawn, seed)
        per = torch.maximum((zero - other)[:, -1].mean(), zero[:, -1].mean() / 20)
        label = f"{name}, another prompt's labels" if shuffled else name or "ridge regression"
        shown = {label: own, "transformer": other}
        return OneSeed(
            values=(zero - own)[:, -1],
            per=per.expand(len(own)),
            errors=own[:, -1],
            zero_errors=zero[:, -1],
            curves={key: (range(LINEAR.num_points), part.mean(0) / zero.mean(0)) for key, part in shown.items()},
        )

    return over_seeds(run, one)


@claim(
    "On linear functions Mamba explains as much as a transformer.",
    threshold=0.9,
    direction="above",
    kind="trained",
    why="nine tenths of the variance that the transformer explains after seven examples",
    axes=Axes(x="examples", y="squared error over that of zero", log_y=True),
    leaves_out="sparse functions, trees, networks, and prompts with outliers",
)
def regression(run: Run) -> Samples:
    """Three Mamba layers."""
    return learnt(run, "Mamba")


@regression.reference("ridge regression with the penalty of the noise")
def regression_ridge(run: Run) -> Samples:
    """What can be known."""
    return learnt(run, None)


@regression.control(
    "the same Mamba does not, shown the labels of another prompt",
    incompetent="such labels say nothing of the function, which is the point",
)
def regression_shuffled(run: Run) -> Samples:
    """What it explains, it has from the examples."""
    return learnt(run, "Mamba", shuffled=True)


def of_parities(run: Run, name: str) -> list[PairsModel]:
    """Models of one kind trained on parities, one for each seed."""
    return train_in_context(
        run,
        MODELS[name],
        task="sparse-parity",
        settings={"num_features": 4, "num_points": 16},
        num_features=4,
        num_classes=2,
        num_steps=600,
        batch=32,
    )


def told_apart(run: Run, name: str | None) -> Samples:
    """The share of right answers on the last five of sixteen examples; the vote of all parities without a name."""

    def one(seed: int) -> OneSeed:
        drawn = run.sample(PARITY, run.setting("prompts", smoke=256, cpu=1000), seed=seed)
        learner: Learner = InContext(of_parities(run, name)[run.seeds.index(seed)]) if name else PARITY.oracle()
        said = learner.prequential(drawn).probabilities
        assert said is not None
        right = (said.argmax(-1) == drawn.y).double()
        share = right[:, -5:].mean(1)
        return OneSeed(
            values=share,
            errors=1 - share,
            zero_errors=torch.full_like(share, PARITY.chance),
            curves={name or "vote of all parities": (range(PARITY.num_points), right.mean(0))},
        )

    return over_seeds(run, one)


BY_EXAMPLE = Axes(x="examples", y="share of right answers", rule=True)


@claim(
    "Mamba learns sparse parities, where a transformer stays behind.",
    threshold=0.85,
    direction="above",
    kind="trained",
    why="seventeen answers of twenty, where chance is a half and the vote of all parities is nearly always right",
    axes=BY_EXAMPLE,
    leaves_out="ten signs and 140 examples",
)
def parity(run: Run) -> Samples:
    """Three Mamba layers."""
    return told_apart(run, "Mamba")


@parity.reference("the vote of all parities that agree with the examples")
def parity_vote(run: Run) -> Samples:
    """What can be known."""
    return told_apart(run, None)


@parity.control("the transformer does not with as many steps")
def parity_transformer(run: Run) -> Samples:
    """Two layers of attention and a network."""
    return told_apart(run, "transformer")


def of_recall(run: Run, name: str) -> list[TokenModel]:
    """Models of one kind trained to recall, one for each seed; only the transformer is told positions."""
    chosen = MODELS[name]
    assert isinstance(chosen.pattern, str)
    return train_recall(
        run,
        chosen.pattern,
        task=RECALL,
        num_steps=400,
        settings=chosen.settings,
        positions="learned" if name == "transformer" else "none",
    )


def recall(run: Run, name: str | None) -> Samples:
    """The share of values recalled; by looking them up without a name."""
    learner: Any = of_recall(run, name) if name else RECALL.oracle()
    return recalled(run, learner, RECALL, name or "look-up")


BY_GAP = Axes(x="tokens between a key and its query, up to", y="share of values recalled", rule=True)
RECALLS = "nine values of ten; a constant answer is right once in sixteen"
AT_CHANCE = "three layers without attention recall no more than a constant answer, which is the point"


@claim(
    "Retrieval is where Mamba falls short: a transformer recalls the values of six keys.",
    threshold=0.9,
    direction="above",
    kind="trained",
    why=RECALLS,
    axes=BY_GAP,
    leaves_out="vectors as keys and values, and Mamba layers with larger states",
)
def retrieval(run: Run) -> Samples:
    """Two layers of attention and a network."""
    return recall(run, "transformer")


@retrieval.reference("the value is looked up")
def retrieval_oracle(run: Run) -> Samples:
    """Always right."""
    return recall(run, None)


@retrieval.control("Mamba does not with as many steps", incompetent=AT_CHANCE)
def retrieval_mamba(run: Run) -> Samples:
    """Three Mamba layers."""
    return recall(run, "Mamba")


@claim(
    "The hybrid learns sparse parities, too.",
    threshold=0.85,
    direction="above",
    kind="trained",
    why="the same as is asked of Mamba",
    axes=BY_EXAMPLE,
)
def hybrid_parity(run: Run) -> Samples:
    """A Mamba layer, attention, and Mamba in the place of the network."""
    return told_apart(run, "MambaFormer")


@hybrid_parity.reference("the vote of all parities that agree with the examples")
def hybrid_parity_vote(run: Run) -> Samples:
    """What can be known."""
    return told_apart(run, None)


@hybrid_parity.control("attention alone does not with as many steps")
def hybrid_parity_transformer(run: Run) -> Samples:
    """Two layers of attention and a network."""
    return told_apart(run, "transformer")


@claim(
    "And it recalls: one model does well where one or the other of them fails.",
    threshold=0.9,
    direction="above",
    kind="trained",
    why=RECALLS,
    axes=BY_GAP,
)
def hybrid_retrieval(run: Run) -> Samples:
    """A Mamba layer, attention, and Mamba in the place of the network."""
    return recall(run, "MambaFormer")


@hybrid_retrieval.reference("the value is looked up")
def hybrid_retrieval_oracle(run: Run) -> Samples:
    """Always right."""
    return recall(run, None)


@hybrid_retrieval.control("Mamba alone does not with as many steps", incompetent=AT_CHANCE)
def hybrid_retrieval_mamba(run: Run) -> Samples:
    """Three Mamba layers."""
    return recall(run, "Mamba")
