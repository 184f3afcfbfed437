"""Networks that learn to classify recurring items, watched: what comes from the context, what from the weights.

    items of 2,048 classes in bursts ─▶ two layers of attention, at every mark ─▶ accuracies, parts of an induction head

The network's second layer has a perceptron that classifies (`contexture.tasks.bursty_classification`); its head is read
from the attention weights (`contexture.probes.induction_head`).
Shapes: x [episodes, 9, 16], y [episodes, 9]; what is seen [members, marks].
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.claims.classification import Answers, answered, configurations, of_each, right
from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.claims.watched import Watched, watch
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.attention import attention_weights
from contexture.probes.induction_head import induction_strength, to_own_item
from contexture.randomness import generator
from contexture.tasks.bursty_classification import BurstyClassification

TASK = BurstyClassification(num_classes=2048, num_labels=32, burst=2)
NEW = replace(TASK, fresh=True)
EVERY, STEPS = 40, 1200
LOOKED_AT = 500
TWO_LAYERS, ONE_LAYER = "softmax+none softmax", "softmax"


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


def rise(curves: Float[Tensor, "seeds marks"], steps: Sequence[int]) -> Float[Tensor, " seeds"]:
    """The largest rise of each curve within a sixth of the training.

    >>> rise(torch.tensor([[0.0, 0.0, 0.5, 0.75, 1.0, 1.0, 1.0]]), range(7)).tolist()
    [0.5]
    """
    span = max(1, (len(steps) - 1) // 6)
    curves = curves.double()
    return (curves[:, span:] - curves[:, :-span]).amax(1)


def abruptly(run: Run, *, pattern: str, name: str) -> Samples:
    """The largest rise of the accuracy on new classes within a sixth of the training."""
    found = trained(run, TASK, pattern=pattern)
    seen = found.seen["context"]
    return of_each(
        run, found.models, rise(seen, found.steps), shown=TASK, curves=lambda index: {name: (found.steps, seen[index])}
    )


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


def precedes(run: Run, name: str, level: float) -> Samples:
    """When a measure reaches a level, per when accuracy on new classes has gone a fifth of its way."""
    found = trained(run, TASK)
    when, icl = found.first(name, level), found.first("context", 0.4).clamp(max=found.steps[-1])
    return of_each(run, found.models, when, shown=TASK, per=icl.clamp(min=1))
