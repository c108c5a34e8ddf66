"""A second Python process that unpickles a model and answers, kept for all checks of this process.

Started once, because importing torch costs seconds, by ``multiprocessing`` in its "spawn" way, which also carries the
import path. A plugin file is on no path, so it is loaded there under the module name it has here.
"""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
import sys
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.conformance.fixture import CheckFailure
from anytime_bench.methods.elsewhere import make_importable

#: Seconds to wait for answers.
TIMEOUT = 120.0


@dataclass(frozen=True)
class _Request:
    """The pickled ``(method class, config, model)``, where its module comes from, and images ``(B, D, H, W)``."""

    module: str
    source: str | None
    path: list[str]
    payload: bytes
    images: NDArray[Any]


def answers_elsewhere(payload: bytes, images: Tensor, method: type) -> list[Tensor]:
    """Answers to ``images (B, D, H, W)`` of the pickled ``(method class, config, model)``, from another process.

    Raises ``CheckFailure`` with the other process's error where it cannot unpickle or run the model.
    """
    process, connection = _child()
    if not process.is_alive():
        _child.cache_clear()
        process, connection = _child()
    source = inspect.getsourcefile(method)
    try:
        connection.send(_Request(method.__module__, source, sys.path, payload, images.numpy()))
        if not connection.poll(TIMEOUT):
            process.kill()
            raise EOFError
        reply: list[NDArray[Any]] | str = connection.recv()
    except (EOFError, OSError) as error:
        raise CheckFailure(
            f"the other process died while it unpickled or ran the model, or took over {TIMEOUT:.0f} s: "
            "look for code that runs when the module is imported"
        ) from error
    if isinstance(reply, str):
        raise CheckFailure(
            f"another process cannot use it ({reply}): define the classes at the top level of an importable module"
        )
    return [torch.from_numpy(logits) for logits in reply]


def start_other_process() -> None:
    """Start the other process now, so that it is ready when it is needed."""
    _child()


@cache
def _child() -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    there.close()
    return process, here


def _serve(requests: Connection) -> None:
    """The other process's loop: a reply per request, until this end of the pipe is the only one."""
    # A plugin that prints must not write into the output of the command that checks it.
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    while True:
        try:
            request: _Request = requests.recv()
        except EOFError:
            return
        try:
            requests.send(_reply(request))
        except Exception as error:
            requests.send(f"{type(error).__name__}: {error}")


def _reply(request: _Request) -> list[NDArray[np.floating]]:
    sys.path[:] = request.path
    make_importable(request.module, request.source)
    method, config, model = pickle.loads(request.payload)
    method(config)
    with torch.no_grad():
        return [logits.numpy() for logits in model.eval()(torch.from_numpy(request.images))]
