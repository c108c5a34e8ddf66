"""Optimisers and learning rates. Any optimiser of ``torch.optim`` by name; decay where the recipe wants it.

A method may group its parameters (``Method.parameter_groups``), all that need gradients; a group's own ``weight_decay``
or ``lr_scale`` (a factor on the scheduled rate) stands. With ``training.decay_norms=false`` every other group is split,
and parameters of at most one dimension (norms and biases) are not decayed.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from anytime_bench.errors import UserError, did_you_mean
from anytime_bench.methods.contract import AnytimeModel, Method
from anytime_bench.training.config import TrainingConfig

_NAMES = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}


def optimiser_class(name: str) -> type[torch.optim.Optimizer]:
    """``sgd``, ``adamw``, ... in any spelling of case; an unknown name is a ``UserError`` with the nearest."""
    cls = _NAMES.get(name.lower())
    if cls is None:
        raise UserError(f"training.optimizer={name}: expected an optimiser of torch.optim.{did_you_mean(name, _NAMES)}")
    return cls


def make_optimiser(method: Method, model: AnytimeModel, settings: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser a recipe names over the groups a method asks for.

    ``momentum`` and ``nesterov`` go to optimisers that know them; ``training.optimizer_args`` holds any other keyword.
    """
    cls = optimiser_class(settings.optimizer)
    known = inspect.signature(cls).parameters
    options: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer.lower() in ("sgd", "rmsprop"):
        options["momentum"] = settings.momentum
    if "nesterov" in known:
        options["nesterov"] = settings.nesterov and settings.momentum > 0
    if settings.graph:
        options |= {"capturable": True} if "capturable" in known else {"fused": True} if "fused" in known else {}
        if not {"capturable", "fused"} & options.keys():
            raise UserError(
                f"training.optimizer={settings.optimizer} cannot step within a CUDA graph: expected one of torch.optim "
                "with 'capturable' or 'fused', such as sgd or adamw, or training.graph=false."
            )
    options |= {key: tuple(v) if isinstance(v, list) else v for key, v in settings.optimizer_args.items()}
    unknown = [key for key in options if key not in known]
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise UserError(f"training.optimizer_args: {cls.__name__} has no keyword '{unknown[0]}'.{near}")
    try:
        optimiser = cls(_groups(method, model, settings), **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"training.optimizer={settings.optimizer}: {error}") from error
    _refuse_left_out(optimiser, model)
    if settings.graph:
        for group in optimiser.param_groups:  # a tensor of its own, which a graph reads anew at every replay
            group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)
    return optimiser


def _groups(method: Method, model: AnytimeModel, settings: TrainingConfig) -> list[dict[str, Any]]:
    """The method's groups, split into decayed and decay-free parameters where the recipe says so."""
    groups = []
    for group in method.parameter_groups(model):
        if "lr" in group:
            raise UserError("parameter_groups: 'lr' is set by the schedule; give lr_scale, a factor on it.")
        members: list[nn.Parameter] = list(group["params"])
        if settings.decay_norms or "weight_decay" in group:
            groups.append({**group, "params": members})
            continue
        decayed = [parameter for parameter in members if parameter.ndim > 1]
        spared = [parameter for parameter in members if parameter.ndim <= 1]
        groups.append({**group, "params": decayed})
        groups.append({**group, "params": spared, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _refuse_left_out(optimiser: torch.optim.Optimizer, model: AnytimeModel) -> None:
    """``UserError`` for parameters that need a gradient and are in no group: they would never move."""
    grouped = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    names = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in grouped]
    if names:
        rest = f" and {len(names) - 2} others" if len(names) > 3 else ""
        raise UserError(
            f"parameter_groups leaves out {', '.join(names[: 2 if rest else 3])}{rest}: add them to a group, or set "
            "requires_grad to False."
        )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """``rate`` to every group, times the group's own ``lr_scale``; in place where the group's rate is a tensor."""
    for group in optimiser.param_groups:
        own = rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Learning rate at ``epoch`` in [0, epochs], a real number: linear warm-up, then the recipe's schedule."""
    if config.warmup and epoch < config.warmup:
        return config.lr * (epoch + 1e-2) / (config.warmup + 1e-2)
    done = (epoch - config.warmup) / max(config.epochs - config.warmup, 1e-9)
    done = min(max(done, 0.0), 1.0)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "linear":
        return config.lr * (1 - done)
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    return config.lr
