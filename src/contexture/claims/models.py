"""Trained models of claims, kept under the hash of their configurations, so that claims that share one train it once.

    hash(configurations, versions of contexture and torch)  ─▶  folder of a training run, or of tensors

A training run that was cut short goes on from its last checkpoint. What each model cost is kept with it, so that a
claim's time can be told whether or not its models stood already.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import contexture
from contexture.store import json_text
from contexture.store.checkpoint import CheckpointStore
from contexture.store.record import read_record
from contexture.training.config import TrainingConfig
from contexture.training.loop import RECORD, Trainer, train_cohort
from contexture.training.progress import Progress

TENSORS = "tensors"


def config_hash(config: Any) -> str:
    """A short name for a configuration in plain values and the program's versions."""
    text = json_text.dumps([config, contexture.__version__, torch.__version__], what="the configuration of a model")
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class ModelCache:
    """A folder of trained models; without a folder, models last as long as the call.

    used: what each model asked for since the last `forget` cost, in processor seconds. spent: how much of that went by
    during these calls. progress: told of every step that a model trains.
    """

    folder: Path | None = None
    used: dict[str, float] = field(default_factory=dict)
    spent: list[float] = field(default_factory=list)
    progress: Progress | None = None

    def forget(self) -> None:
        """Begin to count anew."""
        self.used.clear()
        self.spent.clear()

    def train(self, configs: Sequence[TrainingConfig]) -> list[nn.Module]:
        """Each configuration's model, trained as one cohort unless it stands in the folder already."""
        name = config_hash([config.to_json() for config in configs])
        if self.folder is None:
            with TemporaryDirectory() as folder:
                return self._train(configs, name, Path(folder) / "run")
        return self._train(configs, name, self.folder / name)

    def _train(self, configs: Sequence[TrainingConfig], name: str, run_dir: Path) -> list[nn.Module]:
        began = time.process_time()
        store = CheckpointStore(run_dir)
        if configs[0].steps in store.steps():
            trainer = Trainer(configs)
            latest = store.latest()
            assert latest is not None
            trainer.load(latest)
            models = trainer.plain_models()
        else:
            begun = (run_dir / RECORD).exists() or bool(store.steps())
            # Another number of threads may round otherwise; a claim's verdict does not hang on the last bit.
            models = train_cohort(configs, run_dir=run_dir, resume=begun, inexact=begun, progress=self.progress)
        finished = [line for line in read_record(run_dir / RECORD) if line["event"] == "finished"]
        self.used[name] = finished[-1]["processor_seconds"] if finished else time.process_time() - began
        self.spent.append(time.process_time() - began)
        return [model.eval().requires_grad_(False) for model in models]

    def kept(self, config: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """Tensors by name: computed once for each configuration."""
        began = time.process_time()
        if self.folder is None:
            made = make()
            self.used[config_hash(dict(config))] = time.process_time() - began
            self.spent.append(time.process_time() - began)
            return made
        name = config_hash(dict(config))
        store = CheckpointStore(self.folder / name)
        if not store.steps():
            made = make()
            cost = time.process_time() - began
            store.save(0, {TENSORS: made}, {"configuration": dict(config), "processor_seconds": cost})
        latest = store.latest()
        assert latest is not None
        self.used[name] = latest.state["processor_seconds"]
        self.spent.append(time.process_time() - began)
        return latest.tensors[TENSORS]
