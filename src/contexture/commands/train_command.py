"""`contexture train RECIPE`: train an in-context learner; its settings are the fields of the recipe's configuration."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contexture.commands.console import say
from contexture.commands.settings import parse
from contexture.errors import ContextureError, InputError, told

if TYPE_CHECKING:
    from contexture.training.config import TrainingConfig

LEARNER = "learner"
BARE = "+none"
"""What a layer of a pattern ends with where no feed-forward network follows the mixer."""
TABLES = "tables"

TRAIN_HELP = """\
usage: contexture train RECIPE --run-dir FOLDER [--resume] [--inexact] [--mixers A,B] [--set NAME=VALUE] [SETTINGS]

examples:
  contexture train linear-regression --run-dir runs/linear
  contexture train linear-regression --run-dir runs/linear --resume     go on after Ctrl-C or a crash, bit for bit
  contexture train sine --run-dir runs/sine --steps 3000 --mixers delta-rule,softmax
  contexture train linear-regression --mixers mine.py:MyMixer --run-dir runs/mine
  contexture train mqar --run-dir runs/mqar --mixers delta-rule --set vocabulary=64 --set num_pairs=8
  contexture train decision-pretraining --run-dir runs/darkroom --set environment=darkroom --set steps=100
  contexture train linear-regression --help                             every setting of the recipe

RECIPE        linear-regression, gaussian-bandit, darkroom, tables, or any synthetic task from `contexture list tasks`
--run-dir     the folder that keeps the run: checkpoints, the record, and at the end the learner
--resume      go on from the folder's last intact checkpoint
--inexact     resume on another machine or build, which is recorded
--mixers      the mixer of each layer; a single one is used for every layer
--set         a setting of the task itself
SETTINGS      fields of the recipe's configuration, such as --steps 500 --optimiser.rate 1e-3
"""


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="contexture train", add_help=False, allow_abbrev=False)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--inexact", action="store_true")
    parser.add_argument("--mixers")
    parser.add_argument("--set", action="append", default=[])
    return parser


def run(options: argparse.Namespace) -> int:
    """Train, or print the help of a recipe's settings."""
    if options.recipe in ("-h", "--help"):
        print(TRAIN_HELP)
        return 0
    if options.recipe is None or options.recipe.startswith("-"):
        raise InputError("say what to train, as in: contexture train linear-regression --run-dir runs/linear")
    own, rest = _own_options().parse_known_args(options.rest)
    if {"-h", "--help"} & set(rest):
        print(TRAIN_HELP)
    if options.recipe == TABLES:
        return _train_tables(own, rest)
    return _train_sequences(options.recipe, own, rest)


def _settings(default: Any, arguments: list[str], recipe: str) -> Any:
    """The recipe's configuration with the user's changes; bad ones are said by tyro, with exit status 2."""
    import tyro

    return tyro.cli(
        type(default),
        default=default,
        args=arguments,
        prog=f"contexture train {recipe}",
        config=(tyro.conf.AvoidSubcommands,),
    )


def _run_dir(own: argparse.Namespace) -> Path:
    if own.run_dir is None:
        raise InputError("say where the run is kept, with --run-dir FOLDER")
    folder: Path = own.run_dir
    if folder.is_file():
        raise InputError(f"{folder} is a file; give a folder for the run")
    return folder


def _train_sequences(recipe: str, own: argparse.Namespace, rest: list[str]) -> int:
    from contexture.learners.saved import save_learner
    from contexture.models.decisions import DecisionModel
    from contexture.models.pairs import PairsModelConfig
    from contexture.models.planning import PlanningModel
    from contexture.store.environment import environment
    from contexture.training.loop import train
    from contexture.training.progress import display

    config: TrainingConfig = _settings(_recipe(recipe, own.mixers, parse(own.set)), rest, recipe)
    over_pairs = isinstance(config.model, PairsModelConfig)
    folder = _run_dir(own)
    try:
        model = train(config, run_dir=folder, resume=own.resume, inexact=own.inexact, progress=display())
    except ContextureError:
        raise
    except Exception as fault:
        if own.mixers is None or ".py:" not in own.mixers:
            raise
        raise InputError(f"training {own.mixers} failed: {told(fault)}; see `contexture check mixers`") from fault
    if isinstance(model, DecisionModel | PlanningModel):
        return _publish_agent(config, folder)
    record = {"training": config.to_json(), "environment": environment(), "command": _command()}
    save_learner(
        folder / LEARNER,
        model,
        learner="in-context" if over_pairs else "in-context-tokens",
        task=config.task.name,
        config=config.model,
        step=config.steps,
        record=record,
    )
    beside = "ols,ridge" if over_pairs else ",".join(config.task.build().baselines())
    task = " ".join([config.task.name, *(f"--set {pair}" for pair in own.set)])
    say(f"trained; see how it does: contexture compare {task} --learners {beside},{folder / LEARNER}")
    return 0


