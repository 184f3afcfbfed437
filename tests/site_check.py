"""What a folder of pages must be: valid HTML, single ids, links that lead somewhere, nothing from elsewhere.

Each fault is a sentence that begins with the file's name.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import html5lib
from html5lib.html5parser import ParseError

LOADING = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("use", "href")}
ID_LISTS = ("aria-labelledby", "aria-describedby", "for", "list", "headers")


@dataclass
class Page:
    """A page as far as the checks need it."""

    ids: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check(folder: Path) -> list[str]:
    """Every fault of a built site."""
    pages = {path.relative_to(folder).as_posix(): read(path.read_text(encoding="utf-8")) for path in html_files(folder)}
    return [f"{name}: {fault}" for name, page in pages.items() for fault in page_faults(folder, name, page, pages)]


def html_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def read(text: str) -> Page:
    """Parse a page strictly and gather its ids, links and what it loads."""
    page = Page()
    try:
        tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    except ParseError as error:
        page.faults.append(f"is not valid HTML: {error}")
        return page
    for element in tree.iter():
        if isinstance(element.tag, str):
            gather(element, page)
    structure(tree, page)
    return page


def gather(element: ElementTree.Element, page: Page) -> None:
    tag = element.tag.rpartition("}")[2]
    for name, value in element.attrib.items():
        plain = str(name).rpartition("}")[2]
        if plain == "id":
            page.ids[value] += 1
        if plain.startswith("on") or value.strip().lower().startswith("javascript:"):
            page.faults.append(f"has a script in the attribute {plain} of {tag}")
        if plain == "style" and "url(" in value.replace("url(#", ""):
            page.faults.append(f"loads by the style of {tag}: {value}")
        if (tag, plain) in LOADING or (plain == "data-index" and value):
            page.loads.append(value)
        elif plain == "href" or (tag, plain) == ("form", "action"):
            page.links.append(value)
        if plain in ID_LISTS:
            page.links += [f"#{one}" for one in value.split()]


def structure(tree: ElementTree.Element, page: Page) -> None:
    """What every page has once: a language, a title, one first heading, a main part."""
    if tree.get("lang") != "en":
        page.faults.append("does not say its language")
    for tag in ("title", "main", "h1"):
        if len(list(tree.iter(tag))) != 1:
            page.faults.append(f"has {len(list(tree.iter(tag)))} elements {tag}")
    levels = [int(e.tag[1]) for e in tree.iter() if isinstance(e.tag, str) and re.fullmatch("h[1-6]", e.tag)]
    skipped = [b for a, b in pairwise(levels) if b > a + 1]
    if skipped:
        page.faults.append(f"skips a level before a heading h{skipped[0]}")
    for control in tree.iter("input"):
        if control.get("type") != "hidden" and not control.get("aria-label") and control not in labelled(tree):
            page.faults.append(f"has an input {control.get('name')} without a label")


def labelled(tree: ElementTree.Element) -> list[ElementTree.Element]:
    return [control for label in tree.iter("label") for control in label.iter("input")]


def page_faults(folder: Path, name: str, page: Page, pages: dict[str, Page]) -> Iterator[str]:
    yield from page.faults
    yield from (f"has the id {one!r} {count} times" for one, count in page.ids.items() if count > 1)
    for address in page.loads:
        if urlsplit(address).scheme or address.startswith("//"):
            yield f"loads {address}"
        elif target(folder, name, address) is None:
            yield f"loads {address}, which is not there"
    for address in dict.fromkeys(page.links):
        yield from link_faults(folder, name, address, pages)


def link_faults(folder: Path, name: str, address: str, pages: dict[str, Page]) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme == "https":
        return
    if parts.scheme or parts.netloc:
        yield f"links to {address}"
        return
    found = target(folder, name, address)
    if found is None:
        yield f"links to {address}, which is not there"
    elif parts.fragment and found in pages and unquote(parts.fragment) not in pages[found].ids:
        yield f"links to {address}, but {found} has no such place"


def target(folder: Path, name: str, address: str) -> str | None:
    """The file that an address on a page means, None if there is none."""
    path = unquote(urlsplit(address).path)
    if not path:
        return name
    full = (folder / name).parent.joinpath(path).resolve()
    if not full.is_file() or not full.is_relative_to(folder.resolve()):
        return None
    return full.relative_to(folder.resolve()).as_posix()
