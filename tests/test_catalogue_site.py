"""The built site: sound pages, honest contents, readable colours."""

import json
import re
from pathlib import Path

import pytest

from catalogue_toys import write_toys
from contexture.catalogue import pages, pages_compare, parts
from contexture.catalogue.library import Library, load_library
from contexture.catalogue.pages_paper import paper
from contexture.catalogue.query import Query
from contexture.catalogue.search import WEIGHTS, Search, texts, words
from contexture.catalogue.site import MARKER, build, index, site_files
from contexture.catalogue.static_files import static_files
from contexture.catalogue.view import FileLinks, ServedLinks, View
from contexture.errors import InputError
from contexture.reports.claims import interval
from contexture.reports.numbers import number
from site_check import check, read

ROOT = Path(__file__).resolve().parent.parent
SERVED = View(link=ServedLinks(), live=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return load_library(ROOT / "results", entries=write_toys(tmp_path_factory.mktemp("entries")))


@pytest.fixture(scope="module")
def front(library: Library) -> str:
    return pages.front(Search(library), Query(), View(link=FileLinks()))


def test_the_real_site_is_sound(tmp_path: Path) -> None:
    """One test, so that the site is built once: every page valid, every link alive, nothing from elsewhere."""
    real = load_library(ROOT / "results")
    written = build(real, tmp_path / "public")
    assert check(tmp_path / "public") == []
    names = {path.relative_to(tmp_path / "public").as_posix() for path in (tmp_path / "public").rglob("*.*")}
    assert written == len(names - {MARKER})
    assert {f"papers/{key}.html" for key in real.papers} <= names
    for room in ("mixers", "tasks", "learners"):
        assert {f"{room}/{name}.html" for name in real.parts[room]} <= names
    assert {f"leaderboards/{name}.html" for name in real.parts["tasks"]} <= names
    assert (
        json.loads((tmp_path / "public" / "static" / "index.json").read_text(encoding="utf-8")).keys()
        == real.papers.keys()
    )


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ("<p>A<div>B</p></div>", "is not valid HTML"),
        ('<p id="a">A</p><p id="a">B</p>', "has the id 'a' 2 times"),
        ('<a href="none.html">A</a>', "links to none.html, which is not there"),
        ('<a href="other.html#none">A</a>', "but other.html has no such place"),
        ('<a href="#none">A</a>', "but page.html has no such place"),
        ('<a href="../outside.html">A</a>', "which is not there"),
        ('<a href="http://example.org/">A</a>', "links to http://example.org/"),
        ('<a href="javascript:go()">A</a>', "has a script in the attribute href"),
        ('<p onclick="go()">A</p>', "has a script in the attribute onclick"),
        ('<img src="https://example.org/a.png" alt="A">', "loads https://example.org/a.png"),
        ('<img src="//example.org/a.png" alt="A">', "loads //example.org/a.png"),
        ('<p style="background: url(https://example.org)">A</p>', "loads by the style of p"),
        ('<svg aria-labelledby="none"></svg>', "links to #none"),
        ("<h1>B</h1>", "has 2 elements h1"),
        ("<h3>B</h3>", "skips a level before a heading h3"),
        ('<input name="q">', "has an input q without a label"),
    ],
)
def test_the_check_finds_what_is_planted(tmp_path: Path, changed: str, fault: str) -> None:
    page = '<!doctype html><html lang="en"><head><title>T</title></head><body><main><h1>A</h1>{}</main></body></html>'
    (tmp_path / "outside.html").write_text(page.format(""), encoding="utf-8")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "other.html").write_text(page.format('<a href="page.html?q=1">B</a>'), encoding="utf-8")
    (folder / "page.html").write_text(page.format(""), encoding="utf-8")
    assert check(folder) == []
    (folder / "page.html").write_text(page.format(changed), encoding="utf-8")
    assert any(fault in found for found in check(folder)), check(folder)


# ---- what stands on the pages


