import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.evaluation.curve import draw, fitting, learning_curve, measure
from contexture.evaluation.matching import distances
from contexture.evaluation.sequences import SequenceSource, usual_sizes
from contexture.protocols import LearnerCard, SequenceLearner, TaskCard, Tokens
from evaluation_toys import Mean

VOCABULARY = 5


@dataclass(frozen=True)
class Echo:
    """Says the token that it reads, with certainty, at even positions, and the next one at odd ones."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="echo", summary="echo", kind="in-context", targets=frozenset({"classification"})
    )

    def logits(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        said = (tokens + torch.arange(tokens.shape[1]) % 2) % VOCABULARY
        return 100.0 * torch.nn.functional.one_hot(said, VOCABULARY)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """The target is the token itself; scored from position 2 on where a coin says so, and always at the last."""

    length: int = 8
    card: ClassVar[TaskCard] = TaskCard(name="repeat", summary="repeat", episodes="tokens", metric="error-rate")

    @property
    def chance(self) -> float:
        return 1 - 1 / VOCABULARY

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        ids = torch.randint(VOCABULARY, (batch, self.length), generator=generator)
        mask = torch.rand(batch, self.length, generator=generator) < 0.5
        mask[:, :2], mask[:, -1] = False, True
        return Tokens(ids=ids, targets=ids, mask=mask, vocabulary=VOCABULARY)

    def oracle(self) -> SequenceLearner:
        return Echo()

    def baselines(self) -> Mapping[str, SequenceLearner]:
        return {}


def test_the_score_of_a_group_is_the_share_of_its_positions() -> None:
    # Of the positions 2, 3 and 4 the learner is wrong at 3, of 5, 6 and 7 at 5 and 7.
    samples = learning_curve(Echo(), Repeat(), context=(4, 7), episodes=40, seeds=(0, 1))
    source = draw(Repeat(), episodes=40, seeds=(0, 1))
    assert isinstance(source, SequenceSource)
    mask = torch.cat([block.mask for row in source.blocks for block in row]).sum(0)
    expected = [mask[3] / mask[2:5].sum(), (mask[5] + mask[7]) / mask[5:8].sum()]
    assert measure(samples).value == pytest.approx([float(share) for share in expected])
    assert samples.losses.shape == (2, 40, 2)
    assert samples.state_bytes == 7 * 8
    assert samples.seconds > 0


def test_the_interval_of_a_ratio_covers_it() -> None:
    # Whether a scored position in 2..4 is odd: a third of them on average.
    hits = 0
    for seed in range(100):
        found = measure(learning_curve(Echo(), Repeat(), context=(4,), episodes=64, seeds=(seed,)))
        hits += found.low[0] <= 1 / 3 <= found.high[0]
    assert 0.88 <= hits / 100 <= 1


def test_a_group_without_positions_has_no_score() -> None:
    samples = learning_curve(Echo(), Repeat(), context=(1, 4), episodes=10, seeds=(0,))
    assert math.isnan(measure(samples).value[0])
    assert math.isfinite(measure(samples).value[1])


def test_log_loss_of_a_certain_wrong_answer_is_at_the_floor() -> None:
    samples = learning_curve(Echo(), Repeat(), context=(2, 3), episodes=30, seeds=(0,), metric="log-loss")
    assert measure(samples).value == pytest.approx([0, -math.log(1e-6)], abs=1e-6)


def test_sizes_follow_the_scored_positions() -> None:
    assert usual_sizes(Repeat(length=40)) == (2, 4, 8, 16, 32, 39)
    source = draw(Repeat(length=40), episodes=1, seeds=(0,))
    assert fitting((4, 40), source)[1] == {40: "before the last of an episode there are 39"}


def test_distances_need_answers() -> None:
    samples = learning_curve(Echo(), Repeat(), context=(4,), episodes=10, seeds=(0,))
    assert distances([samples], [samples]) == {}


@pytest.mark.parametrize(
    ("learner", "metric", "said"),
    [(Mean(), None, "mean reads pairs"), (Echo(), "squared-error", "does not score"), (Echo(), "roc-auc", "table")],
)
def test_what_does_not_fit_is_said(learner: object, metric: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        learning_curve(learner, Repeat(), context=(4,), episodes=2, seeds=(0,), metric=metric)  # type: ignore[arg-type]
