"""A recipe's reward for trainers that are not ours: TRL by hand, ms-swift, and over HTTP verl and EasyR1.

from_recipe   the reward as one callable, with the recipe's data as rows
swift         ms-swift's reward plugin
client        what verl and EasyR1 call over HTTP, a file that needs nothing but Python; segrl.web.reward_server answers
"""

from __future__ import annotations

from segrl.integrations.recipe_reward import RecipeReward, from_recipe

__all__ = ["RecipeReward", "from_recipe"]
