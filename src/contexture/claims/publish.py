"""Published claims: results/KEY.json, with moment, machine, versions, command and commit beside the numbers.

A publication replaces the claims that it measured and keeps the paper's others, each with the surroundings that it was
measured in.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contexture.claims.harness import Result, document, total_seconds
from contexture.claims.protocol import Paper
from contexture.store.clock import moment
from contexture.store.environment import environment
from contexture.store.results import read_result, write_result


def publish(paper: Paper, results: Sequence[Result], folder: Path, *, command: str) -> Path:
    """Write a paper's results and return the file's path."""
    path = folder / f"{paper.key}.json"
    order = [claim.name for claim in paper.claims]
    here = {"command": command, "at": moment(), "environment": environment()}
    fresh = [{**claim, "measured_by": here} for claim in document(paper, list(results))["claims"]]
    done = {claim["name"] for claim in fresh}
    kept = [claim for claim in published_claims(path) if claim["name"] not in done and claim["name"] in order]
    claims = sorted([*fresh, *kept], key=lambda claim: order.index(claim["name"]))
    about = {**document(paper, []), "seconds": total_seconds(map(_result, claims))}
    write_result(path, {**about, "claims": claims})
    return path


def published_claims(path: Path) -> list[dict[str, Any]]:
    """The claims of a published file, [] if there is none."""
    return list(read_result(path)["claims"]) if path.is_file() else []


def published(paper: Paper, folder: Path) -> list[Result]:
    """A paper's published results, in the order of its claims."""
    return [_result(claim) for claim in published_claims(folder / f"{paper.key}.json")]


def _result(claim: Mapping[str, Any]) -> Result:
    return Result.from_json({name: value for name, value in claim.items() if name != "measured_by"})
