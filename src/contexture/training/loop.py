"""The training loop: one step for a model, or for a cohort of them, until the steps are done.

    episodes(seed, step) ─▶ loss per member ─▶ gradient, clipped per member ─▶ optimiser, rate per member

Everything random in step s is drawn from generators of the address (seed, "train", s, block), so a run is a function of
its configuration, and what has to be saved is weights, the optimiser's state and the number of the step. A run resumed
after a kill ends in the same bits on the same machine, builds and number of threads.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from contexture.errors import CheckpointError, ContextureError, InputError
from contexture.randomness import generator
from contexture.store.atomic import DISK, Disk
from contexture.store.checkpoint import Checkpoint, CheckpointStore
from contexture.store.environment import environment, same_for_resume
from contexture.store.record import RunRecord
from contexture.training.cohort import clip_gradients, member_parameters, share_gradients, stack, unstack
from contexture.training.config import TrainingConfig
from contexture.training.episodes import draw
from contexture.training.interrupts import Interrupted, Interrupts
from contexture.training.losses import losses, mean_losses
from contexture.training.optimiser import MemberOptimiser
from contexture.training.precision import autocast
from contexture.training.progress import Progress, Silent
from contexture.training.schedule import factor

RECORD = "record.jsonl"


class Stepped(NamedTuple):
    """What one step says of every member: the loss before the update and the gradient's norm before clipping."""

    losses: list[float]
    norms: list[float]


class Trainer:
    """K models (often one) with their optimiser, in memory alone.

    `configs` may differ in seed, optimiser and its rates; everything else is shared. Raises InputError otherwise.

    >>> from contexture.models.backbone import BackboneConfig
    >>> from contexture.models.pairs import PairsModelConfig
    >>> from contexture.training.config import TaskChoice
    >>> model = PairsModelConfig(num_features=8, backbone=BackboneConfig(pattern="softmax", width=8, num_heads=2))
    >>> trainer = Trainer([TrainingConfig(task=TaskChoice(name="linear-regression"), model=model, steps=1)])
    >>> len(trainer.step(0).losses)
    1
    """

    def __init__(self, configs: Sequence[TrainingConfig]) -> None:
        self.configs = tuple(configs)
        self.config = self.configs[0]
        for index, config in enumerate(self.configs):
            if _shape(config) != _shape(self.config):
                raise InputError(f"member {index} of the cohort differs from member 0 in more than seed and rates")
        self.task = self.config.task.build()
        models = [config.build_model(generator=generator(config.seed, "model")) for config in self.configs]
        self.model = models[0] if len(models) == 1 else stack(models)
        self.members = member_parameters(self.model)
        self.optimiser = MemberOptimiser(self.members, [config.optimiser for config in self.configs])

    def step(self, step: int) -> Stepped:
        """Take step number `step`, counted from 0."""
        config = self.config
        self.model.train()
        self.model.zero_grad(set_to_none=True)
        total = torch.zeros(len(self.configs), dtype=config.dtype)
        blocks = config.batch // config.block // config.accumulation
        for part in range(config.accumulation):
            means = self._losses("train", step, range(part * blocks, (part + 1) * blocks)) / config.accumulation
            torch.autograd.backward(means.sum())
            total += means.detach()
        norms = clip_gradients(self.model, config.clip)
        share_gradients(self.model, self.members)
        self.optimiser.step(factor(config.schedule, step, steps=config.steps))
        return Stepped(total.tolist(), norms.tolist())

    @torch.no_grad()
    def evaluate(self, step: int) -> list[list[float]]:
        """Every member's mean loss at each position, over fresh episodes that no training step draws."""
        self.model.eval()
        sums, counts = [], []
        for block in range(math.ceil(self.config.evaluation_episodes / self.config.block)):
            values, weights = self._values("evaluate", step, range(block, block + 1))
            sums.append((values * weights).sum(1))
            counts.append(weights.sum(1))
        curves: list[list[float]] = (_added(sums) / _added(counts)).tolist()
        return curves

    def plain_models(self) -> list[nn.Module]:
        """Every member as a plain model."""
        if len(self.configs) == 1:
            return [self.model]
        return [unstack(self.model, member) for member in range(len(self.configs))]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All that a checkpoint holds, by group: each member's weights and optimiser state, as a plain model's."""
        groups: dict[str, dict[str, Tensor]] = {}
        for member, parameters in enumerate(self.members):
            groups[self._group("model", member)] = {name: value.detach() for name, value in parameters.items()}
            groups[self._group("optimiser", member)] = self.optimiser.state(member)
        return groups

    def load(self, checkpoint: Checkpoint) -> None:
        """Take back what `tensors` gave; CheckpointError if the weights are another model's."""
        for member, parameters in enumerate(self.members):
            held = checkpoint.expect(self._group("model", member), parameters)
            with torch.no_grad():
                for name, value in parameters.items():
                    value.copy_(held[name])
            self.optimiser.load_state(member, checkpoint.tensors[self._group("optimiser", member)])

    def _group(self, name: str, member: int) -> str:
        return name if len(self.configs) == 1 else f"{name}-{member}"

    def _losses(self, purpose: str, step: int, blocks: range) -> Tensor:
        with autocast(self.config.precision):
            return mean_losses(*self._values(purpose, step, blocks))

    def _values(self, purpose: str, step: int, blocks: range) -> tuple[Tensor, Tensor]:
        seeds = [config.seed for config in self.configs]
        episodes = draw(
            self.task,
            seeds=seeds,
            purpose=purpose,
            step=step,
            blocks=blocks,
            block=self.config.block,
            dtype=self.config.dtype,
        )
        # One draw for all members, whatever their seeds: a looped cohort takes its loops together.
        lesson = generator("lesson", step, blocks.start) if self.model.training else None
        return losses(self.model, episodes, members=len(seeds), generator=lesson)


