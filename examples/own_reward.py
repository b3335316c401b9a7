"""A reward term of one's own: fewer points for the same mask.

    segrl train examples/own_reward.yaml --out runs/own_reward

The recipe names it by import path, `{python: own_reward.few_points}`; the file lies beside the recipe, so it is found.
"""

from segrl.rewards import Rollout


def few_points(rollout: Rollout, *, free: int = 2) -> float | None:
    """1 for up to `free` points an object, falling to 0 at twice as many; None where nothing was found.

    None leaves the term out for this rollout. Every parameter besides the rollout is an option of the recipe.
    """
    if not rollout.answer.prompts:
        return None
    most = max(len(prompt.points_xy) for prompt in rollout.answer.prompts)
    return min(1.0, max(0.0, 2.0 - most / free))
