"""Compare learners on streams, and publish losses, pictures and the table of the documentation.

    python benchmarks/streams.py --elec2 elec.csv [--only phishing bananas] [--output results/streams.json]

Streams: permuted digits, a new permutation every 500 images; the price of electricity in New South Wales going up or
down (elec2, 45,312 half hours; its file is not in this repository); and five streams that come with river. Every
learner is asked for each target before it is told, with one thread; seconds are of processor time. Each score is kept
in `--run-dir`, so that the run can be stopped and goes on.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from contexture.evaluation.stream_runs import compare_on_stream
from contexture.evaluation.streams import OURS, StreamComparison, our_settings
from contexture.reports.stream_figures import figure, markdown
from contexture.reports.svg import standalone
from contexture.store.results import write_result
from contexture.tables import read_dataset
from contexture.tasks.streams import Stream, known_streams, named_stream, table_stream

ELEC2 = "elec2"


def streams(elec2: Path | None, only: Iterable[str] | None) -> Iterator[Stream]:
    for name in (*known_streams(), ELEC2):
        if only and name not in only:
            continue
        if name != ELEC2:
            yield named_stream(name)
        elif elec2 is not None:
            yield replace(table_stream(read_dataset(elec2, target="class")), source=ELEC2)


def summary(found: Mapping[str, StreamComparison]) -> dict[str, Any]:
    """On which streams ours has a lower loss than persistence, than the best of river's, and than everything else."""
    result: dict[str, list[str]] = {
        name: [] for name in ("below persistence", "below the best of river's", "lowest of all", "not lowest")
    }
    for name, comparison in found.items():
        losses = {score.name: score.loss for score in comparison.scores}
        parts = our_settings("regression" if comparison.scores[0].accuracy is None else "classification")
        ours, persistence = losses[OURS], losses["persistence"]
        river = [loss for other, loss in losses.items() if other not in parts and other != "persistence"]
        if ours < persistence:
            result["below persistence"].append(name)
        if river and ours < min(river):
            result["below the best of river's"].append(name)
        result["lowest of all" if ours == min(losses.values()) else "not lowest"].append(name)
    return result


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elec2", type=Path, help="the CSV file of elec2; without it the stream is left out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these streams alone")
    parser.add_argument("--run-dir", type=Path, default=Path("contexture-runs/streams"))
    parser.add_argument("--output", type=Path, default=Path("results/streams.json"))
    parser.add_argument("--table", type=Path, default=Path("docs/measured/streams.md"))
    parser.add_argument("--figures", type=Path, default=Path("docs/images/streams"))
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    torch.set_num_threads(1)
    found: dict[str, StreamComparison] = {}
    for stream in streams(options.elec2, options.only):
        print(stream.describe(), file=sys.stderr, flush=True)
        found[stream.source] = compare_on_stream(
            stream,
            options.run_dir / stream.source,
            done=lambda score: print(
                f"  {score.name}: loss {score.loss:.4f} in {score.seconds:.0f} s", file=sys.stderr, flush=True
            ),
        )
    options.figures.mkdir(parents=True, exist_ok=True)
    for name, comparison in found.items():
        (options.figures / f"{name}.svg").write_text(standalone(figure(comparison)), encoding="utf-8")
    document = {
        "summary": summary(found),
        "streams": {name: comparison.to_document() for name, comparison in found.items()},
        "command": " ".join(
            [
                "python benchmarks/streams.py",
                *(["--elec2", options.elec2.name] if options.elec2 else []),
                *(["--only", *options.only] if options.only else []),
            ]
        ),
    }
    write_result(options.output, document)
    options.table.write_text(markdown(list(found.values()), command=document["command"]), encoding="utf-8")
    print(json.dumps(document["summary"], indent=1))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
