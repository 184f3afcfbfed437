"""Learning-rate schedules: a factor between 0 and 1 for every step, by which each member's own rate is multiplied.

warm-up:   (s + 1) / W                            for s < W
then, with f the share of the steps after the warm-up and the hold that has passed:
cosine:    floor + (1 - floor) (1 + cos(pi f)) / 2     (Loshchilov & Hutter, 2017, arXiv:1608.03983)
linear:    floor + (1 - floor) (1 - f)
constant:  1
"""

import math
from dataclasses import dataclass
from typing import Literal

from contexture.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Warm-up over `warm_up` steps, a plateau over the share `hold` of all steps, then decay to `floor`."""

    shape: Literal["cosine", "linear", "constant"] = "cosine"
    warm_up: int = 100
    hold: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in ("cosine", "linear", "constant"):
            raise InputError(f"no schedule is named {self.shape!r}: there are cosine, linear, constant")
        if self.warm_up < 0 or not 0 <= self.hold <= 1 or not 0 <= self.floor <= 1:
            raise InputError("a schedule needs warm_up of at least 0, and hold and floor between 0 and 1")


def factor(schedule: ScheduleConfig, step: int, *, steps: int) -> float:
    """The factor at `step` (counted from 0) of `steps`.

    >>> schedule = ScheduleConfig(shape="linear", warm_up=2, hold=0.5)
    >>> [factor(schedule, step, steps=8) for step in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < schedule.warm_up:
        return (step + 1) / schedule.warm_up
    start = max(schedule.warm_up, math.floor(schedule.hold * steps))
    if schedule.shape == "constant" or step < start:
        return 1.0
    passed = min(1.0, (step - start) / max(1, steps - start))
    left = (1 + math.cos(math.pi * passed)) / 2 if schedule.shape == "cosine" else 1 - passed
    return schedule.floor + (1 - schedule.floor) * left