def test_the_front_page_lists_newest_first_and_unknown_years_last(front: str) -> None:
    assert re.findall(r'data-key="([^"]+)"', front) == [
        "toy-built",
        "one-step-gd",
        "icl-by-gd",
        "toy-older",
        "toy-planned",
    ]
    assert [text.strip() for text in re.findall(r"<h2>([^<]+)<small>", front)] == [
        "2024",
        "2023",
        "2022",
        "2021",
        "Year not recorded",
    ]


def test_what_comes_from_entries_is_escaped(library: Library, front: str) -> None:
    for text in (front, paper(library, "toy-built", SERVED)):
        assert "A Table of &lt;Rows&gt; &amp; Columns" in text
        assert "<Rows>" not in text


def test_hostile_words_stay_words(library: Library) -> None:
    for text in ('"><script>alert(1)</script>', "' onfocus=alert(1) x='", "{{ 7 * 7 }}", "</title><script>"):
        found = pages.front(Search(library), Query.parse([("q", text), ("family", text)]), SERVED)
        assert read(found).faults == []
        assert "<script>" not in found
        assert "49" not in found.split("<main")[1].split("results")[0]


def test_a_paper_page_shows_numbers_and_how_to_measure_them_again(library: Library) -> None:
    text = paper(library, "one-step-gd", SERVED)
    claim = library.record("one-step-gd").claims[0]
    assert claim.published is not None
    result = claim.published.result
    for shown in (
        claim.sentence,
        interval(result.value, result.low, result.high),
        f"&lt; {number(result.threshold)}",
        result.reference.sentence,
        result.control.sentence,
        f"contexture claim one-step-gd --only isotropic --scale {result.scale}",
        claim.published.environment["processor"],
        f"{result.settings['episodes']:,}",
        "@misc{one-step-gd,",
        '<span class="nf">isotropic</span>',
        'href="/code/papers/one_step_gd#L',
        'href="/papers/icl-by-gd"',
        "<svg",
    ):
        assert shown in text, shown
    assert text.count('class="figure"') == len(library.record("one-step-gd").claims)


def test_many_claims_are_listed_before_they_are_told(library: Library) -> None:
    text = paper(library, "icl-by-gd", SERVED)
    names = [claim.name for claim in library.record("icl-by-gd").claims]
    listed = text[text.index('<ul class="overview">') : text.index('<article class="claim"')]
    assert re.findall(r'href="#claim-([^"]+)"', listed) == names
    assert listed.count('class="mark held"') == library.record("icl-by-gd").verdicts["held"]


def test_tasks_of_a_paper_that_was_not_measured_are_not_said_to_have_measured_it(library: Library) -> None:
    assert "<h2>Measured on</h2>" in paper(library, "icl-by-gd", SERVED)
    built = paper(library, "toy-built", SERVED)
    assert "<h2>Tasks</h2>" in built
    assert "Measured on" not in built


def test_feeds_and_tables_are_linked(library: Library) -> None:
    for view, names in (
        (SERVED, ("/feed.xml", "/papers.csv", "/api/papers", "/runs")),
        (View(link=FileLinks(depth=1)), ("../feed.xml", "../papers.csv", "../papers.json")),
    ):
        links = read(pages.about(library, view)).links
        assert set(names) <= set(links)
    of_family = pages.front(Search(library), Query.parse([("family", "mixers")]), SERVED)
    assert "/feeds/mixers.xml" in read(of_family).links


def test_a_page_that_is_not_there_looks_as_it_should_at_any_address(library: Library) -> None:
    files = dict(site_files(library, url="https://example.org/catalogue"))
    page = read(files["404.html"].decode())
    assert "/catalogue/static/catalogue.css" in page.loads
    assert "/catalogue/index.html" in page.links


