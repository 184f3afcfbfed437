"""A made-up comparison of a table and one of a synthetic family, for the tests of reports."""

from typing import Any

from contexture.evaluation.comparison import Comparison
from contexture.protocols import Kind, Measurement

NAN = float("nan")


def measured(
    name: str,
    *values: float,
    kind: Kind = "classical",
    half: float = 0.05,
    context: tuple[int, ...] = (20, 50, 100),
    seconds: float = 1e-4,
) -> Measurement:
    return Measurement(
        name=name,
        kind=kind,
        context=context,
        value=values,
        low=tuple(v - half for v in values),
        high=tuple(v + half for v in values),
        n=15,
        seconds=seconds,
        parameters=900_000 if kind == "in-context" else 0,
        state_bytes=2048,
    )


def table(**changes: Any) -> Comparison:
    """Three learners on a table; boosting has no score at the smallest size."""
    settings: dict[str, Any] = {
        "task": "houses",
        "metric": "relative-squared-error",
        "context": (20, 50, 100),
        "measurements": (
            measured("transformer", 0.6, 0.5, 0.45, kind="in-context", seconds=0.013),
            measured("ridge", 0.7, 0.52, 0.40),
            measured("boosting", NAN, 0.8, 0.41, seconds=0.004),
        ),
        "method": "corrected resampled t over splits (Nadeau and Bengio 2003)",
        "chance": 1.0,
        "tied": (("transformer",), ("transformer", "ridge"), ("ridge", "boosting")),
        "distances": {
            "transformer": {"ridge": (0.02, 0.01, 0.005), "boosting": (NAN, 0.2, 0.1)},
            "ridge": {"boosting": (NAN, 0.3, 0.2)},
            "boosting": {"ridge": (NAN, 0.3, 0.2)},
        },
        "settings": {"training rows": 221, "held-out rows": 221, "splits per seed": 5},
        "left_out": {500: "the training half holds 221"},
        "skipped": {"logistic": "logistic does not predict numbers"},
        "notes": {"boosting": ("boosting needs 30 rows",)},
        "findings": ("houses.csv: 442 rows, 10 features",),
        "timing": "Wall time of it all.",
        "environment": {"system": "Linux", "cores": 2, "memory_gib": 15.5, "flags": ["avx2"], "settings": {}},
        "command": "contexture compare houses.csv --target 'the price'",
        "seeds": (0, 1, 2),
        "measured_at": "2026-05-04T03:02:01+00:00",
    }
    return Comparison(**{**settings, **changes})


def family(**changes: Any) -> Comparison:
    """A synthetic family with an oracle, and a learner whose error blows up on the way."""
    sizes = (0, 4, 8, 12)

    def over(name: str, *values: float, kind: Kind = "classical") -> Measurement:
        return measured(name, *values, kind=kind, context=sizes, half=0.02)

    settings: dict[str, Any] = {
        "task": "linear-regression",
        "metric": "squared-error",
        "context": sizes,
        "measurements": (
            over("bayes-ridge", 9.0, 3.0, 1.0, 0.5),
            over("ols", 9.0, 4.0, 2000.0, 0.6),
            over("transformer", 9.0, 3.1, 1.1, 0.55, kind="in-context"),
        ),
        "method": "bootstrap over episodes within seeds",
        "oracle": "bayes-ridge",
        "chance": 9.0,
        "tied": (("ols", "transformer"), ("transformer",), ("transformer",), ("transformer", "ols")),
        "distances": {"transformer": {"bayes-ridge": (NAN, 0.02, 0.01, 0.01), "ols": (NAN, 0.1, 2.0, 0.05)}},
        "seeds": (0, 1),
    }
    return Comparison(**{**settings, **changes})
