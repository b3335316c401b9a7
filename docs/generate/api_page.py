"""The page on the Python interface: directives that mkdocstrings fills from the docstrings."""

from __future__ import annotations

HEAD = """# Python interface

What a program may import, made from the docstrings when this site is built. Everything else may change without notice.
"""

PARTS: dict[str, tuple[str, ...]] = {
    "Load, segment, train, evaluate": ("segrl.loading", "segrl.pipeline", "segrl.result", "segrl.api"),
    "Types": ("segrl.types",),
    "Coordinates and masks": ("segrl.coordinates", "segrl.masks"),
    "Answer formats": ("segrl.answers", "segrl.answers.base"),
    "Segmenters": ("segrl.segmenters", "segrl.segmenters.protocol"),
    "Text to masks": ("segrl.text_to_masks",),
    "Scores": ("segrl.scoring",),
    "Rewards": ("segrl.rewards.rollout", "segrl.rewards.terms", "segrl.rewards.registry"),
    "Data sets": ("segrl.datasets",),
    "Policies": ("segrl.policies", "segrl.policies.base"),
    "Training": ("segrl.training.recipe", "segrl.training.train", "segrl.experiment"),
    "Evaluation": ("segrl.evaluation",),
    "Other trainers": ("segrl.integrations",),
    "Errors": ("segrl.errors",),
}
"""Headings, and the modules whose public members stand below each."""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for title, modules in PARTS.items():
        parts += [f"## {title}", *(f"::: {module}" for module in modules)]
    return "\n\n".join(parts) + "\n"
