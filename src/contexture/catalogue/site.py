"""The catalogue as a folder of files for any host: every page, the style sheet, the script, the index of words.

    FOLDER/index.html  browse/FACET-VALUE.html  papers/KEY.html  mixers/ tasks/ learners/ leaderboards/ compare/ code/
    FOLDER/about.html  404.html  papers.json  papers.csv  feed.xml  feeds/FAMILY.xml  static/

Links are relative, so that the folder may lie anywhere, and opens from disk.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from contexture.catalogue import pages, pages_compare
from contexture.catalogue.export import to_csv, to_json
from contexture.catalogue.feed import announced, feed, feed_name, feed_names
from contexture.catalogue.library import Library
from contexture.catalogue.pages_paper import paper
from contexture.catalogue.parts import ROOMS
from contexture.catalogue.query import FACETS, Query
from contexture.catalogue.search import WEIGHTS, Search, texts, words
from contexture.catalogue.static_files import static_files
from contexture.catalogue.view import FileLinks, View, file_of
from contexture.errors import InputError

MARKER = ".contexture-site"
"""A file that marks a folder as written by `build`, which may then be written anew."""


def build(library: Library, folder: Path, *, url: str = "") -> int:
    """Write the site and return the number of files; InputError for a folder that holds something else.

    url: where the site will stand, by which its feeds name pages; "" for relative names.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the site")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise InputError(f"{folder} holds something that is not a site of this program: name an empty or a new folder")
    files = dict(site_files(library, url=url))
    stale = _written(folder) - files.keys()
    for name, data in {MARKER: "\n".join(sorted(files)).encode(), **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    return len(files)


def site_files(library: Library, *, url: str = "") -> Iterator[tuple[str, bytes]]:
    """Every file of the site with its name, the front page first."""
    for name, data in static_files().items():
        yield f"static/{name}", data
    for name, text in _pages(library):
        yield name, text.encode()
    yield "404.html", pages.missing(_anywhere(url)).encode()
    yield "static/index.json", _json(index(library))
    yield "papers.json", _json([to_json(record) for record in library.papers.values()])
    yield "papers.csv", to_csv(library.papers.values()).encode()
    for name, family in feed_names().items():
        yield name, feed(library, url, family)


def index(library: Library) -> dict[str, list[str]]:
    """The words of every paper for the search of the front page's script: a text for each of WEIGHTS, words once."""
    found = {}
    for key, record in library.papers.items():
        seen: set[str] = set()
        columns = []
        for name in WEIGHTS:
            fresh = [word for word in dict.fromkeys(words(texts(record)[name])) if word not in seen]
            seen.update(fresh)
            columns.append(" ".join(fresh))
        found[key] = columns
    return found


def _pages(library: Library) -> Iterator[tuple[str, str]]:
    top, below = _view(0), _view(1)
    search = Search(library)
    everything = Query()
    yield "index.html", pages.front(search, everything, top)
    for facet in FACETS:
        for choice in search.select(everything).facets[facet]:
            query = everything.toggled(facet, choice.value)
            yield file_of("front", query=query.pairs())[0], pages.front(search, query, below)
    for key in library.papers:
        yield file_of("papers", key)[0], paper(library, key, below)
    for room in ROOMS:
        yield file_of(room)[0], pages.parts(library, room, below)
        for name in library.parts[room]:
            yield file_of(room, name)[0], pages.part(library, room, name, below)
    yield file_of("compare")[0], pages_compare.compare(library, (), below)
    for measure in library.measures:
        yield file_of("compare", measure.key)[0], pages_compare.measure(library, measure.key, (), below)
    yield file_of("leaderboards")[0], pages_compare.leaderboards(library, below)
    for task in library.parts["tasks"]:
        yield file_of("leaderboards", task)[0], pages_compare.leaderboard(library, task, below)
    for name in library.code:
        yield file_of("code", name)[0], pages.code(library, name, _view(name.count("/") + 1))
    yield "about.html", pages.about(library, top)


def _view(depth: int) -> View:
    return View(link=FileLinks(depth=depth), head=announced("../" * depth + feed_name()))


def _anywhere(url: str) -> View:
    """What a page needs that hosts show at any address: links from the root of the host, where `url` says it."""
    root = urlsplit(url).path.rstrip("/") + "/" if url else ""
    return View(link=FileLinks(root=root), head=announced(root + feed_name()))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _written(folder: Path) -> set[str]:
    """The files that an earlier build wrote."""
    marker = folder / MARKER
    names = marker.read_text(encoding="utf-8").split("\n") if marker.is_file() else []
    return {name for name in names if name and ".." not in Path(name).parts and not Path(name).is_absolute()}
