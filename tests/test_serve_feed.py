import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import feedparser
import pytest
from lxml import etree

from contexture.catalogue.changes import news
from contexture.catalogue.entry import FAMILIES
from contexture.catalogue.feed import ATOM, feed, feed_names
from contexture.catalogue.read_api import schema
from contexture.errors import InputError
from serve_toys import Site, load, make_site, republish, write_catalogue

BASE = "https://example.org/catalogue"
A = f"{{{ATOM}}}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="module")
def site(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(folders, tmp_path_factory.mktemp("runs"), lambda *asked: [sys.executable])
    yield made
    made.jobs.close()


# ---- what RFC 4287 asks of a feed document, as far as ours could break it

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;.*)?")
ONE_IN_A_FEED = ("generator", "icon", "logo", "id", "rights", "subtitle", "title", "updated")  # 4.1.1
ONE_IN_AN_ENTRY = ("content", "id", "published", "rights", "source", "summary", "title", "updated")  # 4.1.2


def faults(document: bytes) -> list[str]:
    try:
        top = etree.fromstring(document)
    except etree.XMLSyntaxError as error:
        return [f"not well formed: {error}"]
    if top.tag != f"{A}feed":
        return [f"2: the document element is {top.tag}"]
    entries = top.findall(f"{A}entry")
    found = list(of_container(top, ONE_IN_A_FEED, "4.1.1"))
    for entry in entries:
        found += of_container(entry, ONE_IN_AN_ENTRY, "4.1.2")
        if entry.find(f"{A}content") is None and not alternates(entry):
            found.append("4.1.2: an entry without content needs an alternate link")
        if entry.find(f"{A}author") is None and top.find(f"{A}author") is None:
            found.append("4.1.2: an entry has no author, nor has its feed")
    if top.find(f"{A}author") is None and any(entry.find(f"{A}author") is None for entry in entries):
        found.append("4.1.1: a feed needs an author unless every entry has one")
    if not [link for link in top.findall(f"{A}link") if link.get("rel") == "self"]:
        found.append("4.1.1: a feed should have a self link")
    versions = [(entry.findtext(f"{A}id"), entry.findtext(f"{A}updated")) for entry in entries]
    if len(set(versions)) < len(versions):
        found.append("4.1.1: two entries have one id and one moment")
    return found


def of_container(container: Any, once: tuple[str, ...], section: str) -> Iterator[str]:
    for name in once:
        if len(container.findall(f"{A}{name}")) > 1:
            yield f"{section}: more than one {name}"
    for name in ("id", "title", "updated"):
        if container.find(f"{A}{name}") is None:
            yield f"{section}: no {name}"
    places = [(link.get("type"), link.get("hreflang")) for link in alternates(container)]
    if len(set(places)) < len(places):
        yield f"{section}: two alternate links of one type and language"
    for element in container:
        name = etree.QName(element).localname
        yield from (f"{said} ({name})" for said, broken in RULES.get(name, ()) if broken(element))


MOMENT = [("3.3: no moment of RFC 3339", lambda e: not RFC_3339.fullmatch(e.text or ""))]
TEXT = [
    ("3.1.1: a type that text cannot have", lambda e: e.get("type", "text") not in ("text", "html", "xhtml")),
    ("3.1.1.1: text that holds elements", lambda e: e.get("type", "text") == "text" and len(e)),
]
PERSON = [("3.2.1: no one name", lambda e: len(e.findall(f"{A}name")) != 1)]
RULES: Mapping[str, Any] = {
    "updated": MOMENT,
    "published": MOMENT,
    "title": TEXT,
    "subtitle": TEXT,
    "summary": TEXT,
    "rights": TEXT,
    "author": PERSON,
    "contributor": PERSON,
    "id": [("4.2.6: no absolute IRI", lambda e: not urlsplit(e.text or "").scheme or e.text != e.text.strip())],
    "category": [("4.2.2.1: no term", lambda e: not e.get("term"))],
    "generator": [("4.2.4: no name", lambda e: not e.text)],
    "link": [
        ("4.2.7: no address", lambda e: not e.get("href")),
        ("4.2.7.3: no media type", lambda e: e.get("type") and not MEDIA_TYPE.fullmatch(e.get("type"))),
    ],
}


def alternates(container: Any) -> list[Any]:
    return [link for link in container.findall(f"{A}link") if link.get("rel", "alternate") == "alternate"]


@pytest.mark.parametrize("base", [BASE, BASE + "/", "", "http://127.0.0.1:8765"])
@pytest.mark.parametrize(("name", "family"), feed_names().items())
def test_every_feed_is_valid(folders: tuple[Path, Path], name: str, family: str | None, base: str) -> None:
    assert faults(feed(load(folders), base, family)) == []


