"""The six rows of the cascade paper: what they build, how they learn, and whose weights they take."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import Method, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.cascade import methods as rows
from baselines.cascade.td import td_loss

TASK = TaskCard("toy", "Toy digits", tuple("0123456789"), (1, 8, 8), {"train": 1}, (0.5,), (0.5,))
TRAINED = [rows.SerialCE, rows.SerialTD, rows.SerialTDMultiHead, rows.CascadedTD, rows.CascadedTDMultiHead]
ALL = [*TRAINED, rows.CascadedCE]
PROGRESS = Progress(1, 1, 1, 1)


def method(row: type[Method], **options: Any) -> Method:
    return row(row.Config(**{"width": 4, "blocks": [1, 1], "stem_pool": False} | options))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(6, 1, 8, 8), torch.randint(0, 10, (6,))


@pytest.mark.parametrize("row", TRAINED)
def test_gradients_reach_every_parameter(row: type[Method]) -> None:
    model = method(row).build(TASK)
    images, labels = batch()
    method(row).training_loss(model, images, labels, PROGRESS).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("row", TRAINED)
def test_a_few_steps_lower_the_loss(row: type[Method]) -> None:
    torch.manual_seed(0)
    model = method(row, width=8).build(TASK)
    optimiser, losses = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), []
    for _ in range(25):
        loss = method(row, width=8).training_loss(model, *batch(), PROGRESS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("row", ALL)
def test_models_and_options_survive_a_round_trip(row: type[Method]) -> None:
    assert OmegaConf.to_object(OmegaConf.structured(row.Config)) == row.Config()
    model = method(row).build(TASK).eval()
    again = pickle.loads(pickle.dumps(model))
    images, _ = batch()
    assert torch.equal(model(images), again(images))


def test_the_rows_differ_where_the_paper_says() -> None:
    lams = {row: row.Config().lam for row in TRAINED[1:]}
    assert lams == {
        rows.SerialTD: 1.0,
        rows.SerialTDMultiHead: 1.0,
        rows.CascadedTD: 0.0,
        rows.CascadedTDMultiHead: 0.0,
    }
    built = {row: row().build(TaskCard("t", "T", TASK.classes, (3, 32, 32), {}, (0.0,), (1.0,))) for row in ALL}
    assert {row for row, model in built.items() if model.schedule == "serial"} == set(TRAINED[:3])  # type: ignore[attr-defined]
    assert {row for row, model in built.items() if len(model.heads) == 9} == {  # type: ignore[arg-type]
        rows.SerialTDMultiHead,
        rows.CascadedTDMultiHead,
    }
    assert all(list(model.ticks) == list(range(1, 10)) for model in built.values())
    assert rows.CascadedTD.card.reported["tiny_imagenet"] == 0.5503


def test_serial_ce_trains_with_one_plain_pass_and_its_last_answer_runs_one_head() -> None:
    serial = method(rows.SerialCE)
    model, (images, labels) = serial.build(TASK), batch()
    loss = serial.training_loss(model, images, labels, PROGRESS)
    expected = F.cross_entropy(model(images)[-1], labels)
    torch.testing.assert_close(loss, expected)
    with FlopCounterMode(display=False) as plain:
        model.plain(images)  # type: ignore[operator]
    with FlopCounterMode(display=False) as counted:
        model.answer(images, model.num_exits - 1)
    assert counted.get_total_flops() == plain.get_total_flops()


@pytest.mark.parametrize("options", [{}, {"delay": "ews", "alpha": 0.5}, {"stem_delay": True}])
def test_cascaded_ce_takes_serial_ces_weights(options: dict[str, Any]) -> None:
    serial, cascaded = method(rows.SerialCE), method(rows.CascadedCE, **options)
    assert cascaded.weights_from == "serial_ce"
    source, model = serial.build(TASK), cascaded.build(TASK)
    images, labels = batch()
    serial.training_loss(source, images, labels, PROGRESS)  # moves the running statistics
    cascaded.adopt(model, source.state_dict())
    source.eval(), model.eval()
    torch.testing.assert_close(model.plain(images), source(images)[-1])  # type: ignore[operator]
    if not options:
        torch.testing.assert_close(model(images)[-1], source(images)[-1], rtol=0, atol=1e-6)
        assert not torch.allclose(model(images)[1], source(images)[1])
    with pytest.raises(RuntimeError, match="size mismatch"):
        cascaded.adopt(model, method(rows.SerialCE, width=6).build(TASK).state_dict())


def test_the_published_form_leaves_the_blind_exit_out_of_the_loss() -> None:
    images, labels = batch()
    for delay, first in (("osd", 1), ("ews", 0)):
        td = method(rows.CascadedTD, stem_delay=True, delay=delay, lam=0.5)
        model = td.build(TASK)
        expected = td_loss(model(images)[first:], labels, 0.5)
        torch.testing.assert_close(td.training_loss(model, images, labels, PROGRESS), expected)


@pytest.mark.parametrize(
    ("options", "message"), [({"lam": 2.0}, "lam is 2.0"), ({"alpha": 1.0}, "alpha is 1"), ({"stem_pool": True}, "8x8")]
)
def test_bad_options_are_refused_when_building(options: dict[str, Any], message: str) -> None:
    if "stem_pool" in options:
        options["blocks"] = [1, 1, 1, 1]
    with pytest.raises(ValueError, match=message):
        method(rows.CascadedTD, **options).build(TASK)
