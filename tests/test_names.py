"""No file of the suite knows a method by name: methods come from plugins and recipes alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import anytime_bench
from anytime_bench.registry import methods

SUITE = Path(anytime_bench.__file__).parent
#: Names that are also plain words of the field.
WORDS = {"static", "ensemble", "timm"}


def test_no_string_or_name_of_the_suite_is_a_methods_name():
    names = "|".join(re.escape(name) for name in methods.names() if name not in WORDS)
    pattern = re.compile(rf"\b(?:{names})\b")
    places = []
    for path in sorted(SUITE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else getattr(node, "id", None)
            if isinstance(text, str) and pattern.search(text):
                places.append(f"{path.relative_to(SUITE)}:{node.lineno}: {pattern.search(text).group()}")
    assert places == []
