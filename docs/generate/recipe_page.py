"""The page on recipes: every key from the models that check one, every reward term, every shipped recipe."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from prose import cell, code, prose, table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from segrl.rewards.registry import TERMS
from segrl.training.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
WORDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", dict: "mapping", Any: "anything"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

HEAD = """# Recipe reference

Every key of a recipe, every reward term and every shipped recipe, made from the code when this site is built.
[Recipes](../recipes.md) tells how they are used, stages and overrides included. An unknown key is an error that names
the nearest valid one.

On the command line each key may be replaced: `segrl train RECIPE --out DIR evaluation.batch_size=16`.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD, *_keys(), "## Reward terms", _TERMS, *_terms(), "## Shipped recipes", *_shipped()]
    return "\n\n".join(parts) + "\n"


def _keys() -> Iterator[str]:
    yield "## All of it"
    yield _model(Recipe, "")
    for path, model in _sections(Recipe, ""):
        yield f"## {path} {{ #{_anchor(path)} }}"
        yield _model(model, path)


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """(dotted key, its model) for every part that has keys of its own, the outer before the inner."""
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is not None:
            key = f"{path}.{name}" if path else name
            yield key, inner
            yield from _sections(inner, key)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    arms = get_args(annotation) or (annotation,)
    return next((arm for arm in arms if inspect.isclass(arm) and issubclass(arm, BaseModel)), None)


def _model(model: type[BaseModel], path: str) -> str:
    rows = [_row(name, field, path) for name, field in model.model_fields.items()]
    more = "\n\nFurther keys are passed on as options." if model.model_config.get("extra") == "allow" else ""
    return f"{prose(model.__doc__)}\n\n{table(('key', 'value', 'default'), rows)}{more}"


def _row(name: str, field: FieldInfo, path: str) -> tuple[str, str, str]:
    key = f"{path}.{name}" if path else name
    if _model_of(field.annotation) is not None:
        return code(name), f"[section](#{_anchor(key)})", "needed" if field.is_required() else ""
    value = ", ".join([_type(field.annotation), *_bounds(field)])
    return code(name), cell(value), "needed" if field.is_required() else _default(field)


def _bounds(field: FieldInfo) -> Iterator[str]:
    """`≥ 1` and the like."""
    for limit in field.metadata:
        yield from (f"{sign} {getattr(limit, word)}" for word, sign in BOUNDS.items() if hasattr(limit, word))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "" if value in (None, "", {}) else code(value)


def _type(annotation: Any) -> str:
    """The kind of a value in words."""
    origin, arms = get_origin(annotation), [arm for arm in get_args(annotation) if arm is not NoneType]
    if origin is Literal:
        return " or ".join(code(value) for value in arms)
    if origin in (Union, UnionType):
        return " or ".join(_type(arm) for arm in arms)
    if origin is tuple:
        return f"list of {len(arms)} ({_type(arms[0])} each)"
    return WORDS.get(origin or annotation, str(annotation))


def _anchor(path: str) -> str:
    return path.replace(".", "-").replace("_", "-")


_TERMS = """A term stands under `rewards` with its weight, or with a mapping of its weight and options:

```yaml
rewards:
  iou: 0.7
  length_budget: {weight: 0.1, budget: 200}
  mine: {weight: 0.2, python: my_package.my_term}   # a function of your own
```

A term that does not apply to a completion is left out of the sum."""


def _terms() -> Iterator[str]:
    for name, function in TERMS.items():
        options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        rows = [(code(p.name), code(p.default)) for p in options]
        yield f"### {name} {{ #term-{_anchor(name)} }}"
        yield "\n\n".join(part for part in (prose(function.__doc__), table(("option", "default"), rows)) if part)


def _shipped() -> Iterator[str]:
    for path in sorted(RECIPES.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        yield f"### {path.stem} {{ #recipe-{_anchor(path.stem)} }}"
        yield _comment(text)
        fenced = "\n".join(["```yaml", _body(text), "```"])
        yield f'??? note "recipes/{path.name}"\n\n{_indented(fenced)}'


def _head_lines(text: str) -> list[str]:
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:end]


def _comment(text: str) -> str:
    """The comment that a recipe begins with; its indented lines are commands."""
    said = []
    for line in _head_lines(text):
        words = line.removeprefix("#").removeprefix(" ")
        said.append(f"    {words.strip()}" if words.startswith("  ") else cell(words))
    return "\n".join(said)


def _body(text: str) -> str:
    return "\n".join(text.splitlines()[len(_head_lines(text)) :])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
