"""What a training run is: a frozen record that JSON can hold, so that a run can be written down and run again.

task, model ─▶ steps x batch episodes ─▶ optimiser x schedule ─▶ weights
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

import torch
from torch import nn

from contexture.errors import InputError
from contexture.models.decisions import DecisionModel, DecisionModelConfig
from contexture.models.induction import InductionModel, InductionModelConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.planning import PlanningModel, PlanningModelConfig
from contexture.models.self_attention import SelfAttentionConfig, SelfAttentionModel
from contexture.models.set_mlp import SetMLP, SetMLPConfig
from contexture.models.tokens import TokenModel, TokenModelConfig
from contexture.protocols import Task
from contexture.tasks.named import named
from contexture.training.precision import Precision, require_precision
from contexture.training.schedule import ScheduleConfig

ModelConfig = (
    PairsModelConfig
    | TokenModelConfig
    | SelfAttentionConfig
    | DecisionModelConfig
    | SetMLPConfig
    | InductionModelConfig
    | PlanningModelConfig
)
_MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    "pairs": (PairsModelConfig, PairsModel),
    "tokens": (TokenModelConfig, TokenModel),
    "self-attention": (SelfAttentionConfig, SelfAttentionModel),
    "decisions": (DecisionModelConfig, DecisionModel),
    "set-mlp": (SetMLPConfig, SetMLP),
    "induction": (InductionModelConfig, InductionModel),
    "planning": (PlanningModelConfig, PlanningModel),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskChoice:
    """A registered task by its name, or a user's own as "file.py:Class", and the settings to build it with."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Task:
        """The task itself; InputError for an unknown name or setting."""
        return named(self.name, self.settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserConfig:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101), or Muon (Jordan et al., 2024) on the matrices of the backbone.

    rate: AdamW's learning rate; matrix_rate: Muon's, with AdamW on every other parameter. Decay is decoupled and acts
    on matrices alone.
    """

    name: Literal["adamw", "muon"] = "adamw"
    rate: float = 1e-3
    matrix_rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.name not in ("adamw", "muon"):
            raise InputError(f"no optimiser is named {self.name!r}: there are adamw, muon")
        if self.rate <= 0 or self.matrix_rate <= 0:
            raise InputError("learning rates are greater than zero")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Everything that decides a run's weights, besides machine and builds.

    A step draws `batch` episodes in blocks of `block`, each block from its own generator, and takes them in
    `accumulation` parts; neither parts nor cohorts change which episodes are seen. `clip` bounds the gradient's norm.
    """

    task: TaskChoice
    model: ModelConfig
    steps: int
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    batch: int = 64
    block: int = 16
    accumulation: int = 1
    seed: int = 0
    precision: Precision = "fp32"
    clip: float | None = 1.0
    log_every: int = 10
    evaluate_every: int = 500
    evaluation_episodes: int = 512
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "block", "accumulation", "log_every", "evaluate_every", "evaluation_episodes")
        for name in (*counts, "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, but at least 1 is needed")
        if self.batch % (self.block * self.accumulation):
            raise InputError(
                f"a batch of {self.batch} cannot be cut into {self.accumulation} parts of whole blocks of {self.block}"
            )
        require_precision(self.precision)
        if self.clip is not None and self.clip <= 0:
            raise InputError("clip is greater than zero, or None for no clipping")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of parameters: bf16 is for activations alone."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    def build_model(self, *, generator: torch.Generator) -> nn.Module:
        """The model with fresh weights, in the dtype of its parameters."""
        return build_model(self.model, generator=generator).to(self.dtype)

    def to_json(self) -> dict[str, Any]:
        """The configuration in plain values; `from_json` gives it back."""
        values: dict[str, Any] = json.loads(json.dumps({**asdict(self), "model": model_to_json(self.model)}))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that `to_json` wrote; InputError names what does not belong."""
        strays = set(values) - {item.name for item in fields(cls)}
        if strays:
            raise InputError(f"a training configuration has no {', '.join(sorted(strays))}")
        nested = {
            "task": TaskChoice(**values["task"]),
            "model": model_from_json(values["model"]),
            "optimiser": OptimiserConfig(**values["optimiser"]),
            "schedule": ScheduleConfig(**values["schedule"]),
        }
        return cls(**{**values, **nested})


def build_model(config: ModelConfig, *, generator: torch.Generator) -> nn.Module:
    """The model that a configuration describes, with fresh weights."""
    model = next(built for described, built in _MODELS.values() if isinstance(config, described))
    made = model(config, generator=generator)
    assert isinstance(made, nn.Module)
    return made


def model_to_json(config: ModelConfig) -> dict[str, Any]:
    """A model's configuration in plain values, with its kind."""
    kind = next(name for name, (described, _) in _MODELS.items() if isinstance(config, described))
    return {"kind": kind, **asdict(config)}


def model_from_json(values: Mapping[str, Any]) -> ModelConfig:
    """The configuration that `model_to_json` wrote; InputError for an unknown kind or field."""
    rest = dict(values)
    kind = rest.pop("kind", None)
    if kind not in _MODELS:
        raise InputError(f"no model is of kind {kind!r}: there are {', '.join(_MODELS)}")
    try:
        made = _MODELS[kind][0](**rest)
    except TypeError as error:
        raise InputError(f"the configuration of a {kind} model cannot be read: {error}") from error
    assert isinstance(made, ModelConfig)
    return made