def test_what_is_not_measured_says_so(library: Library) -> None:
    assert "Planned: neither its mechanism nor its claims" in paper(library, "toy-planned", SERVED)
    assert "Its mechanism is built; its claims are not measured yet." in paper(library, "toy-built", SERVED)
    assert "year not recorded" in paper(library, "toy-planned", SERVED)
    assert "Authors not recorded" in paper(library, "toy-planned", SERVED)


def test_a_built_paper_shows_its_claims_without_numbers(tmp_path: Path) -> None:
    held = load_library(tmp_path, entries=write_toys(tmp_path / "entries"))
    text = paper(held, "one-step-gd", SERVED)
    assert text.count("not published yet: wanted") == len(held.papers["one-step-gd"].claims)
    assert "contexture claim one-step-gd --scale smoke" in text
    assert read(text).faults == []


def test_a_mechanism_page_has_card_papers_measurements_and_code(library: Library) -> None:
    text = pages.part(library, "mixers", "delta-rule", SERVED)
    for shown in ("constant", "linear", "/papers/toy-built", "DeltaRule"):
        assert shown in text, shown
    held = [measure for measure in library.measures if measure.room == "mixers" and "delta-rule" in measure.values]
    assert held
    for measure in held:
        assert f'href="/compare/{measure.key}"' in text
        assert f"{measure.place('delta-rule')} of {len(measure.values)}" in text
    lengths = re.findall(r'<th scope="col" class="right">([\d,]+) tokens</th>', text)
    assert lengths == ["512", "2,048", "8,192", "32,768"]
    assert text.index("accuracy on mqar-8") < text.index("cost of a layer")


def test_a_leaderboard_stands_from_the_best_to_the_worst(library: Library) -> None:
    text = pages_compare.leaderboard(library, "mqar", SERVED)
    measure = next(m for m in library.measures if m.task == "mqar")
    listed = re.findall(r'<tr data-name="([^"]+)"', text)
    assert listed[: len(measure.values)] == list(measure.values)
    parity, copying = (pages_compare.leaderboard(library, name, SERVED) for name in ("parity", "copying"))
    assert "Nothing was recorded on it yet" in parity
    assert "contexture compare parity" in parity
    assert "python benchmarks/recall_ladder.py" in copying
    assert "recall --tasks" not in parity
    ladder = "contexture compare recall --tasks copying --mixers all"
    assert parts.commands(library.part("tasks", "copying")) == ("contexture compare copying", ladder)


def test_a_leaderboard_says_what_was_measured_of_what(library: Library) -> None:
    text = pages_compare.leaderboard(library, "copying", SERVED)
    assert "Share of answers that are right (vocabulary 16, num tokens 16)" in text
    assert "the dotted line is chance, 6.7 %" in text
    assert "width 32, 10 k parameters, 8.0 KiB of state, muon at 0.1" in text
    assert re.findall(r"<text [^>]*>([^<]+)</text>", text) == ["0 %", "25 %", "50 %", "75 %", "100 %"]


def test_what_leads_a_task_are_all_that_read_the_same(library: Library) -> None:
    text = pages_compare.leaderboards(library, SERVED)
    assert "accuracy on mqar-8: sliding-window, grouped-query and 3 more, 100.0 %" in text
    assert "accuracy on phonebook: dot, 99.9 %" in text
    assert text.index("Nothing recorded yet") < text.index('href="/leaderboards/parity"')
    recorded = {measure.task for measure in library.measures} & set(library.parts["tasks"])
    assert f"Leaderboards <small>{len(recorded)}</small>" in text


def test_what_a_plot_leaves_out_it_names(library: Library) -> None:
    text = pages_compare.measure(library, "decode-8192-fp32", [], SERVED)
    assert re.search(r"atlas-per-token \(would take about \d+ s a call\)", text)
    assert "on a logarithmic axis" in text
    assert 'class="right interval"' not in text  # nothing of it has an interval
    assert "Not measured:" not in pages_compare.measure(library, "decode-2048-fp32", [], SERVED)


