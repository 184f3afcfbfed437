"""How fast the catalogue answers: searches, the list of papers as a page, a paper's page, the whole site.

    python benchmarks/catalogue.py [--json PATH]

Searches: for each of 200 pairs of words that stand together in some paper's texts (drawn with a fixed seed), each cut
to its first four letters, and for each single letter; with facets and their counts, and with the page's HTML.
Processor time on one thread, the median and the largest of all, through the index and by the plain scan. Pages are
made once before they are timed, since figures, rows and highlighted code are kept.
"""

import argparse
import random
import string
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from contexture.catalogue import pages
from contexture.catalogue.library import load_library
from contexture.catalogue.pages_paper import paper
from contexture.catalogue.query import Query
from contexture.catalogue.search import Search, texts, words
from contexture.catalogue.site import site_files
from contexture.catalogue.view import ServedLinks, View
from contexture.store.environment import environment
from contexture.store.results import write_result

VIEW = View(link=ServedLinks(), live=True)
PAIRS = 200


def searches(search: Search) -> list[str]:
    """What is searched for."""
    draw = random.Random(0)
    records = list(search.library.papers.values())
    pairs = []
    for _ in range(PAIRS):
        held = words(" ".join(texts(draw.choice(records)).values()))
        pairs.append(" ".join(word[:4] for word in draw.sample(held, 2)))
    return [*pairs, *string.ascii_lowercase]


def milliseconds(action: Callable[[], object]) -> float:
    began = time.process_time_ns()
    action()
    return (time.process_time_ns() - began) / 1e6


def summary(times: Sequence[float]) -> dict[str, float]:
    return {"median_ms": round(median(times), 3), "largest_ms": round(max(times), 3)}


def measure() -> dict[str, Any]:
    """Everything, by name."""
    began = time.process_time()
    library = load_library()
    loading = time.process_time() - began
    indexed, plain = Search(library), Search(library, indexed=False)
    asked = searches(indexed)
    found: dict[str, Any] = {"papers": len(library.papers), "searches": len(asked)}
    for name, search in (("index", indexed), ("scan", plain)):
        found[f"find, {name}"] = summary([milliseconds(lambda s=search, t=text: s.find(t)) for text in asked])
        found[f"with facets, {name}"] = summary(
            [milliseconds(lambda s=search, t=text: s.select(Query(text=t))) for text in asked]
        )
    pages.results(indexed, Query(), VIEW)
    found["results as HTML, index"] = summary(
        [milliseconds(lambda t=text: pages.results(indexed, Query(text=t), VIEW)) for text in asked]
    )
    for key in library.papers:
        paper(library, key, VIEW)
    found["page of a paper"] = summary([milliseconds(lambda k=key: paper(library, k, VIEW)) for key in library.papers])
    found["front page"] = summary([milliseconds(lambda: pages.front(indexed, Query(), VIEW)) for _ in range(20)])
    began = time.process_time()
    files = dict(site_files(load_library()))
    found["site"] = {"files": len(files), "mib": round(sum(map(len, files.values())) / 2**20, 1)}
    found["site"] |= {"seconds": round(time.process_time() - began, 1), "loading_seconds": round(loading, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    found = measure()
    for name, value in found.items():
        print(f"{name:28}", value if isinstance(value, int) else "  ".join(f"{k} {v}" for k, v in value.items()))
    if options.json:
        about = {"benchmark": "catalogue", "unit": "processor time", "command": "python benchmarks/catalogue.py"}
        write_result(options.json, {**about, "environment": environment(), **found})


if __name__ == "__main__":
    main()
