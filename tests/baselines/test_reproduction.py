"""The pages of the papers: planted truths get their verdicts, missing rows are said, equal stores give equal pages."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import generated_records as generated

from anytime_bench.leaderboard.build import build, check
from anytime_bench.records import store
from anytime_bench.records.record import MethodEntry
from anytime_bench.trace.axes import AXES
from anytime_bench.trace.noise import NoiseRun, pack
from baselines.reproduction import cascade, dynamics, findings, rivals
from baselines.reproduction.evidence import RANKED, Evidence, Row, read_evidence
from baselines.reproduction.findings import side
from baselines.reproduction.front import HARDWARE, Order
from baselines.reproduction.page import pages
from baselines.reproduction.papers import PAPERS
from baselines.reproduction.tables import estimate

IMAGES = 600
#: Skill per method: TD beats cross-entropy, the cascade beats SDN, several heads help the serial net.
SKILLS = {
    "cascaded_td": 3.0, "cascaded_td_multihead": 1.0, "cascaded_ce": 0.0, "serial_ce": 0.0, "serial_td": 1.0,
    "serial_td_multihead": 1.8, "sdn": 0.5, "msdnet": 1.6, "ensemble": 0.3, "boostnet": 2.6, "sdn_ic_only": 0.0,
    "ztw": 1.0, "sdn/mixed": 1.6,
}  # fmt: skip


def noise_of(skill: float, seed: int) -> dict[str, np.ndarray]:
    """One kind of noise that takes half of what skill gives; the stateful policies are right more often."""
    runs = []
    ticks = np.arange(1.0, 6.0)
    costs = {"ticks": ticks, "macs": 1e6 * ticks}
    for mode, loss in (("clean", 0.0), ("persistent", 0.3), ("transient_1", 0.3)):
        for policy in ("onset", "pipelined_mean", "restart_mean", "watch", "watch_mean"):
            drawn = np.random.default_rng([seed, len(runs), int(100 * skill)]).random((5, IMAGES))
            runs.append(NoiseRun("focus", 0, mode, policy, drawn < 0.5 + 0.15 * skill - loss, costs))
    return pack(runs, generated.CLASSES)


def save(root: Path, method: str, seed: int, skill: float, *, lam: float | None = None, noise: bool = False) -> Path:
    lam = lam if lam is not None else (0.0 if method.startswith("cascaded") else 1.0) if "td" in method else None
    entry = MethodEntry(
        name=method, origin={"distribution": "anytime_bench", "version": "0"},
        options={"width": 4} | ({} if lam is None else {"lam": lam}), card={},
    )  # fmt: skip
    extra = noise_of(skill, seed) if noise else None
    return generated.save(
        root, method, seed=seed, skill=skill, images=IMAGES, extra=extra, options=dict(entry.options),
        change={"method": entry},
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    for method, skill in SKILLS.items():
        noise = method in ("cascaded_td", "serial_ce")
        for seed in (0, 1, 2) if noise else (0,):
            save(root, method, seed, skill, noise=noise)
    save(root, "cascaded_td", 0, 0.0, lam=1.0)
    save(root, "cascaded_td", 0, 0.9, lam=0.5)
    return root


@pytest.fixture(scope="module")
def evidence(results: Path) -> Evidence:
    (task,) = read_evidence(results)
    return task


@pytest.fixture(scope="module")
def written(results: Path) -> dict[str, str]:
    return pages(results)


def test_the_published_lambda_is_the_row_and_the_others_are_the_sweep(evidence: Evidence) -> None:
    row = evidence.row("cascaded_td")
    assert row is not None
    assert row.record.method.options["lam"] == 0.0
    assert row.seeds == 3
    (sweep,) = evidence.lambdas("cascaded_td")
    assert {lam: row.seeds for lam, row in sweep.items()} == {0.0: 3, 0.5: 1, 1.0: 1}


def test_what_is_owned_at_a_deadline_is_the_last_answer_before_it(evidence: Evidence) -> None:
    row = evidence.row("serial_ce")
    assert row is not None
    # Five exits at ticks 1 to 5; the reference's full answer is tick 5.
    for deadline, exit_index in ((0.2, 0), (0.39, 0), (0.4, 1), (1.0, 4), (7.0, 4)):
        np.testing.assert_array_equal(row.owned("ticks", deadline), row.exit(exit_index))
    assert (row.owned("ticks", 0.1) == 0.1).all()


def test_papers_are_judged_by_the_newest_protocol_that_has_every_ranked_row(tmp_path: Path) -> None:
    def versions() -> list[str]:
        return [evidence.group.key.protocol_version for evidence in read_evidence(tmp_path)]

    def publish(protocol: str, methods: Sequence[str]) -> None:
        for method in methods:
            entry = MethodEntry(name=method, origin={"distribution": "anytime_bench"}, options={}, card={})
            change = {"protocol_version": protocol, "method": entry}
            generated.save(tmp_path, method, images=60, skill=float(protocol), change=change)

    publish("7", RANKED)
    publish("8", RANKED[:-1])
    assert versions() == ["7"]
    publish("8", RANKED[-1:])
    assert versions() == ["8"]
    publish("9", RANKED[:1])
    assert versions() == ["8"]
    (evidence,) = read_evidence(tmp_path)
    assert [each.protocol for each in evidence.with_older] == ["8", "7"]


def test_what_the_newest_protocol_cannot_compare_is_taken_from_the_one_before(tmp_path: Path) -> None:
    """Under protocol 9 the ranked rows are there, and cascaded_td's noise and serial_td are not."""
    for method, skill in SKILLS.items():
        save(tmp_path, method, 0, skill, noise=method in ("cascaded_td", "serial_ce"))
    (old,) = read_evidence(tmp_path)
    for method in RANKED:
        entry = MethodEntry(name=method, origin={"distribution": "anytime_bench"}, options={}, card={})
        generated.save(tmp_path, method, images=60, change={"protocol_version": "9", "method": entry})
    (new,) = read_evidence(tmp_path)
    assert new.protocol == "9"
    first = cascade.CLAIMS[0].findings(new)
    assert {(each.what, f"protocol {old.protocol}" in each.note) for each in first} == {
        ("cascaded_td - cascaded_ce", False),
        ("serial_td - serial_ce", True),
    }
    claim = dynamics.CLAIMS[0]
    assert claim.judge(new) == []
    assert claim.judge(old)
    assert all(each.note.endswith(f"protocol {old.protocol}") for each in claim.findings(new))


