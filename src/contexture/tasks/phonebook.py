"""A telephone book: names of several letters with numbers of several digits, then names whose numbers are asked.

    n1 n1 n1 d1 d1 d1 | n2 n2 n2 d2 d2 d2 | ... | n2 n2 n2 d2 d2 d2

The target at a queried name's last letter is its number's first digit, and at each digit the next one. Names differ
within a book but share letters, so no single token tells them apart. Letters are the first tokens, digits the rest.

Jelassi et al. 2024, "Repeat After Me: Transformers are Better than State Space Models at Copying", whose books have one
query.

Legend: batch = sequences, time = (entries + queries) * (letters + digits of an entry), less the very last digit.
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
from contexture.tasks.draws import at_least, different, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Phonebook:
    """Find a number by a name, both of several tokens; the oracle looks the name up.

    A drawn sequence: the names 0 2 and 3 3 have the numbers 5 4 and 6 7; 0 2 is asked.

    >>> task = Phonebook(num_letters=4, num_digits=4, num_entries=2, num_queries=1, name_length=2, number_length=2)
    >>> drawn = task.sample(1, generator=torch.Generator().manual_seed(2))
    >>> drawn.ids[0].tolist()
    [0, 2, 5, 4, 3, 3, 6, 7, 0, 2, 5]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 4]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="phonebook",
        summary="Recall numbers by names, both of several tokens of a small alphabet.",
        paper="Jelassi et al., Repeat After Me, arXiv:2402.01032",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    num_letters: int = 8
    num_digits: int = 10
    num_entries: int = 8
    num_queries: int = 2
    name_length: int = 3
    number_length: int = 3

    def __post_init__(self) -> None:
        at_least(1, name_length=self.name_length, number_length=self.number_length, num_queries=self.num_queries)
        at_least(2, num_letters=self.num_letters, num_digits=self.num_digits)
        if not self.num_queries <= self.num_entries <= self.num_letters**self.name_length:
            raise InputError(
                f"a book of {self.num_entries} entries has no {self.num_queries} queries, or no names enough: there "
                f"are {self.num_letters**self.name_length}"
            )

    @property
    def vocabulary(self) -> int:
        """Letters and digits."""
        return self.num_letters + self.num_digits

    @property
    def chance(self) -> float:
        """The error rate of one constant digit."""
        return 1 - 1 / self.num_digits

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw books with their queries."""
        names = self._names(batch, generator)
        digits = integers(batch, self.num_entries, self.number_length, below=self.num_digits, generator=generator)
        book = torch.cat([names, self.num_letters + digits], 2)
        order = torch.rand(batch, self.num_entries, generator=generator, device=book.device)
        asked = order.topk(self.num_queries).indices.unsqueeze(2)
        records = torch.cat([book, book.gather(1, asked.expand(-1, -1, book.shape[2]))], 1)
        scored = torch.zeros_like(records, dtype=torch.bool)
        scored[:, self.num_entries :, self.name_length :] = True
        # The target at t is the token at t + 1.
        said, mask = records.flatten(1), scored.flatten(1)[:, 1:]
        return Tokens(
            ids=said[:, :-1], targets=torch.where(mask, said[:, 1:], 0), mask=mask, vocabulary=self.vocabulary
        )

    def _names(self, batch: int, generator: torch.Generator) -> Int[Tensor, "batch entries letters"]:
        numbers = different(batch, self.num_letters**self.name_length, self.num_entries, generator=generator)
        places = torch.arange(self.name_length, device=numbers.device)
        return numbers.unsqueeze(2) // self.num_letters**places % self.num_letters

    def oracle(self) -> SequenceLearner:
        """The value of the first record with the same key."""
        return PhraseLookup(vocabulary=self.vocabulary, num_keys=self.num_letters)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """An induction head of single tokens, which takes one letter for the name."""
        return {"induction-head": InductionHead(vocabulary=self.vocabulary)}
