"""How a stream is learned."""

from dataclasses import dataclass
from typing import Literal

from contexture.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamConfig:
    """The settings of a stream learner; InputError for those that make no sense.

    context: pairs that are attended to, 0 for none; chunk: pairs between two steps of the weights; replay: streams
    through the past that each step also learns from, each for `stretch` chunks before it starts elsewhere; relabelled:
    those of them whose classes trade names at every start, so that names are learned to be read from the context;
    memory: pairs that are kept for them; rate: AdamW's, 0 leaves the weights as they were drawn; width, num_heads: the
    model's.
    """

    target: Literal["classification", "regression"] = "classification"
    context: int = 100
    chunk: int = 16
    replay: int = 4
    relabelled: int = 2
    stretch: int = 8
    memory: int = 8192
    rate: float = 1e-3
    width: int = 128
    num_heads: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target not in ("classification", "regression"):
            raise InputError(f"a stream's target is classification or regression, not {self.target!r}")
        if (
            min(self.chunk, self.stretch, self.width, self.num_heads) < 1
            or min(self.context, self.replay, self.relabelled) < 0
        ):
            raise InputError(
                "chunk, stretch, width and num_heads are at least 1, context, replay and relabelled at least 0, not "
                f"{self.chunk}, {self.stretch}, {self.width}, {self.num_heads}, {self.context}, {self.replay} and "
                f"{self.relabelled}"
            )
        if self.memory < self.chunk or not self.rate >= 0:
            raise InputError(
                f"memory holds a chunk of {self.chunk} and rate is not negative, not {self.memory} and {self.rate}"
            )
