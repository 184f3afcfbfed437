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
from functools import cache

import torch
from torch import Tensor, nn

from contexture.claims.classification import Answers, accuracy, answered, configurations, right
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.watched import Watched, watch
from contexture.models.backbone import BackboneConfig
from contexture.models.induction import InductionModel, InductionModelConfig
from contexture.models.nested_logits import nested_flow
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.attention import attention_weights
from contexture.probes.induction_head import induction_strength, to_own_item
from contexture.randomness import generator
from contexture.tasks.bursty_classification import BurstyClassification
from contexture.tasks.draws import uniform

PAPER = Paper(
    key="abrupt-icl",
    title="The mechanistic basis of data dependence and abrupt learning in an in-context classification task",
    authors="Gautam Reddy",
    year=2023,
    arxiv="2312.03002",
    uses=("bursty-classification", "softmax", "known-classes", "nearest-neighbour"),
)

TASK = BurstyClassification(num_classes=2048, num_labels=32, burst=2)
FEW = replace(TASK, num_classes=512)
ONCE = replace(TASK, burst=1)
SKEWED = replace(TASK, skew=1.0)
NEW = replace(TASK, fresh=True)
EVERY, STEPS = 40, 1200
LOOKED_AT = 500
TWO_LAYERS, ONE_LAYER = "softmax+none softmax", "softmax"
OVER_STEPS = Axes(x="training steps", y="share")
MOST = "half: more of the answers come from there than from anywhere else"


def absent(task: BurstyClassification) -> BurstyClassification:
    """The task's classes, each item's drawn by itself: its context has hardly anything to say of it."""
    return replace(task, burst=0)


def transformer(pattern: str) -> PairsModelConfig:
    """Attention of one head a layer, and a perceptron in the last."""
    backbone = BackboneConfig(
        pattern=pattern,
        width=32,
        num_heads=1,
        positions="learned",
        max_length=2 * TASK.num_points,
        settings={"softmax": {"positions": "none"}},
    )
    return PairsModelConfig(num_features=TASK.num_features, num_classes=TASK.num_labels, backbone=backbone)


def look(models: list[PairsModel]) -> dict[str, Tensor]:
    """Accuracies and the parts of an induction head, on the same episodes at every mark."""
    new, known = (task.sample(LOOKED_AT, generator=generator("look", task.fresh)) for task in (NEW, absent(TASK)))
    heads = [attention_weights(model, new) for model in models]
    found = {
        "context": [right(model, new).mean() for model in models],
        "weights": [right(model, known).mean() for model in models],
        "joined": [to_own_item(layers[0]).mean() for layers in heads],
        "matching": [induction_strength(layers[-1], new.latents["classes"]).mean() for layers in heads],
    }
    return {name: torch.stack(values) for name, values in found.items()}


def trained(run: Run, task: BurstyClassification, *, pattern: str = TWO_LAYERS) -> Watched[PairsModel]:
    """A transformer for each seed, watched."""
    every = run.setting("steps between marks", smoke=3, cpu=EVERY)
    made = configurations(run, task, transformer(pattern), num_steps=STEPS, rate=2e-3)
    return watch(run, made, kind=PairsModel, every=every, look=look)


def curve(found: Watched[PairsModel], seed: int, **names: str) -> dict[str, tuple[Sequence[float], Tensor]]:
    """What was seen of one member, under names for the figure."""
    return {label.replace("_", " "): (found.steps, found.seen[name][seed]) for label, name in names.items()}


def of_new(run: Run, say: Answers, seed: int) -> Tensor:
    """Whether labels of new classes are found in the context."""
    return answered(run, say, seed, NEW)