PLANTED = {
    "no id": (rb"<id>urn:uuid:[^<]*</id>", b""),
    "two titles": (rb"(<title>[^<]*</title>)", rb"\1\1"),
    "a moment without a zone": (rb"(<updated>[^<]*)Z</updated>", rb"\1</updated>"),
    "no author": (rb"<author>.*?</author>", b""),
    "a relative id": (rb"<id>urn:uuid:", b"<id>"),
    "no alternate": (rb'rel="alternate"', b'rel="related"'),
    "another namespace": (rb"http://www.w3.org/2005/Atom", b"http://purl.org/atom/ns#"),
    "no term": (rb'term="[^"]*"', b""),
    "an entry twice": (rb"(<entry>.*?</entry>)", rb"\1\1"),
    "cut short": (rb"</feed>", b""),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_the_rules_refuse_a_planted_fault(folders: tuple[Path, Path], planted: str) -> None:
    pattern, instead = PLANTED[planted]
    spoilt = re.sub(pattern, instead, feed(load(folders), BASE), flags=re.DOTALL)
    assert faults(spoilt) != []


def test_a_reader_of_feeds_finds_the_results(folders: tuple[Path, Path]) -> None:
    read = feedparser.parse(feed(load(folders), BASE))
    assert not read.bozo
    assert (read.version, read.feed.title, read.feed.author) == ("atom10", "Contexture", "Contexture")
    assert read.feed.link == f"{BASE}/index.html"
    found = {entry.link: entry for entry in read.entries}
    entry = found[f"{BASE}/papers/icl-by-gd.html#claim-construction"]
    assert len(found) == 2
    assert entry.title.startswith("Held: With weights set by hand")
    assert "Control 0.717: the same weights with softmax" in entry.summary
    assert entry.tags[0].term == "in-context-learning"
    assert entry.id.startswith("urn:uuid:")


def test_relative_feeds_lead_where_full_ones_do(folders: tuple[Path, Path]) -> None:
    library = load(folders)
    for name, family in feed_names().items():
        full, relative = (etree.fromstring(feed(library, base, family)) for base in (BASE, ""))
        wanted = [link.get("href") for link in full.iter(f"{A}link")]
        assert [urljoin(f"{BASE}/{name}", link.get("href")) for link in relative.iter(f"{A}link")] == wanted
        assert f"{BASE}/{name}" in wanted


def test_feeds_of_families_hold_their_own(folders: tuple[Path, Path]) -> None:
    library = load(folders)
    counts = {family: len(feedparser.parse(feed(library, BASE, family)).entries) for family in FAMILIES}
    assert counts == dict.fromkeys(FAMILIES, 0) | {"in-context-learning": 2}
    with pytest.raises(InputError, match="there is no family"):
        feed(library, BASE, "nope")


def test_a_changed_result_keeps_its_id_and_comes_first(tmp_path: Path) -> None:
    folders = write_catalogue(tmp_path)
    before = feedparser.parse(feed(load(folders), BASE))
    republish(folders[1], at="2027-05-06T07:08:09+02:00", verdict="not-held")
    after = feedparser.parse(feed(load(folders), BASE))
    assert {entry.id for entry in before.entries} == {entry.id for entry in after.entries}
    assert after.entries[0].title.startswith("Not held: ")
    assert after.entries[0].updated == after.feed.updated == "2027-05-06T05:08:09Z"
    assert after.entries[1].updated == before.entries[1].updated
    assert faults(feed(load(folders), BASE)) == []


def test_a_result_that_does_not_say_when_is_as_old_as_its_file(tmp_path: Path) -> None:
    folders = write_catalogue(tmp_path)
    republish(folders[1], at="")
    written = (folders[1] / "icl-by-gd.json").stat().st_mtime
    (found,) = [one for one in news(load(folders)) if one.claim.name == "construction"]
    assert abs(datetime.fromisoformat(found.at).timestamp() - written) <= 1


def test_text_that_no_xml_may_hold_is_left_out(tmp_path: Path) -> None:
    folders = write_catalogue(tmp_path)
    republish(folders[1], at="2026-01-01T00:00:00Z", sentence="a\x00\x0b\ufffe <b> & ]]>")
    read = feedparser.parse(feed(load(folders), BASE))
    assert faults(feed(load(folders), BASE)) == []
    assert any("a &lt;b&gt; &amp; ]]&gt;" in entry.title or "a <b> & ]]>" in entry.title for entry in read.entries)


def test_feeds_are_served_and_announced(site: Site) -> None:
    reply = site.ask("/feed.xml")
    assert reply.headers["content-type"] == "application/atom+xml; charset=utf-8"
    assert faults(reply.body) == []
    assert b'href="http://127.0.0.1:8765/papers/icl-by-gd#claim-construction"' in reply.body
    assert 'type="application/atom+xml"' in site.ask("/").text
    assert faults(site.ask("/feeds/mixers.xml").body) == []
    page = site.ask("/papers/icl-by-gd").text
    assert 'id="claim-construction"' in page


# ---- the read API: a checker of as much of JSON Schema as the schema uses

KNOWN = {"$schema", "$defs", "title", "$ref", "anyOf", "type", "properties", "required", "additionalProperties",
         "items", "enum", "const", "pattern", "minimum", "maximum"}  # fmt: skip
TYPES: Mapping[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def of_type(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def broken(value: Any, rule: Any, top: Any, at: str = "$") -> list[str]:
    assert isinstance(rule, bool) or rule.keys() <= KNOWN, f"the checker does not know {rule.keys() - KNOWN}"
    if isinstance(rule, bool):
        return [] if rule else [f"{at}: is not allowed"]
    if "$ref" in rule:
        return broken(value, top["$defs"][rule["$ref"].removeprefix("#/$defs/")], top, at)
    found: list[str] = []
    if "anyOf" in rule and all(broken(value, one, top, at) for one in rule["anyOf"]):
        found.append(f"{at}: is none of the alternatives")
    if "enum" in rule and value not in rule["enum"]:
        found.append(f"{at}: {value!r} is none of {rule['enum']}")
    if "const" in rule and (value != rule["const"] or type(value) is not type(rule["const"])):
        found.append(f"{at}: {value!r} is not {rule['const']!r}")
    kinds = rule.get("type", [])
    if kinds and not any(of_type(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return [*found, f"{at}: {value!r} is not {kinds}"]
    if "pattern" in rule and not re.search(rule["pattern"], value):
        found.append(f"{at}: {value!r} does not match")
    if of_type(value, "number") and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        found.append(f"{at}: {value} is out of bounds")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += broken(item, rule.get("items", True), top, f"{at}[{index}]")
    if isinstance(value, dict):
        found += [f"{at}: lacks {name}" for name in rule.get("required", ()) if name not in value]
        for name, item in value.items():
            inside = rule.get("properties", {}).get(name, rule.get("additionalProperties", True))
            found += broken(item, inside, top, f"{at}.{name}")
    return found


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/papers", "papers"),
        ("/api/papers/icl-by-gd", "paper"),
        ("/api/papers/toy-rule", "paper"),
        ("/api/papers/toy-plan", "paper"),
        ("/api/papers/nope", "error"),
        ("/api/mixers", "mixers"),
        ("/api/search?q=delta", "search"),
        ("/api/search?q=delta&family=mixers&sort=title", "search"),
        ("/api/search?nonsense=1", "error"),
    ],
)
def test_answers_keep_to_the_schema(site: Site, path: str, kind: str) -> None:
    reply, held = site.ask(path), site.ask("/api/schema.json").json
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.status == {"/api/papers/nope": 404, "/api/search?nonsense=1": 400}.get(path, 200)
    assert broken(reply.json, held["$defs"][kind], held) == []
    assert broken(reply.json, held, held) == []


def test_the_schema_refuses_what_it_should(site: Site) -> None:
    held = schema()
    right = site.ask("/api/papers/icl-by-gd").json
    for spoil in (
        {"year": "2022"}, {"status": "reproduced"}, {"key": "Not A Key"}, {"more": 1}, {"mixers": [1]},
        {"verdicts": {"held": -1}}, {"claims": [{**right["claims"][0], "published": False}]},
        {"claims": [{**right["claims"][0], "value": None}]},
    ):  # fmt: skip
        assert broken(right | spoil, held["$defs"]["paper"], held), spoil
    del right["refutation"]
    assert broken(right, held["$defs"]["paper"], held) == ["$: lacks refutation"]


def test_the_api_finds_what_pages_find(site: Site) -> None:
    found = site.ask("/api/search?q=delta").json
    assert [paper["key"] for paper in found["papers"]] == ["toy-rule"]
    assert found["query"] == {"q": "delta", "sort": ""}
    everything = site.ask("/api/papers").json
    assert [paper["key"] for paper in everything["papers"]] == list(site.library.papers)
    one = site.ask("/api/papers/icl-by-gd").json
    assert one["claims"][0]["value"] == 2.7583328125598623e-13
    assert one["claims"][0]["at"] == "2026-11-24T16:39:08Z"
    assert [claim["published"] for claim in one["claims"]].count(True) == 2
    mixers = {mixer["name"]: mixer for mixer in site.ask("/api/mixers").json["mixers"]}
    assert mixers["delta-rule"]["papers"] == ["toy-rule"]
