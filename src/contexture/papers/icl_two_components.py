r"""How does representation impact in-context learning: an exploration on a synthetic task (Fu et al. 2023).

Items have three attributes of three values; one attribute, which nobody names, decides the label, whose names are
drawn anew in every context (`contexture.tasks.hidden_attribute`). What a transformer's hidden vectors hold is asked by
two linear probes:

    in weights   the attributes' values, from an item without a context, of items that the probe was not fitted on
    in context   which attribute decides, from the last item's vector after the last layer

Items are given as their attributes (the component in the weights is perfect before any training) or mixed by a fixed
network. The construction is `contexture.models.match_and_copy`. Transformers have three layers of width 32.
Shapes: x [episodes, 11, 9], y [episodes, 11]; hidden vectors [episodes, width].
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from contexture.claims.classification import right
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.watched import Watched, watch
from contexture.learners.oracles.attribute_posterior import AttributePosterior, attribute_values
from contexture.models.backbone import BackboneConfig
from contexture.models.match_and_copy import match_and_copy
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.hidden import hidden_states
from contexture.probes.linear import LinearProbe
from contexture.protocols import Pairs
from contexture.randomness import generator
from contexture.tasks.draws import class_schema
from contexture.tasks.hidden_attribute import HiddenAttribute, Look
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

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
STEPS, EVERY = 600, 50
FITTED, READ = 1500, 500
CHANCE = 1 / ATTRIBUTES
FEW = 4
"""After so many examples it is often still open which attribute decides."""


def task(look: Look) -> HiddenAttribute:
    """Ten examples and a query."""
    return HiddenAttribute(num_attributes=ATTRIBUTES, num_values=VALUES, num_points=SHOWN + 1, look=look)


def in_context(model: PairsModel, drawn: Pairs, *, layer: int = -1) -> Tensor:
    """Whether the deciding attribute is read from the last item, by a probe fitted on all but the last `READ`."""
    h = hidden_states(model, drawn)[layer]
    last = h[:, -1] if h.shape[1] == drawn.time else h[:, -2]
    attribute = drawn.latents["attribute"]
    probe = LinearProbe.fit(last[:-READ], attribute[:-READ], num_classes=ATTRIBUTES)
    return (probe(last[-READ:]) == attribute[-READ:]).double()


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
            probe = LinearProbe.fit(h[~left_out], own[~left_out], num_classes=VALUES, penalty=1e-2)
            hits.append((probe(h[left_out]) == own[left_out]).double())
    return torch.cat(hits)


def looking(look: Look) -> Callable[[list[PairsModel]], dict[str, Tensor]]:
    """What is seen at every mark: how often the query's label is right, and what both probes read."""
    drawn = task(look).sample(FITTED + READ, generator=generator("look", "hidden attribute"))

    def seen(models: list[PairsModel]) -> dict[str, Tensor]:
        found = {
            "right": [right(model, drawn).mean() for model in models],
            "in context": [in_context(model, drawn).mean() for model in models],
            "in weights": [in_weights(model, look).mean() for model in models],
        }
        return {name: torch.stack(values) for name, values in found.items()}

    return seen


def trained(run: Run, look: Look) -> Watched[PairsModel]:
    """A transformer for each seed, watched."""
    steps, every = run.setting("training steps", smoke=3, cpu=STEPS), run.setting("between marks", smoke=3, cpu=EVERY)
    run.settings["training"] = "batches of 64 contexts, Muon at 0.02"
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
    configs = [
        TrainingConfig(
            task=TaskChoice(name=shape.card.name, settings=asdict(shape)),
            model=PairsModelConfig(num_features=shape.num_features, num_classes=VALUES, backbone=backbone),
            optimiser=OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02),
            schedule=ScheduleConfig(shape="linear", warm_up=50, hold=0.5),
            steps=steps,
            batch=64,
            block=64,
            seed=seed,
        )
        for seed in run.seeds
    ]
    return watch(run, configs, kind=PairsModel, every=every, look=looking(look))


