"""What a recipe needs of a GPU's memory, estimated from its dimensions: no network, no GPU, no torch.

dimensions     of every model that a shipped recipe names; the seconds and tokens of an answer and of a vote
estimate       a recipe → bytes of each part, in each phase of a step
suggestions    what to change so that it fits, in the order of harm

The estimate has not been compared with measured GPU memory: a first guess.
"""

from __future__ import annotations

from segrl.memory_estimate.dimensions import AnswerCost, answer_cost
from segrl.memory_estimate.estimate import Need, Setting, needs, setting_of, settings_of
from segrl.memory_estimate.suggestions import Change, altered, smallest_changes

__all__ = [
    "AnswerCost",
    "Change",
    "Need",
    "Setting",
    "altered",
    "answer_cost",
    "needs",
    "setting_of",
    "settings_of",
    "smallest_changes",
]