def rise(found: Sequence[Tensor], steps: Sequence[int]) -> Tensor:
    """The largest rise of each curve within a sixth of the training, [seeds, 1]."""
    span = max(1, (len(steps) - 1) // 6)
    curves = torch.stack(list(found)).double()
    return (curves[:, span:] - curves[:, :-span]).amax(1, keepdim=True)


def abruptly(run: Run, *, pattern: str, name: str) -> Samples:
    """The largest rise of the accuracy on new classes within a sixth of the training."""
    found = trained(run, TASK, pattern=pattern)
    rises = rise(found.seen["context"].unbind(), found.steps)

    def one(seed: int) -> OneSeed:
        index = run.seeds.index(seed)
        errors = 1 - answered(run, found.models, seed, TASK)
        return OneSeed(
            values=rises[index].expand(len(errors)),
            errors=errors,
            zero_errors=torch.full_like(errors, TASK.chance),
            curves={name: (found.steps, found.seen["context"][index])},
        )

    return over_seeds(run, one)


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


def head(run: Run, task: BurstyClassification, *, figure: bool = False) -> Samples:
    """The induction strength of the last layer on new classes."""
    found = trained(run, task)

    def one(seed: int) -> OneSeed:
        model = found.models[run.seeds.index(seed)]
        drawn = run.sample(NEW, run.setting("episodes", smoke=512, cpu=1024), seed=seed)
        strength = induction_strength(attention_weights(model, drawn)[-1], drawn.latents["classes"])
        errors = 1 - answered(run, found.models, seed, task)
        lines = curve(
            found,
            run.seeds.index(seed),
            first_layer_joins_labels_to_items="joined",
            second_layer_finds_matching_labels="matching",
            accuracy_on_new_classes="context",
        )
        return OneSeed(
            values=strength.mean(1).double(),
            errors=errors,
            zero_errors=torch.full_like(errors, task.chance),
            curves=lines if figure else {},
        )

    return over_seeds(run, one)


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


def precedes(run: Run, name: str, level: float) -> Samples:
    """When a measure reaches a level, per when accuracy on new classes has gone a fifth of its way."""
    found = trained(run, TASK)
    when, icl = found.first(name, level), found.first("context", 0.4).clamp(max=found.steps[-1])

    def one(seed: int) -> OneSeed:
        index = run.seeds.index(seed)
        errors = 1 - answered(run, found.models, seed, TASK)
        return OneSeed(
            values=when[index].expand(len(errors)),
            per=icl[index].expand(len(errors)).clamp(min=1),
            errors=errors,
            zero_errors=torch.full_like(errors, TASK.chance),
        )

    return over_seeds(run, one)


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
    rare = absent(task)

    def one(seed: int) -> OneSeed:
        models = trained(run, task).models
        new = answered(run, TASK_ORACLE if known else models, seed, NEW)
        old = answered(run, rare.oracle() if known else models, seed, rare)
        errors = 1 - answered(run, models, seed, task)
        smaller = torch.minimum(new.mean(), old.mean())
        return OneSeed(
            values=smaller.expand(len(errors)), errors=errors, zero_errors=torch.full_like(errors, task.chance)
        )

    return over_seeds(run, one)


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


CONTEXT, LABELS = 8, 32
FLOW_RATE, FLOW_STEPS, FLOWS = 0.5, 600, 64


@cache
def flow(seed: int, *, labels: int = LABELS, alone: bool = False, ahead: float = 0.0) -> Tensor:
    """The reduced model from small numbers, g `ahead` of the others."""
    start = uniform(FLOWS, 3, high=0.2, generator=generator("claim", seed, "flow"))
    start[:, 2] += ahead
    return nested_flow(start, num_items=CONTEXT, num_labels=labels, rate=FLOW_RATE, steps=FLOW_STEPS, alone=alone)


def reaches(curves: Tensor, level: float) -> Tensor:
    """The first step at which each run reaches a level; the number of steps where it never does."""
    reached = curves >= level
    first = reached.int().argmax(1)
    return torch.where(reached.any(1), first, curves.shape[1]).double()


def sharpness(run: Run, *, alone: bool, known: bool = False) -> Samples:
    """The time that the right label's probability takes from 0.3 to 0.9, per the time until then."""

    def one(seed: int) -> OneSeed:
        seen = flow(seed, alone=alone)
        said = seen[:, :, 2]
        start, end = reaches(said, 0.3), reaches(said, 0.9)
        drawn = range(0, 150, 3)
        chain = {"joined to its item": 0, "found by the query": 1, "said, by the chain": 2}
        names = {"said, by a logit alone": 2} if alone else chain
        return OneSeed(
            values=torch.zeros_like(end) if known else end - start,
            per=end,
            errors=1 - said[:, -1],
            zero_errors=torch.full_like(end, 1 - 1 / LABELS),
            curves={} if known else {name: (drawn, seen[:, list(drawn), i].mean(0)) for name, i in names.items()},
        )

    return over_seeds(run, one)


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


def earlier(run: Run, *, labels: int, ahead: float = 0.0) -> Samples:
    """When the query finds the right label, per when it does with no labels but those of the context."""

    def one(seed: int) -> OneSeed:
        own, plain = flow(seed, labels=labels, ahead=ahead), flow(seed, labels=CONTEXT)
        end = own[:, -1, 2]
        return OneSeed(
            values=reaches(own[:, :, 1], 0.5),
            per=reaches(plain[:, :, 1], 0.5),
            errors=1 - end,
            zero_errors=torch.full_like(end, 1 - 1 / labels),
        )

    return over_seeds(run, one)


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
