"""The TD(lambda) loss: golden values, the closed form, and its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from baselines.cascade.td import td_loss, td_targets

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "td_loss.npz", allow_pickle=False)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.from_numpy(np.random.RandomState(11).standard_normal((9, 4, 10)) * 2)
    return logits, torch.from_numpy(np.random.RandomState(12).randint(0, 10, 4))


@pytest.mark.parametrize(("delay", "first"), [("OSD", 1), ("EWS", 0)])
@pytest.mark.parametrize("i", range(3))
def test_losses_and_gradients_are_the_published_ones(delay: str, first: int, i: int) -> None:
    lam = float(GOLDEN["lambdas"][i])
    logits, labels = example()
    logits.requires_grad_()
    loss = td_loss(logits[first:], labels, lam)
    loss.backward()
    assert abs(loss.item() - GOLDEN[f"loss_{delay}"][i]) <= 1e-9 * abs(GOLDEN[f"loss_{delay}"][i])
    golden = GOLDEN[f"grad_{delay}"][i]
    assert logits.grad is not None
    assert np.abs(logits.grad.numpy() - golden).max() <= 1e-9 * np.abs(golden).max()
    steps = -(td_targets(logits, labels, lam) * logits.log_softmax(-1)).sum(-1).mean(1).detach().numpy()
    golden = GOLDEN[f"steploss_{delay}"][i]
    assert np.abs(steps - golden).max() <= 1e-9 * np.abs(golden).max()


@given(lam=st.floats(0, 1), exits=st.integers(1, 6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_targets_are_the_closed_form_and_distributions(lam: float, exits: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(exits, 3, 5, generator=rng, dtype=torch.float64) * 3
    labels = torch.randint(0, 5, (3,), generator=rng)
    targets = td_targets(logits, labels, lam)
    for k in range(exits):
        closed = lam ** (exits - 1 - k) * F.one_hot(labels, 5).double()
        for n in range(k + 1, exits):
            closed += (1 - lam) * lam ** (n - k - 1) * logits[n].softmax(-1)
        torch.testing.assert_close(targets[k], closed, rtol=0, atol=1e-12)
    torch.testing.assert_close(targets.sum(-1), torch.ones(exits, 3, dtype=torch.float64))


def test_lam_one_is_cross_entropy_at_every_exit() -> None:
    logits, labels = example()
    summed = sum(F.cross_entropy(row, labels) for row in logits)
    torch.testing.assert_close(td_loss(logits, labels, 1.0), summed)


def test_lam_zero_asks_of_each_exit_the_next_ones_answer() -> None:
    logits, labels = example()
    torch.testing.assert_close(td_targets(logits, labels, 0.0)[:-1], logits.softmax(-1)[1:])


def test_no_gradient_flows_through_the_targets() -> None:
    logits, labels = example()
    logits.requires_grad_()
    assert not td_targets(logits, labels, 0.5).requires_grad
    td_loss(logits, labels, 0.5).backward()
    expected = (logits.softmax(-1) - td_targets(logits, labels, 0.5)) / logits.shape[1]
    torch.testing.assert_close(logits.grad, expected)


def test_a_single_exit_is_plain_cross_entropy_for_any_lam() -> None:
    logits, labels = example()
    torch.testing.assert_close(td_loss(logits[:1], labels, 0.3), F.cross_entropy(logits[0], labels))


@pytest.mark.parametrize("lam", [-0.1, 1.5, float("nan")])
def test_lam_outside_the_unit_interval_is_refused(lam: float) -> None:
    with pytest.raises(ValueError, match=f"lam is {lam}"):
        td_loss(*example(), lam)


def test_shapes_that_do_not_match_are_refused() -> None:
    logits, labels = example()
    with pytest.raises(ValueError, match=r"\(9, 4, 10\).*\(3,\)"):
        td_loss(logits, labels[:3], 0.5)
