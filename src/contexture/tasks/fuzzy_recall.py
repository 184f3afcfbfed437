"""Fuzzy recall: keys and values are phrases of one to a few tokens, and come again and again.

    a b | u  ;  c | v w  ;  a b | u  ;  c | v w,   the targets are the values of keys that were shown before

A key ends where a value token follows, so a key of one token may begin a longer one. Key tokens are the first ones,
value tokens the rest; a sequence has a dictionary of `num_pairs` different keys, from which records are drawn with
replacement.

In the form of Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid Architectures" (phrases of up to 3 tokens,
vocabulary 16, length 128), where the dictionary is not bounded.

Legend: batch = sequences, time = length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.phrase_lookup import PhraseLookup
from contexture.learners.recall import InductionHead
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class FuzzyRecall:
    """Recall phrases by phrases; the oracle looks whole keys up.

    A drawn sequence: the keys are 1 and 3 0, their values 4 7 and 4.

    >>> task = FuzzyRecall(num_keys=4, num_values=4, num_pairs=2, length=12, longest=2)
    >>> drawn = task.sample(1, generator=torch.Generator().manual_seed(8))
    >>> drawn.ids[0].tolist()
    [1, 4, 7, 3, 0, 4, 1, 4, 7, 1, 4, 7]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 0, 0, 0, 4, 7, 0, 4, 7, 0]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="fuzzy-recall",
        summary="Recall values by keys where both are phrases of one to a few tokens.",
        paper="Poli et al., Mechanistic Design and Scaling of Hybrid Architectures, arXiv:2403.17844",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    num_keys: int = 8
    num_values: int = 8
    num_pairs: int = 8
    length: int = 128
    longest: int = 3

    def __post_init__(self) -> None:
        at_least(1, num_pairs=self.num_pairs, longest=self.longest)
        at_least(2, num_keys=self.num_keys, num_values=self.num_values)
        if self.num_pairs > self.num_keys:
            raise InputError(f"a dictionary of {self.num_pairs} pairs needs as many key tokens, not {self.num_keys}")
        if self.length < (self.num_pairs + 1) * 2 * self.longest:
            raise InputError(
                f"a length of {self.length} may end before a key comes again: {self.num_pairs} pairs of phrases of up "
                f"to {self.longest} tokens need {(self.num_pairs + 1) * 2 * self.longest}"
            )

    @property
    def vocabulary(self) -> int:
        """Key tokens and value tokens."""
        return self.num_keys + self.num_values

    @property
    def chance(self) -> float:
        """The error rate of one constant value token."""
        return 1 - 1 / self.num_values

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw sequences; more records than pairs always fit, so some key comes again."""
        keys, key_lengths = self._keys(batch, generator)
        values, value_lengths = self._phrases(batch, self.num_values, generator)
        num_records = self.length // 2 + 1
        chosen = integers(batch, num_records, below=self.num_pairs, generator=generator)
        again = (chosen.unsqueeze(2) == chosen.unsqueeze(1)).tril(-1).any(2)
        phrases = torch.cat([keys, self.num_keys + values], 2)
        places = torch.arange(self.longest, device=keys.device)
        held = torch.cat([places < key_lengths.unsqueeze(2), places < value_lengths.unsqueeze(2)], 2)
        pick = chosen.unsqueeze(2).expand(-1, -1, 2 * self.longest)
        said, present = phrases.gather(1, pick).flatten(1), held.gather(1, pick).flatten(1)
        scored = (again.unsqueeze(2) & (torch.arange(2 * self.longest, device=keys.device) >= self.longest)).flatten(1)
        # Close the gaps that short phrases leave: the tokens present, in order, and one more than is shown.
        order = (~present).long().argsort(dim=1, stable=True)[:, : self.length + 1]
        said, mask = said.gather(1, order), scored.gather(1, order)[:, 1:]
        return Tokens(
            ids=said[:, :-1], targets=torch.where(mask, said[:, 1:], 0), mask=mask, vocabulary=self.vocabulary
        )

    def _phrases(self, batch: int, num_tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = integers(batch, self.num_pairs, self.longest, below=num_tokens, generator=generator)
        return tokens, 1 + integers(batch, self.num_pairs, below=self.longest, generator=generator)

    def _keys(
        self, batch: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "batch pairs longest"], Int[Tensor, "batch pairs"]]:
        """Phrases of which no two of a sequence are the same; sequences with a repetition are drawn again."""
        keys, lengths = self._phrases(batch, self.num_keys, generator)
        while True:
            places = torch.arange(self.longest, device=keys.device)
            shown = torch.where(places < lengths.unsqueeze(2), keys + 1, 0)
            names = (shown * (self.num_keys + 1) ** places).sum(2).sort(1).values
            repeats = (names[:, 1:] == names[:, :-1]).any(1).nonzero().squeeze(1)
            if not len(repeats):
                return keys, lengths
            keys[repeats], lengths[repeats] = self._phrases(len(repeats), self.num_keys, generator)

    def oracle(self) -> SequenceLearner:
        """The value of the first record with the same key."""
        return PhraseLookup(vocabulary=self.vocabulary, num_keys=self.num_keys)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """An induction head of single tokens."""
        return {"induction-head": InductionHead(vocabulary=self.vocabulary)}