@dataclass(slots=True)
class _Clock:
    """Seconds of the wall and of the processor that a run has taken, over all its sittings."""

    wall: float = 0.0
    processor: float = 0.0

    def __post_init__(self) -> None:
        self.wall -= time.monotonic()
        self.processor -= time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "wall_seconds": round(self.wall + time.monotonic(), 3),
            "processor_seconds": round(self.processor + time.process_time(), 3),
        }


class _Run:
    """A trainer with a folder: checkpoints, record, clock."""

    def __init__(self, trainer: Trainer, store: CheckpointStore, record: RunRecord, progress: Progress) -> None:
        self.trainer, self.store, self.record, self.progress = trainer, store, record, progress
        self.configs = [config.to_json() for config in trainer.configs]
        self.clock = _Clock()
        self.step, self.saved = 0, -1
        self.inexact: list[str] = []

    def begin(self) -> None:
        """A run from nothing. Its first checkpoint is written before the first step, so it can always be resumed."""
        self.record.append(
            {"event": "started", "step": 0, "configurations": self.configs, "environment": environment()}
        )
        self.save()

    def go_on(self, checkpoint: Checkpoint, *, inexact: bool) -> None:
        """Take a run up where its last intact checkpoint left it."""
        if checkpoint.state["configurations"] != self.configs:
            raise InputError(
                f"{self.store.run_dir} holds a run with other settings: use those, or choose another folder"
            )
        if not inexact:
            checkpoint.require_same_environment()
        differences = same_for_resume(checkpoint.environment, environment())
        self.inexact = [*checkpoint.state["inexact"], *(f"step {checkpoint.step}: {text}" for text in differences)]
        self.trainer.load(checkpoint)
        self.clock = _Clock(checkpoint.state["wall_seconds"], checkpoint.state["processor_seconds"])
        self.step = self.saved = checkpoint.step
        self.store.discard_after(checkpoint.step)
        self.record.resumed(checkpoint.step)
        if differences:
            self.record.append({"event": "inexact", "step": self.step, "differences": differences})

    def work(self) -> None:
        """Take every step that is left."""
        config = self.trainer.config
        with Interrupts() as interrupts:
            while self.step < config.steps:
                self._step()
                if self.step % config.evaluate_every == 0 or self.step == config.steps:
                    self.record.append(
                        {"event": "evaluated", "step": self.step, "curves": self.trainer.evaluate(self.step)}
                    )
                if self.step % config.checkpoint_every == 0 or self.step == config.steps:
                    self.save()
                if interrupts.requested and self.step < config.steps:
                    self._stop_here()
        self.record.append({"event": "finished", "step": self.step, "inexact": self.inexact, **self.clock.read()})

    def save(self) -> None:
        """Write a checkpoint of this very step, unless it stands already."""
        if self.saved == self.step:
            return
        state = {"configurations": self.configs, "inexact": self.inexact, **self.clock.read()}
        self.record.flush()
        self.store.save(self.step, self.trainer.tensors(), state)
        self.saved = self.step

    def _step(self) -> None:
        stepped = self.trainer.step(self.step)
        self.step += 1
        for member, loss in enumerate(stepped.losses):
            if not loss < float("inf"):
                which = f" of member {member}" if len(stepped.losses) > 1 else ""
                raise ContextureError(f"the loss{which} became {loss} at step {self.step}: lower the learning rate")
        self.progress.advance(self.step, sum(stepped.losses) / len(stepped.losses))
        if self.step % self.trainer.config.log_every == 0:
            line = {"event": "step", "step": self.step, "losses": stepped.losses, "norms": stepped.norms}
            self.record.append({**line, **self.clock.read()}, durable=False)

    def _stop_here(self) -> None:
        self.save()
        self.record.append({"event": "interrupted", "step": self.step, **self.clock.read()})
        raise Interrupted(
            f"interrupted at step {self.step}, saved in {self.store.run_dir}: the same command and --resume go on"
        )


