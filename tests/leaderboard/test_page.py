"""The page of a board in a real browser: nothing is fetched, nothing complains, controls change what is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from support import generated_records as generated
from support.browser import DRAWN, chromium, needs_browser, opened

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.page import board_page, record_page
from anytime_bench.leaderboard.pairs import verdicts
from anytime_bench.records import store
from anytime_bench.records.stamp import read_stamp
from anytime_bench.trace.noise import NoiseRun, pack

LINES = "[...document.querySelectorAll('#chart .mark-line path')]"
RANKING = "section[aria-labelledby=ranking] table"


def noise_arrays(images: int) -> dict[str, object]:
    rng = np.random.default_rng(1)
    cost = {"ticks": np.array([1.0]), "macs": np.array([1e6])}
    parts = [
        ("clean", "clean", "onset"),
        *((kind, mode, "onset") for kind in ("focus", "perlin") for mode in ("persistent", "transient_1")),
    ]
    return pack(
        [NoiseRun(kind, 0, mode, policy, rng.random((1, images)) < 0.7, cost) for kind, mode, policy in parts], 10
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of 12 methods, one of them with markup in its options, one under noise."""
    root = tmp_path_factory.mktemp("page")
    generated.fill(root / "results", methods=10, seeds=5, images=200, gpu=True)
    generated.save(root / "results", "noisy", images=200, extra=noise_arrays(200), gpu=True)
    generated.save(
        root / "results", "marked_up", images=200, options={"x": "</script><script>alert(1)</script>"}, timed=False
    )
    (placed,) = boards(root / "results")
    path = root / "board.html"
    path.write_text(board_page(placed.board), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def tab(browser: Browser, page: Path) -> Iterator[Page]:
    """The page, freshly opened on a desktop."""
    with opened(browser, page) as shown:
        shown.wait_for_function(f"{DRAWN} >= 1")
        yield shown


def after(tab: Page, action: str) -> None:
    """Do ``action`` in the page and wait until it was drawn."""
    before = tab.evaluate(DRAWN)
    tab.evaluate(action)
    tab.wait_for_function(f"{DRAWN} > {before}")


def choose(tab: Page, select: str, value: str) -> None:
    before = tab.evaluate(DRAWN)
    tab.select_option(f"#{select}", value)
    tab.wait_for_function(f"{DRAWN} > {before}")


def paths_drawn(tab: Page) -> list[str]:
    return tab.evaluate(f"{LINES}.map(p => p.getAttribute('d'))")


def test_the_page_is_one_file_of_moderate_size_and_names_what_drew_it(page: Path) -> None:
    data = page.read_bytes()
    assert len(data) < 3_000_000
    stamp = read_stamp(data)
    assert stamp is not None
    assert "altair" in stamp[1]
    assert b"<script>alert(1)" not in data


@needs_browser
def test_ten_curves_are_drawn_at_first(tab: Page) -> None:
    assert len(paths_drawn(tab)) == 10
    assert tab.locator("#rows input").count() == 12
    assert tab.locator("#chart .mark-symbol path").count() >= 50


@needs_browser
@pytest.mark.parametrize(
    ("axis", "title"), [("ticks", "ticks ("), ("macs", "MACs ("), ("device_time", "device time (")]
)
def test_switching_the_axis_redraws_every_curve(tab: Page, axis: str, title: str) -> None:
    before = paths_drawn(tab)
    after(tab, f"document.querySelector('input[name=axis][value={axis}]').click()")
    assert tab.get_attribute("#chart", "data-axis") == axis
    assert all(a != b for a, b in zip(before, paths_drawn(tab), strict=True))
    assert title in " ".join(tab.locator("#chart text").all_text_contents())


@needs_browser
def test_a_logarithmic_scale_moves_the_curves(tab: Page) -> None:
    before = paths_drawn(tab)
    after(tab, "document.querySelector('input[name=scale][value=log]').click()")
    assert all(a != b for a, b in zip(before, paths_drawn(tab), strict=True))


@needs_browser
def test_filtering_by_method_and_seed_changes_what_is_drawn(tab: Page) -> None:
    after(tab, "document.getElementById('none').click()")
    assert paths_drawn(tab) == []
    assert "No method is chosen" in tab.inner_text("#readout")
    tab.fill("#find", "method_0")
    assert tab.locator("#rows li:visible").count() == 9
    after(tab, "document.getElementById('all').click()")
    mean = paths_drawn(tab)
    assert len(mean) == 9
    choose(tab, "seed", "each")
    assert len(paths_drawn(tab)) == 45
    choose(tab, "seed", "1")
    assert len(paths_drawn(tab)) == 9
    assert paths_drawn(tab) != mean


@needs_browser
def test_stopping_curves_can_be_drawn(tab: Page) -> None:
    before = paths_drawn(tab)
    for rule in ("confidence threshold", "budgeted batch", "patience"):
        choose(tab, "curve", rule)
        assert paths_drawn(tab) != before
        assert tab.get_attribute("#chart", "data-axis") == "macs"
        assert tab.locator("input[name=axis]:not([disabled])").count() == 0


@needs_browser
def test_hovering_shows_exit_cost_accuracy_and_interval(tab: Page) -> None:
    tab.locator("#chart .mark-symbol path").nth(-2).hover(force=True)
    tab.wait_for_selector("#vg-tooltip-element.visible")
    text = tab.inner_text("#vg-tooltip-element")
    for part in ("method", "exit", "cost", "accuracy", "95 % interval", "x the reference's latency"):
        assert part in text


@needs_browser
def test_the_keyboard_walks_through_exits_and_methods(tab: Page) -> None:
    tab.focus("#chart")
    tab.keyboard.press("ArrowRight")
    first = tab.inner_text("#readout")
    assert "exit 0: accuracy" in first
    assert "95 % interval" in first
    tab.keyboard.press("ArrowRight")
    assert "exit 1: accuracy" in tab.inner_text("#readout")
    tab.keyboard.press("ArrowDown")
    assert tab.inner_text("#readout").split(",")[0] != first.split(",")[0]
    tab.keyboard.press("Escape")
    assert "arrow keys" in tab.inner_text("#readout")


@needs_browser
def test_every_control_is_reached_by_the_tab_key(tab: Page) -> None:
    reached = set()
    for _ in range(45):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("(e => e.id || e.name || e.tagName)(document.activeElement)"))
    assert {
        "theme", "curve", "axis", "scale", "seed", "bands", "chart", "find", "all", "none", "row", "BUTTON",
    } <= reached  # fmt: skip


