"""A recipe of several stages: each goes on from the policy that the one before it made.

    dataset: {name: folder, root: …}     # what stands beside `stages` holds for every stage
    stages:
      cold_start: {method: sft, policy: tiny, …}
      rl: {method: grpo, …}               # without a policy, or one without a path: the one of the stage before

A file without `stages` is one stage with no name. Reading one imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.errors import RecipeError
from segrl.training.recipe import Recipe, parse_recipe, read_values

_LATER = "(the policy of the stage before)"


@dataclass(frozen=True)
class Stage:
    """One stage. follows: whether it starts from the stage before; name: its directory's, empty for a plain recipe."""

    name: str
    recipe: Recipe
    follows: bool

    def directory(self, out: Path) -> Path:
        """Where this stage is kept."""
        return out / self.name if self.name else out

    def resolved(self, previous_model: Path | None) -> Recipe:
        """The recipe with the policy that it starts from."""
        if not self.follows:
            return self.recipe
        policy = self.recipe.policy.model_copy(update={"path": str(previous_model), "base": None})
        return self.recipe.model_copy(update={"policy": policy})


def load_stages(path: Path | str, overrides: Iterable[str] = ()) -> list[Stage]:
    """The stages of a recipe file, all validated; overrides as `load_recipe`, `stages.NAME.key=value` for one stage.

    Raises RecipeError as `load_recipe`, for stages that are no mapping, for a first stage without a policy,
    and for one that would start from another's adapter.
    """
    overrides = list(overrides)
    values = read_values(path, overrides)
    if "stages" not in values:
        return [Stage("", parse_recipe(values, str(path)), follows=False)]
    named = values.pop("stages")
    if not isinstance(named, dict) or not named or not all(isinstance(entry, dict) for entry in named.values()):
        raise RecipeError(f"{path}: stages is a mapping from a stage's name to its recipe")
    _check_overrides(overrides, named)
    stages: list[Stage] = []
    for name, own in named.items():
        entries = _merged(values, own)
        follows = bool(stages) and not _names_policy(entries)
        if follows:
            if stages[-1].recipe.peft is not None:
                raise RecipeError(f"{path}, stage {name}: the stage before leaves an adapter; name a policy.path")
            entries["policy"] = {**(entries.get("policy") or {}), "path": _LATER}
        stages.append(Stage(str(name), parse_recipe(entries, f"{path}, stage {name}"), follows))
    return stages


def _check_overrides(overrides: Iterable[str], stages: Mapping[str, Any]) -> None:
    """Raises RecipeError for a shared entry from outside that stages set themselves: it would have no effect there."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        setting = [f"stages.{name}.{key}" for name, own in stages.items() if _sets(own, key.split("."))]
        if setting:
            raise RecipeError(f"{override}: the stages set it themselves; say {' or '.join(setting)}")


def _sets(entries: Any, parts: Sequence[str]) -> bool:
    """Whether nested entries hold a key, or a plain value above it."""
    for part in parts:
        if not isinstance(entries, Mapping):
            return True
        if part not in entries:
            return False
        entries = entries[part]
    return True


def _names_policy(entries: Mapping[str, Any]) -> bool:
    """Whether a stage says which policy it starts from, and not only how that is shown images."""
    policy = entries.get("policy") or {}
    return "path" in policy if isinstance(policy, Mapping) else True


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` laid over `shared`; mappings are merged key by key."""
    both = dict(shared)
    for key, value in own.items():
        under = both.get(key)
        both[key] = _merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return both
