import gzip
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import html5lib
import pytest

from contexture.catalogue.answers import Answer, Answers, accepts_gzip, matches
from contexture.catalogue.edition import Edition
from contexture.catalogue.run_pages import RunPages
from contexture.catalogue.server import Catalogue
from contexture.catalogue.static_files import FOLDER
from contexture.errors import InputError
from serve_toys import HOST, Site, load, make_site, republish, write_catalogue

TELLS = """
import json
def tell(**line): print(json.dumps(line), flush=True)
tell(event="measuring", claim="construction", sentence="It is so.", done=0, of=1)
tell(event="training", step=0, steps=2)
tell(event="step", step=1, steps=2, loss=0.5)
tell(event="step", step=2, steps=2, loss=0.25)
print("<script>said</script>", flush=True)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="module")
def site(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(folders, tmp_path_factory.mktemp("runs"), lambda *asked: [sys.executable, "-c", TELLS])
    yield made
    made.jobs.close()


PAGES = (
    "/", "/?q=gradient", "/?family=mixers&status=built", "/papers/icl-by-gd", "/papers/toy-rule", "/papers/toy-plan",
    "/mixers", "/mixers/delta-rule", "/tasks", "/tasks/mqar", "/learners", "/learners/ridge", "/compare",
    "/compare?mixers=softmax,delta-rule,no-such", "/leaderboards", "/leaderboards/mqar", "/code/mixers/delta_rule",
    "/about", "/runs",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_valid_html(site: Site, path: str) -> None:
    reply = site.ask(path)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    html5lib.HTMLParser(strict=True).parse(reply.text)


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_scripts_or_styles_that_its_policy_would_block(site: Site, path: str) -> None:
    tree = html5lib.parse(site.ask(path).text, namespaceHTMLElements=False)
    for element in tree.iter():
        if not isinstance(element.tag, str):
            continue
        assert "style" not in element.attrib
        assert not element.tag.endswith("style")
        assert not [name for name in element.attrib if str(name).startswith(("on", "hx-on"))]
        if element.tag.endswith("script"):
            assert element.attrib["src"].startswith("/static/")
            assert not (element.text or "").strip()


def test_links_of_the_pages_lead_to_pages(site: Site) -> None:
    seen, rest = set(), ["/"]
    while rest:
        path = rest.pop()
        tree = html5lib.parse(site.ask(path).text, namespaceHTMLElements=False)
        found = {e.attrib[name] for e in tree.iter() for name in ("href", "src", "action") if name in e.attrib}
        for link in {one.partition("#")[0] for one in found if one.startswith("/")} - seen:
            seen.add(link)
            assert site.ask(link).status == 200, (path, link)
            if link.startswith("/papers") or link in ("/about", "/compare", "/leaderboards", "/runs"):
                rest.append(link)
    assert len(seen) > 60


NOT_HELD = (
    "/nope", "/papers/nope", "/papers/", "/mixers/nope", "/code/errors", "/code/../pyproject", "/runs/nope",
    "/static/nope.css", "/static/vendor/README.md", "/feeds/nope.xml", "/compare/nope",
)  # fmt: skip


def test_a_name_that_is_not_held_has_no_page(site: Site) -> None:
    for path in NOT_HELD:
        reply = site.ask(path)
        assert (path, reply.status) == (path, 404)
        assert "There is no such page" in reply.text


def test_a_query_that_means_nothing_is_said_to(site: Site) -> None:
    reply = site.ask("/?nonsense=1")
    assert (reply.status, reply.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert "there is no parameter 'nonsense'" in reply.text
    assert site.ask("/?" + "&".join(f"family=f{n}" for n in range(100))).status == 400


def test_the_part_that_changes_is_asked_for_alone(site: Site) -> None:
    script = [(b"hx-request", b"true")]
    part = site.ask("/?q=delta", headers=script)
    assert part.text.lstrip().startswith('<div id="results"')
    assert part.headers["hx-replace-url"] == "/?q=delta"
    shown = site.ask("/?q=&sort=&family=mixers&family=mixers", headers=script).headers["hx-replace-url"]
    assert shown == "/?family=mixers"
    assert "hx-replace-url" not in site.ask("/?q=delta").headers
    assert "toy-rule" in part.text
    assert "toy-plan" not in part.text
    assert "<html" in site.ask("/?q=delta").text
    assert "<html" in site.ask("/?q=delta", headers=[*script, (b"hx-history-restore-request", b"true")]).text
    assert "hx-request" in part.headers["vary"]


def test_the_front_page_searches_without_scripts_and_with(site: Site) -> None:
    tree = html5lib.parse(site.ask("/").text, namespaceHTMLElements=False)
    form = next(e for e in tree.iter("form") if e.attrib.get("id") == "ask")
    assert (form.attrib["action"], form.attrib["method"]) == ("/", "get")
    assert (form.attrib["hx-get"], form.attrib["hx-target"]) == ("/", "#results")


def test_answers_carry_the_headers_that_guard_them(site: Site) -> None:
    for reply in (site.ask("/"), site.ask("/nope"), site.ask("/", host=b"evil.example"), site.ask("/", "PUT"),
                  site.post("/runs", token="wrong"), site.ask("/api/papers"), site.ask("/?x=1")):  # fmt: skip
        policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in reply.headers
        assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("host", [HOST, "localhost:8765", "[::1]:8765"])
def test_names_of_this_machine_are_answered_to(site: Site, host: str) -> None:
    assert site.ask("/about", host=host.encode()).status == 200


@pytest.mark.parametrize(
    "host",
    [None, b"", b"evil.example", b"127.0.0.1", b"127.0.0.1:80", b"evil.example:8765", b"127.0.0.1:8765.evil.example",
     b"localhost:8765@evil.example", b"LOCALHOST:8765x", b"127.0.0.1:8765 ", b"\xff"],
)  # fmt: skip
def test_other_names_are_not(site: Site, host: bytes | None) -> None:
    reply = site.ask("/about", host=host)
    assert reply.status == 421
    assert "evil" not in reply.text


def test_two_hosts_are_refused(site: Site) -> None:
    assert site.ask("/about", headers=[(b"host", HOST.encode())]).status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"])
def test_only_get_and_head_are_served(site: Site, method: str) -> None:
    reply = site.ask("/", method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert site.ask("/runs", "PUT").headers["allow"] == "GET, HEAD, POST"


def test_head_tells_what_get_would_send(site: Site) -> None:
    got, told = site.ask("/about"), site.ask("/about", "HEAD")
    assert (told.status, told.headers, told.body) == (got.status, got.headers, b"")


def test_what_is_too_large_is_refused(site: Site) -> None:
    assert site.ask("/" + "a" * 513).status == 414
    assert site.ask("/?q=" + "a" * 2048).status == 414
    assert site.ask("/", headers=[(b"x-%d" % n, b"") for n in range(65)]).status == 431
    assert site.ask("/", headers=[(b"cookie", b"a" * 40000)]).status == 431
    assert site.post("/runs", paper="a" * 5000).status == 413
    kind = (b"content-type", b"application/x-www-form-urlencoded")
    assert site.ask("/runs", "POST", headers=[kind], chunks=[b"a" * 1000] * 10).status == 413
    assert site.ask("/runs", "POST", headers=[kind, (b"content-length", b"-1")]).status == 413
    assert site.ask("/runs", "POST", headers=[kind], chunks=[b"&".join(b"a=1" for _ in range(50))]).status == 400


def test_a_page_that_one_has_is_not_sent_again(site: Site) -> None:
    first = site.ask("/about")
    tag = first.headers["etag"].encode()
    for header in (tag, b'"other", ' + tag, b"W/" + tag, b"*"):
        reply = site.ask("/about", headers=[(b"if-none-match", header)])
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", first.headers["etag"])
    assert site.ask("/about", headers=[(b"if-none-match", b'"other"')]).status == 200


def test_a_compressed_page_is_the_same_page_under_another_tag(site: Site) -> None:
    plain, zipped = site.ask("/about"), site.ask("/about", headers=[(b"accept-encoding", b"gzip, br")])
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    assert zipped.headers["etag"] != plain.headers["etag"]
    assert int(zipped.headers["content-length"]) == len(zipped.body) < len(plain.body)


def test_what_headers_mean() -> None:
    assert accepts_gzip(b"GZIP ; q=0.1")
    assert not accepts_gzip(b"gzip; q=0, br")
    assert not matches(b"", b'"a"')


def test_answers_are_kept_up_to_a_bound_the_least_lately_asked_go() -> None:
    answers = Answers(most=6000)
    for n in range(3):
        answers.keep(n, Answer(b"x" * 1000))
    answers.get(0)
    answers.keep(3, Answer(b"x" * 1000))
    assert [answers.get(n) is not None for n in range(4)] == [True, False, True, True]
    answers.keep(0, Answer(b"y"))
    kept = answers.get(0)
    assert kept is not None
    assert kept.body == b"y"


def test_what_is_vendored_is_what_was_published() -> None:
    vendor = FOLDER / "vendor"
    sums = dict(line.split()[::-1] for line in (vendor / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    assert sums.keys() == {"htmx.min.js", "htmx.LICENSE.txt"}
    for name, wanted in sums.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == wanted
    # The file of the package htmx.org 2.0.10 on npm.
    assert sums["htmx.min.js"] == "71ea67185bfa8c98c39d31717c6fce5d852370fcdfd129db4543774d3145c0de"


def test_the_script_is_served_as_it_was_published(site: Site) -> None:
    reply = site.ask("/static/vendor/htmx.min.js")
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert reply.body == (FOLDER / "vendor" / "htmx.min.js").read_bytes()


def test_a_run_is_begun_by_a_form_and_told_on_every_page_of_its(site: Site) -> None:
    assert "Run it here" in site.ask("/papers/icl-by-gd").text
    begun = site.post("/runs", paper="icl-by-gd", claim="construction")
    assert begun.status == 303
    address = begun.headers["location"]
    site.jobs.wait(10)
    page = site.ask(address)
    assert page.headers["cache-control"] == "no-store"
    assert "step 2 of 2, loss 0.250" in page.text
    assert "Failed" in page.text
    assert "&lt;script&gt;said&lt;/script&gt;" in page.text
    assert "<script>said" not in page.text
    html5lib.HTMLParser(strict=True).parse(page.text)
    part = site.ask(f"{address}/part").text
    assert part.startswith('<section class="run failed" id="run-construction"')
    assert "hx-trigger" not in part
    assert "step 2 of 2" in site.ask("/papers/icl-by-gd").text
    assert address in site.ask("/runs").text
    assert site.ask(f"{address}/figure.svg").status == 404
    assert site.post(f"{address}/stop").status == 303
    scripted = site.post(f"{address}/stop", headers=[(b"hx-request", b"true")])
    assert scripted.text.startswith('<section class="run failed"')


def test_only_claims_that_have_code_are_run(site: Site) -> None:
    before = len(site.jobs.all())
    for fields in ({}, {"paper": "nope", "claim": "construction"}, {"paper": "icl-by-gd", "claim": "nope"},
                   {"paper": "icl-by-gd", "claim": "construction; ls"}, {"paper": "mine.py", "claim": "construction"},
                   {"paper": "--all", "claim": ""}, {"paper": "toy-plan", "claim": "construction"}):  # fmt: skip
        assert site.post("/runs", **fields).status == 404
    assert site.post("/runs/nope/stop").status == 404
    assert len(site.jobs.all()) == before


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        ([], "", 403),
        ([], "wrong", 403),
        ([(b"origin", b"http://evil.example")], None, 403),
        ([(b"origin", b"https://127.0.0.1:8765")], None, 403),
        ([(b"origin", b"http://localhost:8765")], None, 403),
        ([(b"origin", b"null")], None, 403),
        ([(b"sec-fetch-site", b"cross-site")], None, 403),
        ([(b"sec-fetch-site", b"same-site")], None, 403),
        ([(b"content-type", b"text/plain")], None, 400),
    ],
)
def test_another_page_cannot_begin_a_run(
    site: Site, headers: list[tuple[bytes, bytes]], token: str | None, status: int
) -> None:
    before = len(site.jobs.all())
    assert site.post("/runs", headers=headers, token=token, paper="icl-by-gd", claim="construction").status == status
    assert len(site.jobs.all()) == before
    if headers:
        right = [(b"origin", f"http://{HOST}".encode()), (b"sec-fetch-site", b"same-origin")]
        assert site.post("/runs", headers=right, paper="nope").status == 404


def test_a_form_of_another_kind_is_refused(site: Site) -> None:
    body = f"token={site.app.token}&paper=icl-by-gd&claim=construction".encode()
    for kind in (b"text/plain", b"multipart/form-data; boundary=x", b"application/json", b""):
        assert site.ask("/runs", "POST", headers=[(b"content-type", kind)], chunks=[body]).status == 415


def test_a_second_run_waits_for_the_first(folders: tuple[Path, Path], tmp_path: Path) -> None:
    site = make_site(folders, tmp_path, lambda *asked: [sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        first = site.post("/runs", paper="icl-by-gd", claim="construction").headers["location"]
        assert site.post("/runs", paper="icl-by-gd", claim="curvature").status == 409
        scripted = site.post("/runs", headers=[(b"hx-request", b"true")], paper="icl-by-gd", claim="curvature")
        assert scripted.status == 200
        assert first in scripted.text
        page = site.ask("/papers/icl-by-gd").text
        assert 'class="run running" id="run-construction"' in page
        assert f'hx-get="{first}/part" hx-trigger="every 1s"' in page
        stopped = site.post(f"{first}/stop", headers=[(b"hx-request", b"true")])
        assert 'class="run stop' in stopped.text
    finally:
        site.jobs.close()


def test_pages_change_with_the_results_and_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    folders = write_catalogue(tmp_path)
    reports: list[str] = []
    jobs = make_site(folders, tmp_path / "runs", lambda *asked: []).jobs
    catalogue = Catalogue(lambda: load(folders), RunPages(jobs, "token"), report=reports.append)

    def reloaded() -> Edition:
        catalogue._looked = float("-inf")
        catalogue.look()
        with catalogue._loading:
            return catalogue.edition

    first = catalogue.edition
    assert reloaded() is first
    republish(folders[1], at="2027-01-01T00:00:00Z", value=0.123456)
    second = reloaded()
    assert second is not first
    published = second.library.papers["icl-by-gd"].claims[0].published
    assert published is not None
    assert published.result.value == 0.123456
    (folders[1] / "icl-by-gd.json").write_text("{", encoding="utf-8")
    assert reloaded() is second
    assert reloaded() is second
    assert len(reports) == 1
    jobs.close()


def test_a_library_that_cannot_be_read_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        make_site((tmp_path / "none", tmp_path), tmp_path / "runs", lambda *asked: [])
