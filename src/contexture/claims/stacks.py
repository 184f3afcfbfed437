"""Stacks of Mamba-2, attention and MLP layers of about one size, trained to look numbers up: for papers on hybrids.

    mixers and MLPs take turns; attention in place of some of four mixers ─▶ phone books ─▶ accuracy by entries

A table of positions is added to the embeddings of all stacks, and attention has none of its own, as in the recall
ladder. Widths are such that all have about 50,000 parameters. Shapes: shares [sequences].
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.recall import Recall, hits, train_recall
from contexture.claims.run import Run
from contexture.models.backbone import Backbone, BackboneConfig
from contexture.models.pattern import layers, read
from contexture.models.state import state_bytes
from contexture.models.tokens import TokenModel
from contexture.protocols import SequenceLearner, Tokens
from contexture.randomness import generator
from contexture.tasks.phonebook import Phonebook

NUM_MIXERS = 4
STATE_SIZE = 16
BOOK = Phonebook(num_letters=8, num_digits=8, num_entries=8, num_queries=4, name_length=2, number_length=2)
ENTRIES = (4, 5, 6, 7, 8)

Learners = Sequence[TokenModel | SequenceLearner]


def stack(attention: Collection[int], *, num_mixers: int = NUM_MIXERS) -> str:
    """Mamba-2 and MLP layers in turn, with attention in place of the mixers at these places, counted from 1.

    >>> stack([2], num_mixers=2)
    'mamba-2+none mlp softmax+none mlp'
    """
    names = ("softmax" if place in attention else "mamba-2" for place in range(1, num_mixers + 1))
    return " ".join(f"{name}+none mlp" for name in names)


def settings(pattern: str) -> dict[str, dict[str, Any]]:
    """What the mixers of a stack are built with."""
    mixers = frozenset().union(*(read(layer).mixers for layer in layers(pattern)))
    chosen: dict[str, dict[str, Any]] = {
        "mamba-2": {"state_size": STATE_SIZE},
        "softmax": {"positions": "none"},
    }
    return {name: chosen[name] for name in chosen if name in mixers}


def backbone(pattern: str, *, width: int) -> Backbone:
    """A stack with random weights, for what it costs."""
    config = BackboneConfig(pattern=pattern, width=width, num_heads=2, settings=settings(pattern))
    return Backbone(config, generator=generator("stack")).eval()


@torch.no_grad()
def kept(model: Backbone, stretches: Sequence[Tensor]) -> list[int]:
    """The bytes of a backbone's state after each of several stretches of vectors, [1, time, width] each."""
    state, found = model.init_state(1, device="cpu", dtype=torch.float32), []
    for stretch in stretches:
        _, state = model.stream(stretch, state)
        found.append(state_bytes(state))
    return found


def trained(run: Run, pattern: str, *, width: int, num_steps: int, task: Recall = BOOK) -> list[TokenModel]:
    """A model for each seed."""
    models = train_recall(
        run,
        pattern,
        task=task,
        num_steps=num_steps,
        width=width,
        settings=settings(pattern),
        smoke_steps=3,
    )
    sizes = run.settings.setdefault("parameters", {})
    sizes[pattern] = sum(parameter.numel() for parameter in models[0].parameters())
    return models


def fresh(run: Run, task: Recall, seed: int) -> Tokens:
    """Sequences that nobody was trained on, the same for all."""
    count = run.setting("sequences", smoke=128, cpu=256)
    drawn = task.sample(count, generator=run.generator(seed, "fresh", repr(task)))
    assert isinstance(drawn, Tokens)
    return drawn


def shares(run: Run, learners: Learners, task: Recall, seed: int) -> Tensor:
    """The share of what each fresh sequence asks that the seed's learner says rightly."""
    drawn = fresh(run, task, seed)
    return hits(learners[run.seeds.index(seed)], drawn).double().sum(1) / drawn.mask.sum(1)


def book(num_entries: int) -> Phonebook:
    """Phone books like those of the training, with so many entries.

    >>> book(6).num_entries, book(6).num_queries
    (6, 4)
    """
    return Phonebook(
        num_letters=BOOK.num_letters,
        num_digits=BOOK.num_digits,
        num_entries=num_entries,
        num_queries=BOOK.num_queries,
        name_length=BOOK.name_length,
        number_length=BOOK.number_length,
    )


def oracles(run: Run, task: Recall) -> Learners:
    """The task's oracle in place of every seed's model."""
    return [task.oracle()] * len(run.seeds)


def ahead(run: Run, ours: Learners, theirs: Learners, *, name: str, other: str = "", task: Recall = BOOK) -> Samples:
    """How much larger our share of right answers is than theirs, sequence by sequence.

    Both are drawn, over what `curve` says, where `other` names theirs.
    """

    def one(seed: int) -> OneSeed:
        said, beside = (shares(run, learners, task, seed) for learners in (ours, theirs))
        drawn = {name: ours, other: theirs} if other else {name: ours}
        return OneSeed(
            values=said - beside,
            errors=1 - said,
            zero_errors=said.new_full(said.shape, task.chance),
            curves={label: curve(run, learners, task, seed) for label, learners in drawn.items()},
        )

    return over_seeds(run, one)


def accuracy(run: Run, learners: Learners, *, name: str = "", task: Recall = BOOK) -> Samples:
    """The share of right answers, sequence by sequence; drawn over what `curve` says if there is a name."""

    def one(seed: int) -> OneSeed:
        said = shares(run, learners, task, seed)
        return OneSeed(
            values=said,
            errors=1 - said,
            zero_errors=said.new_full(said.shape, task.chance),
            curves={name: curve(run, learners, task, seed)} if name else {},
        )

    return over_seeds(run, one)


def curve(run: Run, learners: Learners, task: Recall, seed: int) -> tuple[Sequence[float], Tensor]:
    """The share of right answers over the entries of phone books, or over the places that a task asks for."""
    if isinstance(task, Phonebook):
        sizes = run.setting("entries", smoke=(4, 8), cpu=ENTRIES)
        found = [shares(run, learners, book(size), seed).mean() for size in sizes]
        return sizes, torch.stack(found)
    drawn = fresh(run, task, seed)
    right = hits(learners[run.seeds.index(seed)], drawn).double().mean(0)[drawn.mask.any(0)]
    return range(1, len(right) + 1), right
