"""What the script of the pages adds, in a real browser: search and facets from the address, keys, sorted tables."""

import functools
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalogue_toys import write_toys
from contexture.catalogue.library import load_library
from contexture.catalogue.site import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to look at pages")

PROBE = """<!doctype html><title>probe</title><iframe src="%s" width="%d" height="900"></iframe><script>
const frame = document.querySelector("iframe");
const wait = (n) => new Promise((done) => setTimeout(done, n));
frame.addEventListener("load", async () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const key = (name) => (page.activeElement ?? page.body).dispatchEvent(
    new view.KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const input = (field, text) => { field.value = text; field.dispatchEvent(new view.Event("input")); };
  const type = (text) => input(page.getElementById("q"), text);
  const rows = () => [...page.querySelectorAll(".row")].map((row) => row.dataset.key).join(" ");
  const at = () => page.activeElement.closest(".row")?.dataset.key ?? page.activeElement.tagName;
  const said = [];
  try { %s } catch (error) { said.push(String(error)); }
  document.body.append(Object.assign(document.createElement("pre"), { id: "said", textContent: said.join("|") }));
}, { once: true });
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("site") / "public"
    entries = write_toys(tmp_path_factory.mktemp("entries"))
    build(load_library(ROOT / "results", entries=entries), folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def shown(url: str, profile: Path) -> str:
    """The page as it stands in the browser after its script ran."""
    assert CHROMIUM is not None
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=8000")
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout


def probed(
    site: tuple[Path, str], profile: Path, script: str, *, page: str = "index.html", width: int = 1200
) -> list[str]:
    """What a script says that drives a page inside a frame."""
    folder, root = site
    (folder / "probe.html").write_text(PROBE % (page, width, script), encoding="utf-8")
    found = re.search(r'<pre id="said">(.*?)</pre>', shown(f"{root}/probe.html", profile), re.DOTALL)
    assert found is not None, "the page did not answer"
    return found[1].split("|")


def keys(text: str) -> list[str]:
    return re.findall(r'class="row[^"]*" data-key="([^"]+)"', text)


def test_an_address_with_a_search_shows_what_it_finds(site: tuple[Path, str], tmp_path: Path) -> None:
    text = shown(f"{site[1]}/index.html?q=rec&family=mixers&sort=title", tmp_path)
    assert keys(text) == ["toy-built", "toy-older"]
    assert re.search(r'id="count">2<', text)
    assert keys(shown(f"{site[1]}/index.html?q=street+scenes", tmp_path)) == ["toy-planned"]


def test_a_page_that_is_opened_from_disk_searches_what_stands_on_it(site: tuple[Path, str], tmp_path: Path) -> None:
    text = shown((site[0] / "index.html").as_uri() + "?q=naive", tmp_path)
    assert keys(text) == ["toy-built"]


def test_one_types_chooses_and_goes_back(site: tuple[Path, str], tmp_path: Path) -> None:
    said = probed(
        site,
        tmp_path,
        """
        type("recall"); await wait(600); said.push(rows(), view.location.search);
        page.querySelector('[data-facet=status] [data-value=built]').click(); said.push(rows(), view.location.search);
        said.push(page.querySelector('[data-facet=family] [data-value=mixers] b').textContent);
        view.history.back(); await wait(400); said.push(rows(), page.getElementById("q").value);
        type("zzz"); said.push(rows(), page.querySelector(".nothing").textContent.slice(0, 8));
        type('"*'); said.push(String(rows().split(" ").length));
        """,
    )
    assert said == [
        "toy-older toy-built",
        "?q=recall",
        "toy-built",
        "?q=recall&amp;status=built",
        "1",
        "toy-older toy-built",
        "recall",
        "",
        "No paper",
        "5",
    ]


def test_keys_go_to_the_search_and_through_the_list(site: tuple[Path, str], tmp_path: Path) -> None:
    said = probed(
        site,
        tmp_path,
        """
        key("ArrowDown"); said.push(at());
        for (const name of ["j", "j", "ArrowDown", "k"]) { key(name); said.push(at()); }
        key("/"); said.push(page.activeElement.id); key("j"); said.push(page.activeElement.id);
        key("ArrowDown"); said.push(at()); said.push(page.activeElement.href.split("/").slice(-2).join("/"));
        key("/"); key("Escape"); said.push(at());
        """,
    )
    assert said == [
        "BODY", "toy-built", "one-step-gd", "icl-by-gd", "one-step-gd", "q", "q", "toy-built", "papers/toy-built.html",
        "BODY",
    ]  # fmt: skip


def test_tables_are_sorted_and_picked_from(site: tuple[Path, str], tmp_path: Path) -> None:
    said = probed(
        site,
        tmp_path,
        """
        const shown = () => [...page.querySelectorAll("tbody tr")].filter((row) => !row.hidden);
        const names = () => shown().map((row) => row.dataset.name);
        const numbers = () => shown().map((row) => row.cells[2].dataset.value).filter((value) => value);
        page.querySelectorAll(".sort")[1].click(); const up = numbers();
        page.querySelectorAll(".sort")[1].click(); const down = numbers();
        said.push(String(up.length > 9), String(String(up) === String(down.toReversed())), String(up[0] !== down[0]));
        said.push(page.querySelectorAll(".sort")[1].textContent + page.querySelectorAll(".sort")[0].textContent);
        input(page.querySelector("[data-pick] input"), "softmax, delta-rule"); said.push(names().sort().join(" "));
        said.push(view.location.search);
        """,
        page="compare/index.html",
    )
    assert said == ["true", "true", "true", "↑↕", "delta-rule softmax", "?mixers=softmax%2C+delta-rule"]


@pytest.mark.parametrize(
    "page",
    [
        "index.html",
        "papers/icl-by-gd.html",
        "mixers/delta-rule.html",
        "compare/index.html",
        "compare/recall-ladder-mqar-8-parameters.html",
        "leaderboards/mqar.html",
        "leaderboards/index.html",
    ],
)
def test_nothing_is_wider_than_a_narrow_screen(site: tuple[Path, str], tmp_path: Path, page: str) -> None:
    said = probed(site, tmp_path, "said.push(String(page.documentElement.scrollWidth));", page=page, width=390)
    assert int(said[0]) <= 390


def test_the_axis_of_a_plot_keeps_its_width_on_a_narrow_screen(site: tuple[Path, str], tmp_path: Path) -> None:
    script = 'said.push(String(page.querySelector("td.axis").getBoundingClientRect().width));'
    for page in ("compare/decode-8192-fp32.html", "leaderboards/induction.html"):
        assert float(probed(site, tmp_path, script, page=page, width=390)[0]) > 90