@needs_browser
def test_the_table_sorts_by_any_column(tab: Page) -> None:
    def column(place: int) -> list[str]:
        return tab.evaluate(
            f"[...document.querySelector('{RANKING}').tBodies[0].rows].map(r => r.cells[{place}].dataset.value)"
        )

    labels = column(1)
    tab.locator(f"{RANKING} th button").nth(2).click()
    finals = [float(value) for value in column(2)]
    assert finals == sorted(finals, reverse=True)
    assert sorted(column(1)) == sorted(labels)
    tab.locator(f"{RANKING} th button").nth(1).click()
    assert column(1) == sorted(labels)


@needs_browser
def test_a_row_opens_its_record_and_the_address_names_it(tab: Page, browser: Browser, page: Path) -> None:
    tab.locator(f"{RANKING} a", has_text="noisy").click()
    tab.wait_for_function("document.querySelector('#record .minis').dataset.drawn === '2'")
    text = tab.inner_text("#record")
    for part in (
        "it does not exist",
        "Made-up Methods",
        "anytime-bench run noisy",
        "threads = 1",
        "MACs saved %",
        "Stopping",
    ):
        assert part in text
    address = tab.url
    assert "#row-" in address
    tab.keyboard.press("Escape")
    assert not tab.locator("#record").is_visible()
    tab.wait_for_function("location.hash === ''")
    with opened(browser, page) as again:
        again.goto(address)
        again.wait_for_selector("#record[open]")
        assert again.inner_text("#record-name") == "noisy"


@needs_browser
def test_light_and_dark_follow_the_system_and_the_button(tab: Page, browser: Browser, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    stroke = f"{LINES}[0].getAttribute('stroke')"
    light_stroke = tab.evaluate(stroke)
    after(tab, "document.getElementById('theme').click()")
    dark = tab.evaluate(ground)
    assert dark != light
    assert tab.evaluate(stroke) != light_stroke
    with opened(browser, page, dark=True) as other:
        assert other.evaluate(ground) == dark


@needs_browser
def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, page: Path) -> None:
    with opened(browser, page, 390, 844) as phone:
        phone.wait_for_function(f"{DRAWN} >= 1")
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        assert phone.evaluate("document.querySelector('#chart svg').getBoundingClientRect().width") <= 390
        phone.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390


@needs_browser
def test_no_column_is_cut_at_1280_pixels(tab: Page) -> None:
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"
    assert tab.evaluate(cut) == []


