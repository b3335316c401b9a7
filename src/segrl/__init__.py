"""segrl teaches a multimodal language model to segment by pointing.

    model = segrl.load("tiny")
    result = model.segment("scene.png", "the red ring")

Importing this package loads no torch: what is named below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segrl.pipeline import Pipeline, Result, Stream, load

__version__ = "0.1.0"

__all__ = ["Pipeline", "Result", "Stream", "__version__", "load"]

_SUBMODULES = frozenset({"answers", "coordinates", "datasets", "errors", "masks", "policies", "scoring", "segmenters"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"segrl.{name}")
    if name in ("Pipeline", "Result", "Stream", "load"):
        return getattr(importlib.import_module("segrl.pipeline"), name)
    raise AttributeError(f"module 'segrl' has no attribute {name!r}")
