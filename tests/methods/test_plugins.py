"""Plugin files: every kind registers from one file, sources and identity follow what the file imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from anytime_bench.corruptions.catalogue import KINDS, named
from anytime_bench.errors import UserError
from anytime_bench.methods.plugins import load_plugin, snake_case
from anytime_bench.methods.sources import plugin_sources, sources_sha256
from anytime_bench.registry import Registry, methods, tasks
from anytime_bench.training.recipes import recipe_for

EVERYTHING = """
import numpy as np
import anytime_bench as ab

def read(data_root, argument):
    rng = np.random.default_rng(0)
    split = lambda n: ab.Split(rng.integers(0, 255, (n, 1, 8, 8), dtype=np.uint8), np.arange(n) % 2)
    return ab.make_task("stripes", "Stripes", ("a", "b"), split(20), split(10), split(10))

ab.register_task("stripes", read)
ab.register_corruption("negative", lambda pixels, draws: 1 - pixels)
ab.register_recipe("stripes", {"training": {"epochs": 3}})
"""


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """What a test registers is gone after it, and so are the modules and folders it put in place."""
    path, modules = list(sys.path), set(sys.modules)
    with ExitStack() as stack:
        for registry in list(Registry.all.values()):
            stack.enter_context(registry.temporary())
        yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("anytime_bench_plugin_") or name in ("net", "parts", "parts.net"):
            del sys.modules[name]


def test_a_file_without_a_method_registers_task_corruption_and_recipe(tmp_path: Path) -> None:
    from anytime_bench.tasks.loading import load_task

    file = tmp_path / "everything.py"
    file.write_text(EVERYTHING)
    assert load_plugin(str(file)) == {"task": ["stripes"], "corruption": ["negative"], "recipe": ["stripes"]}
    assert load_task("stripes").card.classes == ("a", "b")
    assert KINDS["negative"].family == "plugin"
    assert "negative" not in named("paper") + named("common") + named("all")
    assert named("focus,negative") == ("focus", "negative")
    assert recipe_for("stripes")["training"] == {"epochs": 3}
    assert load_plugin(str(file)) == load_plugin(str(file)), "loading twice says the same"


def test_a_file_that_was_loaded_before_registers_again_what_was_forgotten_since(tmp_path: Path) -> None:
    """Python runs a module once; a second load must not name kinds that nothing knows."""
    file = tmp_path / "everything.py"
    file.write_text(EVERYTHING + "\nclass TwoOfIt(ab.Method):\n    def build(self, task): ...\n")
    with ExitStack() as stack:
        for registry in Registry.all.values():
            stack.enter_context(registry.temporary())
        first = load_plugin(str(file))
    assert "stripes" not in tasks.names()
    assert (
        load_plugin(str(file))
        == first
        == {"method": ["two_of_it"], "task": ["stripes"], "corruption": ["negative"], "recipe": ["stripes"]}
    )
    assert "stripes" in tasks.names()
    assert "two_of_it" in methods.names()
    assert recipe_for("stripes")["training"] == {"epochs": 3}
    assert KINDS["negative"].family == "plugin"


def two_files(folder: Path, width: int = 8, comment: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(f"{comment}\nWIDTH = {width}\n")
    plugin = folder / "mine.py"
    plugin.write_text(
        "from anytime_bench import Method, MethodCard\n"
        "class Mine(Method):\n"
        "    card = MethodCard('Mine')\n"
        "    def build(self, task):\n"
        "        from net import WIDTH\n"
        "        return WIDTH\n"
    )
    return plugin


def test_identity_follows_what_the_imported_files_compile_to(tmp_path: Path) -> None:
    plain = plugin_sources(two_files(tmp_path / "a"))
    assert {name: path.name for name, path in plain.items()} == {"__main__": "mine.py", "net": "net.py"}
    identity = sources_sha256(plain)
    assert sources_sha256(plugin_sources(two_files(tmp_path / "b", comment="# moved and commented"))) == identity
    assert sources_sha256(plugin_sources(two_files(tmp_path / "c", width=9))) != identity


def test_a_plugin_of_two_files_imports_its_neighbour_even_inside_a_function(tmp_path: Path) -> None:
    assert load_plugin(str(two_files(tmp_path / "a"))) == {"method": ["mine"]}
    target, origin = methods.resolve("mine")
    assert target().build(None) == 8
    assert origin.sha256 == sources_sha256(plugin_sources(tmp_path / "a" / "mine.py"))


def test_packages_are_followed_and_libraries_are_not(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("from .net import depth\n")
    (tmp_path / "parts" / "net.py").write_text("import torch\nfrom anytime_bench import Method\ndepth = 3\n")
    file = tmp_path / "mine.py"
    file.write_text("import json, numpy\nimport parts\n")
    assert list(plugin_sources(file)) == ["__main__", "parts", "parts.net"]


def test_two_plugins_whose_modules_share_a_name_are_refused(tmp_path: Path) -> None:
    first, second = two_files(tmp_path / "a"), two_files(tmp_path / "b")
    second.rename(second.with_name("other.py"))
    for file in (first, second.with_name("other.py")):
        file.write_text("import net\n" + file.read_text().replace("Mine", file.stem.title()))
    load_plugin(str(first))
    with pytest.raises(UserError, match=r"imports 'net' from '.*b.*', but another 'net' was imported from '.*a"):
        load_plugin(str(second.with_name("other.py")))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("TwoExits", "two_exits"), ("SDNLike", "sdn_like"), ("SDN", "sdn"), ("Net2", "net2"), ("MyNetX", "my_net_x")],
)
def test_class_names_become_method_names(name: str, expected: str) -> None:
    assert snake_case(name) == expected
