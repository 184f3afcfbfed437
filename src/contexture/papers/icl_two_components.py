r"""How does representation impact in-context learning: an exploration on a synthetic task (Fu et al. 2023).

Items have three attributes of three values; one attribute, which nobody names, decides the label, whose names are
drawn anew in every context (`contexture.tasks.hidden_attribute`). What a transformer's hidden vectors hold is asked by
two linear probes:

    in weights   the attributes' values, from an item without a context, of items that the probe was not fitted on
    in context   which attribute decides, from the means over items and over labels of vectors and of their squares

The second is asked after the second layer; after the first, examples have not been compared with each other yet. (A
linear probe of the last item's vector alone, which was tried before, is right half of the time at most, though answers
are: what decides is spread over the context.)
Items are given as their attributes (the component in the weights is perfect before any training) or mixed by a fixed
network. The construction is `contexture.models.match_and_copy`. Transformers have three layers of width 32.
Shapes: x [episodes, 11, 9], y [episodes, 11]; hidden vectors [episodes, width].
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contexture.claims.classification import configurations, right
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.watched import Watched, watch
from contexture.learners.oracles.attribute_posterior import AttributePosterior, attribute_values
from contexture.models.backbone import BackboneConfig
from contexture.models.match_and_copy import match_and_copy
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.classes import ClassProbe
from contexture.probes.hidden import hidden_states
from contexture.protocols import Pairs
from contexture.randomness import generator
from contexture.tasks.draws import class_schema
from contexture.tasks.hidden_attribute import HiddenAttribute, Look

PAPER = Paper(
    key="icl-two-components",
    title="How does representation impact in-context learning: A exploration on a synthetic task",
    authors="Jingwen Fu, Tao Yang, Yuwang Wang, Yan Lu, Nanning Zheng",
    year=2023,
    arxiv="2309.06054",
    uses=("hidden-attribute", "attribute-posterior", "softmax"),
)

ATTRIBUTES = VALUES = 3
SHOWN = 10
STEPS, EVERY = 600, 100
FITTED, READ = 1500, 500
CHANCE = 1 / ATTRIBUTES
EARLY = "after one layer"
LOOKS: tuple[Look, ...] = ("attributes", "mixed")


def task(look: Look) -> HiddenAttribute:
    """Ten examples and a query."""
    return HiddenAttribute(num_attributes=ATTRIBUTES, num_values=VALUES, num_points=SHOWN + 1, look=look)


def in_context(model: PairsModel, drawn: Pairs, *, layer: int = 2) -> Tensor:
    """Whether the deciding attribute is read after a layer, by a probe fitted on all prompts but the last `READ`."""
    h = hidden_states(model, drawn)[layer]
    moments = torch.cat([power.mean(1) for tokens in (h[:, ::2], h[:, 1::2]) for power in (tokens, tokens.square())], 1)
    attribute = drawn.latents["attribute"]
    probe = ClassProbe.fit(moments[:-READ], attribute[:-READ], num_classes=ATTRIBUTES)
    return (probe(moments[-READ:]) == attribute[-READ:]).double()


def in_weights(model: PairsModel, look: Look) -> Tensor:
    """Whether attributes' values are read from items after the first layer, of the third left out of the fit."""
    values = attribute_values(ATTRIBUTES, VALUES)
    x = task(look).codes.unsqueeze(1)
    alone = Pairs(x=x, y=torch.zeros(len(x), 1, dtype=torch.int64), schema=class_schema(x.shape[2], VALUES))
    h = hidden_states(model, alone)[1][:, 0]
    hits = []
    for fold in range(VALUES):
        left_out = values.sum(1) % VALUES == fold
        for own in values.unbind(1):
            probe = ClassProbe.fit(h[~left_out], own[~left_out], num_classes=VALUES, penalty=1e-2)
            hits.append((probe(h[left_out]) == own[left_out]).double())
    return torch.cat(hits)


def looking(look: Look) -> Callable[[list[PairsModel]], dict[str, Tensor]]:
    """What is seen at every mark: how often the query's label is right, and what both probes read."""
    drawn = task(look).sample(FITTED + READ, generator=generator("look", "hidden attribute"))

    def seen(models: list[PairsModel]) -> dict[str, Tensor]:
        found = {
            "right": [right(model, drawn).mean() for model in models],
            "in context": [in_context(model, drawn).mean() for model in models],
            EARLY: [in_context(model, drawn, layer=1).mean() for model in models],
            "in weights": [in_weights(model, look).mean() for model in models],
        }
        return {name: torch.stack(values) for name, values in found.items()}

    return seen


