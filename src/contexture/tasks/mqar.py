"""Multi-query associative recall over tokens.

    k1 v1 k2 v2 .. kD vD | each key once more, at a gap drawn from p(g) ~ g^(power - 1); its value is the target there

Keys are 1..V/2-1 and values V/2..V-1, neither repeats within a sequence; the other positions hold random tokens or 0.

Arora et al. 2024, "Zoology: measuring and improving recall in efficient language models": V = 8192, power 0.01, and
(length, pairs) = (64, 4), (128, 8), (256, 16), (512, 64).

Legend: batch = sequences, time = tokens, D = pairs, slots = (length - 2 D) / 2 places for a query, two tokens apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.recall import InductionHead, Lookup
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import above_zero, at_least, different, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class MQAR:
    """Recall the value of a key that was shown once; the oracle looks it up.

    A drawn sequence, 2 pairs: key 6 is followed by 9, key 4 by 11, and both keys come again as queries.

    >>> task = MQAR(vocabulary=16, length=10, num_pairs=2, random_filler=False)
    >>> drawn = task.sample(1, generator=torch.Generator().manual_seed(3))
    >>> drawn.ids[0].tolist()
    [6, 9, 4, 11, 6, 0, 0, 0, 4, 0]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 0, 9, 0, 0, 0, 11, 0]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="mqar",
        summary="Multi-query associative recall: key-value pairs of tokens, then keys whose value is asked.",
        paper="Arora et al.: Zoology, measuring and improving recall in efficient language models",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    vocabulary: int = 8192
    length: int = 64
    num_pairs: int = 4
    power: float = 0.01
    random_filler: bool = True

    def __post_init__(self) -> None:
        at_least(1, num_pairs=self.num_pairs)
        above_zero(power=self.power)
        if self.length < 4 * self.num_pairs:
            raise InputError(
                f"{self.num_pairs} pairs and their queries need a length of {4 * self.num_pairs}, not {self.length}"
            )
        if self.num_keys < self.num_pairs:
            raise InputError(
                f"a vocabulary of {self.vocabulary} has {self.num_keys} keys, too few for {self.num_pairs} pairs"
            )

    @property
    def num_keys(self) -> int:
        """How many tokens are keys: 1 .. vocabulary // 2 - 1."""
        return self.vocabulary // 2 - 1

    @property
    def num_values(self) -> int:
        """How many tokens are values: vocabulary // 2 .. vocabulary - 1."""
        return self.vocabulary - self.vocabulary // 2

    @property
    def chance(self) -> float:
        """The error rate of one constant answer: 1 - 1 / num_values."""
        return 1 - 1 / self.num_values

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw sequences; slices: gap [batch, time], the tokens between a query and its key's first showing."""
        keys = 1 + different(batch, self.num_keys, self.num_pairs, generator=generator)
        values = self.vocabulary // 2 + different(batch, self.num_values, self.num_pairs, generator=generator)
        places = 2 * self.num_pairs + 2 * self._slots(batch, generator)
        if self.random_filler:
            ids = integers(batch, self.length, below=self.vocabulary, generator=generator)
        else:
            ids = torch.zeros(batch, self.length, dtype=torch.int64, device=generator.device)
        ids[:, : 2 * self.num_pairs] = torch.stack([keys, values], -1).flatten(1)
        ids.scatter_(1, places, keys)
        blank = torch.zeros_like(ids)
        shown = torch.arange(0, 2 * self.num_pairs, 2, device=ids.device)
        return Tokens(
            ids=ids,
            targets=blank.scatter(1, places, values),
            mask=blank.bool().scatter(1, places, True),
            vocabulary=self.vocabulary,
            slices={"gap": blank.scatter(1, places, places - shown)},
        )

    def _slots(self, batch: int, generator: torch.Generator) -> Int[Tensor, "batch pairs"]:
        """A different slot for each key, drawn one after another with p(g) ~ g^(power - 1), g = 1 the nearest.

        The largest of log p + Gumbel noise, in descending order, are draws without replacement (Vieira 2014).
        """
        num_slots = (self.length - 2 * self.num_pairs) // 2
        gap = torch.arange(1, num_slots + 1, dtype=torch.float64, device=generator.device)
        uniform = torch.rand(batch, num_slots, generator=generator, dtype=torch.float64, device=generator.device)
        gumbel = -(-uniform.clamp(min=torch.finfo(torch.float64).tiny).log()).log()
        return (gumbel + (self.power - 1) * gap.log()).topk(self.num_pairs).indices

    def oracle(self) -> SequenceLearner:
        """The token after the first occurrence of the key."""
        return Lookup(vocabulary=self.vocabulary)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """An induction head, which a random token equal to the key can mislead."""
        return {"induction-head": InductionHead(vocabulary=self.vocabulary)}
