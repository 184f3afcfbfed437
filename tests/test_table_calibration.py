from dataclasses import replace

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.saved import load_learner, load_shipped, save_learner
from contexture.learners.table_calibration import Calibration
from contexture.learners.table_transformer import TableTransformerLearner
from contexture.models.table_bins import NUM_BINS
from contexture.protocols import Pairs, Schema


def context(generator, *, rows, classes):
    x = torch.randn(1, rows, 3, generator=generator, dtype=torch.float64)
    y = torch.arange(rows)[None] % classes if classes else x[..., 0] + x[..., 1]
    return Pairs(x=x, y=y, schema=Schema.classes(3, classes) if classes else Schema.numeric(3))


def test_by_hand():
    calibration = Calibration(classes=0.9, rows=100, power=0.5)
    assert [calibration.numbers(n) for n in (1, 100, 400, 10_000)] == [1.0, 1.0, 0.5, 0.1]
    assert Calibration().numbers(10**6) == 1.0


def test_a_class_temperature_divides_the_logits_of_each_member(generator):
    learner = TableTransformerLearner.example()
    shown, asked = context(generator, rows=12, classes=3), torch.randn(1, 4, 3, generator=generator).double()
    one = TableTransformerLearner(learner.model, num_members=1)
    sharp = TableTransformerLearner(learner.model, num_members=1, calibration=Calibration(classes=0.5))
    plain = one.predict(shown, asked).probabilities
    expected = plain.square() / plain.square().sum(-1, keepdim=True)
    torch.testing.assert_close(sharp.predict(shown, asked).probabilities, expected, rtol=1e-9, atol=0)


def test_intervals_narrow_as_the_context_outgrows_its_usual_size(generator):
    learner = TableTransformerLearner(TableTransformerLearner.example().model, num_members=1)
    hill = -torch.linspace(-3, 3, NUM_BINS).square().expand(1, 2, -1)
    for rows, temperature in ((20, 1.0), (80, 0.5)):
        plain = learner.fit(context(generator, rows=rows, classes=0))
        sharp = replace(plain, calibration=Calibration(rows=20, power=0.5))
        low, high = sharp._numbers(hill).interval(0.8)
        expected = plain._numbers(hill / temperature).interval(0.8)
        torch.testing.assert_close((low, high), expected, rtol=1e-12, atol=0)
        wide = plain._numbers(hill).interval(0.8)
        assert bool((high - low < wide[1] - wide[0]).all()) == (rows > 20)


def test_it_is_saved_beside_the_weights(tmp_path):
    learner, calibration = TableTransformerLearner.example(), Calibration(classes=0.8, rows=50, power=0.25)
    save_learner(
        tmp_path / "own",
        learner.model,
        learner="table-transformer",
        task="tables",
        config=learner.model.config,
        step=0,
        record={},
        calibration=calibration,
    )
    assert load_learner(tmp_path / "own").calibration == calibration
    assert load_shipped("tables").calibration != Calibration()


@pytest.mark.parametrize("wrong", [{"classes": 0.0}, {"rows": 0}, {"power": -1.0}])
def test_impossible_temperatures_are_refused(wrong):
    with pytest.raises(InputError, match="temperature above zero"):
        Calibration(**wrong)
