"""A claim run, reloaded and stopped from its paper's page, and the search as one types, in a real browser."""

import shutil
from collections.abc import Iterator

import pytest

from serve_toys import Served, serving, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and its driver")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


def address(served: Served, path: str) -> str:
    return str(served.client.base_url.join(f"/{path}"))


def test_a_claim_is_run_survives_a_reload_and_is_stopped(served: Served, browser: "webdriver.Chrome") -> None:
    def text(selector: str) -> str:
        return str(browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def press(selector: str) -> None:
        browser.find_element("css selector", selector).click()

    def state() -> str:
        return text(f"{claim} [role=status]").lower()

    claim = "#run-trained-depth"
    browser.get(address(served, "papers/icl-by-gd"))
    browser.execute_script("window.before = true")
    press(f"{claim} button")
    until(lambda: state() == "running", seconds=30)
    assert browser.execute_script("return window.before"), "the page was loaded anew where a part would do"
    browser.refresh()
    until(lambda: state() in ("running", "done"), seconds=30)
    until(lambda: state() == "done", seconds=90)
    assert "verdict" in text(claim)
    assert browser.find_elements("css selector", f"{claim} svg"), "no learning curve"

    press(f"{claim} .ask-run button")
    until(lambda: state() == "running", seconds=30)
    press("#stop-trained-depth")
    until(lambda: state() == "stopped", seconds=30)
    assert text(f"{claim} .ask-run button") == "Run it again"
    assert sorted(job.read_text(encoding="utf-8").count('"stopped"') for job in served.runs.glob("*.jsonl")) == [0, 1]


def test_the_search_answers_as_one_types(served: Served, browser: "webdriver.Chrome") -> None:
    browser.get(address(served, ""))
    titles = "return [...document.querySelectorAll('.row h2, .row h3')].map((one) => one.innerText)"
    assert len(browser.execute_script(titles)) == 3
    browser.find_element("css selector", "#q").send_keys("gradient descent")
    until(lambda: len(browser.execute_script(titles)) == 1, seconds=10)
    assert "q=gradient" in browser.current_url
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