@needs_browser
def test_noise_and_reasons_are_on_the_page(tab: Page) -> None:
    text = tab.evaluate("document.body.textContent")
    for part in ("Persistent noise", "A new frame each tick", "perlin", "another process used the device"):
        assert part in text
    heat = tab.locator("table.heat td[style]")
    assert heat.count() > 0
    assert heat.first.get_attribute("data-value")


@needs_browser
def test_a_report_of_records_opens_too(browser: Browser, tmp_path: Path) -> None:
    paths = [generated.save(tmp_path, name, seed=seed, images=200) for name in ("plain", "quick") for seed in range(2)]
    report = tmp_path / "report.html"
    report.write_text(record_page(paths), encoding="utf-8")
    with opened(browser, report) as tab:
        tab.wait_for_function(f"{DRAWN} >= 1")
        assert len(paths_drawn(tab)) == 2
        text = tab.evaluate("document.body.textContent")
        assert store.load(paths[0]).record_id in text
        assert "latency, ms, p99" in text


def test_a_report_refuses_records_that_are_never_compared(tmp_path: Path) -> None:
    paths = [generated.save(tmp_path, "quick", task=task, images=60) for task in ("digits", "faces")]
    with pytest.raises(UserError, match="2 groups"):
        record_page(paths)


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 50 ranked rows with twelve exits, noise and every pair: ten times those of a board of five."""
    root = tmp_path_factory.mktemp("fifty")
    generated.fill(root / "results", methods=5, seeds=5, exits=12, images=60, extra=noise_arrays(60))
    (placed,) = boards(root / "results")
    board = placed.board
    copies = [("", board.rows), *((f"_{copy}", board.rows) for copy in range(1, 10))]
    rows = [
        row.model_copy(update={
            "label": f"{row.label}{end}",
            "records": [each.model_copy(update={"record": f"{number:02d}{place}{each.record[3:]}"})
                        for each in row.records],
        })
        for number, (end, members) in enumerate(copies) for place, row in enumerate(members)
    ]  # fmt: skip
    pair = board.pairs[0]
    pairs = [pair.model_copy(update={"a": a.label, "b": b.label}) for a, b in itertools.combinations(rows, 2)]
    page = root / "board.html"
    page.write_text(board_page(board.model_copy(update={"rows": rows, "pairs": pairs})), encoding="utf-8")
    return page


@needs_browser
def test_fifty_rows_stay_under_three_megabytes(browser: Browser, fifty: Path) -> None:
    assert fifty.stat().st_size < 3_000_000
    with opened(browser, fifty) as tab:
        tab.wait_for_function(f"{DRAWN} >= 1")
        after(tab, "document.getElementById('all').click()")
        assert len(paths_drawn(tab)) == 50
        assert tab.locator("table.square td.better").count() == 1225
        assert tab.locator("table.square td.worse").count() == 1225


@needs_browser
@pytest.mark.speed
def test_a_click_on_fifty_rows_is_answered_within_a_tenth_of_a_second(browser: Browser, fifty: Path) -> None:
    """Sorting, opening a record, choosing an axis: from the click to the frame that shows the answer, best of five."""
    clicks = {
        "sort": (f"{RANKING} th:nth-child(4) button", "true"),
        "record": (f"{RANKING} tbody tr:nth-child(7) a", "document.getElementById('record').open"),
        "axis": ("input[name=axis][value=macs]", "document.getElementById('chart').dataset.axis === 'macs'"),
    }
    for name, (selector, done) in clicks.items():
        times = []
        for _ in range(5):
            with opened(browser, fifty) as tab:
                tab.wait_for_function(f"{DRAWN} >= 1")
                times.append(
                    tab.evaluate(f"""() => new Promise((resolve) => {{
                    const start = performance.now();
                    document.querySelector("{selector}").click();
                    const look = () => {done} ? resolve(performance.now() - start) : requestAnimationFrame(look);
                    requestAnimationFrame(look);
                }})""")
                )
        assert min(times) < 100, f"{name}: {times}"


def test_the_square_of_verdicts_is_antisymmetric(tmp_path: Path) -> None:
    generated.fill(tmp_path / "results", methods=4, seeds=5, images=200)
    (placed,) = boards(tmp_path / "results")
    signs = [[verdict and verdict.kind for verdict in line.verdicts] for line in verdicts(placed.board)]
    opposite = {"better": "worse", "worse": "better", "equivalent": "equivalent", "undecided": "undecided", None: None}
    assert len(signs) == 4
    for i, line in enumerate(signs):
        assert line[i] is None
        assert line == [opposite[signs[j][i]] for j in range(4)]
