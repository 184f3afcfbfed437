"""In-context recall among noise: pairs come again and again, and pairs of meaningless tokens between them.

    k1 v1 | n n | k2 v2 | k1 v1 | n n | k2 v2,   the target at a key that was shown before is its value

Keys are the first tokens, then come values, then noise. Every pair of places is noise with probability `noise`; keys
are drawn with replacement, and a key keeps its value within a sequence.

Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid Architectures": 8 keys, 8 values, 16 tokens of noise, length
128, noise 0.2.

Legend: batch = sequences, time = length = 2 * places.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.recall import Lookup
from contexture.learners.unigram import Unigram
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyRecall:
    """Recall values among noise; the oracle looks keys up.

    A drawn sequence: key 1 has the value 5, and comes twice; 9 and 8 are noise.

    >>> task = NoisyRecall(num_keys=4, num_values=4, num_noise=2, length=8, noise=0.5)
    >>> drawn = task.sample(1, generator=torch.Generator().manual_seed(6))
    >>> drawn.ids[0].tolist()
    [2, 7, 1, 5, 9, 8, 1, 5]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 0, 0, 0, 5, 0]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="noisy-recall",
        summary="Recall values by keys, with meaningless tokens between the pairs.",
        paper="Poli et al., Mechanistic Design and Scaling of Hybrid Architectures, arXiv:2403.17844",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    num_keys: int = 8
    num_values: int = 8
    num_noise: int = 16
    length: int = 128
    noise: float = 0.2

    def __post_init__(self) -> None:
        at_least(1, num_keys=self.num_keys, num_noise=self.num_noise)
        at_least(2, num_values=self.num_values)
        at_least(4, length=self.length)
        if self.length % 2 or not 0 <= self.noise < 1:
            raise InputError(
                f"noisy recall needs an even length and noise from 0 to below 1, not {self.length}, {self.noise}"
            )

    @property
    def vocabulary(self) -> int:
        """Keys, values and noise."""
        return self.num_keys + self.num_values + self.num_noise

    @property
    def chance(self) -> float:
        """The error rate of one constant value."""
        return 1 - 1 / self.num_values

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw sequences; the last pair repeats the key of one before it, so that at least one is scored."""
        places = self.length // 2
        keys = integers(batch, places, below=self.num_keys, generator=generator)
        values = integers(batch, self.num_keys, below=self.num_values, generator=generator).gather(1, keys)
        noise = torch.rand(batch, places, generator=generator, device=keys.device) < self.noise
        shown = integers(batch, 1, below=places - 1, generator=generator)
        noise.scatter_(1, shown, False)
        noise[:, -1] = False
        for drawn in (keys, values):
            drawn[:, -1:] = drawn.gather(1, shown)
        stray = self.num_keys + self.num_values + integers(batch, places, 2, below=self.num_noise, generator=generator)
        pairs = torch.where(noise.unsqueeze(2), stray, torch.stack([keys, self.num_keys + values], 2))
        again = self._shown_before(keys, noise)
        blank = torch.zeros_like(keys)
        return Tokens(
            ids=pairs.flatten(1),
            targets=torch.stack([torch.where(again, self.num_keys + values, 0), blank], 2).flatten(1),
            mask=torch.stack([again, blank.bool()], 2).flatten(1),
            vocabulary=self.vocabulary,
        )

    def _shown_before(self, keys: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Where a pair's key stood in an earlier pair: bool [batch, places]."""
        counts = torch.nn.functional.one_hot(keys, self.num_keys) * ~noise.unsqueeze(2)
        before = (counts.cumsum(1) - counts).gather(2, keys.unsqueeze(2)).squeeze(2)
        return (before > 0) & ~noise

    def oracle(self) -> SequenceLearner:
        """The token after the first occurrence of the key."""
        return Lookup(vocabulary=self.vocabulary)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """The commonest token so far."""
        return {"unigram": Unigram(vocabulary=self.vocabulary)}
