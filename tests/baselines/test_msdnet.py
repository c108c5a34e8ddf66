"""MSDNet against the published implementation's numbers, and the laws its lazy execution must obey."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from golden.compare import close, eval_images, vectors
from golden.fill import fill_msdnet, msdnet_keys, seed_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.msdnet.methods import MSDNetAnytime, MSDNetOptions, sum_of_exits
from baselines.msdnet.model import Classifier, ConvUnit, MSDNet, layers_per_block, scales_left

GOLDEN = vectors("msdnet_anytime")
pytestmark = pytest.mark.usefixtures("float64")
KIND = {nn.Conv2d: 0, nn.BatchNorm2d: 1, nn.Linear: 2}


def macs_of(stream: Iterator[Tensor]) -> list[int]:
    """MACs counted up to each answer."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        return [counter.get_total_flops() // 2 for _ in stream]


def rows_by_seed() -> dict[int, NDArray[np.int64]]:
    return {int(row[14]): row for row in GOLDEN["module_table"]}


def test_filled_tensors_are_those_of_the_golden_table() -> None:
    table = {int(row[2]): row for row in GOLDEN["tensor_table"]}
    filled = [
        (seed_of(f"{key}.{name}"), tensor.detach().numpy())
        for key, module in msdnet_keys(fill_msdnet(MSDNet()))
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if name != "num_batches_tracked"
    ]
    assert {seed for seed, _ in filled} == set(table)
    for seed, tensor in filled:
        stored = table[seed][3:]
        ours = np.array([tensor.size, tensor.sum(), np.abs(tensor).sum(), tensor.flat[0]])
        assert np.allclose(ours, stored, rtol=1e-12, atol=1e-10)


def test_logits_of_every_exit() -> None:
    model = fill_msdnet(MSDNet()).eval()
    images = eval_images()
    close(model(images), GOLDEN["logits"])
    close(torch.stack([model.answer(images, k) for k in range(7)]), GOLDEN["logits"])
    close(torch.stack(list(model.executions()["whole_blocks"](images))), GOLDEN["logits"])


def test_training_pass_gives_the_logits_losses_gradients_and_statistics() -> None:
    model = fill_msdnet(MSDNet()).train()
    draw = np.random.RandomState(11)
    images = torch.from_numpy(draw.standard_normal((4, 3, 32, 32)))
    targets = torch.from_numpy(draw.randint(0, 10, size=4))
    logits = model(images)
    close(logits, GOLDEN["train_logits"])
    close(torch.stack([nn.functional.cross_entropy(one, targets) for one in logits]), GOLDEN["train_losses"])
    loss = MSDNetAnytime().training_loss(model, images, targets, Progress(1, 1, 1, 1))
    assert loss.item() == pytest.approx(GOLDEN["train_losses"].sum(), rel=1e-9)
    fresh = fill_msdnet(MSDNet()).train()
    sum_of_exits(fresh(images), targets).backward()
    ours = {seed_of(f"{key}.weight"): gradient_row(module) for key, module in msdnet_keys(fresh)}
    table = np.stack([ours[int(row[14])] for row in GOLDEN["module_table"]])
    close(table, GOLDEN["train_grad_table"])


def gradient_row(module: nn.Module) -> list[float]:
    """Norm and sum of the weight's gradient, norm of the bias's, norms of the running statistics (-1: has none)."""

    def norm(tensor: Tensor | None) -> float:
        return -1.0 if tensor is None else float(tensor.detach().norm())

    weight, bias = module.weight, getattr(module, "bias", None)
    total = float(weight.grad.sum())
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    return [norm(weight.grad), total, -1.0 if bias is None else norm(bias.grad), norm(mean), norm(var)]


def test_layer_shapes_and_parameters() -> None:
    model = MSDNet()
    assert sum(p.numel() for p in model.parameters()) == GOLDEN["n_params"]
    assert model.steps == GOLDEN["steps"].tolist()
    rows = rows_by_seed()
    for key, module in msdnet_keys(model):
        row = rows[seed_of(f"{key}.weight")]
        assert row[5] == KIND[type(module)]
        assert sum(p.numel() for p in module.parameters()) == row[12]
        if isinstance(module, nn.Conv2d):
            assert [module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0]] == list(row[6:10])


