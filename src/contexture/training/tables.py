"""Training the in-context learner for tables on the synthetic prior.

    loss      cross-entropy of the queries' classes, and of the bins of their z-scored targets
    update    Muon (Jordan et al. 2024) on the layers' matrices, AdamW on everything else
    rate      warm-up, then constant; a branch of `decay_steps` falls linearly to zero and its averaged weights ship

A run is a folder: `checkpoint.safetensors` (weights, average, optimiser state; counters in its metadata), written to a
temporary name, synced and renamed, and `record.jsonl`. Every batch comes from (seed, step), so a run that was killed
goes on where its last checkpoint stands.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from contexture.errors import CheckpointError
from contexture.models.table_bins import bin_index
from contexture.models.table_encoding import measure_columns, z_scores
from contexture.models.table_transformer import TableTransformer, TableTransformerConfig, num_tokens
from contexture.randomness import generator
from contexture.tasks.tabular_prior import TableBatch, TabularPrior

CHECKPOINT = "checkpoint.safetensors"
RECORD = "record.jsonl"
Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class TableTrainingConfig:
    """Settings of a run; `decay_from` is the step at which the rate starts to fall, None while it is constant."""

    model: TableTransformerConfig = field(default_factory=TableTransformerConfig)
    prior: TabularPrior = field(default_factory=TabularPrior)
    num_steps: int = 12_000
    decay_from: int | None = None
    cells_per_step: int = 14_000
    min_tables: int = 6
    muon_rate: float = 0.012
    adamw_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 150
    regression_weight: float = 0.7
    average: float = 0.998
    seed: int = 0
    checkpoint_seconds: float = 120.0
    report_steps: int = 50
    validation_steps: int = 1_000


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


def validation_losses(
    model: TableTransformer, config: TableTrainingConfig, *, num_batches: int = 24
) -> dict[str, float]:
    """Mean losses over fixed batches of the prior that no step trains on."""
    parts = []
    with torch.no_grad():
        for index in range(num_batches):
            parts.append(table_losses(model, draw_batch(config, index, stream="validation")))
    classes, bins = (torch.cat(column).mean().item() for column in zip(*parts, strict=True))
    return {"validation_class_loss": classes, "validation_bin_loss": bins}


class TableTrainer:
    """The state of a run: weights, their average, optimisers, counters."""

    def __init__(self, config: TableTrainingConfig) -> None:
        self.config = config
        self.model = TableTransformer(config.model, generator=generator(config.seed, "tables", "init"))
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            (matrices if name.startswith("layers.") and parameter.dim() == 2 else rest).append(parameter)
        self.muon: torch.optim.Optimizer = torch.optim.Muon(
            matrices, lr=config.muon_rate, weight_decay=config.weight_decay
        )
        self.adamw: torch.optim.Optimizer = torch.optim.AdamW(
            rest, lr=config.adamw_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        self.step = 0
        self.num_tables = 0
        self.seconds = 0.0

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
        for optimiser, rate in ((self.muon, self.config.muon_rate), (self.adamw, self.config.adamw_rate)):
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        batch = draw_batch(self.config, self.step)
        with torch.autocast("cpu", torch.bfloat16):
            classes, bins = table_losses(self.model, batch)
        loss = (classes.sum() + self.config.regression_weight * bins.sum()) / (classes.numel() + bins.numel())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.step()
        self.adamw.step()
        self.step += 1
        self.num_tables += batch.x.shape[0]
        keep = min(self.config.average, 1 - 1 / (self.step + 1))
        torch._foreach_lerp_(
            list(self.average.values()), [parameter.detach() for parameter in self.model.parameters()], 1 - keep
        )
        mean = [part.mean().item() if part.numel() else math.nan for part in (classes.detach(), bins.detach())]
        return mean[0], mean[1]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by name."""
        state = {f"weights/{name}": value.detach() for name, value in self.model.named_parameters()}
        state |= {f"average/{name}": value for name, value in self.average.items()}
        for name, optimiser in (("muon", self.muon), ("adamw", self.adamw)):
            for index, entries in optimiser.state_dict()["state"].items():
                state |= {f"{name}/{index}/{key}": torch.as_tensor(value) for key, value in entries.items()}
        return {name: value.contiguous() for name, value in state.items()}

    def counters(self) -> dict[str, Any]:
        """Where the run stands, and its settings."""
        return {
            "step": self.step,
            "num_tables": self.num_tables,
            "seconds": self.seconds,
            "config": asdict(self.config),
        }

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take over a state that `tensors` and `counters` described."""
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(tensors[f"weights/{name}"])
            self.average[name].copy_(tensors.get(f"average/{name}", tensors[f"weights/{name}"]))
        for name, optimiser in (("muon", self.muon), ("adamw", self.adamw)):
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{name}/"):
                    _, index, entry = key.split("/")
                    entries.setdefault(int(index), {})[entry] = value
            optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
        self.step, self.num_tables = int(counters["step"]), int(counters["num_tables"])
        self.seconds = float(counters["seconds"])


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, sync, rename, and sync the folder: readers see the old file or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_trainer(trainer: TableTrainer, path: Path) -> None:
    """Write the whole state as one safetensors file, its counters in the metadata."""
    write_atomically(path, save(trainer.tensors(), metadata={"counters": json.dumps(trainer.counters())}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and counters of a checkpoint. Raises CheckpointError if it is absent or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["counters"])
    except Exception as error:
        raise CheckpointError(f"{path} is no checkpoint of a table transformer: {error}") from error


def train_table_transformer(
    config: TableTrainingConfig, *, run_dir: Path, resume: bool = False, progress: Progress = lambda line: None
) -> TableTransformer:
    """Train until `num_steps`, an interrupt or a termination signal; returns the model with its averaged weights.

    The run is saved every `checkpoint_seconds`, at the end and on interruption; `resume` goes on from the checkpoint.
    `progress` receives a mapping with losses, rates and the seconds left every `report_steps`.
    Raises CheckpointError if the folder holds a run and `resume` is False, or none and it is True.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / CHECKPOINT
    trainer = TableTrainer(config)
    if resume:
        trainer.restore(*load_state(path))
    elif path.exists():
        raise CheckpointError(f"{run_dir} holds a run already: resume it or name another folder")
    stopping = []
    before = signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    try:
        _loop(trainer, run_dir, progress, stopping)
    except KeyboardInterrupt:
        save_trainer(trainer, path)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    save_trainer(trainer, path)
    return averaged(trainer)


