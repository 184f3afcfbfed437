"""Lines, waves and blends of one input: what they are, and which of them a prompt shows."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.protocols import Learner
from contexture.randomness import generator
from contexture.tasks.line_and_wave import LineAndWave, LineAndWaveFeatures
from contexture.tasks.mixture import Mixture


def test_columns_by_hand() -> None:
    columns = LineAndWaveFeatures(wave=0.25, frequency=2.0)(torch.tensor([[math.pi / 4]]).double())
    # sin and cos of pi/2 a quarter each; three quarters of (sqrt(3) / 4, 1) / sqrt(2).
    wanted = [0.25, 0.0, 0.75 * 3**0.5 / 4 / 2**0.5, 0.75 / 2**0.5]
    torch.testing.assert_close(columns, torch.tensor([wanted]).double())


@pytest.mark.parametrize(("wave", "chance"), [(0.0, 1.25), (1.0, 1.25), (0.5, 0.75)])
def test_families_have_one_variance_and_their_own_columns(wave: float, chance: float) -> None:
    task = LineAndWave(wave=wave, noise=0.5)
    drawn = task.sample(4000, generator=generator("families"))
    assert task.chance == chance
    assert float(drawn.y.square().mean()) == pytest.approx(chance, rel=0.05)
    assert drawn.clean is not None
    if wave == 0:
        slope = drawn.clean.diff(dim=1) / drawn.x.squeeze(-1).diff(dim=1)
        torch.testing.assert_close(slope, slope[:, :1].expand_as(slope), rtol=1e-6, atol=1e-6)


def test_a_mixture_of_lines_and_waves_is_told_apart_by_evidence() -> None:
    families = (LineAndWave(wave=0.0, noise=0.1), LineAndWave(wave=1.0, noise=0.1))
    average = Mixture(tasks=families).oracle()
    assert isinstance(average, Learner)
    for right, wrong in (families, families[::-1]):
        drawn = right.sample(256, generator=generator("evidence"))
        late = [
            float((learner.prequential(drawn).value - drawn.y)[:, 8:].square().mean())
            for learner in (average, right.oracle(), wrong.oracle())
        ]
        assert late[0] < 1.05 * late[1] < 0.1 * late[2]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="the wave's share must lie between 0 and 1"):
        LineAndWave(wave=1.5)
    with pytest.raises(InputError, match="frequency must be positive"):
        LineAndWave(frequency=0.0)