def train(
    config: TrainingConfig,
    *,
    run_dir: str | Path,
    resume: bool = False,
    inexact: bool = False,
    progress: Progress | None = None,
    disk: Disk = DISK,
) -> nn.Module:
    """Train one model in `run_dir` and return it; the last checkpoint there holds its weights.

    `resume` goes on from the folder's last intact checkpoint, bit for bit as if nothing had happened; `inexact` allows
    it on another machine, build or number of threads, which is then recorded. Raises InputError for a folder that
    holds another run, CheckpointError where a run cannot be resumed, Interrupted after Ctrl-C, once all is saved.
    """
    return train_cohort([config], run_dir=run_dir, resume=resume, inexact=inexact, progress=progress, disk=disk)[0]


def train_cohort(
    configs: Sequence[TrainingConfig],
    *,
    run_dir: str | Path,
    resume: bool = False,
    inexact: bool = False,
    progress: Progress | None = None,
    disk: Disk = DISK,
) -> list[nn.Module]:
    """Train models that differ in seed and learning rate as one, as `train` does; each is what it would be alone."""
    run_dir, progress = Path(run_dir), Silent() if progress is None else progress
    store = CheckpointStore(run_dir, disk=disk, report=progress.note)
    if resume and not run_dir.is_dir():
        raise CheckpointError(f"there is no run to resume in {run_dir}")
    if not resume and ((run_dir / RECORD).exists() or store.steps()):
        raise InputError(f"{run_dir} holds a run already: resume it, or choose another folder")
    trainer = Trainer(configs)
    with RunRecord(run_dir / RECORD, disk=disk, report=progress.note) as record:
        store.recover()
        run = _Run(trainer, store, record, progress)
        checkpoint = store.latest()
        if checkpoint is None:
            run.begin()
        else:
            run.go_on(checkpoint, inexact=inexact)
        progress.start(steps=trainer.config.steps, done=run.step)
        try:
            run.work()
        finally:
            progress.stop()
    return trainer.plain_models()


def _added(parts: Sequence[Tensor]) -> Tensor:
    """The sum of [members, time] over blocks, whose episodes may be of different lengths."""
    longest = max(part.shape[1] for part in parts)
    return torch.stack([pad(part, (0, longest - part.shape[1])) for part in parts]).sum(0)


def _shape(config: TrainingConfig) -> Mapping[str, Any]:
    """A configuration without what members of a cohort may differ in."""
    optimiser = replace(config.optimiser, name="adamw", rate=1.0, matrix_rate=1.0)
    return replace(config, seed=0, optimiser=optimiser).to_json()
