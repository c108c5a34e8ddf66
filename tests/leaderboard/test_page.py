"""The pages in a real browser: nothing is fetched, nothing complains, controls change what is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import browser
from support import generated_records as generated

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.page import board_page, record_page
from anytime_bench.records import store
from anytime_bench.records.stamp import read_stamp
from anytime_bench.trace.noise import NoiseRun, pack

needs_browser = pytest.mark.skipif(browser.BINARY is None, reason="needs Chromium: apt-get install chromium")

LINES = "[...document.querySelectorAll('#chart .mark-line path')]"
CHOOSE = (
    "(() => {{ const s = document.getElementById('{}'); s.value = '{}';"
    " s.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
)
DRAWN = "Number(document.getElementById('chart').dataset.drawn || 0)"


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
def chromium() -> Iterator[browser.Browser]:
    with browser.Browser() as opened:
        yield opened


@pytest.fixture
def tab(chromium: browser.Browser, page: Path) -> Iterator[browser.Browser]:
    """The page, freshly opened on a desktop; afterwards nothing but the file was asked for and nobody complained."""
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(page)
    chromium.wait(f"{DRAWN} >= 1")
    yield chromium
    assert chromium.complaints == []
    assert set(chromium.requests) == {page.resolve().as_uri()}


def after(tab: browser.Browser, action: str) -> None:
    """Do ``action`` in the page and wait until it was drawn."""
    before = tab.run(DRAWN)
    tab.run(action)
    tab.wait(f"{DRAWN} > {before}")


def paths_drawn(tab: browser.Browser) -> list[str]:
    return tab.run(f"{LINES}.map(p => p.getAttribute('d'))")


def test_the_page_is_one_file_of_moderate_size_and_names_what_drew_it(page: Path) -> None:
    data = page.read_bytes()
    assert len(data) < 3_000_000
    stamp = read_stamp(data)
    assert stamp is not None
    assert "altair" in stamp[1]
    assert b"<script>alert(1)" not in data


@needs_browser
def test_ten_curves_are_drawn_at_first(tab: browser.Browser) -> None:
    assert len(paths_drawn(tab)) == 10
    assert tab.run("document.querySelectorAll('#rows input').length") == 12
    assert tab.run("document.querySelectorAll('#chart .mark-symbol path').length") >= 50


@needs_browser
@pytest.mark.parametrize("axis", ["ticks", "macs", "device_time"])
def test_switching_the_axis_redraws_every_curve(tab: browser.Browser, axis: str) -> None:
    before = paths_drawn(tab)
    after(tab, f"document.querySelector('input[name=axis][value={axis}]').click()")
    assert tab.run("document.getElementById('chart').dataset.axis") == axis
    assert all(a != b for a, b in zip(before, paths_drawn(tab), strict=True))
    title = tab.run("[...document.querySelectorAll('#chart text')].map(t => t.textContent).join(' ')")
    assert {"ticks": "ticks (", "macs": "MACs (", "device_time": "device time ("}[axis] in title


@needs_browser
def test_a_logarithmic_scale_moves_the_curves(tab: browser.Browser) -> None:
    before = paths_drawn(tab)
    after(tab, "document.querySelector('input[name=scale][value=log]').click()")
    assert all(a != b for a, b in zip(before, paths_drawn(tab), strict=True))


@needs_browser
def test_filtering_by_method_and_seed_changes_what_is_drawn(tab: browser.Browser) -> None:
    after(tab, "document.getElementById('none').click()")
    assert paths_drawn(tab) == []
    assert "No method is chosen" in tab.run("document.getElementById('readout').textContent")
    tab.run(
        "(() => { const f = document.getElementById('find'); f.value = 'method_0';"
        " f.dispatchEvent(new Event('input')); })()"
    )
    assert tab.run("[...document.querySelectorAll('#rows li')].filter(li => !li.hidden).length") == 9
    after(tab, "document.getElementById('all').click()")
    mean = paths_drawn(tab)
    assert len(mean) == 9
    after(tab, CHOOSE.format("seed", "each"))
    assert len(paths_drawn(tab)) == 45
    after(tab, CHOOSE.format("seed", "1"))
    assert len(paths_drawn(tab)) == 9
    assert paths_drawn(tab) != mean


@needs_browser
def test_stopping_curves_can_be_drawn(tab: browser.Browser) -> None:
    before = paths_drawn(tab)
    for rule in ("confidence threshold", "budgeted batch", "patience"):
        after(tab, CHOOSE.format("curve", rule))
        assert paths_drawn(tab) != before
        assert tab.run("document.getElementById('chart').dataset.axis") == "macs"
        assert tab.run("[...document.querySelectorAll('input[name=axis]')].every(box => box.disabled)")


@needs_browser
def test_hovering_tells_exit_cost_accuracy_and_interval(tab: browser.Browser) -> None:
    spot = tab.run(
        "(() => { const all = [...document.querySelectorAll('#chart .mark-symbol path')];"
        "const box = all[all.length - 2].getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    tab.point(*spot)
    tab.wait("document.querySelector('#vg-tooltip-element.visible')")
    text = tab.run("document.getElementById('vg-tooltip-element').textContent")
    for told in ("method", "exit", "cost", "accuracy", "95 % interval", "x the reference's latency"):
        assert told in text
    tab.point(5, 5)


@needs_browser
def test_the_keyboard_walks_through_exits_and_methods(tab: browser.Browser) -> None:
    readout = "document.getElementById('readout').textContent"
    tab.run("document.getElementById('chart').focus()")
    tab.press("ArrowRight", 39)
    first = tab.run(readout)
    assert "exit 0: accuracy" in first
    assert "95 % interval" in first
    tab.press("ArrowRight", 39)
    assert "exit 1: accuracy" in tab.run(readout)
    tab.press("ArrowDown", 40)
    assert tab.run(readout).split(",")[0] != first.split(",")[0]
    tab.press("Escape", 27)
    assert "arrow keys" in tab.run(readout)


@needs_browser
def test_every_control_is_reached_by_the_tab_key(tab: browser.Browser) -> None:
    reached = set()
    tab.run("document.body.focus()")
    for _ in range(45):
        tab.press("Tab", 9)
        reached.add(
            tab.run("document.activeElement.id || document.activeElement.name || document.activeElement.tagName")
        )
    assert {
        "theme",
        "curve",
        "axis",
        "scale",
        "seed",
        "bands",
        "chart",
        "find",
        "all",
        "none",
        "row",
        "BUTTON",
    } <= reached


@needs_browser
def test_the_table_sorts_by_any_column(tab: browser.Browser) -> None:
    names = "[...document.querySelectorAll('table.sortable tbody')[0].rows].map(r => r.cells[1].textContent)"
    before = tab.run(names)
    tab.run("document.querySelectorAll('table.sortable th button')[2].click()")
    by_final = tab.run(names)
    finals = tab.run(
        "[...document.querySelectorAll('table.sortable tbody')[0].rows].map(r => Number(r.cells[2].dataset.value))"
    )
    assert finals == sorted(finals, reverse=True)
    assert sorted(by_final) == sorted(before)
    tab.run("document.querySelectorAll('table.sortable th button')[1].click()")
    assert tab.run(names) == sorted(before)


@needs_browser
def test_light_and_dark_follow_the_system_and_the_button(tab: browser.Browser, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.run(ground)
    stroke = f"{LINES}[0].getAttribute('stroke')"
    light_stroke = tab.run(stroke)
    after(tab, "document.getElementById('theme').click()")
    dark = tab.run(ground)
    assert dark != light
    assert tab.run(stroke) != light_stroke
    tab.open(page, dark=True)
    tab.wait(f"{DRAWN} >= 1")
    assert tab.run(ground) == dark


@needs_browser
def test_a_phone_shows_it_without_scrolling_sideways(tab: browser.Browser, page: Path) -> None:
    tab.open(page, 390, 844)
    tab.wait(f"{DRAWN} >= 1")
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert tab.run("document.querySelector('#chart svg').getBoundingClientRect().width") <= 390
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= 390


@needs_browser
def test_noise_provenance_and_environment_are_on_the_page(tab: browser.Browser) -> None:
    text = tab.run("document.body.textContent")
    shown = (
        "Persistent noise",
        "a new frame each tick",
        "perlin",
        "it does not exist",
        "Made-up Methods",
        "threads = 1",
    )
    for part in shown:
        assert part in text
    assert "another process used the device" in text


@needs_browser
def test_a_report_of_records_opens_too(chromium: browser.Browser, tmp_path: Path) -> None:
    paths = [generated.save(tmp_path, name, seed=seed, images=200) for name in ("plain", "quick") for seed in range(2)]
    page = tmp_path / "report.html"
    page.write_text(record_page(paths), encoding="utf-8")
    chromium.complaints.clear()
    chromium.open(page)
    chromium.wait(f"{DRAWN} >= 1")
    assert len(paths_drawn(chromium)) == 2
    text = chromium.run("document.body.textContent")
    assert store.load(paths[0]).record_id in text
    assert "latency, ms, p99" in text
    assert chromium.complaints == []


def test_a_report_refuses_records_that_are_never_compared(tmp_path: Path) -> None:
    paths = [generated.save(tmp_path, "quick", task=task, images=60) for task in ("digits", "faces")]
    with pytest.raises(UserError, match="2 groups"):
        record_page(paths)


@needs_browser
def test_thirty_methods_stay_small_and_quick(chromium: browser.Browser, tmp_path: Path) -> None:
    generated.fill(tmp_path / "results", methods=30, seeds=2, exits=12, images=60)
    (placed,) = boards(tmp_path / "results")
    page = tmp_path / "board.html"
    page.write_text(board_page(placed.board), encoding="utf-8")
    assert page.stat().st_size < 3_000_000
    chromium.open(page)
    chromium.wait(f"{DRAWN} >= 1")
    after(chromium, "document.getElementById('all').click()")
    assert len(paths_drawn(chromium)) == 30
