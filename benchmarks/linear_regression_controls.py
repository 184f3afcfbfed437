"""Does the shipped transformer regress as well as Bayesian ridge regression, and do its controls fail to?

    python benchmarks/linear_regression_controls.py --runs runs/controls
    python benchmarks/linear_regression_controls.py --runs runs/controls --as-they-stand     # from their checkpoints

Excess error at n = mean over fresh prompts of (prediction after n examples - w.x)^2, against the target without noise.
A learner holds if its excess error is at most 1.3 times that of Bayesian ridge regression, which knows prior and noise,
at every n from 4 to 24. Controls: random weights, and the same run on permuted targets or on four known functions.
Runs in --runs are resumed; with --as-they-stand they are scored at the step they have reached, which the result states.
Writes results/linear_regression_transformer.json.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.evaluation.intervals import paired_ratio, wilson
from contexture.learners.classical.ols import OLS
from contexture.learners.in_context import InContext
from contexture.learners.saved import load_shipped
from contexture.models.pairs import PairsModel
from contexture.protocols import Learner, Pairs
from contexture.randomness import generator
from contexture.store.checkpoint import CheckpointStore
from contexture.store.environment import environment
from contexture.store.results import write_result
from contexture.tasks.linear_regression import LinearRegression
from contexture.training.config import TaskChoice, TrainingConfig
from contexture.training.loop import train
from contexture.training.progress import display
from contexture.training.recipes import linear_regression

BOUND = 1.3
JUDGED = range(4, 25)
OLS_WORSE = range(6, 12)
RESULT = Path(__file__).resolve().parent.parent / "results" / "linear_regression_transformer.json"
CONTROL_TASKS = {
    "shuffled-y": TaskChoice(name="shuffled-labels"),
    "four-tasks": TaskChoice(
        name="finite-linear-regression",
        settings={"num_features": 8, "num_points": 25, "noise": 0.5, "num_tasks": 4},
    ),
}


def controls(runs: Path, config: TrainingConfig, *, as_they_stand: bool) -> dict[str, tuple[int, Learner]]:
    """The untrained model, and one trained by the same recipe on each control's task, with the steps it has taken."""
    found = {"untrained": (0, config.build_model(generator=generator(config.seed, "model")))}
    for name, task in CONTROL_TASKS.items():
        folder, control = runs / name, replace(config, task=task)
        if as_they_stand:
            found[name] = _standing(folder, control)
        else:
            print(f"control {name}: {config.steps} steps in {folder}", file=sys.stderr)
            model = train(control, run_dir=folder, resume=folder.is_dir(), progress=display(sys.stderr))
            found[name] = (config.steps, model)
    return {name: (steps, _learner(model, name)) for name, (steps, model) in found.items()}


def _standing(folder: Path, config: TrainingConfig) -> tuple[int, nn.Module]:
    """The steps a run has taken and the model of its last checkpoint; InputError for another run's folder."""
    checkpoint = CheckpointStore(folder).latest()
    if checkpoint is None or checkpoint.state["configurations"] != [config.to_json()]:
        raise InputError(f"{folder} holds no checkpoint of this control: train it without --as-they-stand")
    model = config.build_model(generator=generator(config.seed, "model"))
    model.load_state_dict(checkpoint.expect("model", model.state_dict()))
    return checkpoint.step, model


def _learner(model: nn.Module, name: str) -> Learner:
    assert isinstance(model, PairsModel)
    return InContext(model.eval(), name=name)


def errors(learner: Learner, episodes: Pairs, *, batch: int = 1024) -> Tensor:
    """Squared distance to the noiseless target, [1, prompts, points]: one seed, as the intervals want it."""
    assert episodes.clean is not None
    parts = [episodes.select(part) for part in torch.split(torch.arange(episodes.batch), batch)]
    mean = torch.cat([learner.prequential(part).value for part in parts])
    return (mean - episodes.clean).square().unsqueeze(0)