def test_only_the_named_mixers_are_compared(library: Library) -> None:
    text = pages_compare.compare(library, ["softmax", "delta-rule"], SERVED)
    assert set(re.findall(r'<tr data-name="([^"]+)"', text)) == {"softmax", "delta-rule"}
    with pytest.raises(InputError, match="no mixer is named 'sofmax'"):
        pages_compare.compare(library, ["sofmax"], SERVED)


def test_the_compared_are_offered_by_their_state_and_the_others_say_why_they_are_not(library: Library) -> None:
    text = pages_compare.compare(library, (), SERVED)
    asked = dict(re.findall(r'href="/compare\?mixers=([^"]+)">([a-z ]+), \d+</a>', text))
    by_state = {state: names.split("%2C") for names, state in asked.items()}
    assert {"mamba", "delta-rule"} < set(by_state["constant state"])
    assert {"softmax", "hyena"} < set(by_state["growing state"])
    assert re.search(r"see a whole set at once[^<]*: <a [^>]*>feature-attention</a>", text)
    assert re.search(r"Arrangements of several mixers[^<]*: <a [^>]*>mamba-empirical</a>", text)
    assert "Not measured yet" not in text


def test_costs_stand_side_by_side_at_the_longest_length_that_nearly_all_were_measured_at(library: Library) -> None:
    chosen, others = pages_compare.mixer_measures(library)
    assert {measure.length for measure in chosen} == {0, 8192}  # 39 of 45; 32 at 32,768
    assert {measure.length for measure in others} == {512, 2048, 32768}


def test_the_best_of_the_compared_is_marked() -> None:
    held = load_library(ROOT / "results", entries=ROOT / "src" / "contexture" / "catalogue" / "entries")
    measure = next(m for m in held.measures if m.key.startswith("decode-"))
    board = pages_compare.board("mixers", [measure], ["softmax", "linear-attention"])
    assert [(name, cells[0].best) for name, cells in board.rows if cells[0]] == [
        ("linear-attention", True),
        ("softmax", False),
    ]
    recall = next(m for m in held.measures if m.key == "recall-ladder-mqar-8-parameters")
    board = pages_compare.board("mixers", [recall], ["sliding-window", "softmax", "mesa"])
    assert [cells[0].best for _, cells in board.rows if cells[0]] == [True, True, False]  # 100.0, 100.0 and 99.7 %


def test_a_served_query_is_in_every_address_of_its_facets(library: Library) -> None:
    text = pages.results(Search(library), Query.parse([("q", "recall"), ("family", "mixers")]), SERVED)
    assert 'href="/?q=recall&amp;family=mixers&amp;status=built"' in text
    assert 'href="/?q=recall"' in text
    assert text.lstrip().startswith('<div id="results"')


@pytest.mark.parametrize("make", [pages.part, lambda library, room, name, view: pages.code(library, name, view)])
def test_pages_that_are_not_there_are_refused(library: Library, make: object) -> None:
    with pytest.raises(InputError):
        make(library, "mixers", "../cli", SERVED)  # type: ignore[operator]


def test_only_papers_and_parts_have_their_code_shown(library: Library) -> None:
    assert "mixers/delta_rule" in library.code
    assert "papers/one_step_gd" in library.code
    assert not {"cli", "errors", "store/atomic", "catalogue/site"} & set(library.code)


def test_addresses() -> None:
    near, deep, served = FileLinks(), FileLinks(depth=2), ServedLinks()
    assert near("papers", "aaren", anchor="cite") == "papers/aaren.html#cite"
    assert deep("front") == "../../index.html"
    assert near("front", query=[("year", "2024")]) == "browse/year-2024.html"
    assert near("front", query=[("q", "a b")]) == "index.html?q=a+b"
    assert near("static", "catalogue.css") == "static/catalogue.css"
    assert served("papers", "aaren", anchor="cite") == "/papers/aaren#cite"
    assert served("compare", query=[("mixers", "a,b")]) == "/compare?mixers=a%2Cb"
    assert served("front", query=[("year", "2024")]) == "/?year=2024"
    assert served("about") == "/about"


