"""`contexture compare TASK --mixers A,B`: small models with these mixers, trained to stand beside other learners."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from contexture.commands.compare_recall import ALL, RUNS
from contexture.commands.console import say
from contexture.commands.own_mixers import refuse_the_future
from contexture.commands.settings import parse
from contexture.errors import InputError

if TYPE_CHECKING:
    from contexture.evaluation.per_seed import PerSeed
    from contexture.training.progress import Progress


def train(options: argparse.Namespace, *, num_seeds: int) -> "tuple[dict[str, PerSeed], dict[str, str]]":
    """One model of every mixer for each seed, and the mixers that failed with their reasons."""
    from contexture.discovery import registered
    from contexture.evaluation.ladder.cells import causal_mixers, entrants
    from contexture.evaluation.trained_mixers import train_mixers
    from contexture.training.config import TaskChoice

    if options.task not in registered("tasks") or options.task == "table":
        raise InputError(
            f"mixers are trained on registered synthetic tasks, and {options.task!r} is none: "
            "see `contexture list tasks`"
        )
    if options.tasks:
        raise InputError("--tasks names rungs of the recall ladder: contexture compare recall")
    if options.match:
        raise InputError("--match belongs to the recall ladder; here every mixer gets the same width")
    names = causal_mixers() if options.mixers == (ALL,) else list(options.mixers)
    stem = "-".join([options.task, options.budget, f"{num_seeds}-seeds", *options.set])
    folder = Path(options.run_dir) if options.run_dir else RUNS / stem
    refuse_the_future(names)
    return train_mixers(
        TaskChoice(name=options.task, settings=parse(options.set)),
        entrants(names),
        budget=options.budget,
        num_seeds=num_seeds,
        run_dir=folder,
        progress=_display,
    )


def _display(mixer: str) -> "Progress":
    from contexture.training.progress import display

    say(f"training {mixer}")
    return display()
