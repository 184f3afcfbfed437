"""What a stream learner says of a target that it has not seen."""

import math
from typing import Any, NamedTuple


class Said(NamedTuple):
    """Log-probabilities of the labels met so far and, last, of one never met; or a normal law of a number.

    >>> Said(labels=("no",), log_chances=(-0.5, -1.0)).log_loss("yes")
    1.0
    """

    labels: tuple[Any, ...] = ()
    log_chances: tuple[float, ...] = ()
    mean: float = 0.0
    variance: float = 1.0

    def log_loss(self, y: Any) -> float:
        """Minus the log-probability, or log-density, of the target."""
        if self.log_chances:
            place = self.labels.index(y) if y in self.labels else -1
            return -self.log_chances[place]
        return 0.5 * (math.log(2 * math.pi * self.variance) + (float(y) - self.mean) ** 2 / self.variance)

    @property
    def label(self) -> Any:
        """The likeliest of the labels met, or None before any."""
        if not self.labels:
            return None
        return self.labels[max(range(len(self.labels)), key=self.log_chances.__getitem__)]

    @property
    def chances(self) -> dict[Any, float]:
        """The probabilities of the labels met, as if there were no others."""
        raw = [math.exp(value) for value in self.log_chances[: len(self.labels)]]
        total = sum(raw) or 1.0
        return {label: value / total for label, value in zip(self.labels, raw, strict=True)}
