"""segrl teaches a multimodal language model to segment by pointing.

    model = segrl.load("tiny")
    result = model.segment("scene.png", "the red ring")

    segrl.train("recipe.yaml", "runs/mine")
    segrl.evaluate("runs/mine/model", "tiny", "evals/mine")
    segrl.report("runs/mine")

Importing this package loads no torch: what is named below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segrl.api import Evaluation, evaluate, report, segment, train
    from segrl.inference import Decoding, VoteRule
    from segrl.loading import load
    from segrl.pipeline import Pipeline, Stream
    from segrl.result import Result, by_doubt
    from segrl.types import MaskPrompt, Status

__version__ = "0.1.0"

__all__ = [
    "Decoding",
    "Evaluation",
    "MaskPrompt",
    "Pipeline",
    "Result",
    "Status",
    "Stream",
    "VoteRule",
    "__version__",
    "by_doubt",
    "evaluate",
    "load",
    "report",
    "segment",
    "train",
]

_HOMES = {"Evaluation": "api", "evaluate": "api", "report": "api", "segment": "api", "train": "api"}
_HOMES |= {"load": "loading", "by_doubt": "result"}
_HOMES |= {"Decoding": "inference", "VoteRule": "inference"}
_HOMES |= {"Pipeline": "pipeline", "Stream": "pipeline", "Result": "result", "MaskPrompt": "types", "Status": "types"}
_SUBMODULES = frozenset({
    "answers", "coordinates", "datasets", "errors", "evaluation", "exports", "masks", "policies", "rewards", "scoring",
    "segmenters", "training",
})  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"segrl.{_HOMES[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"segrl.{name}")
    raise AttributeError(f"module 'segrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES, *globals()})
