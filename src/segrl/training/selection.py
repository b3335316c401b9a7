"""Which completions of a rollout train: the best and worst of each group, and groups without spread left out.

    select: {best: 8, worst: 8}      # of each group of num_generations, as StAR's second stage (arXiv 2603.14382)
    dynamic_sampling: skip           # or replace: groups whose rewards are all equal, DAPO (arXiv 2503.14476)

Advantages are computed anew among the completions that train, so the gradient is that of a rollout that holds
those alone. G: completions of a group. M: completions of this process. L: those that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl.trainer.utils import nanstd, split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from segrl.errors import RecipeError
from segrl.training.recipe import Recipe
from segrl.training.shared_prefix import taken
from segrl.training.turns import RoundsTrainer

LEFT = ("prompt_ids", "prompt_mask")
"""Padded on the left."""
BOTH = ("mm_token_type_ids", "token_type_ids")
"""Prompt and completion in one, padded on both sides."""
IMAGES = ("pixel_values", "image_grid_thw", "image_sizes")
"""Not as wide as any text."""
PER_ROW_LOSSES = ("grpo", "sapo", "dr_grpo", "luspo")
"""Loss types that divide by the number of completions, which those left out are no part of."""


@dataclass(frozen=True)
class Selection:
    """What a recipe asks for: `best` and `worst` of each group (0 and 0: all), `flat` "keep", "skip" or "replace"
    groups without spread, with at most `attempts` further rollouts for those replaced."""

    best: int = 0
    worst: int = 0
    flat: str = "keep"
    attempts: int = 1
    seed: int = 0

    @classmethod
    def of(cls, recipe: Recipe) -> Selection:
        """What `recipe` says."""
        chosen, sampling = recipe.select, recipe.dynamic_sampling
        best, worst = (0, 0) if chosen is None else (chosen.best, chosen.worst)
        return cls(best, worst, sampling.flat, sampling.attempts, recipe.seed)

    @property
    def acts(self) -> bool:
        """Whether anything differs from TRL's own rollout."""
        return self.best + self.worst > 0 or self.flat != "keep"


