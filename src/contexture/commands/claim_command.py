"""`contexture claim KEY`: measure a paper's claims; table, verdicts, figures; exit status 1 on a surprise."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contexture.commands.console import console, say
from contexture.errors import InputError
from contexture.store.atomic import write_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from contexture.claims.folder import ClaimFolder
    from contexture.claims.harness import Result
    from contexture.claims.protocol import Claim, Paper
    from contexture.claims.run import Run

    Show = Callable[[dict[str, Result], str], None]
    Measured = list[tuple[Paper, list[Result]]]

FOLDER = "contexture/claims"


def run(options: argparse.Namespace) -> int:
    """Measure, print tables (or JSON) on standard output, and write what was asked for."""
    _check(options)
    if options.page and not (options.paper or options.all):
        from contexture.commands.claims_page import renew_page

        return renew_page(Path(options.page), Path(options.publish or "results"))
    from contexture.claims.folder import ClaimFolder
    from contexture.claims.run import Run
    from contexture.discovery import find_paper, papers

    folder = ClaimFolder(Path(options.run_dir) if options.run_dir else user_cache() / FOLDER)
    conditions = Run(scale=options.scale, seeds=tuple(range(options.seeds)), models=folder.models)
    chosen = list(papers().values()) if options.all else [find_paper(options.paper)]
    measured = [(paper, _measure(paper, conditions, folder, options)) for paper in chosen]
    if options.json:
        _print_json(measured, alone=not options.all)
    _write(measured, options)
    surprises = [f"{paper.key}: {r.name}" for paper, results in measured for r in results if not r.as_expected]
    if surprises:
        say(f"contexture: not as expected: {', '.join(surprises)}")
    return 1 if surprises else 0


def _check(options: argparse.Namespace) -> None:
    from contexture.tables.write import check_output

    if options.all == bool(options.paper) and not (options.page and not options.all and not options.paper):
        raise InputError("name one paper from `contexture list papers`, or give --all")
    if options.all and options.only:
        raise InputError("--only names a claim of one paper, so it does not go with --all")
    if options.events and (options.all or options.json or not options.paper):
        raise InputError("--events prints the events of one paper: name it, without --all and --json")
    if options.report:
        check_output(options.report)


def user_cache() -> Path:
    """The user's folder for what can be computed again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))


def _measure(paper: "Paper", conditions: "Run", folder: "ClaimFolder", options: argparse.Namespace) -> "list[Result]":
    """Every claim of a paper (or the one asked for), each kept as soon as it is done."""
    claims = [paper.claim(options.only)] if options.only else list(paper.claims)
    results: dict[str, Result] = {}
    with _display(paper, folder, claims, options) as show:
        if options.events:
            from contexture.commands.claim_events import Events

            assert isinstance(show, Events)
            conditions = replace(conditions, models=replace(folder.models, progress=show))
        for claim in claims:
            standing = None if options.again else folder.standing(paper, claim, conditions)
            if standing is None:
                show(results, claim.name)
                standing = folder.measure(paper, claim, conditions)
                _draw(paper, standing, folder)
            results[claim.name] = standing
        show(results, "")
    if not options.json and not options.events:
        from contexture.reports.claims import remarks

        for result in results.values():
            say(*remarks(result), f"  figure: {folder.figure_path(paper, result, 'svg')} (and .png)")
    return list(results.values())


def _draw(paper: "Paper", result: "Result", folder: "ClaimFolder") -> None:
    from contexture.reports.claim_figures import png, svg

    write_file(folder.figure_path(paper, result, "svg").resolve(), svg(result).encode())
    write_file(folder.figure_path(paper, result, "png").resolve(), png(result))


def _figure(paper: "Paper", result: "Result", folder: "ClaimFolder") -> str:
    path = folder.figure_path(paper, result, "svg")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@contextmanager
def _display(
    paper: "Paper", folder: "ClaimFolder", claims: "list[Claim]", options: argparse.Namespace
) -> "Iterator[Show]":
    """A table that fills up on a terminal; elsewhere the finished one; or events for another program."""
    if options.events:
        from contexture.commands.claim_events import Events, end_with_input

        end_with_input()
        yield Events(paper, num_claims=len(claims), figure=lambda result: _figure(paper, result, folder))
        return
    from contexture.reports.claims import table

    quiet = options.json
    screen = console(stderr=quiet)
    unicode = (screen.encoding or "").lower().replace("-", "").startswith("utf")

    if not screen.is_terminal:

        def at_the_end(results: dict[str, Any], running: str) -> None:
            if not running and not quiet:
                screen.print(table(paper, results, unicode=unicode))

        yield at_the_end
        return
    from rich.live import Live

    with Live(table(paper, {}, unicode=unicode), console=screen, transient=quiet) as live:
        yield lambda results, running: live.update(table(paper, results, running=running, unicode=unicode))


def _print_json(measured: "Measured", *, alone: bool) -> None:
    from contexture.claims.harness import document

    documents = [document(paper, results) for paper, results in measured]
    json.dump(documents[0] if alone else documents, sys.stdout, indent=2, allow_nan=False)
    print()


def _write(measured: "Measured", options: argparse.Namespace) -> None:
    from contexture.claims.publish import publish
    from contexture.store.environment import environment

    command = shlex.join(["contexture", *sys.argv[1:]])
    if options.report:
        from contexture.reports.claims_html import write_claims_report

        write_claims_report(measured, options.report, command=command, environment=environment(), scale=options.scale)
        say(f"report: {options.report}")
    if options.publish:
        for paper, results in measured:
            path = publish(paper, results, Path(options.publish), command=command)
            say(f"published: {path}")
