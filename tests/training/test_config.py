"""Defaults < recipe < the recipe's exception < command line; every shipped recipe is valid for every shipped method."""

from __future__ import annotations

from importlib.resources import files

import pytest

from anytime_bench import UserError, load_method
from anytime_bench.methods.plugins import method_class, snake_case
from anytime_bench.registry import methods
from anytime_bench.runs.plan import resolve
from anytime_bench.training.config import build_config
from anytime_bench.training.optimisers import learning_rate
from anytime_bench.training.recipes import recipe_for

RECIPES = sorted(f.name.removesuffix(".yaml") for f in files("baselines.recipes").iterdir() if f.name.endswith(".yaml"))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("method", methods.names())
def test_every_recipe_fits_every_method(recipe, method):
    row = resolve(method, recipe_for(recipe.partition(".")[0], recipe))
    assert row.config.recipe_name == recipe


def test_layers_override_each_other_in_order():
    target = method_class("msdnet")[0]
    recipe = {
        "training": {"epochs": 7, "lr": 0.5},
        "options": {"channels": 4, "no_such_option": 1},
        "methods": {"msdnet": {"training": {"lr": 0.25}, "why": "for the test"}},
    }
    config = build_config("msdnet", target, recipe, ["epochs=9"])
    assert (config.training.epochs, config.training.lr, config.options.channels) == (9, 0.25, 4)
    assert config.training.momentum == 0.9, "what nobody sets keeps its default"


def test_a_typo_in_a_recipe_names_the_nearest_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {epoch: 3}\n")
    with pytest.raises(UserError, match=r"unknown key 'epoch'\. Did you mean epochs"):
        resolve("serial_ce", recipe_for("digits", str(path)))
    path.write_text("trainig: {epochs: 3}\n")
    with pytest.raises(UserError, match=r"unknown section 'trainig'\. Did you mean training"):
        recipe_for("digits", str(path))


def test_a_mapping_where_a_recipe_needs_a_list_is_one_line():
    with pytest.raises(UserError, match=r"the recipe's section 'evaluation': "):
        build_config("serial_ce", method_class("serial_ce")[0], {"evaluation": {"timing_batches": {"small": 1}}})


def test_a_cpu_takes_the_cut_recipe_and_a_gpu_the_full_one():
    assert recipe_for("cifar10_jpeg", None, "cpu")["name"] == "cifar10_jpeg.cpu"
    assert recipe_for("cifar10_jpeg", None, "cuda")["name"] == "cifar10_jpeg"
    assert recipe_for("a_task_of_mine", None, "cpu")["name"] == "default"


def test_an_override_of_the_weights_sources_option_reaches_it():
    row = resolve("product_of_experts/cascaded_td", recipe_for("digits"), ["lam=0.5", "epochs=3"])
    assert row.weights_source is not None
    assert row.weights_source.config.options.lam == 0.5
    assert row.weights_source.config.training.epochs == 3


def test_load_method_checks_its_options():
    assert load_method("cascaded_td", lam=0.25).config.lam == 0.25
    with pytest.raises(UserError, match=r"no option 'lamda'\. Did you mean lam"):
        load_method("cascaded_td", lamda=0.25)


@pytest.mark.parametrize(("name", "expected"), [("TwoExits", "two_exits"), ("SDNLike", "sdn_like"), ("Net", "net")])
def test_class_names_become_method_names(name, expected):
    assert snake_case(name) == expected


def test_schedules():
    config = build_config("msdnet", method_class("msdnet")[0], {}, ["lr=1.0", "epochs=10", "warmup=2"]).training
    assert learning_rate(config, 1.0) == pytest.approx(0.5, rel=0.02)
    assert learning_rate(config, 2.0) == pytest.approx(1.0)
    assert learning_rate(config, 6.0) == pytest.approx(0.5)
    assert learning_rate(config, 10.0) == pytest.approx(0.0)
    config.schedule, config.milestones, config.gamma, config.warmup = "step", [3, 6], 0.1, 0.0
    assert [learning_rate(config, e) for e in (2.9, 3.0, 6.0)] == pytest.approx([1.0, 0.1, 0.01])