def test_cumulative_parameters() -> None:
    model = MSDNet()
    ours = [0] * model.num_exits
    for key, module in msdnet_keys(model):
        ours[int(key.split("/")[1][1:])] += sum(p.numel() for p in module.parameters())
    assert np.cumsum(ours).tolist() == GOLDEN["params_cum"].tolist()


def test_macs_per_module_block_and_classifier() -> None:
    model = MSDNet(lazy=False).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(eval_images()[:1])
    counted = {
        name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()
    }  # "MSDNet.features.l0s0.conv"
    names = {module: f"MSDNet.{name}" for name, module in model.named_modules()}
    backbone, classifier, rows = [0] * 7, [0] * 7, rows_by_seed()
    for key, module in msdnet_keys(model):
        macs, row = counted.get(names[module], 0), rows[seed_of(f"{key}.weight")]
        assert macs == row[13]
        (classifier if "classifier" in key else backbone)[row[1]] += macs
    assert backbone == GOLDEN["macs_backbone_block"].tolist()
    assert classifier == GOLDEN["macs_classifier"].tolist()


def test_cumulative_macs_lazy_whole_blocks_and_own_classifier() -> None:
    lazy, published = MSDNet().eval(), MSDNet(lazy=False).eval()
    images = eval_images()[:1]
    assert macs_of(lazy.stream(images)) == GOLDEN["macs_cum_lazy_all_classifiers"].tolist()
    assert macs_of(lazy.executions()["whole_blocks"](images)) == GOLDEN["macs_cum_all_classifiers"].tolist()
    assert macs_of(published.stream(images)) == GOLDEN["macs_cum_all_classifiers"].tolist()
    for k in range(7):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            published.answer(images, k)
        assert counter.get_total_flops() // 2 == GOLDEN["macs_cum_own_classifier"][k]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            lazy.answer(images, k)
        earlier = int(GOLDEN["macs_classifier"][:k].sum())
        assert counter.get_total_flops() // 2 == GOLDEN["macs_cum_lazy_all_classifiers"][k] - earlier


