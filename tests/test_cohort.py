from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.randomness import generator
from contexture.training.cohort import clip_gradients, member_parameters, num_members, share_gradients, stack, unstack
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.loop import Trainer

BACKBONE = BackboneConfig(pattern="softmax", width=8, num_heads=2, expansion=2, positions="learned", max_length=16)
MODEL = PairsModelConfig(num_features=3, backbone=BACKBONE)
CONFIG = TrainingConfig(
    task=TaskChoice(name="linear-regression", settings={"num_features": 3, "num_points": 6}),
    model=MODEL,
    steps=200,
    batch=8,
    block=4,
    clip=3.0,
)


def members(config: TrainingConfig, *, vary_seed: bool = True) -> list[TrainingConfig]:
    """Three runs of different rates and, unless told otherwise, seeds."""
    return [
        replace(
            config,
            seed=seed if vary_seed else 0,
            optimiser=replace(config.optimiser, rate=rate, matrix_rate=10 * rate, weight_decay=0.1),
        )
        for seed, rate in enumerate((1e-3, 3e-3, 1e-2))
    ]


def models(count: int) -> list[PairsModel]:
    return [PairsModel(MODEL, generator=generator(seed, "model")) for seed in range(count)]


def furthest(first: nn.Module, second: nn.Module) -> float:
    """The largest difference of two models' parameters, relative to each parameter's size."""
    gaps = [
        (a - b).abs().max() / b.abs().max().clamp(min=1e-3)
        for a, b in zip(first.parameters(), second.parameters(), strict=True)
    ]
    return torch.stack(gaps).detach().max().item()


def run(configs: list[TrainingConfig], steps: int) -> tuple[list[nn.Module], Tensor]:
    """Models after `steps` steps, and the gradients' norms, [steps, members]."""
    trainer = Trainer(configs)
    norms = [trainer.step(step).norms for step in range(steps)]
    return trainer.plain_models(), torch.tensor(norms)


def test_a_cohort_in_double_precision_is_its_members_one_by_one_over_200_steps() -> None:
    configs = members(replace(CONFIG, precision="fp64"))
    together, norms = run(configs, 200)
    for member, config in enumerate(configs):
        (alone,), alone_norms = run([config], 200)
        assert furthest(together[member], alone) < 1e-10
        torch.testing.assert_close(norms[:, member], alone_norms[:, 0], rtol=1e-10, atol=0)
    clipped = (norms > 3.0).float().mean(0)
    assert ((clipped > 0) & (clipped < 1)).all()  # clipping was at work, on each member in its own steps


def test_a_cohort_in_single_precision_is_its_members_one_by_one_over_one_step() -> None:
    configs = members(CONFIG)
    together, _ = run(configs, 1)
    for member, config in enumerate(configs):
        (alone,), _ = run([config], 1)
        assert furthest(together[member], alone) < 1e-5


def test_a_cohort_under_muon_is_its_members_one_by_one() -> None:
    # Muon orthogonalises in bf16, which turns a last bit of the gradient into a thousandth of the update.
    configs = members(replace(CONFIG, precision="fp64", optimiser=OptimiserConfig(name="muon")))
    together, _ = run(configs, 3)
    for member, config in enumerate(configs):
        (alone,), _ = run([config], 3)
        assert furthest(together[member], alone) < 1e-3


def test_members_of_a_cohort_may_have_an_optimiser_of_their_own() -> None:
    first, second, *_ = members(replace(CONFIG, precision="fp64"))
    configs = [first, replace(second, optimiser=replace(second.optimiser, name="muon"))]
    together, _ = run(configs, 3)
    for member, config in enumerate(configs):
        (alone,), _ = run([config], 3)
        assert furthest(together[member], alone) < 1e-3
    (other,), _ = run([second], 3)
    assert furthest(together[1], other) > 1e-3


def test_members_of_one_seed_see_the_same_episodes_and_differ_by_their_rates() -> None:
    configs = members(replace(CONFIG, precision="fp64"), vary_seed=False)
    trainer = Trainer(configs)
    first = trainer.step(0)
    assert len(set(first.losses)) == 1
    assert furthest(*trainer.plain_models()[:2]) > 1e-3


def test_a_member_without_its_own_rate_would_be_told_apart() -> None:
    configs = members(replace(CONFIG, precision="fp64"))
    (alone,), _ = run([replace(configs[2], optimiser=configs[0].optimiser)], 3)
    together, _ = run(configs, 3)
    assert furthest(together[2], alone) > 1e-3


def test_members_leave_a_cohort_with_the_bits_they_came_with() -> None:
    before = models(3)
    cohort = stack(before)
    assert num_members(cohort) == 3
    for member, model in enumerate(before):
        after = unstack(cohort, member)
        assert num_members(after) is None
        assert after.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(after.state_dict()[name], value) for name, value in model.state_dict().items())


def test_a_cohort_predicts_what_its_members_predict() -> None:
    mixed = replace(MODEL, backbone=replace(BACKBONE, pattern="softmax delta-rule linear-attention"))
    plain = [PairsModel(mixed, generator=generator(seed)) for seed in range(3)]
    cohort = stack(plain)
    x, y = torch.randn(6, 5, 3, generator=generator(1)), torch.randn(6, 5, generator=generator(2))
    with torch.no_grad():
        together = cohort(x, y).mean
        apart = torch.cat([model(x[2 * k : 2 * k + 2], y[2 * k : 2 * k + 2]).mean for k, model in enumerate(plain)])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def test_clipping_bounds_each_member_by_itself() -> None:
    cohort = stack(models(2))
    parts = member_parameters(cohort)
    for value in cohort.parameters():
        value.grad = torch.zeros_like(value)
        value.grad[0], value.grad[1] = 1.0, 1e-6
    norms = clip_gradients(cohort, 1.0)
    share_gradients(cohort, parts)
    count = sum(value.numel() for value in parts[0].values())
    torch.testing.assert_close(norms, torch.tensor([count**0.5, 1e-6 * count**0.5]))
    after = [torch.cat([p.grad.flatten() for p in one.values() if p.grad is not None]).norm() for one in parts]
    torch.testing.assert_close(torch.stack(after), torch.tensor([1.0, 1e-6 * count**0.5]))


def test_a_cohort_takes_only_models_of_one_shape() -> None:
    other = PairsModel(replace(MODEL, num_features=4), generator=generator(0))
    with pytest.raises(InputError, match="model 1 of the cohort"):
        stack([models(1)[0], other])
    with pytest.raises(InputError, match="at least one"):
        stack([])
    with pytest.raises(InputError, match="no member 2"):
        unstack(stack(models(2)), 2)
    with pytest.raises(InputError, match="more than seed and rates"):
        Trainer([CONFIG, replace(CONFIG, batch=16)])


def test_a_parameter_outside_the_leaves_is_refused_by_name() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

    with pytest.raises(InputError, match="inner holds parameters"):
        stack([Odd(), Odd()])


def test_a_leaf_that_is_used_twice_stays_shared() -> None:
    def tied(seed: int) -> PairsModel:
        model = PairsModel(MODEL, generator=generator(seed))
        model.backbone.blocks.append(model.backbone.blocks[0])
        return model

    cohort = stack([tied(0), tied(1)])
    assert cohort.backbone.blocks[1] is cohort.backbone.blocks[0]
    assert unstack(cohort, 1).backbone.blocks[1] is not cohort.backbone.blocks[0]
