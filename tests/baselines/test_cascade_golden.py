"""The cascade against the published implementation's numbers (tests/golden/README.md names the source)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill_cascade import fill_cascade, modules_in_order, norms_in_order, parameters_in_order

from baselines.cascade.model import CascadedResNet
from baselines.cascade.stepwise import LazySteps
from baselines.cascade.td import td_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "cascade_w16.npz", allow_pickle=False)


def close(ours: torch.Tensor | np.ndarray, golden: np.ndarray, tolerance: float = 1e-9) -> None:
    """At ``tolerance`` relative to the largest golden magnitude."""
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours
    assert ours.shape == golden.shape
    assert np.abs(ours - golden).max() <= tolerance * np.abs(golden).max()


def published(**options: object) -> CascadedResNet:
    return fill_cascade(CascadedResNet(width=16, stem_delay=True, **options).double()).eval()  # type: ignore[arg-type]


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


RUNS = {
    "a_logits_std_A": {},
    "a12_logits_std_A": {"num_exits": 12},
    "b_logits_std_A": {"schedule": "serial"},
    "c_logits_std_A": {"delay": "ews", "alpha": 0.9, "num_exits": 20},
    "d_logits_std_A": {"heads": "multi"},
}


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_every_executor_gives_the_published_logits(name: str) -> None:
    model, x = published(**RUNS[name]), images(7, 4, 3, 32, 32)
    close(model(x), GOLDEN[name])
    close(torch.stack(list(model.stream(x))), GOLDEN[name])
    close(torch.stack(list(model.watch(x.expand(len(GOLDEN[name]), *x.shape)))), GOLDEN[name])
    close(model.answer(x, 5), GOLDEN[name][5])


@torch.no_grad()
def test_the_plain_pass_and_the_activations_are_the_published_ones() -> None:
    model, x = published(num_exits=9), images(7, 4, 3, 32, 32)
    close(model.plain(x), GOLDEN["seq_logits_std_A"])
    run = LazySteps(model)
    steps = [run.advance(x if k == 0 else None) for k in range(model.num_exits)]
    rms = [[f.square().mean().sqrt().item() for f in step] for step in steps]
    close(np.array(rms).T, GOLDEN["a_act_rms_std_A"])


@torch.no_grad()
def test_a_new_frame_per_step_gives_the_published_logits() -> None:
    frames = images(8, 9, 4, 3, 32, 32)
    close(torch.stack(list(published().watch(frames))), GOLDEN["e_logits_std_A"])


@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_one_training_step_gives_the_published_losses_gradients_and_statistics(lam: float) -> None:
    model, x = published().train(), images(17, 8, 3, 32, 32)
    targets = torch.from_numpy(np.random.RandomState(18).randint(0, 10, 8))
    logits = model(x)
    loss = td_loss(logits[1:], targets, lam)
    loss.backward()
    tag = f"lam{lam}"
    close(logits, GOLDEN["g_logits_std"])
    close(loss, GOLDEN[f"g_loss_std_{tag}"])
    gradients = [p.grad.numpy().ravel() for p in parameters_in_order(model) if p.grad is not None]
    assert len(gradients) == len(GOLDEN["g_param_names"])
    close(np.array([np.linalg.norm(g) for g in gradients]), GOLDEN[f"g_gradnorm_std_{tag}"])
    projections = [g @ np.random.RandomState(9000 + j).standard_normal(g.size) for j, g in enumerate(gradients)]
    close(np.array(projections), GOLDEN[f"g_gradproj_std_{tag}"])
    close(np.array([g[:5] for g in gradients]), GOLDEN[f"g_gradfirst5_std_{tag}"])
    for statistic in ("running_mean", "running_var"):
        rows = [getattr(norm, statistic)[torch.arange(9).clamp(max=norm.rows - 1)] for norm in norms_in_order(model)]
        close(torch.cat(rows, 1), GOLDEN[f"g_{statistic}_std"])


def test_the_fill_visits_the_modules_in_the_published_order() -> None:
    kinds = {"Conv2d": "conv", "TemporalNorm": "bn", "Linear": "linear"}
    shapes = [list(m.weight.shape) for m in modules_in_order(published())]
    assert [s + [0] * (4 - len(s)) for s in shapes] == GOLDEN["mod_shape"].tolist()
    ours = [kinds[type(m).__name__] for m in modules_in_order(published())]
    assert [k[:2] for k in ours] == [str(k).lower()[:2] for k in GOLDEN["mod_kind"]]
