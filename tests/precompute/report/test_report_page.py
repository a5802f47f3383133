"""The report in a real browser: Debian's chromium, one start for all tests."""

from __future__ import annotations

import shutil

import pytest
from gistcache.shared.cli import app as cli
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings

from tests.conftest import build_test_index, random_pairs, write_jsonl

MARKUP = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script></script><b>bold</b> &lt; \u2028 終"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
READY_SECONDS = 60


@pytest.fixture(scope="module")
def page(tmp_path_factory, guide_folder, student_folder):
    """A report of an index in which texts and names contain markup, and of a run that was evaluated on its way."""
    folder = tmp_path_factory.mktemp("report")
    rows = random_pairs(60, seed=8)
    for number, row in enumerate(rows[:15]):
        row["anchor" if number % 2 else "positive"] += f" {number} {MARKUP}"
    index = build_test_index(folder / "index<b>", rows, guide_folder, neighbors=10)
    held_out = write_jsonl(folder / "held.jsonl", random_pairs(10, seed=9))
    settings = {"eval_pairs": (str(held_out),), "eval_steps": 2, "logging_steps": 1, "max_steps": 4, "batch_size": 8}
    run = folder / "<i>run"
    train_student(TrainSettings(index=index, student=str(student_folder), out=run, **settings))
    arguments = ["report", str(index), "--out", str(folder / "report.html"), "--runs", str(run)]
    cli.app(arguments, result_action="return_value")
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser with a profile of its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("chromium or chromedriver is not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def opened(browser, page, width=1280, theme="light"):
    """The page at a width and in the system's theme, once its plots are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    medium = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", medium)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    ready = "return document.documentElement.dataset.ready === 'true'"
    WebDriverWait(browser, READY_SECONDS).until(lambda it: it.execute_script(ready))
    return browser


def cells(browser, table, column):
    """The texts of a column, as shown."""
    script = "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.textContent)"
    return browser.execute_script(script, f"#{table} tbody td:nth-child({column})")


def part(browser, selector):
    return browser.find_element("css selector", selector)


def lightness(browser):
    """Of the page's background, 0 to 255."""
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return min(map(int, color.removeprefix("rgb(").rstrip(")").split(",")[:3]))


def test_the_page_loads_without_errors_and_asks_for_nothing(chromium, page):
    browser = opened(chromium, page)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert page.stat().st_size < 6_000_000
    shown = (
        "return [...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.trace, .point').length)"
    )
    drawn = browser.execute_script(shown)
    assert len(drawn) == 3
    assert all(drawn)


def test_columns_are_sorted_by_their_buttons(chromium, page):
    browser = opened(chromium, page)
    header = part(browser, "#mislabelled th")
    button = part(browser, "#mislabelled th button")
    ranks = [int(rank.replace(",", "")) for rank in cells(browser, "mislabelled", 1)]
    assert len(ranks) > 10
    assert header.get_attribute("aria-sort") == "descending"
    assert ranks == sorted(ranks, reverse=True)
    button.send_keys("\ue007")  # Enter
    assert header.get_attribute("aria-sort") == "ascending"
    assert cells(browser, "mislabelled", 1) == [f"{rank:,}" for rank in sorted(ranks)]
    part(browser, "#mislabelled th:nth-child(4) button").click()
    assert header.get_attribute("aria-sort") is None
    texts = cells(browser, "mislabelled", 4)
    assert len(texts) == len(ranks)
    assert texts == browser.execute_script("return arguments[0].toSorted((a, b) => b.localeCompare(a))", texts)


def test_missing_values_stand_last_however_a_column_is_sorted(chromium, page):
    browser = opened(chromium, page)
    script = "document.querySelector('#mislabelled tbody tr:nth-child(4) td:nth-child(3)').dataset.value = ''"
    browser.execute_script(script + "; document.querySelector('#mislabelled tbody tr:nth-child(4)').id = 'missing'")
    for _ in range(2):
        part(browser, "#mislabelled th:nth-child(3) button").click()
        assert part(browser, "#mislabelled tbody tr:last-child").get_attribute("id") == "missing"


def test_markup_in_texts_and_names_is_shown_as_text(chromium, page):
    browser = opened(chromium, page)
    shown = [*cells(browser, "mislabelled", 4), *cells(browser, "mislabelled", 5)]
    assert any(MARKUP in text for text in shown)
    assert "index<b>" in part(browser, "h1").text
    assert [name.rpartition("/")[2] for name in cells(browser, "runs", 1)] == ["<i>run"]
    hovered = browser.execute_script(
        """
        const plot = document.querySelector("[data-figure=scores]");
        const texts = plot.data.map((trace) => (trace.text || []).findIndex((text) => text.includes("onerror")));
        const curve = texts.findIndex((place) => place >= 0);
        Plotly.Fx.hover(plot, [{ curveNumber: curve, pointNumber: texts[curve] }]);
        return plot.querySelector(".hoverlayer").textContent;
        """
    )
    assert "<imgsrc=xonerror='" in "".join(hovered.split())
    assert browser.execute_script(
        "return window.hacked === undefined && !document.querySelector('main img, main script, main b')"
    )


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_overflows_and_nothing_shifts(chromium, page, width):
    browser = opened(chromium, page, width=width)
    assert (
        browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        == 0
    )
    beyond = "(it) => it.getBoundingClientRect().right > innerWidth + 1"
    assert browser.execute_script(f"return [...document.querySelectorAll('main *')].filter({beyond}).length") == 0
    shift = browser.execute_async_script(
        """
        const done = arguments[0];
        let sum = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((entry) => { sum += entry.value; }))
          .observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done(sum), 200);
        """
    )
    assert shift < 0.01


def test_the_theme_is_the_systems(chromium, page):
    browser = opened(chromium, page, theme="dark")
    font = "return document.querySelector('.plot').layout.font.color"
    assert lightness(browser) < 60
    dark_font = browser.execute_script(font)
    medium = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", medium)  # while the page is open
    assert lightness(browser) > 200
    assert browser.execute_script(font) != dark_font


def test_everything_is_reached_by_keyboard(chromium, page):
    browser = opened(chromium, page)
    links = len(browser.find_elements("css selector", "nav a"))
    for _ in range(links + 1):
        browser.switch_to.active_element.send_keys("\ue004")  # Tab
    assert browser.switch_to.active_element.get_attribute("class") == "table"
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
