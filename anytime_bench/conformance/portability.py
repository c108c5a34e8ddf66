"""Checks that a method travels: its card, its options through OmegaConf, itself and its model to another process."""

from __future__ import annotations

import dataclasses
import pickle

from omegaconf import OmegaConf

from anytime_bench.conformance.child_process import answers_elsewhere
from anytime_bench.conformance.fixture import Subject, forward_answers, require, require_equal
from anytime_bench.methods.contract import AnytimeModel, MethodCard


def check_card(subject: Subject) -> None:
    """``card`` is a ``MethodCard`` with a title, for the leaderboard's row."""
    card = getattr(subject.method, "card", None)
    require(
        isinstance(card, MethodCard) and bool(card.title.strip()),
        f"card is {card!r}: set card = MethodCard(title=...) on the method's class",
    )


def check_builds(subject: Subject) -> None:
    """``build`` gives an ``AnytimeModel`` whose ``num_exits`` is a whole number above 0 and which has ``ticks``."""
    model = subject.model()
    exits = getattr(model, "num_exits", None)
    require(
        isinstance(model, AnytimeModel) and isinstance(exits, int) and exits > 0 and hasattr(model, "ticks"),
        f"build gave {type(model).__name__} with num_exits = {exits!r} and ticks = {getattr(model, 'ticks', None)!r}: "
        "set num_exits (an int above 0) and ticks (one number per exit) on the model",
    )


def check_config(subject: Subject) -> None:
    """Options written as YAML and read back build the same options, as in a record or on the command line."""
    method = subject.method
    require(
        isinstance(method.Config, type) and dataclasses.is_dataclass(method.Config),
        f"Config is {method.Config!r}: decorate it with @dataclass",
    )
    written = OmegaConf.to_yaml(OmegaConf.structured(method.config))
    read = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(method.Config), OmegaConf.create(written)))
    # Compared as YAML: OmegaConf reads a tuple back as a list, which is no loss.
    again = OmegaConf.to_yaml(OmegaConf.structured(read))
    require(
        again == written,
        f"options change when written and read back, from {written.split()} to {again.split()}: "
        "leave the fields as they were given, and derive other values in build",
    )


def check_pickles(subject: Subject) -> None:
    """The method and its model, unpickled in another process, give the same answers there."""
    method, model, images = subject.method, subject.model(), subject.images("pickles", 2)
    try:
        payload = pickle.dumps((type(method), method.config, model))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        require(
            False,
            f"cannot be pickled ({error}): define classes at the top level of a module and keep lambdas out of them",
        )
    require_equal(
        answers_elsewhere(payload, images, type(method)),
        forward_answers(model, images),
        lambda k: f"exit {k} answers differently in another process: keep all state in the model",
    )
