"""Segmenters by name."""

from __future__ import annotations

from typing import Any

from segrl.segmenters.protocol import Segmenter


def load(name_or_path: str, **options: Any) -> Segmenter:
    """The segmenter called `name_or_path`.

    "grabcut": GrabCut, needs no weights (options: see `GrabCut`). "box": the fake that fills boxes.
    """
    if name_or_path == "grabcut":
        from segrl.segmenters.grabcut import GrabCut

        return GrabCut(**options)
    if name_or_path == "box":
        from segrl.segmenters.box import BoxSegmenter

        return BoxSegmenter(**options)
    from segrl.errors import ModelError

    raise ModelError(f"no segmenter called {name_or_path}: use grabcut, box, or a model directory")
