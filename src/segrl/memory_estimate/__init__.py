"""What a recipe needs of a GPU's memory, estimated from its dimensions: no network, no GPU, no torch.

models     the dimensions of every model that a shipped recipe names
needs      a recipe → bytes of each part, in each phase of a step
changes    what to change so that it fits, in the order of harm

The estimate has not been compared with measured GPU memory: a first guess.
"""

from __future__ import annotations

from segrl.memory_estimate.changes import Change, altered, smallest_changes
from segrl.memory_estimate.needs import Need, Setting, needs, setting_of, settings_of

__all__ = ["Change", "Need", "Setting", "altered", "needs", "setting_of", "settings_of", "smallest_changes"]
