"""ms-swift's reward plugin: a class for its table of outcome rewards.

Written for ms-swift 4 (`swift.rewards`) and 3 (`swift.plugin`), read in their sources; their packages are
no part of our tests, which hold it to the same calls: `orms[name]()` or `orms[name](args=…)`, then
`(completions: list[str], **columns) -> list[float]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from segrl.errors import ModelError
from segrl.integrations.recipe_reward import from_recipe, text_of

HOMES = ("swift.rewards", "swift.plugin")
"""Where ms-swift keeps `ORM` and `orms`: version 4 and on, version 3."""


def register(name: str, recipe: Path | str, overrides: Iterable[str] = (), *, stage: str | None = None) -> type:
    """Puts a recipe's reward into ms-swift's `orms` under `name`, for `--reward_funcs name`; returns the class.

    The data set needs a column `ground_truth` (`RecipeReward.rows`). Raises ModelError without ms-swift.
    """
    home = _home()
    plugin = orm(recipe, overrides, stage=stage, base=home.ORM)
    home.orms[name] = plugin
    return plugin


def orm(recipe: Path | str, overrides: Iterable[str] = (), *, stage: str | None = None, base: type = object) -> type:
    """The plugin's class: made without arguments or with `args`, it loads the recipe's segmenter."""
    settings = tuple(overrides)

    def init(self: Any, args: Any = None, **options: Any) -> None:
        self.args, self.reward = args, from_recipe(recipe, settings, stage=stage)

    def call(self: Any, completions: Sequence[Any], ground_truth: Sequence[str], **columns: Any) -> list[float]:
        batch = self.reward.score([text_of(one) for one in completions], ground_truth, columns.get("is_truncated"))
        return [0.0 if total is None else total for total in batch.totals]

    about = "A segrl recipe's reward as one of ms-swift's; a completion to which no term applies gets 0."
    return type("SegrlReward", (base,), {"__init__": init, "__call__": call, "__doc__": about})


def _home() -> Any:
    for name in HOMES:
        try:
            home = import_module(name)
        except ImportError:
            continue
        if hasattr(home, "ORM") and hasattr(home, "orms"):
            return home
    raise ModelError("ms-swift is not installed: pip install ms-swift")