def configurations() -> st.SearchStrategy[dict[str, object]]:
    scales = st.integers(1, 4)
    return scales.flatmap(
        lambda s: st.fixed_dictionaries(
            {
                "blocks": st.integers(1, 4),
                "base": st.integers(1, 4),
                "step": st.integers(1, 3),
                "step_mode": st.sampled_from(["even", "lin_grow"]),
                "channels": st.integers(2, 5),
                "growth": st.sampled_from([2, 4]),
                "scale_factors": st.lists(st.integers(1, 4), min_size=s, max_size=s),
                "bottleneck_factors": st.lists(st.integers(1, 4), min_size=s, max_size=s),
                "prune": st.sampled_from(["max", "min"]),
                "reduction": st.sampled_from([0.0, 0.5, 0.7]),
                "stem": st.sampled_from(["cifar", "imagenet"]),
                "classifier_channels": st.sampled_from([0, 8]),
                "in_channels": st.sampled_from([1, 3]),
            }
        )
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(configurations(), st.sampled_from([(8, 8), (17, 13), (32, 32)]))
def test_lazy_and_whole_block_execution_agree_at_any_configuration(
    options: dict[str, object], size: tuple[int, int]
) -> None:
    model = fill_msdnet(MSDNet(num_classes=5, **options)).eval()  # type: ignore[arg-type]
    images = torch.randn(2, int(str(options["in_channels"])), *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        lazy = torch.stack(list(model.stream(images)))
        whole = torch.stack(list(model.executions()["whole_blocks"](images)))
        assert torch.allclose(lazy, whole, rtol=1e-12, atol=1e-12)
        assert torch.allclose(model.answer(images, model.num_exits - 1), lazy[-1], rtol=1e-12, atol=1e-12)
    macs = macs_of(model.stream(images[:1]))
    eager = macs_of(model.executions()["whole_blocks"](images[:1]))
    assert all(a < b for a, b in pairwise(macs))
    assert all(a <= b for a, b in zip(macs, eager, strict=True))
    assert list(model.ticks) == (1 + np.cumsum(model.steps)).tolist()


def test_a_kept_sample_goes_on_alone() -> None:
    model = fill_msdnet(MSDNet(blocks=4, base=2, step=1, channels=4, growth=2)).eval()
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        full = model(images)
        keep = torch.tensor([True, False, True, True, False])
        stream = model.stream(images)
        next(stream)
        second = stream.send(keep)
        third = stream.send(torch.tensor([False, True, True]))
    assert torch.allclose(second, full[1][keep], atol=1e-12)
    assert torch.allclose(third, full[2][[2, 3]], atol=1e-12)


def test_scales_left_follow_the_two_prune_rules() -> None:
    # Appendix A: "max" divides the layers evenly among the scales; "min" keeps what a classifier can still see.
    assert [scales_left(layer, 16, 3, "max") for layer in (1, 6, 7, 12, 13, 16)] == [3, 3, 2, 2, 1, 1]
    assert [scales_left(layer, 6, 3, "min") for layer in range(1, 7)] == [3, 3, 3, 3, 2, 1]


def published_operations(model: MSDNet, images: Tensor) -> list[int]:
    """Cumulative operations by the published count: MACs, bias, ReLU inputs, and k*k per output of a pool."""
    extra = [0]

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, ConvUnit):
            extra[0] += output.numel()
        elif isinstance(module, nn.MaxPool2d):
            extra[0] += output.numel() * int(module.kernel_size) ** 2
        elif isinstance(module, Classifier):  # average over the 2x2 map, then the bias
            extra[0] += module.linear.in_features * 4 + module.linear.out_features

    for module in model.modules():
        module.register_forward_hook(add)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        return [counter.get_total_flops() // 2 + extra[0] for _ in model.executions()["whole_blocks"](images)]


def test_published_operation_count() -> None:
    assert published_operations(MSDNet().eval(), eval_images()[:1]) == GOLDEN["opcounter_ops_cum"].tolist()


def test_the_imagenet_network_costs_what_is_quoted_for_it() -> None:
    # Five blocks of four layers, 32 channels, growth 16, four scales: later comparisons quote these millions of
    # operations for the published ImageNet model's five exits.
    with torch.device("meta"):
        model = MSDNet(
            num_classes=1000, blocks=5, base=4, step=4, channels=32, growth=16, scale_factors=(1, 2, 4, 4),
            bottleneck_factors=(1, 2, 4, 4), stem="imagenet", classifier_channels=0,
        ).eval()  # fmt: skip
    operations = published_operations(model, torch.empty(1, 3, 224, 224, device="meta"))
    assert [round(count / 1e6, 2) for count in operations] == [339.90, 685.46, 1008.16, 1254.47, 1360.53]


def test_layers_per_block_rejects_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="step_mode is 'odd'; expected 'even' or 'lin_grow'"):
        layers_per_block(3, 1, 1, "odd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks is 0"),
        ({"growth": 3, "scale_factors": (1, 1), "bottleneck_factors": (1, 1)}, "is odd"),
        ({"bottleneck_factors": (1, 2)}, "expected one of each per scale"),
        ({"prune": "none"}, "prune is 'none'"),
        ({"reduction": 1.5}, "reduction is 1.5"),
        ({"stem": "mnist"}, "stem is 'mnist'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MSDNet(**options)  # type: ignore[arg-type]


def test_options_of_the_row_reach_the_network() -> None:
    card = TaskCard("t", "t", ("a", "b", "c"), (1, 8, 8), {}, (0.0,), (1.0,))
    options = MSDNetOptions(
        blocks=3, base=2, step=1, channels=4, growth=4, scale_factors=[1, 2], bottleneck_factors=[1, 2],
        classifier_channels=8,
    )  # fmt: skip
    model = MSDNetAnytime(options).build(card)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (3, 2, 3)
    assert tuple(model.ticks) == (3, 4, 5)
