"""New and changed results as Atom feeds (RFC 4287): one of all, one for each family.

    feed.xml                all results
    feeds/FAMILY.xml        those of a family

An entry's id stays with its claim for ever; a result that is published anew moves its `updated`.
"""

import re
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from markupsafe import Markup

from contexture import __version__
from contexture.catalogue.changes import News, latest, news, urn
from contexture.catalogue.entry import FAMILIES
from contexture.catalogue.library import Library
from contexture.catalogue.view import FileLinks, Links
from contexture.errors import InputError

ATOM = "http://www.w3.org/2005/Atom"
NAME = "Contexture"
MOST_ENTRIES = 200
_NOT_XML = re.compile("[^\\t\\n\\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold."""


def feed_name(family: str | None = None) -> str:
    """Where a feed is, from the root of a site.

    >>> feed_name(), feed_name("mixers")
    ('feed.xml', 'feeds/mixers.xml')
    """
    return "feed.xml" if family is None else f"feeds/{family}.xml"


def announced(address: str) -> Markup:
    """What tells a page's reader of the feed at an address."""
    title = "New and changed results"
    return Markup('<link rel="alternate" type="application/atom+xml" title="{}" href="{}">').format(title, address)


def feed_names() -> dict[str, str | None]:
    """Every feed by its name: its family, None for that of all."""
    return {feed_name(): None} | {feed_name(family): family for family in FAMILIES}


def feed(library: Library, base_url: str = "", family: str | None = None, *, link: Links | None = None) -> bytes:
    """A feed as the bytes of its file.

    base_url: the address of the site's root, from which pages are named in full; "" names them relative to the feed,
    which readers of feeds resolve. link: from pages to addresses within the site, by default those of a built site.
    Raises InputError for an unknown family.
    """
    if family is not None and family not in FAMILIES:
        raise InputError(f"there is no family {family!r}: there are {', '.join(FAMILIES)}")
    link = FileLinks() if link is None else link
    root = base_url.rstrip("/") + "/" if base_url else "../" if family else ""
    found = news(library, family=family)[:MOST_ENTRIES]
    top = xml.Element("feed", {"xmlns": ATOM, "xml:lang": "en"})
    of = "" if family is None else f": {FAMILIES[family]}"
    _add(top, "id", urn("feed", family or "all"))
    _add(top, "title", f"{NAME}{of}")
    _add(top, "subtitle", "What papers on models that learn from their context claim, as measured here.")
    _add(top, "updated", latest(found))
    _add(top, "link", rel="self", type="application/atom+xml", href=root + feed_name(family))
    page = link("front", query=[("family", family)] if family else [])
    _add(top, "link", rel="alternate", type="text/html", href=root + page.lstrip("/"))
    _add(_add(top, "author"), "name", NAME)
    _add(top, "generator", NAME, version=__version__)
    for one in found:
        top.append(_entry(one, root + link("papers", one.record.key, anchor=anchor(one.claim.name)).lstrip("/")))
    xml.indent(top)
    text: bytes = xml.tostring(top, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def anchor(claim: str) -> str:
    """The id of a claim's place on its paper's page."""
    return f"claim-{claim}"


def _entry(one: News, address: str) -> xml.Element:
    entry = xml.Element("entry")
    _add(entry, "id", one.urn)
    _add(entry, "title", f"{one.result.verdict.capitalize().replace('-', ' ')}: {one.result.sentence}")
    _add(entry, "updated", one.at)
    _add(entry, "link", rel="alternate", type="text/html", href=address)
    _add(entry, "category", term=one.record.entry.family, label=FAMILIES[one.record.entry.family])
    _add(entry, "summary", summary(one), type="text")
    return entry


def summary(one: News) -> str:
    """A result in one paragraph."""
    year = f" ({one.record.entry.year})" if one.record.entry.year else ""
    parts: Sequence[str] = (
        f"{one.record.entry.title}{year}.",
        f"Measured {one.measured} ({one.result.seeds} seeds, {one.result.scale} scale).",
        f"Control {one.control}.",
        f"Verdict: {one.result.verdict}{f' ({one.result.note})' if one.result.note else ''}.",
    )
    return " ".join(parts)


def _add(parent: xml.Element, tag: str, text: str = "", **attributes: str) -> xml.Element:
    child = xml.SubElement(parent, tag, attributes)
    if text:
        child.text = _NOT_XML.sub("", text)
    return child
