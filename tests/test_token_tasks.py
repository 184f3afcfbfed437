"""Tasks over tokens: the structure of drawn sequences, oracles that are exact, worked examples of their algorithms."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.group_product import GroupProduct, cyclic, symmetric
from contexture.learners.phrase_lookup import PhraseLookup
from contexture.learners.positional_code import PositionalCode
from contexture.learners.selective_copy import SelectiveCopy
from contexture.learners.shift import Shift
from contexture.learners.unigram import Unigram
from contexture.protocols import SequenceLearner, Tokens
from contexture.randomness import generator
from contexture.tasks.compression import Compression
from contexture.tasks.copying import Copying
from contexture.tasks.fuzzy_recall import FuzzyRecall
from contexture.tasks.induction import Induction
from contexture.tasks.noisy_recall import NoisyRecall
from contexture.tasks.permutations import Permutations
from contexture.tasks.phonebook import Phonebook
from contexture.tasks.running_parity import RunningParity
from contexture.tasks.selective_copying import SelectiveCopying

TASKS = [
    Copying(vocabulary=6, num_tokens=9),
    SelectiveCopying(vocabulary=5, length=12, num_tokens=6),
    Induction(vocabulary=5, length=9),
    Phonebook(num_letters=3, num_digits=3, num_entries=6, num_queries=3, name_length=2),
    NoisyRecall(num_keys=4, num_values=3, num_noise=3, length=20, noise=0.4),
    FuzzyRecall(num_keys=4, num_values=3, num_pairs=4, length=40),
    Compression(base=3, num_digits=4),
    RunningParity(length=20),
    Permutations(degree=4, length=12),
]


def accuracy(learner: SequenceLearner, tokens: Tokens) -> float:
    right = learner.logits(tokens.ids, tokens.segments).argmax(-1) == tokens.targets
    return float(right[tokens.mask].double().mean())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.card.name)
def test_the_oracle_is_right_everywhere_and_no_baseline_is(task) -> None:
    drawn = task.sample(300, generator=generator("exact"))
    assert accuracy(task.oracle(), drawn) == 1.0
    for learner in task.baselines().values():
        assert accuracy(learner, drawn) < 0.95


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.card.name)
def test_one_answer_to_everything_is_right_at_the_rate_of_chance(task) -> None:
    drawn = task.sample(4000, generator=generator("chance"))
    commonest = int(drawn.targets[drawn.mask].bincount().max())
    assert 1 - commonest / int(drawn.mask.sum()) == pytest.approx(task.chance, abs=0.03)


def test_a_copied_string_ends_before_its_last_token() -> None:
    drawn = Copying(vocabulary=9, num_tokens=4).sample(3, generator=generator("copy"))
    assert drawn.ids.shape == (3, 8)
    assert torch.equal(drawn.ids[:, 5:], drawn.ids[:, :3])
    assert torch.equal(drawn.targets[:, 4:], drawn.ids[:, :4])
    assert drawn.ids[:, 4].eq(0).all()


def test_names_of_a_book_differ_and_every_query_repeats_an_entry() -> None:
    task = Phonebook(num_letters=3, num_digits=4, num_entries=8, num_queries=4, name_length=2, number_length=3)
    drawn = task.sample(50, generator=generator("book"))
    records = torch.cat([drawn.ids, drawn.targets[:, -1:]], 1).view(50, 12, 5)
    for b in range(50):
        entries = [tuple(record) for record in records[b, :8].tolist()]
        assert len({entry[:2] for entry in entries}) == 8
        asked = [tuple(record) for record in records[b, 8:].tolist()]
        assert set(asked) <= set(entries)
        assert len(set(asked)) == 4
    assert int(drawn.mask.sum(1).unique()) == 12


def test_a_key_keeps_its_value_among_noise_and_is_asked_when_it_comes_again() -> None:
    task = NoisyRecall(num_keys=4, num_values=4, num_noise=4, length=40, noise=0.5)
    drawn = task.sample(200, generator=generator("noise"))
    share = float((drawn.ids >= 8).double().mean())
    assert share == pytest.approx(0.5, abs=0.05)
    for ids, targets, mask in zip(drawn.ids.tolist(), drawn.targets.tolist(), drawn.mask.tolist(), strict=True):
        values: dict[int, int] = {}
        for t in range(0, 40, 2):
            if ids[t] < 4:
                assert mask[t] == (ids[t] in values)
                assert values.setdefault(ids[t], ids[t + 1]) == ids[t + 1]
                assert targets[t] == (ids[t + 1] if mask[t] else 0)
            else:
                assert not mask[t]


def records(ids: list[int], num_keys: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    found: list[tuple[list[int], list[int]]] = []
    for token in ids:
        if token < num_keys and (not found or found[-1][1]):
            found.append(([], []))
        found[-1][token >= num_keys].append(token)
    return [(tuple(key), tuple(value)) for key, value in found]


def test_phrases_of_every_length_recur_whole() -> None:
    task = FuzzyRecall(num_keys=5, num_values=4, num_pairs=4, length=40, longest=3)
    drawn = task.sample(100, generator=generator("fuzzy"))
    lengths = set()
    for ids in drawn.ids.tolist():
        whole = records(ids, 5)[:-1]
        assert len(dict(whole)) == len(set(whole)) <= 4
        lengths |= {(len(key), len(value)) for key, value in whole}
    assert lengths == {(k, v) for k in (1, 2, 3) for v in (1, 2, 3)}


def test_a_longer_key_that_begins_alike_is_another_key() -> None:
    learner = PhraseLookup(vocabulary=8, num_keys=4)
    #  keys 1 2 | 5, then 1 | 6, then 1 asks: not the first 1, which goes on with 2
    ids = torch.tensor([[1, 2, 5, 1, 6, 1, 6, 1, 2]])
    assert learner.logits(ids).argmax(-1)[0, [5, 8]].tolist() == [6, 5]


def test_running_products_by_hand() -> None:
    said = GroupProduct(table=cyclic(3)).logits(torch.tensor([[1, 2, 2, 1]])).argmax(-1)
    assert said.tolist() == [[1, 0, 2, 0]]
    elements = list(permutations(range(3)))
    table = symmetric(3)
    # first exchange the last two, then the first two: (a b c) -> (a c b) -> (c a b)
    assert elements[table[1][2]] == (2, 0, 1)
    assert all(table[0][g] == table[g][0] == g for g in range(6))
    for a, b, c in [(1, 2, 3), (5, 4, 1), (2, 2, 5)]:
        assert table[table[a][b]][c] == table[a][table[b][c]]


def test_segments_forget() -> None:
    ids, cut = torch.tensor([[1, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1]])
    assert GroupProduct(table=cyclic(2)).logits(ids, cut).argmax(-1).tolist() == [[1, 0, 1, 1]]
    assert Shift(vocabulary=3, distance=1).logits(ids, cut)[0, 3].eq(0).all()
    assert Unigram(vocabulary=3).logits(ids, cut)[0, 3].exp().round().tolist() == [1, 2, 1]
    asked = SelectiveCopy(vocabulary=8).logits(torch.tensor([[5, 6, 7, 1]]), cut)
    assert asked[0, 3].eq(0).all()


def test_numbers_are_read_with_the_latest_digit_last() -> None:
    said = PositionalCode(base=3, length=3, offset=4).logits(torch.tensor([[2, 0, 1, 3]]))
    assert int(said[0, 3].argmax()) == 4 + 2 * 9 + 0 * 3 + 1
    assert said[0, :3].eq(0).all()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.card.name)
def test_the_vocabulary_is_that_of_the_tokens(task) -> None:
    assert task.sample(2, generator=generator("vocabulary")).vocabulary == task.vocabulary == task.oracle().vocabulary


@pytest.mark.parametrize(
    ("task", "changes", "sentence"),
    [
        (Copying(), {"num_tokens": 0}, "num_tokens must be at least 1"),
        (SelectiveCopying(), {"length": 8}, "16 tokens do not fit into a length of 8"),
        (Phonebook(), {"num_queries": 9}, "8 entries has no 9 queries"),
        (NoisyRecall(), {"length": 9}, "needs an even length"),
        (FuzzyRecall(), {"length": 20}, "8 pairs of phrases of up to 3 tokens need 54"),
        (FuzzyRecall(), {"num_pairs": 9}, "needs as many key tokens"),
        (Compression(), {"num_digits": 20}, "at most 4096 can be named"),
        (Permutations(), {"degree": 6}, "2 to 5 things"),
    ],
)
def test_settings_that_cannot_be_drawn_are_named(task, changes, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(task, **changes)