def lines(found: Watched[PairsModel], index: int, **names: str) -> dict[str, tuple[Sequence[float], Tensor]]:
    """What was seen of one member, under names for the figure."""
    return {label.replace("_", " "): (found.steps, found.seen[name][index]) for label, name in names.items()}


def prompts(run: Run, look: Look, seed: int, *, shown: int) -> Pairs:
    """Contexts of a seed with so many examples and a query: some for fitting a probe, `READ` for reading."""
    fitted = run.setting("prompts fitted", smoke=FITTED, cpu=4 * FITTED)
    return run.sample(task(look), fitted + READ, seed=seed).prefix(shown + 1)


def together(first: Tensor, second: Tensor) -> Tensor:
    """Products of two columns in units of their spreads: their mean is the correlation; zeros without a spread."""
    parts = [(one - one.mean()) / one.std(correction=0).clamp(min=1e-9) for one in (first, second)]
    return parts[0] * parts[1]


OVER_STEPS = Axes(x="training steps", y="share")


def related(run: Run, *, layer: int) -> Samples:
    """How a query's answer being right goes with its context's attribute being read, over prompts of four examples."""
    found = trained(run, "attributes")

    def one(seed: int) -> OneSeed:
        index = run.seeds.index(seed)
        drawn = prompts(run, "attributes", seed, shown=FEW)
        said, read = right(found.models[index], drawn)[-READ:], in_context(found.models[index], drawn, layer=layer)
        named = {"query's_label_is_right": "right", "deciding_attribute_is_read": "in context"}
        return OneSeed(
            values=together(said, read),
            errors=1 - said,
            zero_errors=torch.full_like(said, 1 - 1 / VALUES),
            curves=lines(found, index, **named) if layer else {},
        )

    return over_seeds(run, one)


@claim(
    "In-context learning goes with the component of the context: answers are right where the probe reads it rightly.",
    threshold=0.15,
    direction="above",
    kind="trained",
    why="half of the correlation, 0.3, between Bayes' rule being right about the label and about the attribute",
    axes=OVER_STEPS,
)
def relation(run: Run) -> Samples:
    """Read after the last layer; the figure follows both through the training."""
    return related(run, layer=-1)


@relation.reference("Bayes' rule in the places of the transformer and of the probe")
def relation_exact(run: Run) -> Samples:
    """The likeliest attribute, and the likeliest label."""
    learner = task("attributes").oracle()
    assert isinstance(learner, AttributePosterior)

    def one(seed: int) -> OneSeed:
        drawn = prompts(run, "attributes", seed, shown=FEW).select(torch.arange(READ))
        said = learner.prequential(drawn).value[:, -1].argmax(1) == drawn.y[:, -1]
        read = learner.attributes(drawn)[:, -1].argmax(1) == drawn.latents["attribute"]
        return OneSeed(values=together(said.double(), read.double()))

    return over_seeds(run, one)


@relation.control("read before the first layer, where no context has come in, it does not")
def relation_before(run: Run) -> Samples:
    """The same probe on the query's embedding."""
    return related(run, layer=0)


def learned(run: Run, look: Look, *, exact: bool = False, figure: bool = False) -> Samples:
    """How often the deciding attribute is read after ten examples."""

    def one(seed: int) -> OneSeed:
        drawn, index = prompts(run, look, seed, shown=SHOWN), run.seeds.index(seed)
        if exact:
            learner = task(look).oracle()
            assert isinstance(learner, AttributePosterior)
            kept = drawn.select(torch.arange(READ))
            read = learner.attributes(kept)[:, -1].argmax(1) == kept.latents["attribute"]
            return OneSeed(values=read.double())
        found = trained(run, look)
        read, said = in_context(found.models[index], drawn), right(found.models[index], drawn)[-READ:]
        items = "attributes" if look == "attributes" else "mixed items"
        names = {f"in context, {items}": "in context", f"in weights, {items}": "in weights"}
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
