r"""Understanding in-context learning in transformers and LLMs by learning to learn discrete functions (Bhattamishra,
Patel, Blunsom, Kanade 2023).

Small models are trained on classes of Boolean functions over six signs, two tokens to an example, and held against the
posterior over all functions of the class, which is optimal. A learner's number is the share of what the optimal one
gains over the likelier constant that it loses, in errors over all numbers of examples:

    lost = sum (errors - optimal errors) / sum (constant's errors - optimal errors)

Half of the prompts of one model begin with a teaching sequence (`contexture.tasks.taught_conjunction`), after which a
single function is left.
Shapes: x [episodes, examples, features], y int64 [episodes, examples]; probabilities [episodes, examples, 2].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from contexture.claims.in_context import small_backbone, train_over_pairs
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.metrics import Truth, find
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.in_context import InContext
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.protocols import Learner, Pairs, Prediction
from contexture.tasks.conjunction import Conjunction
from contexture.tasks.parity import Parity
from contexture.tasks.taught_conjunction import TaughtConjunction
from contexture.training.config import TaskChoice

PAPER = Paper(
    key="discrete-functions",
    title="Understanding In-Context Learning in Transformers and LLMs by Learning to Learn Discrete Functions",
    authors="Satwik Bhattamishra, Arkil Patel, Phil Blunsom, Varun Kanade",
    year=2023,
    arxiv="2310.03016",
    uses=("conjunction", "parity", "taught-conjunction", "concept-posterior", "nearest-neighbour", "softmax", "hyena"),
    left_out={
        "large language models rival nearest neighbours on functions that they cannot have seen": "needs the weights "
        "of LLaMA-2 or an account with GPT-4",
    },
)

SHAPE: dict[str, Any] = {"num_features": 6, "num_points": 20}
SIMPLE, COMPLEX = Conjunction(**SHAPE), Parity(**SHAPE)
TAUGHT, UNTAUGHT = (TaughtConjunction(**SHAPE, taught_share=share) for share in (1.0, 0.0))
STEPS = 400
AFTER = 3
"""How many predictions are scored behind a teaching sequence."""
Probabilities = Callable[[Pairs], Tensor]


def trained(
    run: Run, task: str, *, mixer: str = "softmax", settings: Mapping[str, float] | None = None
) -> list[Probabilities]:
    """Models of two layers, trained on a class: what each seed's says."""
    backbone = small_backbone(SHAPE["num_points"], mixer=mixer, depth=2)
    config = PairsModelConfig(num_features=SHAPE["num_features"], num_classes=2, backbone=backbone)
    choice = TaskChoice(name=task, settings={**SHAPE, **(settings or {})})
    models = train_over_pairs(run, config, task=choice, num_steps=STEPS)
    return [says(InContext(model)) for model in models if isinstance(model, PairsModel)]


def says(learner: Learner) -> Probabilities:
    """What a learner says of every example from those before it."""

    def say(drawn: Pairs) -> Tensor:
        probabilities = learner.prequential(drawn).probabilities
        assert probabilities is not None
        return probabilities

    return say


def optimal(task: Conjunction | Parity) -> Probabilities:
    """The task's oracle."""
    oracle = task.oracle()
    assert oracle is not None
    return says(oracle)


def constant(drawn: Pairs) -> Tensor:
    """Always true: at least as likely as false in every class here."""
    return torch.tensor([0.0, 1.0], dtype=torch.float64).expand(*drawn.y.shape, 2)


def errors(say: Probabilities, drawn: Pairs) -> Tensor:
    """Error rates, [episodes, examples]."""
    found: Tensor = find("error-rate")(Prediction(probabilities=say(drawn)), Truth(y=drawn.y))
    return found


