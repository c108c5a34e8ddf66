"""A ViT with heads between its blocks: its exits are the network's own, its costs those of a count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from anytime_bench.harness.cost import count_costs
from anytime_bench.tasks.task import TaskCard
from baselines.vit.exits import ViTExits
from baselines.vit.methods import ViTExitsOptions, ViTWithExits
from baselines.vit.network import ViTOptions, create_vit


def card(side: int = 16, channels: int = 3) -> TaskCard:
    return TaskCard("small", "t", ("a", "b", "c"), (channels, side, side), {}, (0.0,), (1.0,))


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """In float64, every parameter off its start: heads begin at 0, where all answers are alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


@torch.no_grad()
@pytest.mark.parametrize("pool", ["", "avg"])
@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit2", "test_vit3", "deit3_small_patch16_224", "vit_base_patch16_siglip_224"]
)
def test_every_exit_is_a_timm_network_cut_after_its_block(name: str, pool: str) -> None:
    options = ViTExitsOptions(model=name, embed_dim=32, num_heads=2, depth=3, patch_size=4, pool=pool)
    model = shaken(ViTWithExits(options).build(card()))
    assert isinstance(model, ViTExits)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    answers = model(images)
    assert torch.equal(answers[-1], model.network(images))  # timm's own forward pass
    for k, blocks in enumerate(model.exit_blocks[:-1]):
        whole = create_vit(options, card()).double().eval()
        whole.load_state_dict(model.network.state_dict())
        whole.blocks = whole.blocks[:blocks]
        for part in ("norm", "attn_pool", "fc_norm", "head"):
            setattr(whole, part, getattr(model.readouts[k], part))
        assert torch.equal(answers[k], whole(images))
        assert torch.equal(model.answer(images, k), answers[k])
    assert not torch.allclose(answers[0], answers[1])


def test_exits_stand_after_every_nth_block_and_the_last() -> None:
    options = {"embed_dim": 8, "num_heads": 1, "depth": 5}
    blocks = [ViTWithExits(ViTExitsOptions(**options, every=n)).build(card()).exit_blocks for n in (1, 2, 3, 5, 9)]
    assert blocks == [(1, 2, 3, 4, 5), (2, 4, 5), (3, 5), (5,), (5,)]
    assert ViTWithExits(ViTExitsOptions(**options, every=2)).build(card()).ticks == (5, 9, 11)


@pytest.mark.parametrize(("side", "channels", "patch"), [(8, 1, 4), (28, 1, 7), (32, 3, 4)])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_macs_per_exit_equal_a_count_by_hand(side: int, channels: int, patch: int, pool: str) -> None:
    width, depth, classes = 24, 3, 3
    options = ViTExitsOptions(
        model="vit_tiny_patch16_224", patch_size=patch, embed_dim=width, depth=depth, num_heads=3, pool=pool
    )
    costs = count_costs(ViTWithExits(options).build(card(side, channels)), (channels, side, side))
    patches = (side // patch) ** 2
    tokens = patches + 1  # the class token is there in either case
    embedding = patches * patch**2 * channels * width
    attention = tokens * 3 * width * width + 2 * tokens**2 * width + tokens * width * width
    mlp = 2 * tokens * width * 4 * width
    head = width * classes
    assert costs.macs == tuple(embedding + k * (attention + mlp + head) for k in range(1, depth + 1))
    assert costs.macs_prefix == tuple(embedding + k * (attention + mlp) + head for k in range(1, depth + 1))


def test_properties_that_are_not_given_are_the_models_own() -> None:
    own = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    ours = create_vit(ViTOptions(model="vit_tiny_patch16_224"), card(224))
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in own.named_parameters()
    }


def test_a_wider_network_than_its_weights_is_refused_and_its_own_weights_are_taken(tmp_path: Path) -> None:
    options = {"embed_dim": 16, "num_heads": 2, "depth": 2, "patch_size": 4}
    source = create_vit(ViTOptions(**options), card())
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    same = create_vit(ViTOptions(**options, weights=str(tmp_path / "vit.pth")), card())
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), same.parameters(), strict=True))
    with pytest.raises(ValueError, match="the model expects"):
        create_vit(ViTOptions(**options | {"embed_dim": 32}, weights=str(tmp_path / "vit.pth")), card())


def test_every_parameter_learns_once_and_offsets_are_not_decayed() -> None:
    method = ViTWithExits(ViTExitsOptions(embed_dim=8, num_heads=1, depth=2, patch_size=4))
    model = method.build(card())
    decayed, spared = method.parameter_groups(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(names[id(p)] for p in spared["params"]) == ["network.cls_token", "network.pos_embed"]
    assert spared["weight_decay"] == 0
    assert "weight_decay" not in decayed
    assert sorted(names) == sorted(id(p) for p in (*decayed["params"], *spared["params"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet18"}, "'resnet18' is not a timm model of the class VisionTransformer"),
        ({"model": "deit_tiny_distilled_patch16_224"}, "with one head on plain patches"),
        ({"model": "vit_tinny"}, "timm has no model 'vit_tinny'. Did you mean"),
        ({"patch_size": 5}, "patch_size=5: expected a divisor of the image's 16x16 pixels"),
        ({"patch_size": -1}, "patch_size=-1"),
        ({"embed_dim": 33}, "embed_dim=33 is no multiple of num_heads=2"),
        ({"depth": -1}, "depth=-1: expected a number above 0"),
        ({"pool": "max"}, "pool is 'max'"),
        ({"model": "test_vit3", "pool": "token"}, "'test_vit3' has no class token"),
        ({"every": 0}, "every=0: expected 1"),
        ({"weights": "nowhere.pth"}, "'nowhere.pth' does not exist"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViTWithExits(ViTExitsOptions(**options)).build(card())


def test_images_of_another_shape_are_refused() -> None:
    model = ViTWithExits(ViTExitsOptions(embed_dim=8, num_heads=1, depth=1)).build(card())
    for call in (lambda x: next(model.stream(x)), lambda x: model.answer(x, 0), model):
        with pytest.raises(ValueError, match=r"\(2, 1, 16, 16\).*\(B, 3, 16, 16\)"):
            call(torch.zeros(2, 1, 16, 16))
    with pytest.raises(IndexError, match="exit 1 was asked for"):
        model.answer(torch.zeros(1, 3, 16, 16), 1)
