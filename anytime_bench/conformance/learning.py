"""Checks of training and checkpoints: every trainable parameter learns, and a checkpoint is the whole model."""

from __future__ import annotations

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from anytime_bench.conformance.fixture import NotApplicable, Subject, require, require_equal, seeded, stream_answers
from anytime_bench.methods.contract import Method, Progress


def check_gradients(subject: Subject) -> None:
    """``training_loss`` moves every parameter that requires a gradient, at the first or at the last step."""
    method = subject.method
    if method.weights_from is not None:
        raise NotApplicable(f"not trained: it takes the weights of {method.weights_from}")
    model = subject.model().train()
    reached: set[str] = set()
    dead: list[str] = []
    generator = torch.Generator().manual_seed(subject.seed)
    for number, progress in enumerate((Progress(1, 10, 1, 10), Progress(10, 10, 10, 10))):
        images = subject.images(f"gradients {number}", 3)
        targets = torch.randint(subject.task.num_classes, (3,), generator=generator)
        model.zero_grad(set_to_none=True)
        with seeded(subject.seed):
            loss = method.training_loss(model, images, targets, progress)
        require(
            isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad,
            f"training_loss gave {_kind(loss)}, expected a scalar tensor that gradients flow through",
        )
        loss.backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
        dead = [name for name, p in model.named_parameters() if p.requires_grad and name not in reached]
        if not dead:
            break
    require(
        not dead,
        f"no gradient reaches {', '.join(dead[:5])}{' and others' if len(dead) > 5 else ''}: "
        "use them in training_loss, remove them, or set requires_grad to False",
    )


def check_finish(subject: Subject) -> None:
    """``finish`` fits tensors the model was built with, equally from equal seeds, and leaves finite answers."""
    method = subject.method
    if type(method).finish is Method.finish:
        raise NotApplicable("nothing is fitted after training")
    images = subject.images("finish", 8)
    targets = torch.randint(subject.task.num_classes, (8,), generator=torch.Generator().manual_seed(subject.seed))
    runs: list[list[Tensor]] = []
    for _ in range(2):
        model = subject.model()
        built = {name: value.shape for name, value in model.state_dict().items()}
        with seeded(subject.seed):
            method.finish(model, lambda: iter([(images[:4], targets[:4]), (images[4:], targets[4:])]))
        changed = built.items() ^ {name: value.shape for name, value in model.state_dict().items()}.items()
        require(
            not changed,
            f"finish adds, removes or reshapes {', '.join(sorted({name for name, _ in changed}))}: make every tensor "
            "that it fits in build, or the stored weights fit no new model",
        )
        runs.append(stream_answers(model.eval(), images))
    broken = [k for k, answer in enumerate(runs[0]) if not bool(answer.isfinite().all())]
    require(not broken, f"exit {broken[:1]} answers with NaN or infinity after finish")
    require_equal(
        runs[1],
        runs[0],
        lambda k: f"exit {k} differs between two runs of finish from one seed: draw from torch's random state alone",
    )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" + ("" if value.requires_grad else " without a gradient")
    return type(value).__name__


def check_checkpoint(subject: Subject) -> None:
    """``state_dict`` through safetensors into a model built with another seed gives the same answers."""
    model, images = subject.model(), subject.images("checkpoint")
    state = model.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    require(not strange, f"state_dict holds {', '.join(strange)}, which is no tensor: keep such things in the config")
    stored = save_safetensors({name: value.detach().clone().contiguous() for name, value in state.items()})
    other = subject.build(subject.seed + 1).to(subject.dtype).eval()
    other.load_state_dict(load_safetensors(stored))
    require_equal(
        stream_answers(other, images),
        stream_answers(model, images),
        lambda k: (
            f"exit {k} changes when the checkpoint is loaded into a new model: register every tensor that answers "
            "depend on as a parameter or a buffer"
        ),
    )
