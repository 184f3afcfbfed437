import pytest

from contexture.errors import InputError
from contexture.training.schedule import ScheduleConfig, factor


def curve(steps: int, schedule: ScheduleConfig) -> list[float]:
    return [factor(schedule, step, steps=steps) for step in range(steps)]


def test_warm_up_rises_to_one_and_cosine_falls_by_half_halfway() -> None:
    found = curve(12, ScheduleConfig(shape="cosine", warm_up=4))
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert found[8] == pytest.approx(0.5)
    assert found[11] == pytest.approx(0.0380602)


def test_linear_decay_begins_after_the_hold_and_ends_at_the_floor() -> None:
    schedule = ScheduleConfig(shape="linear", warm_up=0, hold=0.5, floor=0.2)
    found = curve(10, schedule)
    assert found[:6] == [1.0] * 6
    assert found[6:] == pytest.approx([0.84, 0.68, 0.52, 0.36])
    assert factor(schedule, 10, steps=10) == pytest.approx(0.2)


def test_constant_stays() -> None:
    assert curve(3, ScheduleConfig(shape="constant", warm_up=0)) == [1.0, 1.0, 1.0]


def test_a_schedule_says_what_it_cannot_be() -> None:
    with pytest.raises(InputError, match="no schedule is named 'exponential'"):
        ScheduleConfig(shape="exponential")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="between 0 and 1"):
        ScheduleConfig(hold=1.5)
