r"""The mechanistic basis of data dependence and abrupt learning in an in-context classification task (Reddy 2023).

Items of K classes under 32 labels; a context of eight labelled items in which each class comes `burst` times, and a
ninth item of one of its classes (`contexture.tasks.bursty_classification`). What a network has learned is asked twice:

    from the context   classes that were never seen, with labels that hold in one context alone
    from the weights   classes of the training, in contexts without them

The network has two layers of attention with one head, and a perceptron that classifies. Its induction head is read from
the attention weights (`contexture.probes.induction_head`). The head of two parameters is
`contexture.models.induction`, the reduced model of its formation `contexture.models.nested_logits`.
Labels are asked for at every item, where the paper asks for the last. Shapes: x [episodes, 9, 16], y [episodes, 9].
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from contexture.claims.bursts import (
    NEW,
    ONE_LAYER,
    STEPS,
    TASK,
    TWO_LAYERS,
    abruptly,
    absent,
    head,
    of_new,
    precedes,
    trained,
)
from contexture.claims.classification import accuracy, answered, configurations, of_each
from contexture.claims.nested_flows import CONTEXT, LABELS, earlier, sharpness
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.models.induction import InductionModel, InductionModelConfig
from contexture.randomness import generator
from contexture.tasks.bursty_classification import BurstyClassification

PAPER = Paper(
    key="abrupt-icl",
    title="The mechanistic basis of data dependence and abrupt learning in an in-context classification task",
    authors="Gautam Reddy",
    year=2023,
    arxiv="2312.03002",
    uses=("bursty-classification", "softmax", "known-classes", "nearest-neighbour"),
)

FEW = replace(TASK, num_classes=512)
ONCE = replace(TASK, burst=1)
SKEWED = replace(TASK, skew=1.0)
OVER_STEPS = Axes(x="training steps", y="share")
MOST = "half: more of the answers come from there than from anywhere else"


@claim(
    "Learning from the context comes abruptly: after a plateau, accuracy on new classes jumps.",
    threshold=0.4,
    direction="above",
    kind="trained",
    spread="seeds",
    why="guessing among the four labels of a context gives 0.25, and is learned early; the whole way from there to 1 "
    "is 0.75, of which more than half is to fall into a sixth of the training",
    axes=Axes(x="training steps", y="accuracy on new classes"),
)
def abrupt(run: Run) -> Samples:
    """Two layers."""
    return abruptly(run, pattern=TWO_LAYERS, name="two layers")


@abrupt.reference("the nearest earlier item's label in place of a guess, from one mark to the next")
def abrupt_at_once(run: Run) -> Samples:
    """A rise that takes no time."""

    def one(seed: int) -> OneSeed:
        after = of_new(run, TASK_ORACLE, seed)
        return OneSeed(values=after - 1 / TASK.num_drawn)

    return over_seeds(run, one)


@abrupt.control("with one layer, which cannot make an induction head, it does not")
def abrupt_one_layer(run: Run) -> Samples:
    """The same data and steps."""
    return abruptly(run, pattern=ONE_LAYER, name="one layer")


TASK_ORACLE = NEW.oracle()


@claim(
    "What comes is an induction head: the last item attends to the labels of earlier items of its class.",
    threshold=0.5,
    direction="above",
    kind="trained",
    spread="seeds",
    why="half of the way from attending to all tokens alike to attending to matching labels only",
    axes=OVER_STEPS,
)
def induction_head(run: Run) -> Samples:
    """Classes too many to be known by heart."""
    return head(run, TASK, figure=True)


@induction_head.reference("a head of two parameters, set to join labels to their items and to match sharply")
def induction_head_by_hand(run: Run) -> Samples:
    """Both parameters at forty."""

    def one(seed: int) -> OneSeed:
        drawn = run.sample(NEW, run.setting("episodes", smoke=512, cpu=1024), seed=seed)
        model = InductionModel(TWO, generator=generator("by hand"))
        with torch.no_grad():
            model.joining.weight.fill_(40.0)
            model.matching.weight.fill_(40.0)
            last = model.attention(drawn.x.float())[:, -1, :-1]
        same = drawn.latents["classes"][:, :-1] == drawn.latents["classes"][:, -1:]
        return OneSeed(values=(last * same).sum(1).double())

    return over_seeds(run, one)


TWO = InductionModelConfig(num_features=TASK.num_features, num_classes=TASK.num_labels)


@induction_head.control("trained on a quarter of the classes, the same network has no such head")
def induction_head_few(run: Run) -> Samples:
    """Classes that are soon known by heart."""
    return head(run, FEW)


@claim(
    "Its first half comes first: labels attend to their own items before new classes can be told apart.",
    threshold=0.95,
    direction="below",
    kind="trained",
    spread="seeds",
    why="both have gone a fifth of their way to 1, from 0.17 and from guessing among four labels; a twentieth of the "
    "time is more than the marks leave open",
    expected="undecided",
    tried="one level for each, fixed beforehand; the first layer's weights leave their start some hundred steps before "
    "accuracy leaves its plateau, but from a fifth of the way on they rise together",
)
def precursor(run: Run) -> Samples:
    """The first layer's attention of labels to the token before them."""
    return precedes(run, "joined", 0.33)


