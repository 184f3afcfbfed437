"""Training the in-context learner for tables on the synthetic prior.

    loss      cross-entropy of the queries' classes, and of the bins of their z-scored targets
    update    Muon (Jordan et al. 2024) on the layers' matrices, AdamW on everything else
    rate      warm-up, then constant; from `decay_from` on it falls linearly to zero at `num_steps`
    weights   an exponential average of the weights is what predicts

The tables of step s come from the address (seed, "tables", "train", s), so a run is a function of its configuration and
what has to be saved is weights, their average, the optimisers' state and counters. A run that is to go on later keeps a
constant rate; `decay` branches off it into a folder of its own, and the branch's averaged weights ship.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from contexture.errors import CheckpointError, ContextureError, InputError
from contexture.models.table_bins import bin_index
from contexture.models.table_encoding import measure_columns, z_scores
from contexture.models.table_transformer import TableTransformer, TableTransformerConfig, num_tokens
from contexture.randomness import generator
from contexture.store.atomic import DISK, Disk
from contexture.store.checkpoint import Checkpoint, CheckpointStore, write_checkpoint
from contexture.store.environment import environment
from contexture.store.record import RunRecord
from contexture.tasks.tabular_prior import TableBatch, TabularPrior
from contexture.training.interrupts import Interrupted, Interrupts
from contexture.training.precision import Precision, autocast
from contexture.training.progress import Progress, Silent

RECORD = "record.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class TableTrainingConfig:
    """Settings of a run; `decay_from` is the step at which the rate starts to fall, None while it is constant.

    cells_per_step: tokens of all tables of a step, thinking rows included; average: the share of the past in the
    averaged weights.
    """

    model: TableTransformerConfig = field(default_factory=TableTransformerConfig)
    prior: TabularPrior = field(default_factory=TabularPrior)
    num_steps: int = 6_000
    decay_from: int | None = None
    cells_per_step: int = 12_000
    min_tables: int = 6
    muon_rate: float = 0.012
    adamw_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 150
    regression_weight: float = 0.7
    average: float = 0.998
    seed: int = 0
    precision: Precision = "auto"
    checkpoint_every: int = 200
    report_every: int = 50
    validate_every: int = 1_000
    validation_batches: int = 24

    @property
    def shape(self) -> Mapping[str, Any]:
        """What must be the same for one run to go on from another's state: the model."""
        return asdict(self.model)