@pytest.mark.parametrize(
    ("judge", "verdicts"),
    [
        (cascade.td_beats_cross_entropy, {"holds"}),
        (cascade.cascade_beats_sdn, {"holds", "equivalent", "undecided"}),
        (cascade.heads, {"holds"}),
        (cascade.cascade_keeps_accuracy, {"holds"}),
        (dynamics.robustness, {"holds", "undecided"}),
        (dynamics.watching, {"holds"}),
        (dynamics.typical_first, {"holds"}),
    ],
)
def test_planted_truths_hold(evidence: Evidence, judge, verdicts: set[str]) -> None:
    found = judge(evidence)
    assert found
    assert {each.verdict for each in found} <= verdicts
    assert any(each.verdict == "holds" for each in found)


def test_planted_falsehoods_fail(results: Path, tmp_path: Path) -> None:
    for method, skill in SKILLS.items():
        save(tmp_path, method, 0, 3.0 - skill)
    (other,) = read_evidence(tmp_path)
    for judge in (cascade.td_beats_cross_entropy, cascade.heads, cascade.cascade_keeps_accuracy):
        assert {each.verdict for each in judge(other)} == {"fails"}
    assert all(each.verdict == "fails" for each in cascade.cascade_beats_sdn(other) if "multihead" not in each.what)


def test_one_bad_deadline_fails_a_claim_about_all(evidence: Evidence) -> None:
    a, b = evidence.row("cascaded_td"), evidence.row("serial_ce")
    assert a is not None
    assert b is not None
    good, bad = (a.exit(-1), b.exit(0)), (b.exit(0), a.exit(-1))
    (found,) = findings.every_deadline(evidence, "ticks", "x", (a, b), [("early", *good), ("late", *bad)])
    assert found.verdict == "fails"
    assert "better at 1 of 2 deadlines, worse at 1 (late); shown is the least, at late" in found.note
    assert found.value < 0
    (found,) = findings.every_deadline(
        evidence, "ticks", "x", (a, b), [("early", *good), ("late", a.exit(1), a.exit(1))]
    )
    assert found.verdict == "undecided"