def test_every_link_of_a_served_page_is_one_of_its_addresses(library: Library) -> None:
    known = re.compile(
        r"/|/\?.*|/(feed\.xml|papers\.csv|api/papers|runs)|/(papers|mixers|tasks|learners|leaderboards|compare|code|static|about)(/[\w./-]+)?(\?.*)?"
    )
    for text in (paper(library, "icl-by-gd", SERVED), pages_compare.compare(library, (), SERVED)):
        page = read(text)
        assert page.faults == []
        addresses = {link.partition("#")[0] for link in (*page.links, *page.loads)} - {""}
        assert {a for a in addresses if not known.fullmatch(a) and not a.startswith("https://arxiv.org/abs/")} == set()


# ---- building


def test_a_folder_that_holds_something_else_is_left_alone(library: Library, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="holds something that is not a site"):
        build(library, tmp_path)
    with pytest.raises(InputError, match="is a file"):
        build(library, tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_building_again_writes_the_same_and_takes_away_what_is_no_more(library: Library, tmp_path: Path) -> None:
    build(library, tmp_path / "site")
    first = {path: path.read_bytes() for path in (tmp_path / "site").rglob("*") if path.is_file()}
    (tmp_path / "site" / "papers" / "gone.html").write_text("old", encoding="utf-8")
    with (tmp_path / "site" / MARKER).open("a", encoding="utf-8") as marker:
        marker.write("\npapers/gone.html\n../outside.txt")
    (tmp_path / "outside.txt").write_text("stays", encoding="utf-8")
    build(library, tmp_path / "site")
    assert {path: path.read_bytes() for path in (tmp_path / "site").rglob("*") if path.is_file()} == first
    assert (tmp_path / "outside.txt").is_file()


def test_the_index_of_the_script_holds_every_word_once(library: Library) -> None:
    for key, columns in index(library).items():
        held = " ".join(columns).split()
        assert len(columns) == len(WEIGHTS)
        assert len(held) == len(set(held))
        assert set(held) == set(words(" ".join(texts(library.record(key)).values())))


# ---- colours


def palette(scheme: str) -> dict[str, str]:
    """The custom properties of the style sheet in a scheme, the dark ones over the light."""
    text = static_files()["catalogue.css"].decode()
    dark = r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}\s*\}"
    blocks = re.findall(r":root \{(.*?)\}", re.sub(dark, "", text, flags=re.DOTALL), re.DOTALL)
    if scheme == "dark":
        blocks += re.findall(dark, text, re.DOTALL)
    return {name: colour for block in blocks for name, colour in re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)}


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


TEXT = ("text", "soft", "link", "held", "checked", "undecided", "refused")
CODE = ("text", "code-word", "code-name", "code-text", "code-number", "code-note")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_readers_need(scheme: str) -> None:
    colours = palette(scheme)
    pairs = [(ink, ground) for ink in TEXT for ground in ("page", "panel")]
    pairs += [(ink, ground) for ink in CODE for ground in ("panel", "mark")] + [("page", "link"), ("text", "mark")]
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: found for pair, found in low.items() if found < 4.5} == {}
    drawn = {name: contrast(colours[name], colours["page"]) for name in colours if name.startswith("hue-")}
    assert {name: found for name, found in drawn.items() if found < 3} == {}
    assert contrast(colours["ink"], colours["page"]) > 4.5
    assert contrast(colours["muted"], colours["page"]) > 4.5


def test_every_colour_of_the_style_sheet_is_one_of_its_palette() -> None:
    text = static_files()["catalogue.css"].decode()
    rules = re.sub(r":root \{.*?\}|@media print \{.*", "", text, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(", rules) == []
    assert "url(" not in text
    assert "@import" not in text


def test_what_pages_load_is_small() -> None:
    assert {name: len(data) for name, data in static_files().items() if len(data) > 24_000} == {}
