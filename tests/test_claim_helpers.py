"""What papers share to measure mixers: differences of outputs, and models that are trained to recall."""

from dataclasses import replace

import torch

from contexture.claims.asked import apart as apart_of_asked
from contexture.claims.asked import beside, silent
from contexture.claims.beside import excess, gap
from contexture.claims.in_context import configuration, said_by, small_backbone, untrained
from contexture.claims.outputs import apart
from contexture.claims.protocol import OneSeed, over_seeds
from contexture.claims.recall import hits, recalled, train_recall
from contexture.claims.run import Run
from contexture.claims.running_sums import one_step, solved
from contexture.claims.stacks import ahead, backbone, kept, oracles, settings, stack
from contexture.claims.tiny_tables import green, two_sides
from contexture.evaluation.predictors import Asked
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.classical.ols import OLS
from contexture.learners.classical.ridge import Ridge
from contexture.learners.recall import InductionHead
from contexture.models.pairs import PairsModelConfig
from contexture.protocols import Pairs, Schema, Tokens
from contexture.tasks.copying import Copying
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.mqar import MQAR
from contexture.training.config import TaskChoice

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


def test_a_learner_hits_where_it_names_what_is_asked() -> None:
    task = Copying(vocabulary=4, num_tokens=2)
    ids = torch.tensor([[1, 2, 0, 1]])
    targets, mask = torch.tensor([[0, 0, 1, 2]]), torch.tensor([[False, False, True, True]])
    drawn = Tokens(ids=ids, targets=targets, mask=mask, vocabulary=4)
    assert hits(task.oracle(), drawn).tolist() == [[False, False, True, True]]
    # An induction head goes by the token before: the bar has not been there, and after 1 came 2.
    assert hits(InductionHead(vocabulary=4), drawn).tolist()[0][3] is True


def test_attention_stands_where_a_stack_says_and_mixers_get_their_own_settings() -> None:
    assert stack([1, 3], num_mixers=3) == "softmax+none mlp mamba-2+none mlp softmax+none mlp"
    assert settings(stack([1], num_mixers=1)) == {"softmax": {"positions": "none"}}
    assert settings(stack([], num_mixers=1)) == {"mamba-2": {"state_size": 16}}


def test_attention_keeps_a_key_and_a_value_for_each_token_and_a_state_space_keeps_no_more() -> None:
    x = torch.zeros(1, 5, 4)
    after_three, after_five = kept(backbone(stack([1], num_mixers=1), width=4), x.split(3, 1))
    # Two tokens more: keys and values of 4 numbers of 4 bytes each.
    assert after_five - after_three == 2 * 2 * 4 * 4
    assert len(set(kept(backbone(stack([], num_mixers=1), width=4), x.split(3, 1)))) == 1


def test_who_looks_up_is_not_ahead_of_who_looks_up() -> None:
    task = Copying(vocabulary=8, num_tokens=4)
    samples = ahead(Run(), oracles(Run(), task), oracles(Run(), task), name="shift", task=task)
    assert bool((samples.values == 0).all())
    assert samples.curves["shift"].y.tolist() == [[1.0] * 4] * 3


def test_the_nearest_example_of_two_sides_names_the_side() -> None:
    x, y = two_sides(Run(), 0, 3)
    assert x.shape == (2, 6)
    said = green(NearestNeighbour(), x, y, torch.tensor([-1.0, 1.0]).double())
    assert said.tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_predictors_are_measured_beside_the_best_from_the_first_example_on() -> None:
    y = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    drawn = Pairs(x=y.unsqueeze(-1), y=y, schema=Schema.numeric(1))
    ours, best = lambda pairs: 0 * pairs.y, lambda pairs: pairs.y - torch.tensor([9.0, 1.0, 2.0])
    far = gap(Run(), lambda _: drawn, [ours], best, name="far")
    # The best says 1 and 2 of the last two: squares of 2.5 on average, all of which is the zero predictor's distance.
    assert far.values.tolist() == [[2.5]] * 3
    assert far.per is not None
    assert far.per.tolist() == [[2.5]] * 3
    torch.testing.assert_close(far.curves["far"].y[0], torch.tensor([1.0, 4.0]).double() / 2.5)
    alone = gap(Run(), lambda _: drawn, [ours], best, name="alone", pooled=False)
    assert alone.curves["alone"].y[0].tolist() == [1.0, 1.0]
    costly = excess(Run(), lambda _: drawn, [ours], best, name="costly")
    # Errors of 4 and 16 over those of 1 and 4.
    assert costly.values.tolist() == [[10.0]] * 3
    assert costly.curves["costly"].x == (1.0, 2.0)
    assert costly.curves["costly"].y[0].tolist() == [4.0, 4.0]