def averaged(trainer: TableTrainer) -> TableTransformer:
    """A copy of the model with the averaged weights."""
    model = TableTransformer(trainer.config.model, generator=generator(0, "placeholder"))
    model.load_state_dict(trainer.average)
    return model


def _loop(trainer: TableTrainer, run_dir: Path, progress: Progress, stopping: list[bool]) -> None:
    config = trainer.config
    saved = reported = time.monotonic()
    losses: list[tuple[float, float]] = []
    with (run_dir / RECORD).open("a", encoding="utf-8") as record:
        while trainer.step < config.num_steps and not stopping:
            began = time.monotonic()
            losses.append(trainer.train_step())
            trainer.seconds += time.monotonic() - began
            due = trainer.step % config.validation_steps == 0
            if due or trainer.step % config.report_steps == 0:
                now = time.monotonic()
                line = _report(trainer, losses, (now - reported) / len(losses))
                if due:
                    line |= validation_losses(averaged(trainer), config)
                record.write(json.dumps(line) + "\n")
                record.flush()
                progress(line)
                losses, reported = [], time.monotonic()
            if time.monotonic() - saved > config.checkpoint_seconds:
                save_trainer(trainer, run_dir / CHECKPOINT)
                saved = time.monotonic()


def _report(trainer: TableTrainer, losses: list[tuple[float, float]], step_seconds: float) -> dict[str, Any]:
    classes, bins = torch.tensor(losses).nanmean(dim=0).tolist()
    return {
        "step": trainer.step,
        "tables": trainer.num_tables,
        "seconds": round(trainer.seconds, 1),
        "class_loss": round(classes, 4),
        "bin_loss": round(bins, 4),
        "rate_factor": round(trainer.rate_factor(), 4),
        "step_seconds": round(step_seconds, 3),
        "seconds_left": round(step_seconds * (trainer.config.num_steps - trainer.step)),
    }
