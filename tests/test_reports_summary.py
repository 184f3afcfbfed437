import pytest

from contexture.reports.numbers import column, count, listed, number, seconds, size
from contexture.reports.summary import leads, summary
from report_toys import NAN, family, measured, table


def test_the_run_of_sizes_is_cut_where_no_one_leads_on() -> None:
    runs = leads(table())
    assert [(run.leader, run.sizes, run.first) for run in runs] == [
        ("transformer", (20, 50), True),
        ("ridge", (100,), True),
    ]


def test_the_sentence_names_leaders_scores_and_the_level() -> None:
    assert summary(table()) == (
        "Up to 50 examples transformer has the lowest relative squared error (0.500 after 50, level with ridge); "
        "after 100 ridge has the lowest relative squared error (0.400, level with boosting)."
    )


def test_another_winner_makes_another_sentence() -> None:
    swapped = table(tied=(("ridge",), ("ridge",), ("ridge",)))
    assert summary(swapped) == (
        "At every size ridge has the lowest relative squared error "
        "(0.400 after 100 examples, 95 % interval 0.350 to 0.450)."
    )


def test_one_who_is_never_beaten_but_not_always_first() -> None:
    said = summary(table(tied=(("ridge", "transformer"), ("transformer", "ridge"), ("transformer", "ridge"))))
    assert said.startswith("At every size no learner measurably beats transformer (0.450 after 100 examples,")
    assert said.endswith("; ridge cannot be told apart from it there.")


def test_the_oracle_is_a_measure_and_no_contestant() -> None:
    said = summary(family())
    assert said.startswith("At every size no learner measurably beats transformer")
    assert said.endswith("After 12 examples its squared error is 1.10 times that of the oracle, bayes-ridge.")


def test_who_does_not_beat_chance_is_told() -> None:
    said = summary(table(chance=0.42))
    assert said.endswith("Even so, its interval does not exclude chance (0.420).")
    assert "chance" not in summary(table())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measurements": (), "tied": ()}, "Nothing was measured."),
        ({"measurements": (measured("a", NAN, NAN, NAN),), "tied": ((), (), ())}, "No learner has a score"),
        (
            {"measurements": (measured("a", 0.9, 0.8, 0.7),), "tied": (("a",),) * 3},
            "After 100 examples the relative squared error of a is 0.700, 95 % interval 0.650 to 0.750.",
        ),
    ],
)
def test_few_learners(changes: dict[str, object], said: str) -> None:
    assert summary(table(**changes)).startswith(said)


def test_many_rivals_are_not_all_named() -> None:
    names = ("transformer", "ridge", "boosting", "a", "b", "c")
    assert "ridge, boosting, a and 2 more cannot be told apart" in summary(table(tied=(names,) * 3))


def test_numbers_as_people_read_them() -> None:
    assert [number(v) for v in (0.0, 1234.5, -0.5, float("inf"))] == ["0", "1,234", "-0.500", "-"]
    assert column([1.0, NAN, 0.25]) == ["1.00", "-", "0.25"]
    assert [seconds(v) for v in (0.99999, 1e-3, 5e-9)] == ["1.0 s", "1.0 ms", "5.0 ns"]
    assert [count(v) for v in (10_000, 999_499, 999_500)] == ["10 k", "999 k", "1.0 M"]
    assert [size(v) for v in (1023, 1024, 2**30)] == ["1023 B", "1.0 KiB", "1.0 GiB"]
    assert listed([]) == ""
