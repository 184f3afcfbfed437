"""The past of a stream, and the streams that run through it again from random positions.

Each replay stream reads chunk after chunk, `stretch` of them, and then starts elsewhere, as it does when the pairs that
it was at have been forgotten.
"""

from dataclasses import dataclass, field

import torch

from contexture.training.streams.config import StreamConfig
from contexture.training.streams.reader import Pair


@dataclass(slots=True)
class Past:
    """The last pairs, and for each replay stream where it is and how many chunks it has left before it starts anew."""

    config: StreamConfig
    pairs: list[Pair] = field(default_factory=list)
    cursors: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.cursors:
            self.cursors, self.left = [0] * self.config.replay, [0] * self.config.replay

    def add(self, chunk: list[Pair]) -> None:
        """Keep a chunk, and forget the oldest pairs beyond what is kept."""
        self.pairs += chunk
        dropped = max(0, len(self.pairs) - self.config.memory)
        self.pairs = self.pairs[dropped:]
        self.cursors = [cursor - dropped for cursor in self.cursors]

    def replayed(self, *, generator: torch.Generator) -> tuple[list[list[Pair]], list[int]]:
        """The next chunk of every stream, and which of them start anew; nothing before there is a whole chunk."""
        size, rows, started = self.config.chunk, [], []
        if len(self.pairs) < size:
            return [], []
        for stream, cursor in enumerate(self.cursors):
            if self.left[stream] == 0 or cursor < 0 or cursor + size > len(self.pairs):
                cursor = int(torch.randint(len(self.pairs) - size + 1, (), generator=generator))
                self.left[stream] = self.config.stretch
                started.append(stream)
            rows.append(self.pairs[cursor : cursor + size])
            self.cursors[stream], self.left[stream] = cursor + size, self.left[stream] - 1
        return rows, started
