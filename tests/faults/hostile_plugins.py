"""Plugins that end, disturb, hang, lie or break off: one line of code each, at one place of a small method."""

from __future__ import annotations

TEMPLATE = """
import atexit, builtins, ctypes, gc, json, logging, os, random, signal, subprocess, sys, threading, time, warnings
import numpy
import torch
from torch import nn
from anytime_bench import AnytimeModel, Method, MethodCard

class Unspeakable(BaseException):
    def __str__(self): raise RuntimeError("no words")

def again(f, *a):
    while True:
        try: f(*a)
        except BaseException: pass

{module}

class Net(AnytimeModel):
    num_exits, ticks = 2, (1, 2)
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 10), nn.Linear(64, 10)
    def stream(self, images):
        {stream}
        x = images.flatten(1)
        yield self.a(x)
        {middle}
        yield self.b(x)

class Hostile(Method):
    card = MethodCard("Hostile")
    {body}
    def build(self, task):
        {build}
        return Net()
    def training_loss(self, model, images, targets, progress):
        {loss}
        return super().training_loss(model, images, targets, progress)
"""
PLACES = ("module", "stream", "middle", "body", "build", "loss")

#: Place and code by what it does.
HOSTILE: dict[str, tuple[str, str]] = {
    "exit at import": ("module", "sys.exit(0)"),
    "_exit at import": ("module", "os._exit(0)"),
    "exit in build": ("build", "sys.exit(0)"),
    "_exit in build": ("build", "os._exit(0)"),
    "exit in stream": ("stream", "sys.exit(0)"),
    "_exit in training": ("loss", "os._exit(0)"),
    "exit with text": ("loss", "sys.exit('bye')"),
    "becomes another program": ("loss", "os.execv('/bin/true', ['true'])"),
    "becomes another program at import": ("module", "os.execvp('true', ['true'])"),
    "a fork in training": ("loss", "os.fork()"),
    "a fork at import": ("module", "os.fork()"),
    "raises at import": ("module", "raise ValueError('no')"),
    "raises what is no exception": ("module", "raise 'no'"),
    "a syntax error": ("module", "def f(:"),
    "a null byte": ("module", "x = '\\0'"),
    "raises BaseException": ("loss", "raise BaseException('base')"),
    "raises without words": ("loss", "raise Unspeakable()"),
    "raises without words in build": ("build", "raise Unspeakable()"),
    "raises GeneratorExit": ("loss", "raise GeneratorExit"),
    "raises StopIteration": ("loss", "raise StopIteration"),
    "raises StopIteration in stream": ("stream", "raise StopIteration"),
    "raises MemoryError": ("loss", "raise MemoryError"),
    "raises RecursionError": ("loss", "f = lambda: f(); f()"),
    "raises markup": ("loss", "raise RuntimeError('[/red] [bold')"),
    "raises lines and controls": ("loss", "raise RuntimeError('a\\nb\\x1b[2J\\ud800')"),
    "raises a megabyte": ("loss", "raise RuntimeError('x' * 10**6)"),
    "raises bytes": ("loss", "raise RuntimeError(b'\\xff')"),
    "raises a group": ("loss", "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])"),
    "interrupts itself": ("loss", "raise KeyboardInterrupt"),
    "hangs at import": ("module", "time.sleep(600)"),
    "loops at import": ("module", "while True: pass"),
    "hangs in build": ("build", "time.sleep(600)"),
    "hangs in stream": ("stream", "time.sleep(600)"),
    "prints": ("module", "print('{}'); print('[1]')"),
    "prints in training": ("loss", "print('chatter')"),
    "closes standard output": ("loss", "sys.stdout.close()"),
    "replaces standard error": ("module", "sys.stderr = None"),
    "replaces print": ("module", "builtins.print = None"),
    "replaces sys.exit": ("module", "sys.exit = lambda *a: None; raise ValueError('no')"),
    "changes folder": ("module", "os.chdir('/')"),
    "changes folder in training": ("loss", "os.chdir('/')"),
    "removes the folder": ("loss", "import shutil; shutil.rmtree('runs')"),
    "another number of threads": ("module", "torch.set_num_threads(3)"),
    "another dtype": ("module", "torch.set_default_dtype(torch.float64)"),
    "another dtype in build": ("build", "torch.set_default_dtype(torch.float64)"),
    "no gradients": ("module", "torch.set_grad_enabled(False)"),
    "no gradients in training": ("loss", "torch.set_grad_enabled(False)"),
    "benchmarking": ("loss", "torch.backends.cudnn.benchmark = True"),
    "other random numbers": ("loss", "torch.manual_seed(int(time.time()))"),
    "warnings as errors": ("module", "warnings.simplefilter('error')"),
    "NaN": ("loss", "return model(images).sum() * float('nan')"),
    "no tensor": ("loss", "return 'a loss'"),
    "no loss": ("loss", "return None"),
    "no gradient": ("loss", "return torch.zeros(())"),
    "a vector for a loss": ("loss", "return model(images).flatten()"),
    "no model": ("build", "return None"),
    "a class for a model": ("build", "return Net"),
    "one exit too few": ("middle", "return"),
    "one exit too many": ("middle", "yield self.a(x)"),
    "NaN answers": ("middle", "yield self.b(x) * float('nan'); return"),
    "wrong shape": ("middle", "yield self.b(x)[0]; return"),
    "text for an answer": ("middle", "yield 'an answer'; return"),
    "an empty name": ("body", "name = ''"),
    "a number for a name": ("body", "name = 5"),
    "a path for a name": ("body", "name = '../../hostile'"),
    "a surrogate in its name": ("body", "name = '\\ud800'"),
    "no card": ("body", "card = None"),
    "bytes in its card": ("body", "card = MethodCard(b'\\xff')"),
    "a set in its card": ("body", "card = MethodCard('Hostile', deviations={1, 2})"),
    "no options": ("body", "Config = 5"),
    "weights from itself": ("body", "weights_from = 'hostile'"),
    "weights from nobody": ("body", "weights_from = 'nobody'"),
    "a skip that is no text": ("body", "skip = lambda self, task: 5"),
    "a skip that raises": ("body", "skip = lambda self, task: 1 / 0"),
    "a name that is the suite's": ("body", "name = 'msdnet'"),
    "options that change": ("body", "Config = type('C', (), {'__annotations__': {'a': list}, 'a': []})"),
}

#: Only in a process of their own; the status may be a signal's.
FATAL: dict[str, tuple[str, str]] = {
    "kills itself": ("loss", "os.kill(os.getpid(), 9)"),
    "aborts": ("loss", "os.abort()"),
    "reads where nothing is": ("loss", "ctypes.string_at(0)"),
    "a thread that never ends": ("module", "threading.Thread(target=again, args=(time.sleep, 1)).start()"),
    "catches its time limit": ("module", "again(time.sleep, 1)"),
    "closes all files": ("loss", "os.closerange(0, 3)"),
}


def source(place: str, code: str) -> str:
    """The plugin's text; a hostile line stands alone where it stands."""
    return TEMPLATE.format(**{**dict.fromkeys(PLACES, "pass"), place: code})
