"""Widths at which mixers are equally large: in parameters, or in what they keep after a whole sequence.

Both are measured on the built model, never declared: parameters are counted, and the state is what streaming a sequence
of the rung's length leaves. Both rise with the width, so the nearest width is found by bisection.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from contexture.errors import InputError
from contexture.evaluation.ladder.budget import Budget
from contexture.evaluation.ladder.rungs import RUNGS, Rung
from contexture.models.backbone import BackboneConfig
from contexture.models.state import state_bytes
from contexture.models.tokens import TokenModel, TokenModelConfig
from contexture.randomness import generator

TOLERANCE = 1.2
"""How many times as large as asked, or as small, a matched model may be: widths come in steps of two per head."""
WIDEST = 8
"""How many times the budget's own width is tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A model's width, and what was measured of it."""

    width: int
    parameters: int
    state_bytes: int


def model_config(mixer: str, rung: Rung, budget: Budget, *, width: int) -> TokenModelConfig:
    """The ladder's model with this mixer in every layer."""
    drawn = rung.drawn()
    backbone = BackboneConfig(
        pattern=(f"{mixer}+none",) * budget.num_layers,
        width=width,
        num_heads=budget.num_heads,
        positions="learned",
        max_length=drawn.ids.shape[1],
    )
    return TokenModelConfig(vocabulary=drawn.vocabulary, backbone=backbone)


def measure(config: TokenModelConfig) -> Size:
    """Count parameters, and the bytes of one sequence's state after as many tokens as the model has positions."""
    model = TokenModel(config, generator=generator("size"))
    ids = torch.zeros(1, config.backbone.max_length, dtype=torch.int64)
    with torch.no_grad():
        state = model.init_state(1, device="cpu", dtype=torch.float32)
        _, state = model.stream(ids, state)
    return Size(
        width=config.backbone.width,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        state_bytes=state_bytes(state),
    )


@cache
def wanted_parameters(rung_name: str, budget: Budget) -> int:
    """How many parameters the softmax model of the budget's width has on a rung."""
    return measure(model_config("softmax", RUNGS[rung_name], budget, width=budget.width)).parameters


def matched(mixer: str, rung: Rung, budget: Budget, match: str) -> Size:
    """The size at which a mixer is matched on a rung; InputError says why there is none.

    Raises whatever the mixer raises if it can be built at no width at all.
    """
    if match == "state":
        return _nearest(mixer, rung, budget, lambda size: size.state_bytes, budget.state_bytes, "bytes of state")
    target = wanted_parameters(rung.name, budget)
    return _nearest(mixer, rung, budget, lambda size: size.parameters, target, "parameters")


def _nearest(mixer: str, rung: Rung, budget: Budget, of: Callable[[Size], int], target: int, unit: str) -> Size:
    step = 2 * budget.num_heads
    widths = list(range(step, WIDEST * budget.width + 1, step))
    sizes: dict[int, Size] = {}
    failures: dict[int, Exception] = {}

    def at(index: int) -> Size | None:
        """The size at the first width from here on that the mixer can be built at; whatever it raises at others."""
        for width in widths[index:]:
            if width not in sizes and width not in failures:
                try:
                    sizes[width] = measure(model_config(mixer, rung, budget, width=width))
                except Exception as error:
                    failures[width] = error
            if width in sizes:
                return sizes[width]
        return None

    low, high = 0, len(widths) - 1
    while low < high:
        middle = (low + high) // 2
        found = at(middle)
        if found is None or of(found) >= target:
            high = middle
        else:
            low = middle + 1
    for index in (max(0, low - 1), low):
        at(index)
    if not sizes:
        raise failures[max(failures)]
    best = min(sizes.values(), key=lambda size: abs(math.log(max(1, of(size)) / target)))
    if not target / TOLERANCE <= of(best) <= target * TOLERANCE:
        raise InputError(
            f"the nearest of the widths {widths[0]} to {widths[-1]} is {best.width}, where it has {of(best):,} {unit} "
            f"rather than {target:,}"
        )
    return best