def measure(found: Mapping[str, Tensor], *, seed: int) -> dict[str, Any]:
    """Ratios to Bayesian ridge regression, with paired bootstrap intervals over prompts."""
    learners = {}
    for name, error in found.items():
        ratio = paired_ratio(error, found["bayes-ridge"], generator=generator(seed, "bootstrap", name))
        held = bool((ratio.high[JUDGED.start :] <= BOUND).all())
        missed = bool((ratio.low[JUDGED.start :] > BOUND).any())
        learners[name] = {
            "excess": error.mean((0, 1)).tolist(),
            "ratio": ratio.value.tolist(),
            "low": ratio.low.tolist(),
            "high": ratio.high.tolist(),
            "worst": float(ratio.value[JUDGED.start :].max()),
            "verdict": "held" if held else "not held" if missed else "undecided",
        }
    return learners


def ols_worse(found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Around n = d: median errors, and on which share of prompts least squares is the worse of the two."""
    rows = []
    for n in OLS_WORSE:
        row: dict[str, Any] = {"n": n, "median": {name: float(found[name][0, :, n].median()) for name in found}}
        for name in ("bayes-ridge", "transformer"):
            worse = (found["ols"][0, :, n] > found[name][0, :, n]).sum().item()
            low, high = wilson(worse, found["ols"].shape[1])
            row[f"worse than {name}"] = {"share": worse / found["ols"].shape[1], "low": low, "high": high}
        rows.append(row)
    return rows


def table(learners: Mapping[str, Mapping[str, Any]]) -> str:
    """Excess error over that of Bayesian ridge regression, a row for each n."""
    names = list(learners)
    lines = ["  n  " + "".join(f"{name:>26}" for name in names)]
    for n in range(len(learners[names[0]]["ratio"])):
        cells = (f"{row['ratio'][n]:.3f} [{row['low'][n]:.3f}, {row['high'][n]:.3f}]" for row in learners.values())
        lines.append(f"{n:>3}  " + "".join(f"{cell:>26}" for cell in cells))
    lines.append("     " + "".join(f"{row['verdict']:>26}" for row in learners.values()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where the controls are trained, or stand trained")
    parser.add_argument("--prompts", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=1, help="of the fresh prompts")
    parser.add_argument("--as-they-stand", action="store_true", help="score the controls' last checkpoints")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)

    config, task = linear_regression(), LinearRegression(num_features=8, num_points=25, noise=0.5)
    episodes = task.sample(options.prompts, generator=generator(options.seed, "fresh prompts"))
    trained = controls(options.runs, config, as_they_stand=options.as_they_stand)
    contestants: dict[str, Learner] = {
        "bayes-ridge": task.oracle(),
        "ols": OLS(),
        "transformer": load_shipped("linear-regression"),
        **{name: learner for name, (_, learner) in trained.items()},
    }
    found = {name: errors(learner, episodes) for name, learner in contestants.items()}
    learners = measure(found, seed=options.seed)
    print(table(learners))
    around = ols_worse(found)
    for row in around:
        medians = ", ".join(f"{name} {value:.3f}" for name, value in row["median"].items())
        share = row["worse than transformer"]["share"]
        print(f"n {row['n']}: median errors {medians}; least squares worse than the transformer on {share:.1%}")
    document = {
        "task": {"name": task.card.name, "num_features": 8, "num_points": 25, "noise": 0.5},
        "question": f"excess error at most {BOUND} times that of Bayesian ridge regression at n from 4 to 24",
        "prompts": options.prompts,
        "seed": options.seed,
        "interval": "95 % percentile bootstrap over prompts, paired",
        "learners": learners,
        "least squares around n = d": around,
        "training": {
            "transformer": {"steps": config.steps, "of": config.steps, "batch": config.batch},
            **{
                name: {"steps": steps, "of": config.steps, "batch": config.batch}
                for name, (steps, _) in trained.items()
            },
        },
        "command": f"python benchmarks/{Path(__file__).name} --runs FOLDER"
        + " --as-they-stand" * options.as_they_stand,
        "environment": environment(),
    }
    write_result(options.output, document)


if __name__ == "__main__":
    main()
