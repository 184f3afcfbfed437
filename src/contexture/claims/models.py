"""Trained models of claims, kept under the hash of their configurations, so that claims that share one train it once.

    hash(configurations, versions of contexture and torch)  ─▶  folder of a training run, or of tensors

A training run that was cut short goes on from its last checkpoint.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import contexture
from contexture.store import json_text
from contexture.store.checkpoint import CheckpointStore
from contexture.training.config import TrainingConfig
from contexture.training.loop import RECORD, Trainer, train_cohort

TENSORS = "tensors"


def config_hash(config: Any) -> str:
    """A short name for a configuration in plain values and the program's versions."""
    text = json_text.dumps([config, contexture.__version__, torch.__version__], what="the configuration of a model")
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class ModelCache:
    """A folder of trained models; without a folder, models last as long as the call."""

    folder: Path | None = None

    def train(self, configs: Sequence[TrainingConfig]) -> list[nn.Module]:
        """Each configuration's model, trained as one cohort unless it stands in the folder already."""
        if self.folder is None:
            with TemporaryDirectory() as folder:
                return _ready(train_cohort(configs, run_dir=Path(folder) / "run"))
        run_dir = self.folder / config_hash([config.to_json() for config in configs])
        store = CheckpointStore(run_dir)
        if configs[0].steps in store.steps():
            trainer = Trainer(configs)
            latest = store.latest()
            assert latest is not None
            trainer.load(latest)
            return _ready(trainer.plain_models())
        begun = (run_dir / RECORD).exists() or bool(store.steps())
        # Another number of threads may round otherwise; a claim's verdict does not hang on the last bit.
        return _ready(train_cohort(configs, run_dir=run_dir, resume=begun, inexact=True))

    def kept(self, config: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """Tensors by name: computed once for each configuration."""
        if self.folder is None:
            return make()
        store = CheckpointStore(self.folder / config_hash(dict(config)))
        if not store.steps():
            store.save(0, {TENSORS: make()}, {"configuration": dict(config)})
        latest = store.latest()
        assert latest is not None
        return latest.tensors[TENSORS]


def _ready(models: Sequence[nn.Module]) -> list[nn.Module]:
    return [model.eval().requires_grad_(False) for model in models]
