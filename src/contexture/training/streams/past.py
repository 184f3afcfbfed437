"""The past of a stream, and the streams that run through it again from random positions.

Each replay stream reads chunk after chunk, `stretch` of them, and then starts elsewhere, as it does when the pairs that
it was at have been forgotten. In some of them the classes trade names at random at every start, and keep them to the
end: what is learned there is to read a class's name from the context (as in Kirsch et al., 2022, arXiv:2212.04458).
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
    names: list[list[int]] = field(default_factory=list)
    """The new codes of the classes in each relabelled stream."""

    def __post_init__(self) -> None:
        if not self.cursors:
            self.cursors, self.left = [0] * self.config.replay, [0] * self.config.replay
            self.names = [[] for _ in range(min(self.config.relabelled, self.config.replay))]

    def add(self, chunk: list[Pair]) -> None:
        """Keep a chunk, and forget the oldest pairs beyond what is kept."""
        self.pairs += chunk
        dropped = max(0, len(self.pairs) - self.config.memory)
        self.pairs = self.pairs[dropped:]
        self.cursors = [cursor - dropped for cursor in self.cursors]

    def replayed(self, num_labels: int, *, generator: torch.Generator) -> tuple[list[list[Pair]], list[int]]:
        """The next chunk of every stream, and which of them start anew; nothing before there is a whole chunk.

        num_labels: the classes known by now; 0 for numbers, which keep their values.
        """
        size, rows, started = self.config.chunk, [], []
        if len(self.pairs) < size:
            return [], []
        for stream, cursor in enumerate(self.cursors):
            if self.left[stream] == 0 or cursor < 0 or cursor + size > len(self.pairs):
                cursor = int(torch.randint(len(self.pairs) - size + 1, (), generator=generator))
                self.left[stream] = self.config.stretch
                started.append(stream)
                if stream < len(self.names):
                    self.names[stream] = torch.randperm(num_labels, generator=generator).tolist()
            rows.append(self._renamed(stream, self.pairs[cursor : cursor + size]))
            self.cursors[stream], self.left[stream] = cursor + size, self.left[stream] - 1
        return rows, started

    def _renamed(self, stream: int, pairs: list[Pair]) -> list[Pair]:
        names = self.names[stream] if stream < len(self.names) else []
        if not names:
            return pairs
        return [pair._replace(y=float(names[int(pair.y)])) if pair.y < len(names) else pair for pair in pairs]
