"""What papers share to measure mixers: differences of outputs, and models that are trained to recall."""

import torch

from contexture.claims.outputs import apart
from contexture.claims.recall import recalled, train_recall
from contexture.claims.run import Run
from contexture.claims.tiny_tables import green, two_sides
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.recall import InductionHead
from contexture.tasks.mqar import MQAR

TASK = MQAR(vocabulary=16, length=16, num_pairs=2)


def test_outputs_differ_relative_to_what_is_wanted() -> None:
    said = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    wanted = torch.tensor([[[1.0, 2.0], [3.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]], dtype=torch.float64)
    one = apart(said, wanted, "toy")
    # Mean squares: 9/4 apart in both sequences; 15/4 and 9/4 wanted, 3 on average.
    torch.testing.assert_close(one.values, torch.full((2,), 0.75**0.5, dtype=torch.float64))
    assert one.zero_errors is not None
    assert one.zero_errors.tolist() == [3.75, 2.25]
    places, curve = one.curves["toy"]
    assert list(places) == [1, 2]
    # The first position is exact, and drawn at the rounding of the dtype; at the second 18 of 19 are missing.
    torch.testing.assert_close(curve, torch.tensor([torch.finfo(torch.float64).eps, (18 / 19) ** 0.5]).double())


def test_looking_keys_up_recalls_everything() -> None:
    samples = recalled(Run(), TASK.oracle(), TASK, "lookup")
    assert samples.values.shape == (3, 16)
    assert bool((samples.values == 1).all())
    assert samples.zero_errors is not None
    assert float(samples.zero_errors[0, 0]) == TASK.chance == 7 / 8


def test_the_curve_is_over_the_tokens_between_key_and_query() -> None:
    samples = recalled(Run(), InductionHead(vocabulary=16), TASK, "latest")
    curve = samples.curves["latest"]
    assert curve.x == (4.0, 8.0, 12.0, 16.0)
    # A random token equal to the key misleads who takes the latest: the more tokens between, the more of them.
    assert float(curve.y[:, 0].mean()) > float(curve.y[:, 2].mean())
    assert float(samples.values.mean()) < 1


def test_a_model_for_each_seed_is_trained() -> None:
    run = Run()
    models = train_recall(run, "linear-attention+none*2", task=TASK, num_steps=300, width=8)
    assert len(models) == 3
    assert run.settings["training"] == "10 steps of 32 sequences, Muon at 0.03"
    first, second = (model(torch.arange(8).unsqueeze(0)) for model in models[:2])
    assert not torch.equal(first, second)
    shares = recalled(run, models, TASK, "models").values
    assert 0 <= float(shares.mean()) < 0.6


def test_the_nearest_example_of_two_sides_names_the_side() -> None:
    x, y = two_sides(Run(), 0, 3)
    assert x.shape == (2, 6)
    said = green(NearestNeighbour(), x, y, torch.tensor([-1.0, 1.0]).double())
    assert said.tolist() == [[0.0, 1.0], [0.0, 1.0]]
