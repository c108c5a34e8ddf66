"""Models of timm, built without the network, their weights read from a local file and never executed as code.

``create`` builds any timm model; ``timm_resnet`` cuts one of the ResNet family into stem, blocks and head. What counts
as the family is the class, timm.models.resnet.ResNet: ResNet, ResNeXt, Wide ResNet, SE-ResNet, ECA-ResNet, ResNet-D
and their kin, all of whose blocks end in a sum and a ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

from anytime_bench.errors import UserError, did_you_mean
from baselines.residual import Backbone

PREFIX = "timm/"


def model_name(backbone: str) -> str:
    """``timm/resnet18`` -> ``resnet18``; raises UserError for a name that timm does not know."""
    name = backbone.removeprefix(PREFIX)
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{name}'.{did_you_mean(name, timm.list_models())}")
    return name


def create(backbone: str, num_classes: int, image_shape: Sequence[int], weights: str = "") -> nn.Module:
    """The timm model ``backbone`` ("timm/<name>" or "<name>") for images ``image_shape`` (D, H, W).

    ``weights`` is a local .safetensors or .pth file, or nothing for a fresh initialisation; see ``load_weights``.
    """
    name = model_name(backbone)
    options: dict[str, Any] = {}
    pretrained_cfg = timm.get_pretrained_cfg(name)
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options["img_size"] = tuple(image_shape[1:])
    model = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=image_shape[0], **options)
    if weights:
        load_weights(model, weights)
    return model


def load_weights(model: nn.Module, path: str) -> bool:
    """Load a state dict from ``path`` into a timm model; returns whether the classifier's weights were among them.

    A classifier for another number of classes is left freshly initialised. Any other tensor that is missing, unknown
    or of another shape raises UserError naming it.
    """
    state = read_weights(path)
    own = model.state_dict()
    classifier = f"{model.pretrained_cfg.get('classifier') or 'fc'}."  # type: ignore[operator, union-attr]
    fresh = {
        name
        for name in own
        if name.startswith(classifier) and (name not in state or state[name].shape != own[name].shape)
    }
    state = {name: tensor for name, tensor in state.items() if name not in fresh}
    for name in own:
        if name not in state and name not in fresh and not name.endswith("num_batches_tracked"):
            raise UserError(f"weights file '{path}' has no '{name}'. Give a state dict of the same timm model.")
    for name, tensor in state.items():
        if name not in own:
            raise UserError(f"weights file '{path}' holds '{name}', unknown to the model. Give one of the same model.")
        if tensor.shape != own[name].shape:
            raise UserError(
                f"weights file '{path}': '{name}' is {tuple(tensor.shape)}, the model expects {tuple(own[name].shape)}."
            )
    model.load_state_dict(state, strict=False)
    return not fresh


def read_weights(path: str) -> Mapping[str, Tensor]:
    """The state dict in a .safetensors or torch file. Tensors only: a file that would run code is refused."""
    if not Path(path).is_file():
        raise UserError(f"weights file '{path}' does not exist. Give a local .safetensors or .pth file.")
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"weights file '{path}' cannot be read as a state dict of tensors ({type(error).__name__}). "
            "Give a .safetensors file or one saved with torch.save(model.state_dict(), path)."
        ) from error
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"weights file '{path}' is not a state dict: expected names with tensors.")
    return state


class TimmBlock(nn.Module):
    """A residual block of timm's ResNet whose last activation is taken out, so that its sum can be read."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        name = "act3" if hasattr(block, "act3") else "act2"
        act = getattr(block, name)
        if hasattr(act, "inplace"):
            act.inplace = False  # in place it would overwrite the sum
        setattr(block, name, nn.Identity())
        self.block, self.act = block, act

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output before and after its last activation."""
        before = self.block(x)
        return before, self.act(before)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.block(x))


def timm_resnet(model: nn.Module, name: str = "") -> Backbone:
    """Cut a timm ResNet into stem, blocks and head; the model itself is taken apart and is not to be used again."""
    if not isinstance(model, ResNet):
        raise _not_a_resnet(name or type(model).__name__)
    network: Any = model
    stem = nn.Sequential(network.conv1, network.bn1, network.act1, network.maxpool)
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    head = nn.Sequential(network.global_pool, nn.Dropout(float(network.drop_rate or 0.0)), network.fc)
    return Backbone(stem, [TimmBlock(block) for stage in stages for block in stage], head)


def require_resnet(backbone: str) -> None:
    """Raise UserError, listing what is supported, unless ``backbone`` names a timm model of the ResNet family."""
    if model_name(backbone) not in timm.list_models(module="resnet"):
        raise _not_a_resnet(backbone)


def _not_a_resnet(name: str) -> UserError:
    supported = ", ".join(f"{PREFIX}{known}" for known in timm.list_models(module="resnet"))
    return UserError(
        f"'{name}' is not of timm's ResNet family, whose residual blocks internal classifiers need. "
        f"Supported: {supported}."
    )