def trained(run: Run, look: Look) -> Watched[PairsModel]:
    """A transformer for each seed, watched."""
    every = run.setting("steps between marks", smoke=3, cpu=EVERY)
    backbone = BackboneConfig(
        pattern="softmax*3",
        width=32,
        num_heads=4,
        feed_forward="relu",
        expansion=2.0,
        positions="learned",
        max_length=2 * SHOWN + 2,
        settings={"softmax": {"positions": "none"}},
    )
    shape = task(look)
    model = PairsModelConfig(num_features=shape.num_features, num_classes=VALUES, backbone=backbone)
    configs = configurations(run, shape, model, num_steps=STEPS, rate=2e-3, matrix_rate=0.02)
    return watch(run, configs, kind=PairsModel, every=every, look=looking(look))


def lines(found: Watched[PairsModel], index: int, **names: str) -> dict[str, tuple[Sequence[float], Tensor]]:
    """What was seen of one member, under names for the figure."""
    return {label.replace("_", " "): (found.steps, found.seen[name][index]) for label, name in names.items()}


def prompts(run: Run, look: Look, seed: int) -> Pairs:
    """Contexts of a seed: some for fitting a probe, `READ` for reading."""
    fitted = run.setting("prompts fitted", smoke=FITTED, cpu=4 * FITTED)
    return run.sample(task(look), fitted + READ, seed=seed)


OVER_STEPS = Axes(x="training steps", y="share")