@pytest.mark.parametrize(
    ("gap", "verdict"), [((-0.06, -0.04), "holds"), ((-0.02, -0.01), "fails"), ((-0.09, 0.01), "undecided")]
)
def test_lambda_is_judged_by_the_reported_range(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, gap: tuple[float, float], verdict: str
) -> None:
    real = cascade.paired_difference

    def planted(a, b, **options):
        return replace(real(a, b, **options), value=sum(gap) / 2, low=gap[0], high=gap[1])

    monkeypatch.setattr(cascade, "paired_difference", planted)
    assert cascade.lambda_costs(evidence)[0].verdict == verdict


def test_sides() -> None:
    assert [side(0, 1), side(-1, 0), side(-1, 0, -1)] == ["undecided"] * 3
    assert estimate(-0.04, -0.1, 1.26) == "0.0 [-0.1, +1.3]"


def test_every_claim_stands_once_on_its_paper_s_page(results: Path, written: dict[str, str]) -> None:
    assert pages(results) == written, "the same store gives the same pages"
    assert list(written) == ["REPRODUCTION.md", *(paper.path for paper in PAPERS)]
    for paper in PAPERS:
        text = written[paper.path]
        for number, claim in enumerate(paper.claims, start=1):
            assert text.count(f"\n## {number}. {claim.title}\n") == 1
            assert f"({paper.path}#{number}-" in written["REPRODUCTION.md"]
        measured = text.partition("## What was tried")[0]
        assert "nan" not in measured
        assert "inf" not in measured
    text = written["reproduction/cascade.md"]
    assert "cascaded_ce and serial_ce, the same weights, answer differently" in text
    assert "Not measured" not in text
    assert "| made_up | lam 0.5 |" in text


def test_every_meaning_of_hardware_is_of_an_axis() -> None:
    assert set(HARDWARE) <= set(AXES)


def test_the_front_page_names_the_row_that_is_ahead(written: dict[str, str]) -> None:
    text = written["REPRODUCTION.md"]
    (ticks,) = (line for line in text.splitlines() if line.startswith("| made_up | ticks | every block at once"))
    assert "| cascaded_td |" in ticks, "the row with the most skill"
    assert "## Do the orders agree?" in text
    assert "| made_up | ticks | MACs |" in text


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        (rivals.at_every_budget("msdnet", "ensemble"), "holds"),
        (rivals.at_every_budget("ensemble", "msdnet"), "fails"),
        (rivals.late_exits("boostnet", "serial_ce"), "holds"),
        (rivals.areas("ztw", "sdn_ic_only"), "holds"),
        (rivals.areas("sdn", "sdn/mixed"), "fails"),
        (rivals.last_exit("sdn", "serial_ce"), "holds"),
    ],
)
def test_planted_truths_of_other_papers(evidence: Evidence, claim: rivals.Judge, verdict: str) -> None:
    judged = claim(evidence)
    assert judged
    assert {each.verdict for each in judged} == {verdict}


def test_what_any_exit_knows_is_never_behind_the_last(evidence: Evidence) -> None:
    (finding,) = rivals.overthinking(evidence)
    assert finding.value >= 0


def test_equal_answers_are_equivalent_and_open_ones_say_how_many_seeds_would_do(evidence: Evidence) -> None:
    a, b = evidence.row("cascaded_td"), evidence.row("serial_ce")
    assert a is not None
    assert b is not None
    (same,) = findings.judge(evidence, "final", "x", (a, a), (a.exit(-1), a.exit(-1)))
    assert same.verdict == "equivalent"
    seeds = np.random.default_rng(0).random((3, IMAGES)) < np.array([[0.5], [0.6], [0.75]])
    (wide,) = findings.judge(evidence, "final", "x", (a, b), (seeds.astype(float), seeds[::-1].astype(float) * 0.9))
    assert wide.verdict == "undecided"
    assert "seeds would" in wide.note


