"""Making room in a model that is being trained: weights and the optimiser's moments stay with what they belong to."""

import torch
from torch import Tensor

from contexture.models.stream import StreamModel, StreamModelConfig


def adamw(model: StreamModel, rate: float) -> torch.optim.AdamW:
    """The optimiser of a stream, without decay: there is no end to overfit towards."""
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)


def grow(
    model: StreamModel, optimiser: torch.optim.AdamW, *, num_slots: int, num_classes: int, generator: torch.Generator
) -> torch.optim.AdamW:
    """Grow a model in place; returns an optimiser over its new weights with the moments of the old ones."""
    before = model.config
    moments = {name: optimiser.state.get(value, {}) for name, value in model.named_parameters()}
    model.grow(num_slots=num_slots, num_classes=num_classes, generator=generator)
    grown = adamw(model, optimiser.param_groups[0]["lr"])
    for name, parameter in model.named_parameters():
        for key, old in moments[name].items():
            moved = old.dim() > 0 and old.shape != parameter.shape
            grown.state[parameter][key] = _spread(name, old, parameter, before) if moved else old
    return grown


def _spread(name: str, old: Tensor, like: Tensor, before: StreamModelConfig) -> Tensor:
    """Moments where their weights stand now; zero for what is new."""
    new = torch.zeros_like(like)
    if name.startswith(("ask.", "recall.")):
        slots, room = before.num_slots, like.shape[1] // 2
        for part in (0, 1):
            new[:, part * room : part * room + slots] = old[:, part * slots : (part + 1) * slots]
    elif name.startswith("head."):
        new[: before.num_classes], new[-1] = old[:-1], old[-1]
    else:
        new[: len(old)] = old
    return new
