"""What claims measure of learners on tiny tables: learners whose functions are known give known numbers."""

import math

import torch

from contexture.claims.copied_tables import columns_copied, examples_copied, red_copied
from contexture.claims.line_tables import alternating, beyond, jumps, waves
from contexture.claims.plane_tables import SIZES, beside_best, cells, honest, losses, shapes
from contexture.claims.protocol import Samples
from contexture.claims.run import Run
from contexture.learners.classical.nearest_neighbour import NearestNeighbour

NEAREST = NearestNeighbour()
SEEDS, TABLES = 3, 2


def all_are(found: torch.Tensor | None, value: float) -> None:
    assert found is not None
    torch.testing.assert_close(found, torch.full((SEEDS, TABLES), value, dtype=torch.float64))


def test_the_nearest_neighbour_is_as_certain_far_away_as_among_the_examples() -> None:
    samples = beyond(Run(), NEAREST, "nearest")
    all_are(samples.values, 0.5)
    all_are(samples.per, 0.5)
    all_are(samples.errors, 0.0)
    all_are(samples.zero_errors, 0.25)
    assert samples.curves["nearest"].y[0, 0] == 0
    assert samples.curves["nearest"].y[0, -1] == 1


def test_the_nearest_neighbour_does_not_mind_copies() -> None:
    columns = columns_copied(Run(), NEAREST, "columns")
    all_are(columns.values, 0.5)
    all_are(columns.per, 0.5)
    assert columns.curves["columns"].x == (1.0, 4.0, 16.0)
    all_are(examples_copied(Run(), NEAREST, "examples").values, 0.0)
    all_are(red_copied(Run(), NEAREST, "red").values, 0.0)


def test_the_nearest_neighbour_is_certain_of_classes_in_turn_and_is_all_jumps() -> None:
    turns = alternating(Run(), NEAREST, "turns")
    all_are(turns.values, 0.5)
    all_are(turns.per, 0.5)
    all_are(jumps(Run(), NEAREST, "jumps").values, 1.0)


def test_who_repeats_the_last_label_is_right_half_of_the_time_in_a_wave() -> None:
    samples = waves(Run(), NEAREST, "wave")
    assert bool(((samples.values - 0.5).abs() <= 0.05).all())
    assert samples.curves["wave"].x[0] == -1.95


def test_the_cells_are_those_of_the_nearest_example() -> None:
    samples = cells(Run(), lambda _: NEAREST, "cells")
    all_are(samples.values, 1.0)
    all_are(samples.zero_errors, 5 / 6)


def test_who_knows_the_chances_says_neither_more_nor_less() -> None:
    samples = honest(Run(), None, "truth")
    assert float(samples.values.abs().max()) == 0
    assert mean(honest(Run(), NEAREST, "certain")) > 0.1


def mean(samples: Samples) -> float:
    return float(samples.values.mean())


def test_shapes_fill_half_of_the_plane_and_losses_are_logarithms() -> None:
    x, shown, true = shapes(Run(), 0, 200, SIZES[0])
    assert [tuple(part.shape) for part in x] == [(200, 40, 2)] * 4
    assert all(abs(float(part.mean()) - 0.5) < 0.03 for part in true)
    wrong = torch.stack([(y != (p > 0.5)).double() for y, p in zip(shown, true, strict=True)])
    assert abs(float(wrong.mean()) - 0.05) < 0.01
    said, y = torch.tensor([[0.5, 0.25], [0.0, 1.0]]), torch.tensor([[1, 0], [1, 0]])
    found = losses(said, y).tolist()
    assert [round(loss, 4) for loss in found] == [
        round((math.log(2) + math.log(4 / 3)) / 2, 4),
        round(math.log(100), 4),
    ]


def test_who_knows_the_shape_loses_less_than_the_best_of_three() -> None:
    samples = beside_best(Run(), None, "truth")
    assert samples.per is not None
    assert mean(samples) < float(samples.per.mean())
    assert samples.curves["truth"].x == (32.0,)