def between(right: Tensor, read: Tensor) -> Tensor:
    """How much more is read in the third of the states that are right most often than in the third that are least."""
    order, third = right.argsort(), max(1, len(right) // 3)
    return read[order[-third:]].double().mean() - read[order[:third]].double().mean()


def related(run: Run, name: str) -> Samples:
    """What the probe reads more in the best than in the worst states, over the training with both kinds of items."""
    found = {look: trained(run, look) for look in LOOKS}

    def one(seed: int) -> OneSeed:
        index = run.seeds.index(seed)
        right_in, read_in = (torch.cat([found[look].seen[what][index] for look in LOOKS]) for what in ("right", name))
        errors = 1 - right(found["attributes"].models[index], prompts(run, "attributes", seed))[-READ:]
        order = right_in.argsort()
        return OneSeed(
            values=between(right_in, read_in).expand(len(errors)),
            errors=errors,
            zero_errors=torch.full_like(errors, 1 - 1 / VALUES),
            curves={
                "answers are right": (range(1, len(order) + 1), right_in[order]),
                f"attribute is read {'after one layer' if name == EARLY else 'after two layers'}": (
                    range(1, len(order) + 1),
                    read_in[order],
                ),
            },
        )

    return over_seeds(run, one)


@claim(
    "In-context learning goes with the component of the context: the states that learn best are those it is read from.",
    threshold=0.2,
    direction="above",
    kind="trained",
    spread="seeds",
    why="three tenths of the way from guessing among three attributes to being sure, between the third of the states "
    "whose answers are right most often and the third whose are least",
    expected="undecided",
    tried="600 steps of three seeds, in each of which the best states are read from more often than the worst; the "
    "difference is between 0.14 and 0.40",
    leaves_out="single answers: in a first run, with another probe, which prompts were answered rightly had little to "
    "do with which were read rightly",
    axes=Axes(x="states of training, by how often answers are right", y="share"),
)
def relation(run: Run) -> Samples:
    """Read after the second layer."""
    return related(run, "in context")


@relation.reference("Bayes' rule after ten examples, beside Bayes' rule before any")
def relation_exact(run: Run) -> Samples:
    """How often the likeliest attribute is the one."""
    learner = task("attributes").oracle()
    assert isinstance(learner, AttributePosterior)

    def one(seed: int) -> OneSeed:
        drawn = prompts(run, "attributes", seed).select(torch.arange(READ))
        read = learner.attributes(drawn)[:, -1].argmax(1) == drawn.latents["attribute"]
        return OneSeed(values=read.double() - CHANCE)

    return over_seeds(run, one)


@relation.control("read after the first layer, where examples have not been compared with each other yet, it is not")
def relation_before(run: Run) -> Samples:
    """The same probe and the same states."""
    return related(run, EARLY)


def learned(run: Run, look: Look, *, exact: bool = False, figure: bool = False) -> Samples:
    """How often the deciding attribute is read after ten examples."""

    def one(seed: int) -> OneSeed:
        drawn, index = prompts(run, look, seed), run.seeds.index(seed)
        if exact:
            learner = task(look).oracle()
            assert isinstance(learner, AttributePosterior)
            kept = drawn.select(torch.arange(READ))
            read = learner.attributes(kept)[:, -1].argmax(1) == kept.latents["attribute"]
            return OneSeed(values=read.double())
        found = trained(run, look)
        read, said = in_context(found.models[index], drawn), right(found.models[index], drawn)[-READ:]
        items = "attributes" if look == "attributes" else "mixed items"
        names = {f"attribute is read, {items}": "in context", f"answers are right, {items}": "right"}
        return OneSeed(
            values=read,
            errors=1 - said,
            zero_errors=torch.full_like(said, 1 - 1 / VALUES),
            curves=lines(found, index, **names) if figure else {},
        )

    return over_seeds(run, one)


@claim(
    "A good component in the weights helps the one in the context: where attributes are there, it is learned sooner.",
    threshold=0.67,
    direction="above",
    kind="trained",
    spread="seeds",
    why="half of the way from guessing among three attributes to being sure, within 600 steps",
    expected="undecided",
    tried="600 steps, after which two seeds of three are past the threshold, and none with mixed items; answers are "
    "right from 0.80 to 0.97 with attributes, from 0.46 to 0.59 with mixed items",
    axes=OVER_STEPS,
)
def foundation(run: Run) -> Samples:
    """Items given as their attributes."""
    return learned(run, "attributes", figure=True)


@foundation.reference("Bayes' rule, for one who knows the items")
def foundation_exact(run: Run) -> Samples:
    """The likeliest attribute after ten examples."""
    return learned(run, "attributes", exact=True)


@foundation.control("where attributes have to be unmixed first, as many steps do not get so far")
def foundation_mixed(run: Run) -> Samples:
    """The same attributes, mixed by a fixed network."""
    return learned(run, "mixed", figure=True)


LENGTHS = (2, 4, 6, 8, SHOWN)


def constructed(run: Run, say: Callable[[Pairs], Tensor], name: str) -> Samples:
    """How often the query's label is right after ten examples, per Bayes' rule."""
    episodes = run.setting("episodes", smoke=512, cpu=4096)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(task("attributes"), episodes, seed=seed)
        best = task("attributes").oracle()
        assert isinstance(best, AttributePosterior)
        exact = (best.prequential(drawn).value.argmax(2) == drawn.y).double()
        ours = [(say(drawn.prefix(n + 1)).argmax(1) == drawn.y[:, n]).double() for n in LENGTHS]
        curves = {name: ours, "Bayes' rule": [exact[:, n] for n in LENGTHS]} if name else {}
        return OneSeed(
            values=ours[-1],
            per=exact[:, SHOWN],
            errors=1 - ours[-1],
            zero_errors=torch.full_like(ours[-1], 1 - 1 / VALUES),
            curves={label: (LENGTHS, torch.stack([one.mean() for one in line])) for label, line in curves.items()},
        )

    return over_seeds(run, one)


@claim(
    "With perfect attributes, a simple transformer that matches patterns and copies labels does nearly as well as any.",
    threshold=0.95,
    direction="above",
    why="a twentieth below Bayes' rule, which no transformer surpasses, however it was tuned",
    axes=Axes(x="examples", y="accuracy at the query"),
    leaves_out="shorter contexts, where its averages are too coarse to tell attributes apart",
)
def construction(run: Run) -> Samples:
    """Three layers of attention with weights set by hand."""
    model = match_and_copy(ATTRIBUTES, VALUES)
    return constructed(run, lambda p: model(p.x, p.y[:, :-1]), "match, check, copy")


@construction.reference("Bayes' rule itself")
def construction_exact(run: Run) -> Samples:
    """The ratio is one."""
    best = task("attributes").oracle()
    return constructed(run, lambda p: best.predict(p.prefix(p.time - 1), p.x[:, -1:]).value[:, 0], "")


@construction.control("copying from what matches most, without checking which attribute counts, does not")
def construction_unweighed(run: Run) -> Samples:
    """The last layer alone."""
    model = match_and_copy(ATTRIBUTES, VALUES, weighs=False)
    return constructed(run, lambda p: model(p.x, p.y[:, :-1]), "match, copy")