def check_selection(recipe: Recipe, config: Any) -> None:
    """Refuses what cannot be selected from; raises RecipeError."""
    chosen = Selection.of(recipe)
    if recipe.method != "grpo" or not chosen.acts:
        return
    group, kept = config.num_generations, chosen.best + chosen.worst
    rows, steps = config.per_device_train_batch_size * config.steps_per_generation, config.steps_per_generation
    if kept > group:
        raise RecipeError(
            f"select: {chosen.best} best and {chosen.worst} worst are more than num_generations ({group})"
        )
    if rows % group:
        raise RecipeError(
            f"select, dynamic_sampling: per_device_train_batch_size × steps_per_generation ({rows}) must hold whole "
            f"groups of {group}"
        )
    if kept and (rows // group * kept) % steps:
        raise RecipeError(
            f"select: {rows // group} groups of {kept} selected completions cannot be shared among {steps} "
            "micro-batches (steps_per_generation): choose a multiple"
        )
    if config.multi_objective_aggregation != "sum_then_normalize":
        raise RecipeError("select, dynamic_sampling: multi_objective_aggregation must be sum_then_normalize")


def is_flat(rewards_RG: Tensor) -> Tensor:
    """Which groups have no spread: all rewards equal, or none at all (NaN)."""
    return ~(nanstd(rewards_RG, dim=1) > 1e-8)


def chosen_rows(rewards_M: Tensor, group: int, best: int, worst: int) -> list[int]:
    """The rows of each group with its `best` highest and `worst` lowest rewards, in the rollout's order.

    Of equal rewards the earlier completion counts as the better one; one without a reward stands in the middle.
    """
    if best + worst == 0:
        return list(range(len(rewards_M)))
    rewards_RG = rewards_M.view(-1, group)
    middle = torch.nanmean(rewards_RG, dim=1, keepdim=True).nan_to_num(0.0).expand_as(rewards_RG)
    ranked = torch.where(rewards_RG.isnan(), middle, rewards_RG).argsort(dim=1, descending=True, stable=True).tolist()
    kept = [sorted(order[:best] + order[group - worst :]) for order in ranked]
    return [g * group + i for g, rows in enumerate(kept) for i in rows]


def advantages(rewards_M: Tensor, group: int, scale: str) -> Tensor:
    """TRL's advantages of all processes' completions, in groups of `group`: 0 for one without a reward."""
    rewards_RG = rewards_M.view(-1, group)
    centred = rewards_RG - torch.nanmean(rewards_RG, dim=1, keepdim=True)
    if scale == "batch":
        centred = centred / (nanstd(rewards_M) + 1e-4)
    elif scale == "group":
        centred = centred / (nanstd(rewards_RG, dim=1)[:, None] + 1e-4)
    return centred.reshape(-1).nan_to_num(0.0)


class SelectiveTrainer(RoundsTrainer):
    """The trainer of every GRPO run; `select` says which completions train, all of them until then."""

    _chosen = Selection()
    _rewards: Tensor
    _rollouts = 1

    def select(self, chosen: Selection) -> None:
        """What of each rollout trains from now on."""
        self._chosen = chosen

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """As TRL's; the weighted sums are kept, those of all processes."""
        per_term: Tensor = super()._calculate_rewards(*args, **kwargs)
        total = (per_term * self.reward_weights.to(per_term.device)).nansum(dim=1)
        self._rewards = total.masked_fill(per_term.isnan().all(dim=1), torch.nan)
        return per_term

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's, of which only the selected completions are left."""
        found: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self._chosen.acts or not self.model.training:
            return found
        rewards_M, self._rollouts = self._mine(self._rewards), 1
        self._note("groups/flat", is_flat(rewards_M.view(-1, self.num_generations)))
        if self._chosen.flat == "replace":
            found, rewards_M = self._replaced(found, rewards_M)
        rows = chosen_rows(rewards_M, self.num_generations, self._chosen.best, self._chosen.worst)
        found, rewards_L = rows_of(found, rows), rewards_M[rows]
        group = self._chosen.best + self._chosen.worst or self.num_generations
        gathered: Tensor = self.accelerator.gather(rewards_L)
        found["advantages"] = self._mine(advantages(gathered, group, self.scale_rewards))
        if self._rollouts == 1:
            self._log_advantages(found["advantages"], rows, len(rewards_M))
        if self._chosen.flat != "keep":
            found |= self._without_flat(found, rewards_L.view(-1, group))
        own = found["completion_mask"] * found.get("tool_mask", 1)  # what an environment wrote is no part of the loss
        return found | {"num_items_in_batch": self.accelerator.gather(own.sum()).sum().clamp(min=1)}

    def _mine(self, all_processes: Tensor) -> Tensor:
        """This process's part of what all have, each as much."""
        size = len(all_processes) // self.accelerator.num_processes
        return all_processes[self.accelerator.process_index * size :][:size]

    def _note(self, name: str, values: Tensor) -> None:
        """Puts the mean over all processes into the step's log."""
        self._metrics["train"][name].append(self.accelerator.gather(values.float()).mean().item())

    def _log_advantages(self, kept: Tensor, rows: Sequence[int], size: int) -> None:
        """The rollout log shows what trains: a completion that was left out has the advantage 0."""
        shown = kept.new_zeros(size)
        shown[list(rows)] = kept
        values = self.accelerator.gather(shown).tolist()
        logged = self._logs["advantages"]
        for _ in range(min(len(values), len(logged))):
            logged.pop()
        logged.extend(values)

    def _without_flat(self, found: dict[str, Any], rewards_RG: Tensor) -> dict[str, Any]:
        """Groups without spread take no part: their tokens are masked, and the mean runs over the others."""
        flat = is_flat(rewards_RG)
        self._note("groups/skipped", flat)
        out = flat.repeat_interleave(rewards_RG.shape[1])
        share = 1 - self.accelerator.gather(flat.float()).mean()
        scale = torch.where(share > 0, 1 / share.clamp(min=1e-6), torch.zeros_like(share))
        return {"completion_mask": found["completion_mask"] * (~out)[:, None], "segrl_scale": scale}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        scale = inputs.get("segrl_scale")
        return loss if scale is None or self.loss_type not in PER_ROW_LOSSES else loss * scale

    def _replaced(self, found: dict[str, Any], rewards_M: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Groups of other examples in the place of those without spread, as far as further rollouts give them.

        All processes roll out as often as one of them needs it, at most `attempts` times.
        """
        group, replaced = self.num_generations, torch.zeros(len(rewards_M) // self.num_generations, dtype=torch.bool)
        for attempt in range(self._chosen.attempts):
            flat = is_flat(rewards_M.view(-1, group)).cpu()
            if not bool(self.accelerator.gather(flat.any()[None].to(rewards_M.device)).any()):
                break
            more = super()._generate_and_score_completions(self._other_examples(len(rewards_M), attempt))
            rewards_new, self._rollouts = self._mine(self._rewards), self._rollouts + 1
            fresh = iter((~is_flat(rewards_new.view(-1, group))).nonzero().flatten().tolist())
            places = list(range(len(flat)))
            for place, new in zip(flat.nonzero().flatten().tolist(), fresh, strict=False):
                places[place], replaced[place] = len(flat) + new, True
            rows = [place * group + i for place in places for i in range(group)]
            found = rows_of(joined(found, more, self._tokenizer.pad_token_id), rows)
            rewards_M = torch.cat([rewards_M, rewards_new])[rows]
        self._note("groups/replaced", replaced.to(rewards_M.device))
        return found, rewards_M

    def _other_examples(self, rows: int, attempt: int) -> list[dict[str, Any]]:
        """Rows of other examples, drawn by seed, step and attempt, so that a resumed run draws the same."""
        queries, where = rows // self.num_generations, self.accelerator.process_index
        rng = np.random.default_rng([self._chosen.seed, self.state.global_step, self._step, attempt])
        drawn = rng.integers(len(self.train_dataset), size=queries * self.accelerator.num_processes)
        mine = drawn[where * queries :][:queries]
        return [self.train_dataset[int(i)] for i in mine for _ in range(self.num_generations)]


def rows_of(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """These rows of a batch, their pictures with them; what has no rows stays as it is."""
    parts = split_pixel_values_by_grid(batch)
    return dict(unsplit_pixel_values_by_grid({name: taken(value, rows) for name, value in parts.items()}))


def joined(first: dict[str, Any], second: dict[str, Any], pad: int) -> dict[str, Any]:
    """The rows of both batches, one after the other, brought to one width."""
    parts = [split_pixel_values_by_grid(batch) for batch in (first, second)]
    prompts, answers = (max(part[key].shape[1] for part in parts) for key in ("prompt_ids", "completion_ids"))
    both = [_widened(part, prompts, answers, pad) for part in parts]
    return dict(unsplit_pixel_values_by_grid({name: _after(both[0][name], both[1][name]) for name in both[0]}))


def _after(one: Any, other: Any) -> Any:
    if isinstance(one, Tensor) and one.ndim:
        return torch.cat([one, other])
    return one + other if isinstance(one, list) else one


def _widened(part: dict[str, Any], prompts: int, answers: int, pad: int) -> dict[str, Any]:
    own, written = part["prompt_ids"].shape[1], part["completion_ids"].shape[1]
    wide = dict(part)
    for name, value in part.items():
        if not isinstance(value, Tensor) or value.ndim != 2:
            continue
        fill = pad if name.endswith("_ids") and name not in BOTH else 0
        if name in LEFT:
            wide[name] = _padded(value, prompts - value.shape[1], 0, fill)
        elif name in BOTH:
            wide[name] = _padded(value, prompts - own, prompts + answers - value.shape[1] - (prompts - own), fill)
        elif value.shape[1] == written and name not in IMAGES:
            wide[name] = _padded(value, 0, answers - written, fill)
    return wide


def _padded(value: Tensor, left: int, right: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(value, (left, right), value=fill)
