"""Rollouts over turns on several processes whose generations wait for each other.

Weights that are divided (FSDP2, ZeRO-3) are gathered by all processes at once, and vLLM's server is asked by one for
all. TRL 1.16 generates in each process as many turns as its own conversations have, so the others would wait for
ever. Here a process that is through generates along, and nothing of it is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from segrl.training.shared_prefix import SharedPrefixTrainer, taken


class RoundsTrainer(SharedPrefixTrainer):
    """TRL's trainer whose processes generate equally often in a rollout over turns."""

    _in_turns = False

    @property
    def _waits_for_others(self) -> bool:
        is_divided = self.is_fsdp_enabled or self.is_deepspeed_enabled
        return self.accelerator.num_processes > 1 and (is_divided or self.use_vllm)

    def _tool_call_loop(self, prompts: Any, prompt_ids: Any, *args: Any) -> Any:
        """As TRL's; afterwards this process takes part in the rounds that others still have."""
        if not self._waits_for_others:
            return super()._tool_call_loop(prompts, prompt_ids, *args)
        *_, images, fields = args
        shares, self._rolls_out_groups = self._rolls_out_groups, False  # which rows are equal differs by process
        try:
            self._in_turns = True
            found = super()._tool_call_loop(prompts, prompt_ids, *args)
            self._in_turns = False
            while self._any_generates(False):
                super()._generate_single_turn(*_first(prompt_ids, images, fields), num_generations=1)
        finally:
            self._in_turns, self._rolls_out_groups = False, shares
        return found

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's; within a conversation all processes begin at once."""
        if self._in_turns:
            self._any_generates(True)
        return super()._generate_single_turn(*args, **kwargs)

    def _any_generates(self, is_here: bool) -> bool:
        """Whether any process has a turn left to generate; waits until all have said so."""
        said = torch.tensor([is_here], device=self.accelerator.device)
        return bool(self.accelerator.gather(said).any())


def _first(prompt_ids: Any, images: Any, fields: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The first prompt alone, with its pictures: every part of the model has to be called."""
    if images is None:
        return prompt_ids[:1], None, {}
    parts = split_pixel_values_by_grid({**fields, "num_images": [len(of_row or []) for of_row in images]})
    alone = dict(unsplit_pixel_values_by_grid({name: taken(value, [0]) for name, value in parts.items()}))
    del alone["num_images"]
    return prompt_ids[:1], images[:1], alone
