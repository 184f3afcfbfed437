"""Associative recall: the structure of drawn sequences, the law of the gaps, the lookup and the induction head."""

import pytest
import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.recall import InductionHead, Lookup, first_occurrence, latest_occurrence
from contexture.protocols import SequenceLearner, Tokens
from contexture.randomness import generator
from contexture.tasks.mqar import MQAR

SIZES = [(64, 4), (128, 8), (256, 16), (512, 64)]


def accuracy(learner: SequenceLearner, tokens: Tokens) -> float:
    right = learner.logits(tokens.ids, tokens.segments).argmax(-1) == tokens.targets
    return float(right[tokens.mask].double().mean())


@pytest.mark.parametrize(("length", "num_pairs"), SIZES)
@pytest.mark.parametrize("random_filler", [True, False])
def test_sequences_have_the_published_structure(length: int, num_pairs: int, random_filler: bool) -> None:
    task = MQAR(length=length, num_pairs=num_pairs, random_filler=random_filler)
    drawn = task.sample(6, generator=generator("structure", length))
    assert drawn.ids.shape == (6, length)
    keys, values = drawn.ids[:, : 2 * num_pairs : 2], drawn.ids[:, 1 : 2 * num_pairs : 2]
    assert int(keys.min()) >= 1
    assert int(keys.max()) <= 4095
    assert int(values.min()) >= 4096
    assert int(values.max()) <= 8191
    for b in range(6):
        assert len(keys[b].unique()) == len(values[b].unique()) == num_pairs
        asked = drawn.mask[b].nonzero().squeeze(1)
        assert len(asked) == num_pairs
        assert int(asked.min()) >= 2 * num_pairs
        assert not torch.any(asked % 2)
        pairs = dict(zip(keys[b].tolist(), values[b].tolist(), strict=True))
        assert sorted(drawn.ids[b, asked].tolist()) == sorted(pairs)
        assert drawn.targets[b, asked].tolist() == [pairs[key] for key in drawn.ids[b, asked].tolist()]
        places = {int(key): 2 * i for i, key in enumerate(keys[b])}
        gaps = [int(t) - places[int(drawn.ids[b, t])] for t in asked]
        assert drawn.slices["gap"][b, asked].tolist() == gaps
    filler = drawn.ids[:, 2 * num_pairs :][~drawn.mask[:, 2 * num_pairs :]]
    assert bool(filler.any()) == random_filler
    assert drawn.segments is None
    assert drawn.vocabulary == 8192


def test_gaps_follow_the_power_law() -> None:
    task = MQAR(vocabulary=64, length=34, num_pairs=1, power=0.01)
    drawn = task.sample(40_000, generator=generator("gaps"))
    slots = (drawn.mask.long().argmax(1) - 2) // 2
    measured = slots.bincount(minlength=16).double() / len(slots)
    law = torch.arange(1, 17).double().pow(task.power - 1)
    torch.testing.assert_close(measured, law / law.sum(), atol=0.01, rtol=0.0)


def test_a_power_of_one_spreads_queries_evenly() -> None:
    drawn = MQAR(length=24, num_pairs=2, power=1.0).sample(20_000, generator=generator("even"))
    share = drawn.mask[:, 4::2].double().mean(0)
    torch.testing.assert_close(share, torch.full_like(share, 0.2), atol=0.02, rtol=0.0)


def test_short_gaps_come_first_in_the_order_of_the_keys() -> None:
    drawn = MQAR(length=64, num_pairs=4).sample(8000, generator=generator("order"))
    queries = (
        (drawn.ids[:, :8:2].unsqueeze(-1) == torch.where(drawn.mask, drawn.ids, -1).unsqueeze(1)).long().argmax(-1)
    )
    slot = ((queries - 8) // 2).double().mean(0)
    assert bool((slot.diff() > 0).all())


@pytest.mark.parametrize(("length", "num_pairs"), SIZES)
def test_the_oracle_recalls_everything(length: int, num_pairs: int) -> None:
    task = MQAR(vocabulary=256, length=length, num_pairs=num_pairs)
    assert accuracy(task.oracle(), task.sample(8, generator=generator("oracle"))) == 1.0


def test_random_filler_misleads_the_induction_head_alone() -> None:
    task = MQAR(vocabulary=16, length=40, num_pairs=4)
    drawn = task.sample(400, generator=generator("misled"))
    assert accuracy(task.oracle(), drawn) == 1.0
    assert accuracy(task.baselines()["induction-head"], drawn) < 0.9
    plain = MQAR(vocabulary=16, length=40, num_pairs=4, random_filler=False)
    drawn = plain.sample(400, generator=generator("plain"))
    assert accuracy(plain.baselines()["induction-head"], drawn) == 1.0


def test_first_and_latest_occurrence_by_hand() -> None:
    ids = torch.tensor([[5, 7, 5, 5, 7, 5]])
    whole, cut = torch.zeros(1, 6, dtype=torch.int64), torch.tensor([[0, 0, 0, 1, 1, 0]])
    assert first_occurrence(ids, whole).tolist() == [[0, 1, 0, 0, 1, 0]]
    assert latest_occurrence(ids, whole).tolist() == [[0, 1, 0, 2, 1, 3]]
    assert first_occurrence(ids, cut).tolist() == [[0, 1, 0, 3, 4, 5]]
    assert latest_occurrence(ids, cut).tolist() == [[0, 1, 0, 3, 4, 5]]


def loop(ids: Tensor, latest: bool) -> Tensor:
    found = torch.empty_like(ids)
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            earlier = [s for s in range(t) if ids[b, s] == ids[b, t]]
            found[b, t] = (earlier[-1] if latest else earlier[0]) if earlier else t
    return found


def test_occurrences_are_those_of_a_loop() -> None:
    ids = torch.randint(6, (5, 30), generator=generator("loop"))
    none = torch.zeros_like(ids)
    assert torch.equal(first_occurrence(ids, none), loop(ids, latest=False))
    assert torch.equal(latest_occurrence(ids, none), loop(ids, latest=True))


@pytest.mark.parametrize("learner", [Lookup(vocabulary=8), InductionHead(vocabulary=8)])
def test_unseen_tokens_get_uniform_logits_and_seen_ones_name_what_followed(learner: SequenceLearner) -> None:
    logits = learner.logits(torch.tensor([[3, 6, 3]]))
    assert logits[0, :2].eq(0).all()
    assert logits[0, 2].argmax() == 6
    assert float(logits[0, 2].softmax(-1)[6]) > 0.999


def test_settings_that_cannot_be_drawn_are_named() -> None:
    with pytest.raises(InputError, match="8 pairs and their queries need a length of 32, not 31"):
        MQAR(num_pairs=8, length=31)
    with pytest.raises(InputError, match="a vocabulary of 8 has 3 keys, too few for 4 pairs"):
        MQAR(vocabulary=8)
    with pytest.raises(InputError, match="power must be positive"):
        MQAR(power=0.0)


def test_chance_counts_the_values() -> None:
    assert MQAR(vocabulary=16).chance == pytest.approx(7 / 8)
