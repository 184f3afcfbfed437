"""Linear probes and pasted layers: by hand, and against the model that they come from."""

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.in_context import InContext
from contexture.probes.hidden import hidden_states
from contexture.probes.linear import fit_linear
from contexture.probes.pasted import upper_layers
from contexture.tasks.linear_regression import LinearRegression


def test_a_probe_finds_an_affine_map_and_leaves_what_is_not_there() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(4000, generator=generator, dtype=torch.float64)
    targets = torch.stack((2 * h[:, 0] - h[:, 2] + 5, noise), 1)
    probe = fit_linear(h, targets)
    assert probe.weight[:, 0].tolist() == pytest.approx([2, 0, -1], abs=1e-4)
    assert float(probe.shift[0]) == pytest.approx(5, abs=1e-4)
    left = (probe(h) - targets).square().mean(0)
    assert float(left[0]) < 1e-8
    assert float(left[1]) == pytest.approx(1, abs=0.1)


def test_vectors_in_a_subspace_can_be_probed() -> None:
    h = torch.arange(6.0).view(6, 1).expand(6, 4)
    assert fit_linear(h, h[:, :1])(h)[:, 0].tolist() == pytest.approx([0, 1, 2, 3, 4, 5], abs=1e-4)


def test_upper_layers_behind_the_lower_ones_are_the_model() -> None:
    model = InContext.example().model
    episodes = LinearRegression(num_points=5).sample(3, generator=torch.Generator().manual_seed(1))
    whole = InContext(model).prequential(episodes).mean
    assert whole is not None
    for layer, h in enumerate(hidden_states(model, episodes)[:-1]):
        torch.testing.assert_close(upper_layers(model, h, layer=layer), whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="2 blocks has none behind number 2"):
        upper_layers(model, hidden_states(model, episodes)[0], layer=2)