@precursor.reference("guessing among the labels of a context, for which no head is needed")
def precursor_guessing(run: Run) -> Samples:
    """Four fifths of the accuracy of such guesses."""
    if run.scale == "smoke":
        return over_seeds(run, lambda seed: OneSeed(values=torch.zeros(512), per=torch.ones(512)))
    return precedes(run, "context", 0.2)


@precursor.control("accuracy from the weights is no such sign: it comes later, or not at all")
def precursor_weights(run: Run) -> Samples:
    """A fifth of the known classes named without a context."""
    return precedes(run, "weights", 0.2)


@claim(
    "With many classes, labels are taken from the context.",
    threshold=0.5,
    direction="above",
    kind="trained",
    spread="seeds",
    why=MOST,
)
def many_classes(run: Run) -> Samples:
    """2,048 classes, each twice in a context; asked of new ones."""
    return accuracy(run, trained(run, TASK).models, asked=NEW, shown=TASK)


@many_classes.reference("the label of the nearest earlier item")
def many_classes_nearest(run: Run) -> Samples:
    """An induction head without training."""
    return accuracy(run, TASK_ORACLE, asked=NEW, shown=NEW)


@many_classes.control("with a quarter of the classes they are not")
def many_classes_few(run: Run) -> Samples:
    """512 classes."""
    return accuracy(run, trained(run, FEW).models, asked=NEW, shown=FEW)


@claim(
    "With few classes, labels are taken from the weights.",
    threshold=0.5,
    direction="above",
    kind="trained",
    spread="seeds",
    why=MOST,
)
def few_classes(run: Run) -> Samples:
    """512 classes, asked without a context that would help."""
    return accuracy(run, trained(run, FEW).models, asked=absent(FEW), shown=FEW)


@few_classes.reference("the posterior over the known classes")
def few_classes_known(run: Run) -> Samples:
    """What weights could hold."""
    return accuracy(run, FEW.oracle(), asked=absent(FEW), shown=FEW)


@few_classes.control("with four times as many they are not")
def few_classes_many(run: Run) -> Samples:
    """2,048 classes."""
    return accuracy(run, trained(run, TASK).models, asked=absent(TASK), shown=TASK)


@claim(
    "Bursts favour the context: where classes come twice, labels of new ones are taken from it.",
    threshold=0.5,
    direction="above",
    kind="trained",
    spread="seeds",
    why=MOST,
)
def bursts(run: Run) -> Samples:
    """Four classes, each twice."""
    return accuracy(run, trained(run, TASK).models, asked=NEW, shown=TASK)


@bursts.reference("the label of the nearest earlier item")
def bursts_nearest(run: Run) -> Samples:
    """An induction head without training."""
    return accuracy(run, TASK_ORACLE, asked=NEW, shown=NEW)


