"""The folder in which claims are run: one file for each claim and scale, trained models, figures.

    FOLDER/models/HASH/...                        trained models
    FOLDER/results/KEY/NAME.SCALE.json            a claim as measured, written whole when it is done
    FOLDER/figures/KEY/NAME.SCALE.{svg,png}

A claim that stands there already, measured by the same program with the same seeds, is not measured again: so a run of
many claims that was cut short goes on where it stopped.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import contexture
from contexture.claims.harness import Result, measure
from contexture.claims.models import ModelCache
from contexture.claims.protocol import Claim, Paper
from contexture.claims.run import Run
from contexture.errors import InputError
from contexture.store.results import read_result, write_result


@cache
def program() -> str:
    """A hash of every source file of the package and of torch's version: what a result was measured by."""
    root = Path(contexture.__file__).parent
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class ClaimFolder:
    """Where claims are measured and kept."""

    path: Path

    @property
    def models(self) -> ModelCache:
        """The trained models that claims share."""
        return ModelCache(self.path / "models")

    def result_path(self, paper: Paper, name: str, scale: str) -> Path:
        """The file of one claim at one scale."""
        return self.path / "results" / paper.key / f"{name}.{scale}.json"

    def figure_path(self, paper: Paper, result: Result, suffix: str) -> Path:
        """Where the picture of a result belongs."""
        return self.path / "figures" / paper.key / f"{result.name}.{result.scale}.{suffix}"

    def standing(self, paper: Paper, claim: Claim, run: Run) -> Result | None:
        """The result that stands for these conditions and this program, or None."""
        path = self.result_path(paper, claim.name, run.scale)
        if not path.is_file():
            return None
        try:
            held = read_result(path)
        except InputError:
            return None
        return Result.from_json(held["claim"]) if held["conditions"] == _conditions(paper, run) else None

    def measure(self, paper: Paper, claim: Claim, run: Run) -> Result:
        """Measure a claim and keep the result."""
        result = measure(claim, run)
        write_result(
            self.result_path(paper, claim.name, run.scale),
            {"paper": paper.key, "conditions": _conditions(paper, run), "claim": result.to_json()},
        )
        return result


def _conditions(paper: Paper, run: Run) -> dict[str, Any]:
    return {"program": program(), "source": paper.source, "seeds": list(run.seeds), "device": run.device}
