"""A timm Vision Transformer of the size that a task's images ask for, cut into embedding, branches and readout.

Source: Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021 (arXiv 2010.11929), as timm builds it. A block
adds two branches to the residual stream, each of them a function of the stream alone::

    x <- x + attention(x)          LayerNorm, multi-head attention and, in some models, LayerScale
    x <- x + mlp(x)                the same with a two-layer perceptron

timm's networks are made for 224 x 224 pixels. Patches are chosen so that smaller images keep enough of them, and
width, depth and heads can be given (``ViTOptions``). Weights begin as in the paper's own code (Xavier, timm's
``weight_init="jax"``, heads at 0): timm's default deviation of 0.02 leaves the branches of a narrow network near zero.

Shapes: images ``(B, D, H, W)``; tokens ``(B, T, C)``, T = patches and prefix tokens, C = ``embed_dim``; logits
``(B, classes)``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from anytime_bench.errors import UserError
from anytime_bench.tasks.task import TaskCard
from baselines.timm import backbones as timm_backbones

#: An image is cut into at least so many patches, unless ``patch_size`` is given.
MIN_PATCHES = 49
POOLS = ("", "token", "avg")


@dataclass
class ViTOptions:
    """Which ViT: ``model`` is a name of timm, by default its own miniature; 0 or "" leaves the rest as it is there.

    ``patch_size`` 0 takes the model's own where it cuts an image into 49 patches or more, else the largest that does.
    ``embed_dim`` is the width, ``depth`` the number of blocks, ``num_heads`` the attention heads of a block. ``pool``
    is what a head reads: "token" (the class token) or "avg" (the mean over patches). ``weights``: a local .safetensors
    or .pth state dict of the same network, in timm's names.
    """

    model: str = "test_vit"
    patch_size: int = 0
    embed_dim: int = 0
    depth: int = 0
    num_heads: int = 0
    pool: str = ""
    weights: str = ""


def create_vit(options: ViTOptions, task: TaskCard) -> VisionTransformer:
    """The network for ``task``; raises UserError, naming the option, for a model or a size that cannot be."""
    name = timm_backbones.model_name(options.model)
    if name not in timm.list_models(module="vision_transformer") + timm.list_models(module="deit"):
        raise _not_a_vit(name)
    with torch.device("meta"):  # shapes alone
        own: Any = timm.create_model(name, pretrained=False)
    if type(own) is not VisionTransformer or not isinstance(own.patch_embed, PatchEmbed):
        raise _not_a_vit(name)
    shape = {
        "patch_size": patch_size(options.patch_size, own.patch_embed.patch_size[0], task.shape[1:]),
        "embed_dim": options.embed_dim or own.embed_dim,
        "depth": options.depth or len(own.blocks),
        "num_heads": options.num_heads or heads_of(own),
    }
    for option, value in shape.items():
        if value < 1:
            raise UserError(f"{option}={value}: expected a number above 0, or 0 for that of '{name}'.")
    if shape["embed_dim"] % shape["num_heads"]:
        raise UserError(
            f"embed_dim={shape['embed_dim']} is no multiple of num_heads={shape['num_heads']}: each head takes an "
            "equal share of the width. Give both, for example embed_dim=96 num_heads=3."
        )
    if options.pool not in POOLS:
        raise UserError(f"pool is '{options.pool}'; expected 'token', 'avg', or '' for that of '{name}'.")
    if options.pool == "token" and not own.has_class_token:
        raise UserError(f"pool=token: '{name}' has no class token. Use pool=avg, or leave pool out.")
    further: dict[str, Any] = {**shape, "global_pool": options.pool} if options.pool else dict(shape)
    network: Any = timm.create_model(
        name,
        pretrained=False,
        num_classes=task.num_classes,
        in_chans=task.shape[0],
        img_size=tuple(task.shape[1:]),
        weight_init="jax",
        **further,
    )
    if options.weights:
        timm_backbones.load_weights(network, options.weights)
    return network


def patch_size(given: int, own: int, image: Sequence[int]) -> int:
    """Side of a patch for ``image`` (H, W); ``given`` if above 0, else ``own`` or what leaves 49 patches or more.

    >>> [patch_size(0, 16, (side, side)) for side in (8, 16, 28, 32, 64, 224)]
    [1, 2, 4, 4, 8, 16]
    """
    height, width = image
    if given:
        if given < 0 or height % given or width % given:
            raise UserError(f"patch_size={given}: expected a divisor of the image's {height}x{width} pixels, or 0.")
        return given
    for side in range(own, 0, -1):
        if height % side == 0 and width % side == 0 and height * width // side**2 >= MIN_PATCHES:
            return side
    return 1


def heads_of(network: VisionTransformer) -> int:
    """Attention heads in a block."""
    blocks: list[Any] = list(network.blocks.modules())
    return next(module.num_heads for module in blocks if hasattr(module, "num_heads"))


def embed(network: VisionTransformer, images: Tensor) -> Tensor:
    """Tokens ``(B, T, C)`` as the first block sees them."""
    tokens = network.patch_drop(network._pos_embed(network.patch_embed(images)))  # timm's only name for that step
    return network.norm_pre(tokens)


def read_out(network: nn.Module, tokens: Tensor) -> Tensor:
    """Logits ``(B, classes)`` of a ``VisionTransformer`` or one of ``readouts``: final norm, pool, linear layer."""
    vit = cast(VisionTransformer, network)
    return vit.forward_head(vit.norm(tokens))


def readouts(network: VisionTransformer, count: int) -> nn.ModuleList:
    """``count`` further readouts of the same form for ``read_out``, their linear layers at 0 as the network's own."""
    bare: Any = copy.deepcopy(network)
    bare.patch_embed, bare.norm_pre, bare.blocks = nn.Identity(), nn.Identity(), nn.Sequential()
    bare.cls_token = bare.reg_token = bare.pos_embed = None
    nn.init.zeros_(bare.head.weight)
    nn.init.zeros_(bare.head.bias)
    return nn.ModuleList(copy.deepcopy(bare) for _ in range(count))


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The parameters of ``model`` for the optimiser: positions and prefix tokens, which are offsets, without decay."""
    named = list(model.named_parameters())
    offsets = [p for name, p in named if name.rpartition(".")[2] in ("pos_embed", "cls_token", "reg_token")]
    others = [p for _, p in named if not any(p is offset for offset in offsets)]
    return [{"params": others}, {"params": offsets, "weight_decay": 0.0}]


def branches(network: VisionTransformer) -> list[Callable[[Tensor], Tensor]]:
    """What each branch adds to the stream, attention and MLP by turns, as functions of tokens ``(B, T, C)``.

    Raises UserError for blocks of another build.
    """
    parts: list[Callable[[Tensor], Tensor]] = []
    for block in network.blocks:
        if type(block) is Block:
            parts += [partial(_attention, block), partial(_mlp, block)]
        elif type(block) is ResPostBlock:
            parts += [partial(_attention_post_norm, block), partial(_mlp_post_norm, block)]
        else:
            raise UserError(
                f"blocks of kind {type(block).__name__} do not add attention and MLP one after the other: choose a "
                "model with timm's standard blocks, such as vit_tiny_patch16_224."
            )
    return parts


def _attention(block: Block, tokens: Tensor) -> Tensor:
    return block.drop_path1(block.ls1(block.attn(block.norm1(tokens))))


def _mlp(block: Block, tokens: Tensor) -> Tensor:
    return block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


def _attention_post_norm(block: ResPostBlock, tokens: Tensor) -> Tensor:
    return block.drop_path1(block.norm1(block.attn(tokens)))


def _mlp_post_norm(block: ResPostBlock, tokens: Tensor) -> Tensor:
    return block.drop_path2(block.norm2(block.mlp(tokens)))


def check_images(network: VisionTransformer, images: Tensor) -> None:
    """Raise ValueError for images of another shape than the network was built for."""
    expected = (network.in_chans, *network.patch_embed.img_size)
    if tuple(images.shape[1:]) != expected:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, but this network was built for "
            f"(B, {', '.join(map(str, expected))})"
        )


def _not_a_vit(name: str) -> UserError:
    return UserError(
        f"'{name}' is not a timm model of the class VisionTransformer with one head on plain patches. "
        "Supported are most of timm.list_models(module='vision_transformer') and of module='deit', "
        "such as vit_tiny_patch16_224, deit_tiny_patch16_224 or vit_base_patch16_clip_224."
    )
