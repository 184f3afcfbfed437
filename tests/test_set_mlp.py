"""The perceptron over sets: its pooling by hand, what it may not see, and members of a cohort."""

import pytest
import torch

from contexture.errors import InputError
from contexture.models.set_mlp import SetMLP, SetMLPConfig
from contexture.training.cohort import stack


def model(seed: int = 0) -> SetMLP:
    config = SetMLPConfig(num_features=2, width=5)
    return SetMLP(config, generator=torch.Generator().manual_seed(seed)).double()


def prompt(time: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(3, time, 2, generator=generator, dtype=torch.float64),
        torch.randn(3, time, generator=generator, dtype=torch.float64),
    )


def test_each_prediction_is_asked_of_the_mean_of_what_came_before() -> None:
    one, (x, y) = model(), prompt()
    said = one(x, y).mean
    vectors = one.phi(torch.cat((x, y.unsqueeze(-1)), -1))
    for t in range(6):
        pooled = vectors[:, :t].mean(1) if t else torch.zeros(3, 5, dtype=torch.float64)
        torch.testing.assert_close(said[:, t], one.psi(torch.cat((pooled, x[:, t]), -1)).squeeze(-1))


def test_the_order_of_examples_is_nothing_to_it_and_the_future_even_less() -> None:
    one, (x, y) = model(), prompt()
    said = one(x, y).mean
    order = torch.tensor([3, 0, 4, 2, 1, 5])
    torch.testing.assert_close(one(x[:, order], y[:, order]).mean[:, 5], said[:, 5])
    y[:, 3] += 1
    after = one(x, y).mean
    assert torch.equal(after[:, :4], said[:, :4])
    assert not torch.allclose(after[:, 4:], said[:, 4:])


def test_members_of_a_cohort_are_the_models_alone() -> None:
    (x, y), members = prompt(), [model(seed) for seed in range(3)]
    said = stack(members)(x.repeat(3, 1, 1), y.repeat(3, 1)).mean.view(3, 3, 6)
    torch.testing.assert_close(said, torch.stack([one(x, y).mean for one in members]))


def test_shapes_without_layers_are_refused() -> None:
    with pytest.raises(InputError, match="two layers"):
        SetMLPConfig(num_features=2, num_layers=1)
