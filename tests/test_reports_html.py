import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from contexture.errors import InputError
from contexture.evaluation.comparison import Comparison
from contexture.reports import html as report
from contexture.reports.figures import ceiling, learning_curve, leaving, trade_off
from contexture.reports.heatmap import heat_map, typical
from contexture.reports.palette import DARK, LIGHT, looks
from contexture.reports.placement import around, spread
from contexture.reports.svg import standalone
from report_toys import family, measured, table

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that every element is closed in its turn, and collects what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open[-1:] and "style" not in self.open[-1:]:
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def rendered() -> str:
    return report.render(table())


@pytest.fixture(scope="module")
def page(rendered: str) -> Page:
    return parsed(rendered)


def test_every_element_is_closed_and_every_id_is_unique(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = [attrs[name] for _, attrs in page.tags for name in ("aria-labelledby",) if name in attrs]
    assert {one for names in wanted for one in (names or "").split()} <= set(ids)


def test_inner_references_have_their_target(rendered: str, page: Page) -> None:
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    inner = re.findall(r"url\(#([^)]+)\)", rendered) + re.findall(r'href="#([^"]+)"', rendered)
    assert inner
    assert set(inner) <= ids


def test_nothing_comes_from_elsewhere(rendered: str, page: Page) -> None:
    addresses = [attrs[name] for _, attrs in page.tags for name in ("src", "href", "xlink:href") if name in attrs]
    assert all((address or "").startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)", rendered)
    names = re.findall(r"https?://[^\s\"'<>]+", rendered)
    assert set(names) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert len(rendered.encode()) < 1_000_000


def test_the_policy_allows_the_one_script_and_no_other(rendered: str, page: Page) -> None:
    policy = next(a["content"] or "" for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    script = re.findall(r"<script>(.*?)</script>", rendered, flags=re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_the_plot_comes_first_and_each_picture_is_described(rendered: str, page: Page) -> None:
    assert rendered.index("<svg") < rendered.index("<table")
    pictures = page.of("svg")
    assert len(pictures) == 5
    assert all(picture["role"] == "img" for picture in pictures)
    assert len(page.of("title")) == 1 + len(pictures)


def test_the_table_has_headers_and_every_score(page: Page) -> None:
    text = " ".join(page.text)
    assert [a.get("scope") for a in page.of("th")].count("row") == 3
    for value in ("0.600", "0.550 – 0.650", "0.400", "13 ms", "900 k", "2.0 KiB"):
        assert value in text
    assert " not told apart from the best" in text


def test_settings_machine_findings_and_command_are_there(page: Page) -> None:
    text = "".join(page.text)
    for value in (
        "contexture compare houses.csv --target 'the price'",
        "houses.csv: 442 rows, 10 features",
        "500 examples: the training half holds 221",
        "logistic: logistic does not predict numbers",
        "Seeds 0, 1, 2.",
        "memory (GiB)",
        "avx2",
        "2026-05-04, 03:02 UTC",
        "Wall time of it all.",
    ):
        assert value in text
    assert report.summary(table()) in text


def test_the_numbers_can_be_taken_out_again(rendered: str, page: Page) -> None:
    embedded = re.search(r'<script type="application/json" id="comparison">(.*?)</script>', rendered, flags=re.DOTALL)
    assert embedded is not None
    assert Comparison.from_json(embedded[1]).record() == table().record()
    link = next(a for a in page.of("a") if "download" in a)
    head, _, body = (link["href"] or "").partition(",")
    assert head == "data:application/json;base64"
    assert json.loads(base64.b64decode(body)) == table().record()
    assert link["download"] == "houses.json"


EVIL = '</script></title></desc><script>alert("1")</script><img src=x onerror=alert(2)>&amp;$x_{1}$'


def test_hostile_names_are_only_text(page: Page) -> None:
    hostile = table(
        task=EVIL,
        measurements=(measured(EVIL, 0.6, 0.5, 0.4, kind="in-context"), measured("ridge", 0.7, 0.5, 0.4)),
        tied=((EVIL,), (EVIL, "ridge"), ("ridge",)),
        distances={EVIL: {"ridge": (0.1, 0.1, 0.1)}, "ridge": {}},
        settings={EVIL: EVIL},
        left_out={500: EVIL},
        notes={EVIL: (EVIL,)},
        skipped={EVIL: EVIL},
        findings=(EVIL,),
        environment={EVIL: [EVIL]},
        command=EVIL,
        timing=EVIL,
    )
    attacked = parsed(report.render(hostile))
    assert [tag for tag, _ in attacked.tags].count("script") == 2
    assert attacked.of("img") == []
    assert not any(name.startswith("on") for _, attrs in attacked.tags for name in attrs)
    assert "".join(attacked.text).count(EVIL) >= 10
    assert len(attacked.of("svg")) == len(page.of("svg"))


def test_the_same_comparison_gives_the_same_bytes(rendered: str) -> None:
    assert report.render(table()) == rendered


def test_a_comparison_with_little_in_it_still_makes_a_page() -> None:
    for sparse in (
        table(measurements=(), tied=(), distances={}, environment={}, findings=(), command="", seeds=()),
        table(
            measurements=(measured("a", *[float("nan")] * 3), measured("b", 0.0, 0.0, 0.0, half=0.0)),
            tied=(("b",),) * 3,
            distances={"a": {}},
            chance=None,
        ),
        table(context=(20,), measurements=(measured("a", 0.5, context=(20,)),), tied=(("a",),), distances={}),
    ):
        parsed(report.render(sparse))


def test_writing_is_whole_or_not_at_all(tmp_path: Path, rendered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "render", lambda comparison: rendered)
    path = report.write_report(table(), tmp_path / "new" / "r.html")
    assert path.read_text(encoding="utf-8") == rendered
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="the report cannot be written to"):
        report.write_report(table(), tmp_path / "file" / "r.html")


@pytest.mark.parametrize("draw", [learning_curve, trade_off, heat_map])
def test_a_picture_stands_on_its_own_in_both_schemes(draw: object) -> None:
    text = standalone(draw(family()))  # type: ignore[operator]
    root = ElementTree.fromstring(text.encode())
    assert root.tag.endswith("svg")
    assert "prefers-color-scheme: dark" in text
    # Every colour goes through a custom property, so that none is left as it is in the dark.
    drawn = text.split("</style>", 1)[1]
    assert re.findall(r"#[0-9a-f]{6}", re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", drawn)) == []


def test_every_learner_is_named_in_the_picture() -> None:
    for format in ("wide", "narrow"):
        text = learning_curve(family(), format=format)  # type: ignore[arg-type]
        for name in ("bayes-ridge (oracle)", "ols", "transformer", "chance"):
            assert f">{name}<" in text


def test_a_blow_up_leaves_the_picture_and_is_named() -> None:
    assert ceiling(family()) == 36
    assert leaving(family()) == ["ols"]
    assert ceiling(family(chance=None)) == 36
    assert leaving(table()) == []
    assert "Beyond the top at some sizes: ols." in report.render(family())


def test_the_trained_come_first_in_the_palette_and_no_two_look_alike() -> None:
    many = tuple(measured(f"l{i}", 0.5, 0.4, 0.3) for i in range(14))
    looking = looks(table(measurements=(*many, measured("t", 0.5, 0.4, 0.3, kind="online"))))
    assert looking["t"].hue == "hue-1"
    drawn = [(look.hue, look.dashes) for look in looking.values()]
    assert len(set(drawn)) == len(drawn)
    assert looks(family())["bayes-ridge"].hue == "ink"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_contrast_is_enough_to_read(palette: dict[str, str]) -> None:
    def contrast(role: str) -> float:
        bright, dim = sorted((luminance(palette[role]), luminance(palette["surface"])), reverse=True)
        return (bright + 0.05) / (dim + 0.05)

    assert contrast("ink") >= 7
    assert contrast("muted") >= 4.5
    assert contrast("hue-1") >= 4.5
    assert all(contrast(role) >= 3 for role in palette if role.startswith("hue"))


def test_distances_are_typical_of_the_sizes() -> None:
    assert typical(table(), "transformer", "ridge") == 0.01
    assert typical(table(), "boosting", "ridge") == 0.25


def test_labels_are_apart_and_inside() -> None:
    found = spread([5, 5.1, 5.2, 0, 30], gap=2, low=0, high=20)
    in_order = sorted(found)
    assert all(b - a >= 2 - 1e-9 for a, b in pairwise(in_order))
    assert in_order[0] >= 0
    assert in_order[-1] <= 20
    crowded = sorted(spread([3.0] * 6, gap=4, low=0, high=10))
    assert crowded == pytest.approx([0, 2, 4, 6, 8, 10])
    assert spread([], gap=1, low=0, high=1) == []


def test_labels_around_points_do_not_cover_each_other() -> None:
    points = [(50.0, 50.0), (52.0, 51.0), (54.0, 49.0)]
    boxes = around(points, [(40, 12)] * 3, obstacles=[], area=(0, 0, 200, 200))
    for i, first in enumerate(boxes):
        for second in boxes[i + 1 :]:
            apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
            assert apart
