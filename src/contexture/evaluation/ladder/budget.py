"""How much of the recall ladder is run: which rungs, how long, how many rates and seeds, and what sizes are matched.

Every mixer gets two layers, each a norm, the mixer and a shortcut, without feed-forward networks, as in Arora et al.
2024: what a position learns of others, it learns by the mixer. Learned positions are added to the embeddings for all,
so that a mixer which knows no order by itself is judged by its memory. Models are trained by Muon (the matrices, and
AdamW at a tenth of the rate everything else) or by AdamW alone, with a decay of 0.1 after Arora et al. Every mixer gets
the optimiser and rate that one validation seed finds best for it in the grid; other seeds are reported. In few steps
softmax attention learns recall under Muon alone, and Mamba under AdamW alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from contexture.errors import InputError

MATCHES = ("parameters", "state", "seconds")
VALIDATION_SEED = 1000
"""The seed on which rates are chosen; reported ones count from 0."""


class Candidate(NamedTuple):
    """An optimiser and its rate."""

    optimiser: Literal["adamw", "muon"]
    rate: float

    def __str__(self) -> str:
        return f"{self.optimiser} {self.rate:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The settings of a ladder, the same for every mixer.

    rates: those of Muon; adamw_rates: those of AdamW alone. width: that of the softmax model whose parameters the
    others match. state_bytes: what the models of the panel of equal states keep after a whole sequence. seconds:
    processor time of one training in the panel of equal time; most_seconds: where trainings of the other panels are cut
    short. num_evaluated: sequences for each seed.
    """

    name: str
    rungs: tuple[str, ...]
    steps: int
    rates: tuple[float, ...]
    num_seeds: int
    adamw_rates: tuple[float, ...] = ()
    width: int = 32
    num_heads: int = 2
    num_layers: int = 2
    batch: int = 32
    weight_decay: float = 0.1
    state_bytes: int = 8192
    seconds: float = 8.0
    most_seconds: float = 60.0
    num_evaluated: int = 512

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What is tried for every mixer."""
        muon = (Candidate("muon", rate) for rate in self.rates)
        return (*muon, *(Candidate("adamw", rate) for rate in self.adamw_rates))


EVERY_RUNG = (
    "induction",
    "mqar-4",
    "mqar-8",
    "mqar-16",
    "noisy-recall",
    "fuzzy-recall",
    "phonebook",
    "copying",
    "selective-copying",
    "compression",
    "running-parity",
    "permutations-3",
    "permutations-5",
)

BUDGETS: Mapping[str, Budget] = {
    budget.name: budget
    for budget in (
        Budget(
            name="tiny",
            rungs=("induction", "mqar-4"),
            steps=12,
            rates=(0.03,),
            num_seeds=2,
            width=16,
            batch=16,
            state_bytes=4096,
            seconds=0.2,
            most_seconds=2.0,
            num_evaluated=64,
        ),
        Budget(
            name="small",
            rungs=("mqar-4", "mqar-8", "fuzzy-recall", "selective-copying", "running-parity"),
            steps=400,
            rates=(0.03, 0.1),
            adamw_rates=(0.01,),
            num_seeds=3,
            most_seconds=25.0,
        ),
        Budget(
            name="standard",
            rungs=EVERY_RUNG,
            steps=400,
            rates=(0.03, 0.1),
            adamw_rates=(0.01,),
            num_seeds=3,
            most_seconds=25.0,
        ),
        Budget(
            name="full",
            rungs=EVERY_RUNG,
            steps=800,
            rates=(0.01, 0.03, 0.1),
            adamw_rates=(0.003, 0.01),
            num_seeds=3,
            most_seconds=120.0,
            seconds=16.0,
            num_evaluated=1024,
        ),
    )
}


def choose_budget(name: str) -> Budget:
    """The budget of that name; InputError lists what there is."""
    if name not in BUDGETS:
        raise InputError(f"no budget is named {name!r}: there are {', '.join(BUDGETS)}")
    return BUDGETS[name]


def choose_matches(names: tuple[str, ...]) -> tuple[str, ...]:
    """What is matched, checked; InputError for an unknown one."""
    for name in names:
        if name not in MATCHES:
            raise InputError(f"mixers cannot be matched by {name!r}: there are {', '.join(MATCHES)}")
    return tuple(dict.fromkeys(names))