def lost(
    run: Run,
    task: Conjunction | Parity,
    learners: Sequence[Probabilities],
    name: str,
    *,
    drawn_by: TaughtConjunction | None = None,
) -> Samples:
    """The share of the optimal learner's gain that is lost; episodes may come from another task of the same law."""
    episodes = run.setting("episodes", smoke=64, cpu=1024)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(drawn_by or task, episodes, seed=seed)
        own, best = (errors(say, drawn) for say in (learners[run.seeds.index(seed)], optimal(task)))
        zero = errors(constant, drawn)
        places = range(drawn.time)
        return OneSeed(
            values=(own - best).mean(1),
            per=(zero - best).mean(1),
            errors=own.mean(1),
            zero_errors=zero.mean(1),
            curves={name: (places, own.mean(0)), "optimal": (places, best.mean(0))},
        )

    return over_seeds(run, one)


def neighbours(run: Run) -> list[Probabilities]:
    """The label of the nearest example, for every seed."""
    return [says(NearestNeighbour())] * len(run.seeds)


BY_EXAMPLES = Axes(x="examples", y="error rate")
NEAR = "a fifth of what the optimal learner gains over a constant; nearest neighbours lose more than a quarter"
NEIGHBOURS = "nearest neighbours, which know nothing of the class, lose much more"
BEST = "the posterior over all functions of the class"


@claim(
    "On a simple class, conjunctions, a transformer nearly matches the optimal learner.",
    threshold=0.2,
    direction="below",
    why=NEAR,
    kind="trained",
    axes=BY_EXAMPLES,
    leaves_out="disjunctions, majorities and the other simple classes, which are tasks of the workbench",
)
def simple(run: Run) -> Samples:
    """Conjunctions of a few of six literals."""
    return lost(run, SIMPLE, trained(run, SIMPLE.card.name), "transformer")


@simple.reference(BEST)
def simple_optimal(run: Run) -> Samples:
    """Nothing is lost."""
    return lost(run, SIMPLE, [optimal(SIMPLE)] * len(run.seeds), "optimal")


@simple.control(NEIGHBOURS)
def simple_neighbours(run: Run) -> Samples:
    """On the same prompts."""
    return lost(run, SIMPLE, neighbours(run), "nearest neighbour")


@claim(
    "On a complex class, parities, it loses most of what could be learnt.",
    threshold=0.5,
    direction="above",
    why="half of what the optimal learner gains over a constant",
    kind="trained",
    axes=BY_EXAMPLES,
    leaves_out="classes between the two, such as normal forms and thresholds, which are tasks of the workbench",
)
def complex_class(run: Run) -> Samples:
    """Parities of any of six variables, with the same model and training."""
    return lost(run, COMPLEX, trained(run, COMPLEX.card.name), "transformer")


@complex_class.reference("the constant that knows nothing")
def complex_constant(run: Run) -> Samples:
    """All is lost."""
    return lost(run, COMPLEX, [constant] * len(run.seeds), "constant")


@complex_class.control("the vote of the parities that agree with the examples loses nothing")
def complex_optimal(run: Run) -> Samples:
    """The examples do tell which parity it is."""
    return lost(run, COMPLEX, [optimal(COMPLEX)] * len(run.seeds), "optimal")


@claim(
    "A model without attention, of long convolutions, comes as close to the optimal learner on conjunctions.",
    threshold=0.2,
    direction="below",
    why=NEAR,
    kind="trained",
    axes=BY_EXAMPLES,
    leaves_out="recurrent networks and state-space layers, and tasks beside conjunctions",
)
def without_attention(run: Run) -> Samples:
    """Hyena in the place of attention, with the same training."""
    return lost(run, SIMPLE, trained(run, SIMPLE.card.name, mixer="hyena"), "hyena")


@without_attention.reference(BEST)
def without_attention_optimal(run: Run) -> Samples:
    """Nothing is lost."""
    return lost(run, SIMPLE, [optimal(SIMPLE)] * len(run.seeds), "optimal")


@without_attention.control(NEIGHBOURS)
def without_attention_neighbours(run: Run) -> Samples:
    """On the same prompts."""
    return lost(run, SIMPLE, neighbours(run), "nearest neighbour")


