"""timm models as rows of their own and as backbones of internal classifiers; weights come from local files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from anytime_bench.tasks.task import TaskCard
from baselines.sdn.methods import SDN, SDNICOnly, SDNOptions
from baselines.sdn.model import ShallowDeepNet
from baselines.timm.methods import TimmOptions, TimmSingleExit, residual_blocks

CARD = TaskCard("small", "t", ("a", "b", "c"), (1, 32, 32), {}, (0.0,), (1.0,))
TINY = "test_resnet"  # timm's own miniature for tests


def tiny(num_classes: int = 3, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(TINY, num_classes=num_classes, in_chans=1).eval()


@pytest.mark.parametrize("ic_input", ["pre", "post"])
@pytest.mark.parametrize("name", ["resnet18", "resnet26", "seresnet18", "ecaresnet26t", "resnetblur18"])
def test_the_final_exit_is_timms_own_answer(name: str, ic_input: str) -> None:
    if not timm.is_model(name) or name not in timm.list_models(module="resnet"):
        pytest.skip(f"this version of timm has no {name} in its ResNet family")
    torch.manual_seed(0)
    reference = timm.create_model(name, num_classes=3, in_chans=1).eval()
    torch.manual_seed(0)
    model = SDN(SDNOptions(backbone=f"timm/{name}", ic_input=ic_input)).build(CARD).eval()
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        logits = model(images)
        assert torch.allclose(logits[-1], reference(images), atol=1e-5)
    assert model.num_exits == len(logits) == len(model.ticks)
    model.train()(images).sum().backward()


def test_an_ic_reads_the_sum_before_or_after_the_last_relu() -> None:
    torch.manual_seed(0)
    model = SDN(SDNOptions(backbone=f"timm/{TINY}")).build(CARD).eval()
    assert isinstance(model, ShallowDeepNet)
    with torch.no_grad():  # timm begins with residuals of zero, whose sums are never negative
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    block, seen = model.ic_blocks[0], {}
    model.classifiers[0].register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0]))
    with torch.no_grad():
        images = torch.randn(2, 1, 32, 32)
        x = model.backbone.stem(images)
        for earlier in model.backbone.blocks[: block + 1]:
            x = earlier(x)
        next(model.stream(images))
        assert seen["x"].min() < 0
        assert torch.allclose(seen["x"].relu(), x, atol=1e-6)
        model.ic_input = "post"
        next(model.stream(images))
        assert torch.allclose(seen["x"], x, atol=1e-6)


@pytest.mark.parametrize("name", ["vgg11", "vit_tiny_patch16_224", "resnetv2_50", "mobilenetv3_small_100"])
def test_another_family_is_refused_with_the_list_of_what_is_supported(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'timm/{name}' is not of timm's ResNet family.*Supported:.*timm/resnet50,"):
        SDN(SDNOptions(backbone=f"timm/{name}")).build(CARD)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"timm has no model 'resnet81'\. Did you mean"):
        TimmSingleExit(TimmOptions("resnet81")).build(CARD)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_100"])
def test_a_row_of_one_exit(name: str) -> None:
    model = TimmSingleExit(TimmOptions(f"{name}")).build(CARD).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (1, 2, 3)
    assert model.ticks == (1 + residual_blocks(model.network),)
    assert model.ticks[0] > 5


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    source, path = tiny(seed=5), tmp_path / f"tiny{suffix}"
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    images = torch.randn(2, 1, 32, 32)
    row = TimmSingleExit(TimmOptions(f"{TINY}", str(path))).build(CARD).eval()
    frozen = SDNICOnly(SDNOptions(backbone=f"timm/{TINY}", weights=str(path)))
    assert frozen.starts_from is None
    with torch.no_grad():
        expected = source(images)
        assert torch.allclose(row(images)[0], expected, atol=1e-6)
        assert torch.allclose(frozen.build(CARD).train()(images)[-1], expected, atol=1e-5)


def test_a_classifier_for_other_classes_is_left_fresh(tmp_path: Path) -> None:
    path = tmp_path / "thousand.pth"
    torch.save(tiny(num_classes=7).state_dict(), path)
    options = SDNOptions(backbone=f"timm/{TINY}", weights=str(path))
    model = SDN(options).build(CARD)
    assert isinstance(model, ShallowDeepNet)
    assert torch.equal(
        model.backbone.blocks[0].block.conv1.weight, tiny(num_classes=7).state_dict()["layer1.0.conv1.weight"]
    )
    with pytest.raises(ValueError, match="has no classifier for 3 classes, and the disjoint regime trains none"):
        SDNICOnly(options).build(CARD)


class Touch:
    """Pickles to an instruction to create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, sign = tmp_path / "evil.pth", tmp_path / "it_ran"
    torch.save({"layer1.0.conv1.weight": Touch(sign)}, path)
    with pytest.raises(ValueError, match="cannot be read as a state dict of tensors"):
        TimmSingleExit(TimmOptions(f"{TINY}", str(path))).build(CARD)
    assert not sign.exists()


def test_bad_weight_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        TimmSingleExit(TimmOptions(f"{TINY}", str(tmp_path / "none.pth"))).build(CARD)
    state = tiny().state_dict()
    missing, other, shape = tmp_path / "missing.pth", tmp_path / "other.pth", tmp_path / "shape.pth"
    torch.save({name: tensor for name, tensor in state.items() if name != "layer1.0.conv1.weight"}, missing)
    torch.save({**state, "extra": torch.zeros(1)}, other)
    torch.save({**state, "layer1.0.conv1.weight": torch.zeros(1)}, shape)
    for path, message in (
        (missing, "has no 'layer1.0.conv1.weight'"),
        (other, "'extra', unknown"),
        (shape, r"is \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            TimmSingleExit(TimmOptions(f"{TINY}", str(path))).build(CARD)
