"""One trained model for each seed, as one entrant of a comparison.

Seed s of the comparison is answered by model s, so that the spread over seeds holds what training brings in.
"""

from dataclasses import dataclass

from contexture.protocols import Learner, LearnerCard, SequenceLearner


@dataclass(frozen=True, slots=True)
class PerSeed:
    """Learners that differ in the seed of their training alone; the first stands for all in sizes and card."""

    learners: tuple[Learner | SequenceLearner, ...]

    @property
    def card(self) -> LearnerCard:
        """The first learner's."""
        return self.learners[0].card