@bursts.control("where classes come once, they are not")
def bursts_once(run: Run) -> Samples:
    """Eight classes, one of which comes again as the last item."""
    return accuracy(run, trained(run, ONCE).models, asked=NEW, shown=ONCE)


def in_both(run: Run, task: BurstyClassification, *, known: bool = False) -> Samples:
    """The smaller of two accuracies: on new classes from the context, and on known ones from the weights."""
    rare, models = absent(task), trained(run, task).models

    def smaller(seed: int) -> Tensor:
        new = answered(run, TASK_ORACLE if known else models, seed, NEW)
        old = answered(run, rare.oracle() if known else models, seed, rare)
        return torch.minimum(new.mean(), old.mean())

    return of_each(run, models, run.each(smaller), shown=task)


@claim(
    "Where few classes are frequent and many are rare, labels are learned both ways at once.",
    threshold=0.25,
    direction="above",
    kind="trained",
    spread="seeds",
    why="guessing among the labels of a context gives 0.25 on new classes, and an untrained network 0.03 on known ones",
)
def skew(run: Run) -> Samples:
    """Frequencies by Zipf's law with exponent one; known classes are asked as often as they are met."""
    return in_both(run, SKEWED)


@skew.reference("the nearest earlier item for new classes, the posterior over known ones for these")
def skew_both(run: Run) -> Samples:
    """Two learners that need no training."""
    return in_both(run, SKEWED, known=True)


@skew.control("where all classes are as frequent, one way is learned alone")
def skew_flat(run: Run) -> Samples:
    """Exponent zero."""
    return in_both(run, TASK)


def afterwards(run: Run, *, pattern: str, ideal: bool = False) -> Samples:
    """How accuracy on known classes, rare and frequent alike, changes once two layers tell half of new ones apart."""
    found, deep = trained(run, SKEWED, pattern=pattern), trained(run, SKEWED)
    when = deep.first("context", 0.5)

    def one(seed: int) -> OneSeed:
        index = run.seeds.index(seed)
        at = sum(step <= min(float(when[index]), found.steps[-1] - 1) for step in found.steps) - 1
        weights = found.seen["weights"][index].double()
        lost = answered(run, TASK_ORACLE, seed, absent(TASK)) - answered(run, TASK.oracle(), seed, absent(TASK))
        errors = 1 - answered(run, found.models, seed, SKEWED)
        layers = "two layers" if pattern == TWO_LAYERS else "one layer"
        lines = {"new classes": "context", "known classes": "weights"}
        return OneSeed(
            values=lost if ideal else (weights[-1] - weights[at]).expand(len(errors)),
            errors=errors,
            zero_errors=torch.full_like(errors, SKEWED.chance),
            curves={
                f"{what}, {layers}": (found.steps, found.seen[name][index]) for what, name in lines.items() if not ideal
            },
        )

    return over_seeds(run, one)


@claim(
    "The head then competes with the weights: after it has come, fewer classes are known by heart than before.",
    threshold=-0.05,
    direction="below",
    kind="trained",
    spread="seeds",
    why="a twentieth of all classes, a quarter of what is known when the head comes",
    expected="undecided",
    tried="1,200 steps, which end soon after the head has come; what is known stops growing then, at about 0.2, while "
    "one layer goes on to 0.34",
    axes=Axes(x="training steps", y="accuracy"),
)
def competes(run: Run) -> Samples:
    """Frequencies by Zipf's law, under which both are learned; all classes are asked alike."""
    return afterwards(run, pattern=TWO_LAYERS)


@competes.reference("all that is known, lost to a head that knows nothing")
def competes_ideal(run: Run) -> Samples:
    """The posterior over known classes, and then the nearest earlier item."""
    return afterwards(run, pattern=TWO_LAYERS, ideal=True)


@competes.control("in a network of one layer, which makes no head, nothing is lost over these steps")
def competes_one_layer(run: Run) -> Samples:
    """The same data and steps."""
    return afterwards(run, pattern=ONE_LAYER)


