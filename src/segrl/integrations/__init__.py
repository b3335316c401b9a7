"""A recipe's reward for trainers that are not ours: TRL by hand, and over HTTP verl, ms-swift and EasyR1.

from_recipe   the reward as one callable, with the recipe's data as rows
client        what verl, ms-swift and EasyR1 load, a file that needs nothing but Python and asks `segrl serve-reward`
"""

from __future__ import annotations

from segrl.integrations.recipe_reward import RecipeReward, from_recipe

__all__ = ["RecipeReward", "from_recipe"]
