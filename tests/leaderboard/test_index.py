"""The page over all boards: every link leads to a file, nothing needs a network or a script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from support import generated_records as generated
from support.browser import chromium, needs_browser, opened

from anytime_bench.leaderboard.build import build
from anytime_bench.records.protocol import PROTOCOLS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    generated.fill(root / "results", methods=3, seeds=2, images=100)
    generated.save(root / "results", "quick", task="faces", created="2026-02-01T00:00:00Z", images=100)
    generated.save(root / "results", "quick", seed=1, change={"protocol_version": "0"}, images=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "0", PROTOCOLS["1"])
        build(root / "results", root / "leaderboards")
    return root / "leaderboards"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


def test_every_link_and_picture_of_the_index_exists(site: Path) -> None:
    text = (site / "index.html").read_text()
    links = set(re.findall(r'(?:href|src)="([^"]+)"', text)) - {"data:,"}
    assert {"made_up/generated-cpu.html", "faces/generated-cpu.html", "made_up/generated-cpu.latency.svg"} <= links
    assert any(link.startswith("../results/made_up/generated-cpu/plain/") for link in links)
    for link in links:
        name, _, anchor = link.partition("#")
        target = (site / name).resolve()
        assert target.is_file(), link
        if anchor:
            assert f'id="{anchor}"' in target.read_text(), link
    assert "<script" not in text


def test_what_is_new_comes_first_and_earlier_protocols_are_named(site: Path) -> None:
    text = (site / "index.html").read_text()
    new = text.split("What is new")[1]
    assert new.index("Faces on generated-cpu") < new.index("Made_Up on generated-cpu")
    cards = text.split("What is new")[0]
    earlier = cards.index("Made_Up on generated-cpu (protocol-0)")
    assert max(cards.index("Faces on generated-cpu"), cards.index("Made_Up on generated-cpu</a>")) < earlier


def test_a_board_that_a_later_one_replaced_has_one_picture(site: Path) -> None:
    pictures = {path.name for path in (site / "made_up").glob("*.*.*") if path.suffix in (".svg", ".png", ".pdf")}
    earlier = {name for name in pictures if "protocol-0" in name}
    assert earlier == {"generated-cpu.protocol-0.latency.svg"}
    assert {f"generated-cpu.ticks{end}" for end in (".svg", ".pdf")} <= pictures - earlier


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_index_opens_everywhere(site: Path, browser: Browser, width: int, dark: bool) -> None:
    with opened(browser, site / "index.html", width, dark=dark) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        loaded = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
        tab.evaluate("[...document.images].forEach(image => { image.loading = 'eager'; })")
        tab.wait_for_function(loaded)
