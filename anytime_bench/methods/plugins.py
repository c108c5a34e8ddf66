"""Plugins: import a file or module and register every method it defines; methods by name with checked options."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from anytime_bench.errors import UserError, describe, did_you_mean
from anytime_bench.methods.contract import Method
from anytime_bench.registry import Origin, methods


def load_plugin(plugin: str) -> list[str]:
    """Import a plugin file or module and register each ``Method`` it defines; returns the names.

    A method's name is its ``name`` attribute if it has one, else its class name in snake case. A module may also
    call ``anytime_bench.registry.methods.add`` or ``tasks.add`` itself.
    """
    from anytime_bench.methods.contract import Method

    before = set(methods.names())
    path = Path(plugin)
    origin = {}
    if plugin.endswith(".py") or path.exists():
        if not path.is_file():
            raise UserError(f"plugin file '{plugin}' does not exist. Give the path of a .py file or a module name.")
        origin = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        # The hash in the module's name keeps two files of one name apart, and pickles need it in sys.modules.
        module_name = f"anytime_bench_plugin_{path.stem}_{origin['sha256'][:8]}"
        if module_name in sys.modules:
            module = sys.modules[module_name]
        else:
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None:
                raise UserError(f"plugin file '{plugin}' is not a Python file (expected a name ending in .py).")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException as error:
                del sys.modules[module_name]
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise UserError(f"plugin '{plugin}' fails to import: {describe(error)}") from error
    else:
        try:
            module = importlib.import_module(plugin)
        except Exception as error:
            raise UserError(f"plugin '{plugin}' fails to import: {describe(error)}") from error
    names = []
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__:
            if inspect.isabstract(value):
                continue
            name = getattr(value, "name", None) or snake_case(value.__name__)
            methods.add(name, value, Origin(name, target=f"{module.__name__}:{value.__name__}", **origin))
            names.append(name)
    names += sorted(set(methods.names()) - before - set(names))
    if not names:
        raise UserError(f"plugin '{plugin}' defines no Method. Expected a class derived from anytime_bench.Method.")
    return names


def snake_case(name: str) -> str:
    """``TwoExits`` -> ``two_exits``, ``SDNLike`` -> ``sdn_like``."""
    out = ""
    for i, letter in enumerate(name):
        starts_word = letter.isupper() and i > 0
        after_lower = starts_word and not name[i - 1].isupper()
        before_lower = starts_word and name[i - 1].isupper() and name[i + 1 : i + 2].islower()
        out += ("_" if after_lower or before_lower else "") + letter.lower()
    return out


def method_class(name: str) -> tuple[type[Method], Origin, str | None]:
    """The class, its origin and the variant (the part behind the slash of ``family/variant``), if any."""
    from anytime_bench.methods.contract import Method

    family, slash, variant = name.partition("/")
    target, origin = methods.get(name if not slash or name in methods.names() else family)
    if not (inspect.isclass(target) and issubclass(target, Method)):
        raise UserError(f"method '{name}' of {origin} is not a class derived from anytime_bench.Method.")
    if slash and family == origin.name and target.variant_option is None:
        raise UserError(
            f"method '{family}' has no variants, so '{name}' does not exist.{did_you_mean(name, methods.names())}"
        )
    return target, origin, variant if slash and name != origin.name else None


def load_method(name: str, **config: Any) -> Method:
    """A method by name with its options, checked: ``load_method("cascaded_td", lam=0.5)``."""
    from anytime_bench.methods.options import build_options

    target, _, variant = method_class(name)
    return target(build_options(name, target, config, variant))