def draw_batch(config: TableTrainingConfig, step: int, *, stream: str = "train") -> TableBatch:
    """The tables of one step: one shape, as many tables as the budget of tokens allows."""
    source = generator(config.seed, "tables", stream, step)
    num_context, num_queries, num_columns = config.prior.sample_shape(generator=source)
    tokens = (num_context + num_queries + config.model.num_thinking) * num_tokens(num_columns)
    batch = max(config.min_tables, config.cells_per_step // tokens)
    return config.prior.sample(
        batch, num_context=num_context, num_queries=num_queries, num_columns=num_columns, generator=source
    )


def table_losses(model: TableTransformer, batch: TableBatch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every query: of classes seen in the context, and of the bins of a regression's target."""
    shown, asked = batch.y[:, : batch.num_context], batch.y[:, batch.num_context :]
    output = model(batch.x, shown, categorical=batch.categorical, num_classes=batch.num_classes)
    is_class = (batch.num_classes > 0)[:, None].expand_as(asked)
    seen = (asked[:, :, None] == shown[:, None]).any(dim=2) & is_class
    class_loss = functional.cross_entropy(output.class_logits[seen], asked[seen].long(), reduction="none")
    z = z_scores(asked[..., None], measure_columns(shown[..., None])).squeeze(2)
    bins = bin_index(z[~is_class])
    return class_loss, functional.cross_entropy(output.bin_logits[~is_class], bins, reduction="none")


@torch.no_grad()
def validation_losses(model: TableTransformer, config: TableTrainingConfig) -> dict[str, float]:
    """Mean losses over fixed batches of the prior that no step trains on."""
    parts = []
    for index in range(config.validation_batches):
        parts.append(table_losses(model, draw_batch(config, index, stream="validation")))
    classes, bins = (torch.cat(column).mean().item() for column in zip(*parts, strict=True))
    return {"validation_class_loss": round(classes, 5), "validation_bin_loss": round(bins, 5)}


class TableTrainer:
    """The state of a run in memory: weights, their average, optimisers, counters."""

    def __init__(self, config: TableTrainingConfig) -> None:
        self.config = config
        self.model = TableTransformer(config.model, generator=generator(config.seed, "tables", "init"))
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            (matrices if name.startswith("layers.") and parameter.dim() == 2 else rest).append(parameter)
        decay = config.weight_decay
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(matrices, lr=config.muon_rate, weight_decay=decay),
            "adamw": torch.optim.AdamW(rest, lr=config.adamw_rate, betas=(0.9, 0.98), weight_decay=decay),
        }
        self.step = 0
        self.num_tables = 0

    def rate_factor(self) -> float:
        """Warm-up, constant, and from `decay_from` on linearly to zero at `num_steps`."""
        factor = min(1.0, (self.step + 1) / self.config.warmup_steps)
        start = self.config.decay_from
        if start is not None and self.step >= start:
            factor *= max(0.0, (self.config.num_steps - self.step) / (self.config.num_steps - start))
        return factor

    def train_step(self) -> tuple[float, float]:
        """One update; returns the mean losses of classes and of bins (nan where the batch had none)."""
        factor = self.rate_factor()
        for name, rate in (("muon", self.config.muon_rate), ("adamw", self.config.adamw_rate)):
            self.optimisers[name].zero_grad(set_to_none=True)
            for group in self.optimisers[name].param_groups:
                group["lr"] = rate * factor
        batch = draw_batch(self.config, self.step)
        with autocast(self.config.precision):
            classes, bins = table_losses(self.model, batch)
        loss = (classes.sum() + self.config.regression_weight * bins.sum()) / (classes.numel() + bins.numel())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers.values():
            optimiser.step()
        self.step += 1
        self.num_tables += batch.x.shape[0]
        keep = min(self.config.average, 1 - 1 / (self.step + 1))
        current = [parameter.detach() for parameter in self.model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - keep)
        mean = [part.detach().mean().item() if part.numel() else math.nan for part in (classes, bins)]
        return mean[0], mean[1]

    def averaged(self) -> TableTransformer:
        """A model with the averaged weights, for use rather than training."""
        model = TableTransformer(self.config.model, generator=generator("placeholder"))
        model.load_state_dict(self.average)
        model.eval().requires_grad_(False)
        return model

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything that changes, by group and name."""
        groups = {"model": {name: value.detach() for name, value in self.model.named_parameters()}}
        groups["average"] = dict(self.average)
        for name, optimiser in self.optimisers.items():
            entries = optimiser.state_dict()["state"].items()
            groups[name] = {f"{i}/{key}": torch.as_tensor(v) for i, entry in entries for key, v in entry.items()}
        return groups

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take back what `tensors` gave; a checkpoint without the average starts it at the weights."""
        named = dict(self.model.named_parameters())
        held = checkpoint.expect("model", named)
        average = checkpoint.expect("average", named) if "average" in checkpoint.tensors else held
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(held[name])
                self.average[name].copy_(average[name])
        for group, optimiser in self.optimisers.items():
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in checkpoint.tensors[group].items():
                index, entry = key.split("/")
                entries.setdefault(int(index), {})[entry] = value
            optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
        self.step, self.num_tables = checkpoint.step, int(checkpoint.state["num_tables"])


class _Run:
    """A trainer with a folder: checkpoints, record, clock."""

    def __init__(self, trainer: TableTrainer, store: CheckpointStore, record: RunRecord, progress: Progress) -> None:
        self.trainer, self.store, self.record, self.progress = trainer, store, record, progress
        self.seconds = {"wall_seconds": 0.0, "processor_seconds": 0.0}
        self.marks = (time.monotonic(), time.process_time())
        self.losses: list[tuple[float, float]] = []
        self.saved = -1

    def tick(self) -> dict[str, float]:
        """Seconds of the wall and of the processor, over all sittings."""
        now = (time.monotonic(), time.process_time())
        for name, before, after in zip(self.seconds, self.marks, now, strict=True):
            self.seconds[name] = round(self.seconds[name] + after - before, 3)
        self.marks = now
        return dict(self.seconds)

    def save(self) -> None:
        """Write a checkpoint of this very step, unless it stands already."""
        if self.saved == self.trainer.step:
            return
        state = {"config": asdict(self.trainer.config), "num_tables": self.trainer.num_tables, **self.tick()}
        self.record.flush()
        self.store.save(self.trainer.step, self.trainer.tensors(), state)
        self.saved = self.trainer.step

    def go_on(self, checkpoint: Checkpoint, *, inexact: bool) -> None:
        """Take up the state of a checkpoint, of this run or of one that it branches off."""
        if checkpoint.state["config"]["model"] != self.trainer.config.shape:
            raise InputError(f"{checkpoint.path} holds a model of other sizes: use those, or start a run of its own")
        if not inexact:
            checkpoint.require_same_environment()
        self.trainer.restore(checkpoint)
        self.seconds = {name: float(checkpoint.state[name]) for name in self.seconds}
        self.store.discard_after(checkpoint.step)
        self.record.resumed(checkpoint.step)

    def work(self) -> None:
        """Take every step that is left."""
        config, trainer = self.trainer.config, self.trainer
        with Interrupts() as interrupts:
            while trainer.step < config.num_steps:
                self.losses.append(trainer.train_step())
                self.progress.advance(trainer.step, self._check_loss())
                if trainer.step % config.report_every == 0:
                    self.report()
                if trainer.step % config.validate_every == 0 or trainer.step == config.num_steps:
                    losses = validation_losses(trainer.averaged(), config)
                    self.record.append({"event": "validated", "step": trainer.step, **losses})
                if trainer.step % config.checkpoint_every == 0 or trainer.step == config.num_steps:
                    self.save()
                if interrupts.requested and trainer.step < config.num_steps:
                    self.save()
                    raise Interrupted(
                        f"interrupted at step {trainer.step}, saved in {self.store.run_dir}: "
                        "the same command and --resume go on"
                    )

    def report(self) -> None:
        """Append the mean losses since the last report to the record."""
        classes, bins = torch.tensor(self.losses, dtype=torch.float64).nanmean(dim=0).tolist()
        self.losses = []
        line = {"event": "step", "step": self.trainer.step, "num_tables": self.trainer.num_tables}
        line |= {"class_loss": round(classes, 4), "bin_loss": round(bins, 4)}
        self.record.append({**line, "rate_factor": round(self.trainer.rate_factor(), 4), **self.tick()}, durable=False)

    def _check_loss(self) -> float:
        classes, bins = self.losses[-1]
        loss = math.fsum(part for part in (classes, bins) if not math.isnan(part))
        if math.isinf(loss) or (math.isnan(classes) and math.isnan(bins)):
            raise ContextureError(f"the loss became {loss} at step {self.trainer.step}: lower the learning rates")
        return loss


def train_table_transformer(
    config: TableTrainingConfig,
    *,
    run_dir: str | Path,
    resume: bool = False,
    inexact: bool = False,
    branch_from: Checkpoint | None = None,
    progress: Progress | None = None,
    disk: Disk = DISK,
) -> TableTransformer:
    """Train in `run_dir` until `num_steps` and return the model with its averaged weights.

    `resume` goes on from the folder's last intact checkpoint, on the same machine and build to the same bits;
    `branch_from` starts the folder from another run's checkpoint. Raises InputError for a folder that holds another
    run, CheckpointError where a run cannot be resumed, Interrupted after Ctrl-C, once all is saved.
    """
    run_dir, progress = Path(run_dir), Silent() if progress is None else progress
    store = CheckpointStore(run_dir, disk=disk, report=progress.note)
    if resume and not run_dir.is_dir():
        raise CheckpointError(f"there is no run to resume in {run_dir}")
    if not resume and ((run_dir / RECORD).exists() or store.steps()):
        raise InputError(f"{run_dir} holds a run already: resume it, or choose another folder")
    trainer = TableTrainer(config)
    with RunRecord(run_dir / RECORD, disk=disk, report=progress.note) as record:
        store.recover()
        run = _Run(trainer, store, record, progress)
        checkpoint = store.latest() or branch_from
        if checkpoint is None:
            record.append({"event": "started", "step": 0, "config": asdict(config), "environment": environment()})
        else:
            run.go_on(checkpoint, inexact=inexact)
        run.save()
        progress.start(steps=config.num_steps, done=trainer.step)
        try:
            run.work()
        finally:
            progress.stop()
    return trainer.averaged()


def decay(
    checkpoint: Checkpoint, config: TableTrainingConfig, *, run_dir: str | Path, num_steps: int, **keywords: Any
) -> TableTransformer:
    """Branch off a run at a checkpoint: `num_steps` more steps with the rate falling to zero; the run itself stays."""
    branch = replace(config, decay_from=checkpoint.step, num_steps=checkpoint.step + num_steps)
    return train_table_transformer(branch, run_dir=run_dir, branch_from=checkpoint, **keywords)


def write_compact_state(path: str | Path, checkpoint: Checkpoint) -> None:
    """A checkpoint to go on from in less space: without the average, and with Muon's momentum in bf16."""
    groups = {name: dict(tensors) for name, tensors in checkpoint.tensors.items() if name != "average"}
    groups["muon"] = {name: value.bfloat16() for name, value in groups["muon"].items()}
    write_checkpoint(
        path, step=checkpoint.step, tensors=groups, state=checkpoint.state, environment=checkpoint.environment
    )
