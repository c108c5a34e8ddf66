"""Titles of methods and tasks read from their source, so that ``list`` imports no plugin and no torch.

A method's title is that of its ``card``, a task's the first line of its reader's docstring.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from anytime_bench.registry import Origin, Registry


def titled(registry: Registry) -> Iterable[tuple[Origin, str]]:
    """Every name's origin and title; an empty title where the source does not say it plainly."""
    added = registry.added()
    for origin in registry.origins():
        if origin.name in added:
            yield origin, _title_of_object(registry.resolve(origin.name)[0])
        else:
            yield origin, title_in_source(origin.target)


def rules_or_scores(what: str) -> Iterable[tuple[Origin, str]]:
    """Every score's, or stopping rule's, origin and title."""
    # Both need NumPy, which no other list does.
    from anytime_bench.scores.catalogue import SCORES
    from anytime_bench.scores.stopping_rules import RULES

    registry = SCORES if what == "scores" else RULES
    for origin in registry.origins():
        yield origin, str(registry.resolve(origin.name)[0].title)


def title_in_source(target: str) -> str:
    """The title of ``module:name`` without importing the module."""
    module, _, name = target.partition(":")
    path = _source_of(module)
    if path is None:
        return ""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    definitions = {
        node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    node = definitions.get(name)
    if node is None:
        return ""
    return _card_title(node, definitions) or _first_line(ast.get_docstring(node))


def _title_of_object(target: object) -> str:
    title = getattr(getattr(target, "card", None), "title", "")
    return title if isinstance(title, str) and title else _first_line(inspect.getdoc(target))


def _first_line(text: str | None) -> str:
    return text.splitlines()[0].rstrip(".") if text else ""


def _card_title(node: ast.AST, definitions: dict[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]) -> str:
    """The first argument or ``title=`` of the call that a class assigns to ``card``, or its base's."""
    if not isinstance(node, ast.ClassDef):
        return ""
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Call) and any(isinstance(t, ast.Name) and t.id == "card" for t in targets):
            titles = [*value.args[:1], *(keyword.value for keyword in value.keywords if keyword.arg == "title")]
            return next((t.value for t in titles if isinstance(t, ast.Constant) and isinstance(t.value, str)), "")
    bases = [definitions[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in definitions]
    return next((title for base in bases if (title := _card_title(base, definitions))), "")


def _source_of(module: str) -> Path | None:
    """The file of a module; finding a top-level package imports nothing, finding a module inside one would."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
        for depth in range(len(rest)):
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = ".".join([top, *rest[: depth + 1]])
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None