def _publish_agent(config: "TrainingConfig", folder: Path) -> int:
    """Write a trained agent's folder and say how to let it act."""
    from contexture.tasks.decision_pretraining import DecisionPretraining
    from contexture.tasks.learning_histories import LearningHistories
    from contexture.training.publish import publish

    publish(folder, folder / LEARNER)
    task = config.task.build()
    assert isinstance(task, DecisionPretraining | LearningHistories)
    said = " ".join([task.environment, *(f"--set {name}={value}" for name, value in task.settings.items())])
    say(f"trained; see how it does: contexture compare {said} --agents random,{folder / LEARNER}")
    return 0


def _recipe(name: str, mixers: str | None, settings: Mapping[str, Any]) -> "TrainingConfig":
    """A named recipe, or a modest one for any registered synthetic task; `mixers` replaces the pattern of layers."""
    from contexture.discovery import find
    from contexture.models.backbone import BackboneConfig
    from contexture.models.decisions import DecisionModelConfig
    from contexture.models.pairs import PairsModelConfig
    from contexture.models.pattern import layers
    from contexture.models.planning import PlanningModelConfig
    from contexture.models.tokens import TokenModelConfig
    from contexture.training.config import TaskChoice
    from contexture.training.recipes import RECIPES, over_pairs, over_tokens, over_trajectories

    if name in RECIPES and not settings:
        config = RECIPES[name]()
    else:
        makers = {"pairs": over_pairs, "tokens": over_tokens, "trajectories": over_trajectories}
        config = makers[find(name, "tasks").card.episodes](TaskChoice(name=name, settings=settings))
    if mixers is not None:
        names = tuple(part.strip() for part in mixers.split(",") if part.strip())
        assert isinstance(config.model, PairsModelConfig | TokenModelConfig | DecisionModelConfig | PlanningModelConfig)
        backbone = config.model.backbone
        assert isinstance(backbone, BackboneConfig)
        before = layers(backbone.pattern)
        if all(layer.endswith(BARE) for layer in before):
            names = tuple(name if "+" in name else name + BARE for name in names)
        pattern = names * len(before) if len(names) == 1 else names
        changed = replace(config.model, backbone=replace(backbone, pattern=pattern, settings={}))
        config = replace(config, model=changed)
    return config


def _train_tables(own: argparse.Namespace, rest: list[str]) -> int:
    from dataclasses import asdict

    from contexture.learners.saved import save_learner
    from contexture.store.environment import environment
    from contexture.training.progress import display
    from contexture.training.tables import TableTrainingConfig, train_table_transformer

    if own.mixers or own.set:
        raise InputError("--mixers and --set do not apply to the table transformer")
    config = _settings(TableTrainingConfig(), rest, TABLES)
    folder = _run_dir(own)
    model = train_table_transformer(config, run_dir=folder, resume=own.resume, inexact=own.inexact, progress=display())
    record = {"training": asdict(config), "environment": environment(), "command": _command()}
    save_learner(
        folder / LEARNER,
        model,
        learner="table-transformer",
        task=TABLES,
        config=config.model,
        step=config.num_steps,
        record=record,
    )
    say(f"trained for {config.num_steps} steps; the learner is {folder / LEARNER}")
    return 0


def _command() -> str:
    import shlex

    return shlex.join(["contexture", *sys.argv[1:]])
