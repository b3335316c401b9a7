"""From the `rewards` section of a recipe to reward terms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segrl.errors import RecipeError
from segrl.plugins import import_path
from segrl.rewards import terms
from segrl.rewards.rollout import Rollout
from segrl.text import did_you_mean

TermFunction = Callable[..., float | None]

TERMS: dict[str, TermFunction] = {
    "iou": terms.iou,
    "iou_tiers": terms.iou_tiers,
    "s_measure": terms.s_measure,
    "format_think": terms.format_think,
    "format_answer": terms.format_answer,
    "format_fields": terms.format_fields,
    "format": terms.format_all,
    "no_target": terms.no_target,
    "boundary_iou": terms.boundary_iou,
    "count_match": terms.count_match,
    "matching": terms.matching,
    "matching_box_point": terms.matching_box_point,
    "points_on_target": terms.points_on_target,
    "number_of_points": terms.number_of_points,
    "non_repeat": terms.non_repeat,
    "length_budget": terms.length_budget,
    "improvement": terms.improvement,
    "first_iou": terms.first_iou,
    "turn_cost": terms.turn_cost,
}
"""The terms that a recipe can name."""

CHECKS: dict[str, Callable[..., None]] = {
    "iou_tiers": terms.check_tiers,
    "boundary_iou": terms.check_boundary_iou,
    "matching": terms.check_matching,
    "matching_box_point": terms.check_matching_box_point,
    "number_of_points": terms.check_number_of_points,
    "non_repeat": terms.check_non_repeat,
    "length_budget": terms.check_length_budget,
}
"""Checks of a term's options, made before a run."""


@dataclass(frozen=True)
class RewardTerm:
    """A term with its weight and options, as a recipe asks for it. path: the import path of one of one's own."""

    name: str
    weight: float
    function: TermFunction
    options: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None

    def __call__(self, rollout: Rollout) -> float | None:
        """The term's value, without the weight."""
        return self.function(rollout, **self.options)


def build_terms(section: Mapping[str, Any]) -> tuple[RewardTerm, ...]:
    """The terms of a recipe's `rewards`: each name with a weight, or with a mapping.

        iou: 0.7
        iou_tiers: {weight: 1, tiers: [[0.5, 1]]}
        mine: {weight: 0.1, python: my_package.my_term}

    In a mapping `weight` is needed, `python` names a function of one's own by import path, and
    every other key is an option of the term. Raises RecipeError for an unknown term or option
    (naming the nearest valid one), a weight that is no number, and an import path that leads nowhere.
    """
    if not section:
        raise RecipeError(f"rewards is empty: name at least one of {', '.join(TERMS)} with its weight")
    return tuple(_build(str(name), value) for name, value in section.items())


def _build(name: str, value: Any) -> RewardTerm:
    options = dict(value) if isinstance(value, Mapping) else {"weight": value}
    weight = options.pop("weight", None)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise RecipeError(f"rewards.{name} needs a number as its weight, not {weight!r}")
    path = str(options.pop("python")) if "python" in options else None
    if path is None and name not in TERMS:
        raise RecipeError(f"unknown reward term {name!r}; {did_you_mean(name, TERMS)}")
    function = TERMS[name] if path is None else _import(name, path)
    known, takes_any = _options(function)
    for key in options:
        if key not in known and not takes_any:
            hint = did_you_mean(key, known) if known else "it takes none besides weight"
            raise RecipeError(f"rewards.{name}: unknown option {key!r}; {hint}")
    try:
        if path is None and name in CHECKS:
            CHECKS[name](**options)
    except (ValueError, TypeError, LookupError) as error:
        raise RecipeError(f"rewards.{name}: {error}") from error
    return RewardTerm(name, float(weight), function, options, path)


def _import(name: str, path: str) -> TermFunction:
    try:
        function = import_path(path)
    except ImportError as error:
        raise RecipeError(f"rewards.{name}: cannot import {path!r} ({error})") from error
    if not callable(function):
        raise RecipeError(f"rewards.{name}: {path!r} is no function")
    return function


def _options(function: TermFunction) -> tuple[list[str], bool]:
    """The names of a term's options, all its parameters but the rollout, and whether it takes any others too."""
    _, *parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD], any(p.kind is p.VAR_KEYWORD for p in parameters)