def two_parameters_on(run: Run, task: BurstyClassification, *, joins: bool) -> list[InductionModel]:
    """The head of two parameters with its network, for each seed."""
    steps = run.setting("steps of the small model", smoke=100, cpu=STEPS // 2)
    small = configurations(run, task, replace(TWO, joins=joins), num_steps=steps, rate=1e-2)
    made = [replace(config, steps=steps) for config in small]
    return [model for model in run.train(made) if isinstance(model, InductionModel)]


def depends(run: Run, say: dict[str, Sequence[nn.Module]]) -> Samples:
    """Accuracy on new classes after training on many that come twice, above that after the better of the other two."""

    def one(seed: int) -> OneSeed:
        most, few, once = (of_new(run, say[name], seed) for name in ("many", "few", "once"))
        errors = 1 - answered(run, say["many"], seed, TASK)
        return OneSeed(
            values=most - torch.maximum(few.mean(), once.mean()),
            errors=errors,
            zero_errors=torch.full_like(errors, TASK.chance),
        )

    return over_seeds(run, one)


DATA = {"many": TASK, "few": FEW, "once": ONCE}


@claim(
    "A head of two parameters depends on the data as the network does: it forms with many classes in bursts alone.",
    threshold=0.3,
    direction="above",
    kind="trained",
    spread="seeds",
    why="the network is to be told apart from guessing among four labels, 0.25, and so is the small model",
    leaves_out="what comes of it: after twice as many steps its network has taken part of the work over",
)
def two_parameters(run: Run) -> Samples:
    """Both parameters free."""
    return depends(run, {name: two_parameters_on(run, task, joins=True) for name, task in DATA.items()})


@two_parameters.reference("the nearest earlier item where the data ask for a head, a guess elsewhere")
def two_parameters_nearest(run: Run) -> Samples:
    """What the dependence would be at its sharpest."""

    def one(seed: int) -> OneSeed:
        return OneSeed(values=of_new(run, TASK_ORACLE, seed) - 1 / TASK.num_drawn)

    return over_seeds(run, one)


@two_parameters.control("without the parameter that joins labels to their items it does not")
def two_parameters_apart(run: Run) -> Samples:
    """The other parameter alone."""
    return depends(run, {name: two_parameters_on(run, task, joins=False) for name, task in DATA.items()})


@claim(
    "Three logits, each of use only once the one inside it has grown, are enough for an abrupt rise.",
    threshold=0.4,
    direction="below",
    why="the rise from 0.3 to 0.9 is to take less than two fifths of the time until 0.9; a logit by itself takes most "
    "of that time, as it grows from the first step on",
    axes=Axes(x="steps of the reduced model", y="share"),
)
def nested(run: Run) -> Samples:
    """The gradient flow on three numbers."""
    return sharpness(run, alone=False)


@nested.reference("a step in no time")
def nested_step(run: Run) -> Samples:
    """The same flow's end, reached at once."""
    return sharpness(run, alone=False, known=True)


@nested.control("the logit of the right label by itself rises gradually")
def nested_not(run: Run) -> Samples:
    """The same loss and rate, without the chain."""
    return sharpness(run, alone=True)


@claim(
    "The chain is started by an easier lesson: that the answer is among the labels of the context.",
    threshold=0.5,
    direction="below",
    why="with more labels than a context holds the head is to form in less than half the time",
)
def curriculum(run: Run) -> Samples:
    """Thirty-two labels, eight in a context."""
    return earlier(run, labels=LABELS)


@curriculum.reference("the lesson learned from the start")
def curriculum_ahead(run: Run) -> Samples:
    """The outer logit at two."""
    return earlier(run, labels=CONTEXT, ahead=2.0)


@curriculum.control("where every label is in the context there is no such lesson")
def curriculum_none(run: Run) -> Samples:
    """Eight labels."""
    return earlier(run, labels=CONTEXT)
