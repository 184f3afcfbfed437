from dataclasses import replace

import pytest
import torch

from contexture.learners.in_context import InContext
from contexture.learners.saved import load_shipped, shipped
from contexture.models.pairs import PairsModel
from contexture.protocols import Learner, Pairs
from contexture.randomness import generator
from contexture.tasks.linear_regression import LinearRegression
from contexture.training.config import TrainingConfig
from contexture.training.recipes import linear_regression

BOUND = 1.3
JUDGED = slice(4, 25)


@pytest.fixture(scope="module")
def prompts() -> Pairs:
    """Prompts that neither training nor a published measurement has drawn."""
    task = LinearRegression(num_features=8, num_points=25, noise=0.5)
    return task.sample(2048, generator=generator(0, "tests of the shipped weights"))


@pytest.fixture(scope="module")
def optimum(prompts: Pairs) -> torch.Tensor:
    """The excess error of Bayesian ridge regression at every number of examples."""
    return excess(LinearRegression(noise=0.5).oracle(), prompts, prompts)


def excess(learner: Learner, shown: Pairs, asked: Pairs) -> torch.Tensor:
    """The mean squared distance to the noiseless target at every number of examples."""
    assert asked.clean is not None
    return (learner.prequential(shown).value - asked.clean).square().mean(0)


def test_the_shipped_transformer_is_near_the_optimum_at_every_number_of_examples(
    prompts: Pairs, optimum: torch.Tensor
) -> None:
    ratio = excess(load_shipped("linear-regression"), prompts, prompts) / optimum
    assert ratio[JUDGED].max() < BOUND


def test_an_untrained_transformer_is_not(prompts: Pairs, optimum: torch.Tensor) -> None:
    model = linear_regression().build_model(generator=generator(0, "model"))
    assert isinstance(model, PairsModel)
    ratio = excess(InContext(model), prompts, prompts) / optimum
    assert ratio[JUDGED].min() > BOUND


def test_the_shipped_transformer_loses_its_skill_when_the_examples_are_permuted(
    prompts: Pairs, optimum: torch.Tensor
) -> None:
    order = torch.rand(prompts.y.shape, generator=generator(0, "permutation")).argsort(1)
    spoiled = Pairs(x=prompts.x, y=prompts.y.gather(1, order), schema=prompts.schema)
    ratio = excess(load_shipped("linear-regression"), spoiled, prompts) / optimum
    assert ratio[8:].min() > 5


def test_one_query_after_a_context_is_the_prediction_within_the_prompt(prompts: Pairs) -> None:
    few, learner = prompts.select(torch.arange(8)), load_shipped("linear-regression")
    after = learner.predict(few.prefix(24), few.x[:, 24:25]).value[:, 0]
    torch.testing.assert_close(after, learner.prequential(few).value[:, 24], rtol=1e-4, atol=1e-4)


def test_the_shipped_weights_say_how_they_were_trained() -> None:
    from contexture.store.checkpoint import read_checkpoint

    folder = shipped()["linear-regression"]
    record = read_checkpoint(folder).state["record"]
    trained = TrainingConfig.from_json(record["configuration"])
    assert trained.precision == "bf16"  # what "auto" was on the machine that trained them
    assert replace(trained, precision="auto") == linear_regression()
    assert record["processor_seconds"] > 0
    assert record["evaluations"][-1]["loss"] < record["evaluations"][0]["loss"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8 * 2**20