def test_lanes_are_axes_where_records_state_them(evidence: Evidence) -> None:
    assert evidence.lanes == ["2 lanes", "4 lanes", "8 lanes", "unlimited lanes"]
    row = evidence.row("cascaded_td")
    assert row is not None
    two, unlimited = row.costs("2 lanes"), row.costs("unlimited lanes")
    assert two is not None
    assert unlimited is not None
    assert (unlimited <= two).all()
    bare = replace(row.entries[0], record=row.record.model_copy(update={"span": None}))
    assert Row((bare,)).costs("2 lanes") is None


def test_rows_of_other_distributions_are_no_evidence(tmp_path: Path) -> None:
    generated.fill(tmp_path, methods=2)
    assert pages(tmp_path) == {}


def test_a_training_that_diverged_is_a_seed_that_guesses(results: Path, evidence: Evidence, tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(results, root)
    for method, seed in (("cascaded_td", 3), ("sdn", 1)):
        path = save(tmp_path / "made", method, seed, SKILLS[method])
        store.save(root, generated.failed(store.load(path), reason="the loss became nan"), {})
    (again,) = read_evidence(root)
    before, row = (each.row("cascaded_td") for each in (evidence, again))
    assert before is not None
    assert row is not None
    assert (row.seeds, row.chance) == (4, 0.1)
    for old, new in (
        (before.exit(-1), row.exit(-1)),
        (before.area("latency", 1.0), row.area("latency", 1.0)),
        (before.owned("macs", 0.5), row.owned("macs", 0.5)),
        (before.under_noise("persistent", "watch"), row.under_noise("persistent", "watch")),
    ):
        assert old is not None
        assert new is not None
        np.testing.assert_allclose(new, [*old, np.full(IMAGES, 0.1)])
    assert "sdn" in pages(root)["reproduction/sdn.md"]


def test_missing_rows_are_said_and_not_an_error(tmp_path: Path) -> None:
    save(tmp_path, "serial_ce", 0, 0.4)
    written = pages(tmp_path)
    for paper in PAPERS:
        assert written[paper.path].count("Not measured.") == len(paper.claims)


@pytest.mark.slow
def test_build_writes_the_page_and_check_finds_a_changed_digit(results: Path, tmp_path: Path) -> None:
    paths = build(results, tmp_path)
    path = tmp_path / "reproduction" / "cascade.md"
    assert {path, tmp_path / "REPRODUCTION.md"} <= set(paths)
    assert not check(results, tmp_path)
    path.write_text(path.read_text().replace("holds", "fails", 1))
    assert [finding.path for finding in check(results, tmp_path)] == [path]
    path.unlink()
    (tmp_path / "reproduction" / "unheard.md").write_text("x")
    assert [finding.problem for finding in check(results, tmp_path)] == ["is missing", "has no source record"]


def test_two_uses_of_the_same_trainings_are_paired_by_seed(evidence: Evidence) -> None:
    """A use that loses one image in each of three seeds that differ a lot loses it surely."""
    row, other = evidence.row("serial_ce"), evidence.row("cascaded_td")
    assert row is not None
    assert other is not None
    last = np.random.default_rng(2).random((3, IMAGES)) < np.array([[0.5], [0.7], [0.9]])
    less = last & (np.arange(IMAGES) % 20 > 0)
    tables = (less.astype(float), last.astype(float))
    (paired,) = findings.judge(evidence, "macs", "x", (row, row), tables)
    (apart,) = findings.judge(evidence, "macs", "x", (row, other), tables)
    assert (paired.verdict, apart.verdict) == ("fails", "undecided")
    twin = replace(row, entries=row.entries[:])
    assert findings.same_trainings(row, twin)
    assert not findings.same_trainings(row, other)
    (every,) = findings.every_deadline(evidence, "ticks", "x", (row, twin), [("end", *tables)])
    assert every.verdict == "fails"
    # The front page: what one use is surely ahead of is not beside it, what it may only happen to be ahead of is.
    assert Order((row, twin), tables[::-1]).beside() == []
    assert Order((row, other), tables[::-1]).beside() == [other.name]
