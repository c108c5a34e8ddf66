"""A second Python process that unpickles a model and answers, kept for all checks of this process.

Started once, because importing torch costs seconds. Speaks pickles, one per message, over its pipes. The parent's
import path goes along, and a plugin file is loaded under its parent's module name, since it is on no path.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import inspect
import os
import pickle
import subprocess
import sys
import threading
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anytime_bench.conformance.fixture import CheckFailure

TIMEOUT = 120.0


def answers_elsewhere(payload: bytes, images: Tensor, method: type) -> list[Tensor]:
    """Answers to ``images (B, D, H, W)`` of the pickled ``(method class, config, model)``, from another process.

    Raises ``CheckFailure`` with the other process's error where it cannot unpickle or run the model.
    """
    module = method.__module__
    source = inspect.getsourcefile(method)
    request = {"path": sys.path, "module": module, "source": source, "payload": payload, "images": images.numpy()}
    process = _process()
    if process.poll() is not None:
        _process.cache_clear()
        process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    guard = threading.Timer(TIMEOUT, process.kill)
    guard.start()
    try:
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        reply: Any = pickle.load(process.stdout)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        raise CheckFailure(
            f"the other process died while it unpickled or ran the model, or took over {TIMEOUT:.0f} s: "
            "look for code that runs when the module is imported"
        ) from error
    finally:
        guard.cancel()
    if isinstance(reply, str):
        raise CheckFailure(
            f"another process cannot use it ({reply}): define the classes at the top level of an importable module"
        )
    return [torch.from_numpy(logits) for logits in reply]


def start_other_process() -> None:
    """Start the other process now, so that it is ready when it is needed."""
    _process()


@cache
def _process() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = subprocess.Popen(
        [sys.executable, "-c", "from anytime_bench.conformance.child_process import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    atexit.register(process.kill)
    return process


def serve() -> None:
    """The other process's loop: requests on stdin, replies on stdout, until stdin ends."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    # A plugin that prints must not write into the replies.
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        try:
            reply: object = _reply(request)
        except Exception as error:
            reply = f"{type(error).__name__}: {error}"
        pickle.dump(reply, replies)
        replies.flush()


def _reply(request: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    sys.path[:] = request["path"]
    _make_importable(request["module"], request["source"])
    method, config, model = pickle.loads(request["payload"])
    method(config)
    with torch.no_grad():
        return [logits.numpy() for logits in model.eval()(torch.from_numpy(request["images"]))]


def _make_importable(name: str, source: str | None) -> None:
    """Import module ``name``, from the file ``source`` where it is a plugin file that no path leads to."""
    known = sys.modules.get(name)
    if known is not None and name != "__main__" and getattr(known, "__file__", None) == source:
        return
    if name != "__main__":
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            pass
        else:
            return
    # As in multiprocessing, a script gets another name here, so that its ``__main__`` block does not run.
    alias = "__mp_main__" if name == "__main__" else name
    spec = importlib.util.spec_from_file_location(alias, source) if source else None
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"module {name!r} has no file to load it from")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = sys.modules[alias] = module
    spec.loader.exec_module(module)
