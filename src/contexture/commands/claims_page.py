"""The table of published claims on a page of the documentation, and the pictures beside it.

The page holds the table between two comments; everything else on it is written by hand.
"""

from pathlib import Path

from contexture.commands.console import say
from contexture.errors import InputError
from contexture.store.atomic import write_file

BEGIN = "<!-- claims: written by `contexture claim --page docs/claims.md` -->"
END = "<!-- end of claims -->"
FIGURES = "images/claims"


def renew_page(page: Path, results: Path) -> int:
    """Write the table of everything published in `results` into the page, and its figures beside it."""
    files = page_files(page, results)
    for path, text in files.items():
        write_file(path.resolve(), text.encode())
    say(f"{page}: {len(files) - 1} claims")
    return 0


def page_files(page: Path, results: Path) -> dict[Path, str]:
    """The page and every figure as they should stand, by path."""
    from contexture.claims.publish import published
    from contexture.discovery import papers
    from contexture.reports.claim_figures import svg
    from contexture.reports.claims import markdown

    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"the page {page} cannot be read: {error.strerror or error}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page} has no place for the table: give it the lines {BEGIN!r} and {END!r}")
    found = [(paper, published(paper, results)) for paper in papers().values()]
    found = [(paper, held) for paper, held in found if held]
    table = markdown(found, figures=FIGURES)
    files = {page: f"{before}{BEGIN}\n\n{table}\n{END}{after}"}
    for paper, held in found:
        for result in held:
            files[page.parent / FIGURES / f"{paper.key}-{result.name}.svg"] = svg(result)
    return files