def read_off(drawn: Pairs) -> Tensor:
    """The rule for teaching sequences: what the first two examples share is the conjunction."""
    first, second = drawn.x[:, 0], drawn.x[:, 1]
    concept = torch.where(first == second, first, 0.0)
    true = (drawn.x * concept.unsqueeze(1) >= 0).all(-1).double()
    return torch.stack((1 - true, true), -1)


def behind(values: Tensor, lengths: Tensor) -> Tensor:
    """The mean of the first values behind each episode's teaching sequence, [episodes]."""
    places = lengths.unsqueeze(1) + torch.arange(AFTER)
    return values.gather(1, places).mean(1)


def taught(run: Run, learners: Sequence[Probabilities], name: str) -> Samples:
    """Errors right behind a teaching sequence, per those of the optimal learner after as many random examples."""
    episodes = run.setting("episodes", smoke=64, cpu=1024)

    def one(seed: int) -> OneSeed:
        with_teacher, without = (run.sample(task, episodes, seed=seed) for task in (TAUGHT, UNTAUGHT))
        say, lengths = learners[run.seeds.index(seed)], with_teacher.latents["taught"]
        own, best = errors(say, with_teacher), errors(optimal(SIMPLE), without)
        places = torch.arange(-2, 9)
        along = [own.gather(1, (lengths + k).clamp(min=0).unsqueeze(1)).mean() for k in places.tolist()]
        random = [best.gather(1, (lengths + k).clamp(min=0).unsqueeze(1)).mean() for k in places.tolist()]
        return OneSeed(
            values=behind(own, lengths),
            per=behind(best, lengths),
            errors=behind(own, lengths),
            zero_errors=behind(errors(constant, with_teacher), lengths),
            curves={
                line: (places.tolist(), torch.stack(rates))
                for line, rates in ((name, along), ("optimal, random examples", random))
                if line
            },
        )

    return over_seeds(run, one)


HALF_TAUGHT = {"taught_share": 0.5}


@claim(
    "With a teaching sequence a transformer needs fewer examples than any learner does without.",
    threshold=0.5,
    direction="below",
    why="half of the errors that the optimal learner still makes after as many random examples",
    kind="trained",
    axes=Axes(x="examples since the end of the teaching sequence", y="error rate"),
)
def teaching(run: Run) -> Samples:
    """Half of its training prompts were taught."""
    return taught(run, trained(run, TAUGHT.card.name, settings=HALF_TAUGHT), "transformer, taught")


@teaching.reference("the conjunction read off the sequence")
def teaching_read(run: Run) -> Samples:
    """What the first two examples share."""
    return taught(run, [read_off] * len(run.seeds), "")


@teaching.control("a transformer trained on random examples alone makes less of the same sequences")
def teaching_untrained(run: Run) -> Samples:
    """The model of the simple class, on taught prompts."""
    return taught(run, trained(run, SIMPLE.card.name), "never taught in training")


@claim(
    "The same weights hold a second algorithm and choose it where the examples are random: there they nearly match the "
    "optimal learner.",
    threshold=0.2,
    direction="below",
    why=NEAR,
    kind="trained",
    axes=BY_EXAMPLES,
)
def second_algorithm(run: Run) -> Samples:
    """The half-taught model on prompts without a teacher."""
    learners = trained(run, TAUGHT.card.name, settings=HALF_TAUGHT)
    return lost(run, SIMPLE, learners, "transformer, half taught", drawn_by=UNTAUGHT)


@second_algorithm.reference(BEST)
def second_algorithm_optimal(run: Run) -> Samples:
    """Nothing is lost."""
    return lost(run, SIMPLE, [optimal(SIMPLE)] * len(run.seeds), "optimal", drawn_by=UNTAUGHT)


@second_algorithm.control(
    "the algorithm for teaching sequences is of no use there",
    incompetent="random examples teach nothing to one who takes them for a teacher's, which is the point",
)
def second_algorithm_read(run: Run) -> Samples:
    """What the first two examples share, taken for the conjunction."""
    return lost(run, SIMPLE, [read_off] * len(run.seeds), "read off", drawn_by=UNTAUGHT)
