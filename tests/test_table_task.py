"""A table as a task: divisions, episodes, chance, the bundled tables."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from contexture.discovery import registered
from contexture.errors import InputError
from contexture.evaluation.curve import learning_curve
from contexture.evaluation.splits import SplitTask
from contexture.protocols import Pairs, Task
from contexture.tables import Dataset, Table, read_dataset, table_dataset
from contexture.tasks.bundled import BUNDLED, bundled_dataset
from contexture.tasks.tables import TableTask, halves


def small(num_rows: int = 21, classes: bool = True) -> Dataset:
    x = [str(i) for i in range(num_rows)]
    y = ["abc"[min(i % 5, 2)] for i in range(num_rows)] if classes else [f"{i}.5" for i in range(num_rows)]
    return table_dataset(Table.from_columns(["x", "y"], [x, y], source="folder/small.csv"), target="y")


def ids(pairs: Pairs) -> list[int]:
    return [int(value) for value in pairs.x[0, :, 0]]


@pytest.mark.parametrize("classes", [True, False])
def test_a_split_holds_every_row_once(classes: bool) -> None:
    task = TableTask(dataset=small(classes=classes))
    for split in task.splits(5, seed=0):
        assert sorted(ids(split.train) + ids(split.test)) == list(range(21))
        assert (split.train.time, split.test.time) == (task.num_train, task.num_test) == (10, 11)
        order = torch.tensor(ids(split.train))
        assert torch.equal(split.train.y[0], torch.from_numpy(task.dataset.y)[order])


def test_splits_are_shuffled_differ_and_come_again() -> None:
    task = TableTask(dataset=small())
    first = [ids(split.train) for split in task.splits(6, seed=0)]
    assert len({tuple(rows) for rows in first}) == 6
    assert all(rows != sorted(rows) for rows in first)
    assert [ids(split.train) for split in task.splits(3, seed=0)] == first[:3]
    assert [ids(split.train) for split in task.splits(6, seed=1)] != first


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_every_class_has_its_share_of_both_halves(share: float) -> None:
    strata = torch.randint(0, 7, (203,), generator=torch.Generator().manual_seed(0)) ** 2
    num_train = int(203 * share)
    for seed in range(20):
        train, test = halves(strata, num_train=num_train, generator=torch.Generator().manual_seed(seed))
        assert len(train) == num_train
        assert sorted(torch.cat((train, test)).tolist()) == list(range(203))
        for value in strata.unique():
            expected = int((strata == value).sum()) * num_train / 203
            assert abs(int((strata[train] == value).sum()) - expected) < 1


def test_every_row_is_in_the_training_half_half_of_the_time() -> None:
    strata = torch.tensor([0] * 3 + [1] * 7 + [2])
    counts = torch.zeros(11)
    for seed in range(2_000):
        train, _ = halves(strata, num_train=5, generator=torch.Generator().manual_seed(seed))
        counts[train] += 1
    spread = math.sqrt(5 / 11 * 6 / 11 / 2_000)
    assert (counts / 2_000 - 5 / 11).abs().max() < 4.5 * spread


def test_the_first_rows_are_a_context() -> None:
    split = next(TableTask(dataset=small()).splits(1, seed=0))
    assert ids(split.context(4)) == ids(split.train)[:4]
    assert split.context(0).time == 0
    for wrong in (11, -1):
        with pytest.raises(InputError, match="holds 10 rows"):
            split.context(wrong)


def test_a_large_table_is_scored_on_some_rows_and_says_so() -> None:
    task = TableTask(dataset=small(101), most_held_out=20)
    split = next(task.splits(1, seed=0))
    assert (split.train.time, split.test.time) == (50, 20)
    assert (
        task.describe()[-1]
        == "each split: 50 rows to learn from, 20 held out, 31 in neither, every class in proportion"
    )


def test_episodes_are_different_rows_in_random_order() -> None:
    task = TableTask(dataset=small(classes=False), num_points=15)
    episodes = task.sample(4, generator=torch.Generator().manual_seed(0))
    again = task.sample(4, generator=torch.Generator().manual_seed(0))
    assert episodes.x.shape == (4, 15, 1)
    assert torch.equal(episodes.x, again.x)
    assert all(len(set(rows.tolist())) == 15 for rows in episodes.x[:, :, 0])
    assert torch.equal(episodes.y, episodes.x[:, :, 0] + 0.5)
    assert not torch.equal(episodes.x[0], episodes.x[1])
    assert TableTask(dataset=small(), num_points=500).num_points == 21


def test_chance_is_the_score_of_the_best_constant() -> None:
    task = TableTask(dataset=small())
    shares = torch.from_numpy(task.dataset.y).bincount().double() / 21
    every = torch.from_numpy(task.dataset.y)
    assert task.chance == pytest.approx(-float(shares[every].log().mean()), rel=1e-12)
    assert task.card.metric == "log-loss"
    assert TableTask(dataset=small(classes=False)).chance == 1.0
    assert TableTask(dataset=small(classes=False)).card.metric == "relative-squared-error"


def test_each_table_has_its_name_and_the_class_keeps_its_own() -> None:
    assert TableTask(dataset=small()).card.name == "small"
    assert TableTask.card.name == "table"
    assert registered("tasks")["table"] is TableTask
    task = TableTask.bundled("wine")
    assert isinstance(task, Task)
    assert isinstance(task, SplitTask)
    assert task.oracle() is None
    settings = {f.name: getattr(task, f.name) for f in fields(task) if f.repr}
    assert json.loads(json.dumps(settings)) == {"train_share": 0.5, "most_held_out": 2000, "num_points": 64}


SHAPES = {
    "diabetes": (442, 10, 0),
    "breast-cancer": (569, 30, 2),
    "wine": (178, 13, 3),
    "iris": (150, 4, 3),
    "digits": (1797, 61, 10),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_tables(name: str) -> None:
    import sklearn.datasets

    data = bundled_dataset(name)
    assert (*data.x.shape, len(data.classes)) == SHAPES[name]
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(sklearn.datasets, f"load_{name.replace('-', '_')}")(**options)
    varying = bunch.data[:, bunch.data.std(axis=0) > 0]
    np.testing.assert_array_equal(data.x, varying)
    if data.classes:
        assert [data.classes[code] for code in data.y] == [str(bunch.target_names[code]) for code in bunch.target]
    else:
        np.testing.assert_array_equal(data.y, bunch.target)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(InputError, match="no table named 'irises' is bundled"):
        TableTask.bundled("irises")
    for settings in ({"train_share": 1.0}, {"train_share": 0.01}, {"most_held_out": 0}, {"num_points": 0}):
        with pytest.raises(InputError):
            TableTask(dataset=small(), **settings)  # type: ignore[arg-type]


def test_the_baselines_learn_from_a_real_table_with_gaps_and_categories(contexture_data: Path) -> None:
    task = TableTask(dataset=read_dataset(contexture_data / "tabular" / "auto_imports.csv", target=-1))
    learners = task.baselines()
    assert list(learners)[:2] == ["mean", "ridge"]
    losses = {}
    for name in ("mean", "ridge", "random-forest"):
        losses[name] = float(learning_curve(learners[name], task, context=[80], episodes=2, seeds=[0]).losses.mean())
    assert losses["mean"] == pytest.approx(1.0, abs=0.05)
    assert losses["ridge"] < 0.5
    assert losses["random-forest"] < 0.5


def test_the_baselines_of_classes_predict_classes() -> None:
    task = TableTask.bundled("iris")
    split = next(task.splits(1, seed=0))
    learners = task.baselines()
    assert next(iter(learners)) == "majority"
    for name in ("majority", "logistic", "naive-bayes", "knn"):
        chances = learners[name].predict(split.context(40), split.test.x).probabilities
        assert chances is not None
        right = (chances[0].argmax(-1) == split.test.y[0]).double().mean()
        assert right > (0.2 if name == "majority" else 0.85), name
