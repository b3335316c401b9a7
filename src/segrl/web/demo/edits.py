"""The masks of boxes and points that a person draws: of an edit, and of a point that is only under the pointer."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import FailFast, TypeAdapter, ValidationError

from segrl.errors import SegrlError
from segrl.pipeline import Pipeline
from segrl.result import Result
from segrl.segmenters import Segmenter, takes
from segrl.web.demo.results import ResultStore, layer
from segrl.web.errors import Refused, invalid
from segrl.web.limits import Limits, check_json
from segrl.web.schemas import Prompt

PROMPTS = TypeAdapter(Annotated[list[Prompt], FailFast()])
PREVIEWS = 2
"""Previews that are made at once; a browser that gets none asks again when its pointer moves."""
MAX_CHARACTERS = 20_000
"""Of the boxes and points of a preview, as JSON."""


class Edits:
    """Boxes and points of a visitor → masks.

    models: the page's pipelines by name; each segments what was drawn over its own answers. unasked: the segmenter
    for pictures about which no policy was asked, where that is another one.
    """

    def __init__(
        self, models: Mapping[str, Pipeline], store: ResultStore, limits: Limits, unasked: Segmenter | None = None
    ) -> None:
        self.store, self.limits = store, limits
        self._asked = dict(models)
        self._unasked = {name: _with(model, unasked) for name, model in models.items()}
        self._previews = threading.BoundedSemaphore(PREVIEWS)

    def masks(self, model: str, of: object, objects: object) -> tuple[Result, str]:
        """What the segmenter makes of `objects` on the picture of the result `of`, and the picture's file name.

        Raises Refused for a result that is gone, for what are no boxes and points, and for too many of them.
        """
        found = self.store.named(str(of))
        if found is None:
            raise invalid("The picture is no longer on the server: choose it again.")
        result, name = found
        try:
            prompts = [one.to_mask_prompt() for one in PROMPTS.validate_python(objects)]
        except ValidationError as error:
            raise invalid("These boxes and points are not valid.") from error
        if len(prompts) > self.limits.max_prompts:
            raise invalid(f"At most {self.limits.max_prompts} objects.")
        if len(prompts) * result.image.width * result.image.height > self.limits.max_mask_pixels:
            raise invalid("Too many masks for a picture of this size: use fewer objects.")
        return self._pipeline(model, result).masks(result.image, prompts, result.query), name

    def takes_words(self, model: str, result: Result) -> bool:
        """Whether what is drawn on a result may hold words and example boxes."""
        return {"words", "examples"} <= takes(self._pipeline(model, result).text_to_masks.segmenter)

    def _pipeline(self, model: str, result: Result) -> Pipeline:
        return (self._asked if result.query else self._unasked)[model]

    def routes(self) -> APIRouter:
        """`/files/KEY/preview.png?model=NAME&objects=JSON`: the masks as a layer, of which nothing is kept."""
        router = APIRouter()

        @router.get("/files/{key}/preview.png")
        def preview(key: str, model: str, objects: Annotated[str, Query(max_length=MAX_CHARACTERS)]) -> Response:
            if model not in self._asked:
                raise HTTPException(404, "there is no such model on this page")
            if not self._previews.acquire(blocking=False):
                raise HTTPException(503, "busy")
            try:
                check_json(objects.encode(), self.limits)
                result, name = self.masks(model, key, _parsed(objects))
            except Refused as error:
                raise HTTPException(error.status, error.detail) from error
            except SegrlError as error:
                raise HTTPException(422, str(error)) from error
            finally:
                self._previews.release()
            return Response(layer(result, name), media_type="image/png", headers={"Cache-Control": "no-store"})

        return router


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("These boxes and points are not valid.") from error


def _with(model: Pipeline, segmenter: Segmenter | None) -> Pipeline:
    """The same pipeline with another segmenter, if there is one; one that takes words stays."""
    if segmenter is None or "words" in takes(model.text_to_masks.segmenter):
        return model
    return Pipeline(model.policy, replace(model.text_to_masks, segmenter=segmenter))