def test_every_seed_has_a_predictor_of_its_own() -> None:
    drawn = Pairs(x=torch.ones(1, 2, 1), y=torch.ones(1, 2), schema=Schema.numeric(1))
    each = [lambda pairs, k=k: k * pairs.y for k in range(3)]
    samples = gap(Run(), lambda _: drawn, each, lambda pairs: pairs.y)
    assert samples.values.flatten().tolist() == [1.0, 0.0, 1.0]
    assert said_by(OLS())(drawn).shape == (1, 2)


def test_a_curve_without_a_name_is_not_drawn() -> None:
    line = (range(2), torch.tensor([0.5, 0.25]))
    drawn = over_seeds(Run(), lambda seed: OneSeed(values=torch.ones(1), curves={"own": line, "": line}))
    assert list(drawn.curves) == ["own"]
    assert drawn.curves["own"].x == (0.0, 1.0)


def prompts() -> Asked:
    """Two prompts of one example, with one query each."""
    x, y = torch.tensor([[[1.0]], [[2.0]]]).double(), torch.tensor([[1.0], [4.0]]).double()
    return Asked(x, y, torch.tensor([[[3.0]], [[1.0]]]).double(), torch.tensor([[2.0], [2.0]]).double())


def test_a_predictor_stands_beside_another_by_errors_or_by_difference() -> None:
    def ours(x: torch.Tensor, y: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return queries.squeeze(2)

    by_errors = beside(Run(), lambda seed: prompts(), [ours], [silent], errors=True)
    # We say 3 and 1 where 2 and 2 is right; who is silent is wrong by 2.
    assert by_errors.values.tolist() == [[1.0, 1.0]] * 3
    assert by_errors.per is not None
    assert by_errors.per.tolist() == [[4.0, 4.0]] * 3
    by_difference = beside(Run(), lambda seed: prompts(), [silent] * 3, [ours], errors=False)
    assert by_difference.values.tolist() == [[9.0, 1.0]] * 3
    assert by_difference.per is not None
    assert by_difference.per.tolist() == [[9.0, 1.0]] * 3
    assert by_difference.errors is not None
    assert by_difference.errors.tolist() == [[4.0, 4.0]] * 3


def test_read_outs_are_apart_by_the_largest_relative_difference() -> None:
    said = [torch.tensor([[1.0], [1.0]]).double(), torch.tensor([[2.0], [3.0]]).double()]
    wanted = [torch.tensor([[1.0], [1.0]]).double(), torch.tensor([[2.0], [2.0]]).double()]
    one = apart_of_asked(prompts(), said, wanted, "layers", first=0, competent=0)
    assert one.values.tolist() == [0.0, 0.5]
    places, line = one.curves["layers"]
    assert list(places) == [0, 1]
    assert line.tolist() == [0.0, 0.25]
    assert one.errors is not None
    assert one.errors.tolist() == [1.0, 1.0]


def test_running_sums_regress_as_the_learners_do() -> None:
    drawn = LinearRegression(num_features=2, num_points=6, noise=0.5).sample(
        4, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(solved(0.25)(drawn), said_by(Ridge(penalty=0.25))(drawn))
    doubled = replace(drawn, x=2 * drawn.x)
    torch.testing.assert_close(solved(0.25, lambda x: 2 * x)(drawn), said_by(Ridge(penalty=0.25))(doubled))


def test_one_step_is_taken_from_the_examples_before() -> None:
    x, y = torch.tensor([[[1.0], [2.0], [3.0]]]).double(), torch.tensor([[1.0, 1.0, 5.0]]).double()
    said = one_step(noise=1.0)(Pairs(x=x, y=y, schema=Schema.numeric(1)))
    # x_t sum x y / (n + 1 + 1 + 1): nothing at first, then 2 * 1 / 4, then 3 * (1 + 2) / 5.
    torch.testing.assert_close(said, torch.tensor([[0.0, 0.5, 1.8]]).double())


def test_models_before_training_differ_by_seed() -> None:
    backbone = small_backbone(4, mixer="linear-attention", depth=1)
    assert (backbone.pattern, backbone.width, backbone.num_heads, backbone.max_length) == (
        "linear-attention*1",
        32,
        4,
        8,
    )
    first, second, again = (untrained(Run(seeds=seeds), backbone, num_features=2)[0] for seeds in SEEDS)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, second.head.weight)
    assert not first.training


SEEDS = ((0, 1, 2), (1, 2, 3), (0, 1, 2))


def test_a_training_is_looked_at_when_it_is_done() -> None:
    model = PairsModelConfig(num_features=2, backbone=small_backbone(4))
    made = configuration(TaskChoice(name="linear-regression"), model, steps=40, batch=8, seed=3)
    assert (made.steps, made.batch, made.block, made.seed) == (40, 8, 8, 3)
    assert (made.evaluate_every, made.checkpoint_every, made.evaluation_episodes) == (40, 40, 8)
    assert (made.schedule.shape, made.schedule.warm_up, made.schedule.hold) == ("linear", 50, 0.5)
