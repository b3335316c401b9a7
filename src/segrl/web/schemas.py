"""What travels over HTTP: requests and answers as pydantic models, results turned into them, the OpenAPI page."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from PIL import Image
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic.json_schema import models_json_schema

from segrl.inference import Decoding, VoteRule
from segrl.masks import mask_to_box, mask_to_polygons, png_bytes, to_rle
from segrl.types import MAX_PHRASE, ORIGINAL, MaskPrompt
from segrl.web.service import Answered, Cut

MaskFormat = Literal["rle", "polygon", "png"]
StatusName = Literal["truncated", "no_answer", "bad_syntax", "bad_values", "no_target", "ok"]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
MAX_TURNS = 4
"""Answers to one query: each takes as long as the first."""
MAX_POINTS = 64
"""Points of one mask prompt."""
Query = Annotated[str, Field(min_length=1, pattern=r"\S", description="What to segment, in plain words.")]

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQMAAABJtOi3AAAAA1BMVEUAAACnej3aAAAADElEQVR42mNgGNwAAACgAAGO+7G0AAAAAElFTkSuQmCC"
)
"""A picture for the OpenAPI page: 32×32 black pixels."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


Share = Annotated[float, Field(gt=0, le=1)]
BoxXyxy = tuple[Number, Number, Number, Number]


class Vote(_Strict):
    """The rule by which several samples vote (docs/words_and_votes.md)."""

    same_object: Share = Field(0.85, description="IoU from which masks of two samples are one object")
    least_votes: Share = Field(0.2, description="share of the samples with a mask that an object needs")
    nothing: Share = Field(0.5, description='share of the readable samples that must say "nothing there"')
    mask: Literal["best", "consensus"] = Field(
        "best", description="mask of an object: the best-scored one, or the pixels that more than half of them hold"
    )


ONE_OF = {"samples": 1, "second_look": False, "turns": 1}
"""Options of which one alone differs from this."""


class DecodingBody(_Strict):
    """How the answer is generated; the defaults are the options that the server was started with."""

    samples: Annotated[int, Field(ge=1)] | None = Field(
        None, description="completions sampled for the query, which vote by object"
    )
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    second_look: bool | None = Field(None, description="ask again about a crop around what was found")
    vote: Vote | None = None

    def over(self, own: Decoding, turns: int | None = None) -> Decoding:
        """The server's decoding with what was asked for in its place. Raises SegrlError.

        A vote, a second look or turns that are asked for take the place of any of these that the server has.
        """
        given = {name: value for name in DecodingBody.model_fields if (value := getattr(self, name)) is not None}
        given |= {} if turns is None else {"turns": turns}
        if self.vote is not None:
            given["vote"] = VoteRule(**self.vote.model_dump())
        if any(given.get(name, plain) != plain for name, plain in ONE_OF.items()):
            given = ONE_OF | given
        return replace(own, **given)


class Prompt(_Strict):
    """A mask prompt in pixels of the image: a box, points, or both; for a segmenter that takes words also a phrase
    and example boxes."""

    box_xyxy: tuple[Number, Number, Number, Number] | None = Field(
        None, description="[x1, y1, x2, y2], exclusive maximum", examples=[[4, 4, 20, 20]]
    )
    points_xy: Annotated[list[tuple[Number, Number]], FailFast()] = Field([], max_length=MAX_POINTS)
    labels: Annotated[list[Literal[0, 1]], FailFast()] = Field(
        [], max_length=MAX_POINTS, description="one a point: 1 on the object, 0 off it"
    )
    phrase: str = Field(
        "", max_length=MAX_PHRASE, description="a short noun phrase: every instance, or that in the box"
    )
    exemplars_xyxy: Annotated[list[BoxXyxy], FailFast()] = Field([], max_length=MAX_POINTS)
    exemplar_labels: Annotated[list[Literal[0, 1]], FailFast()] = Field(
        [], max_length=MAX_POINTS, description="one an example box: 1 such are meant, 0 not meant"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Prompt:
        self.to_mask_prompt()
        return self

    def to_mask_prompt(self) -> MaskPrompt:
        """The same, as the segmenter takes it. Raises ValueError."""
        return MaskPrompt(
            self.box_xyxy,
            tuple(self.points_xy),
            tuple(self.labels),
            ORIGINAL,
            phrase=self.phrase,
            exemplars_xyxy=tuple(self.exemplars_xyxy),
            exemplar_labels=tuple(self.exemplar_labels),
        )


class SegmentRequest(_Strict):
    """An image and one query or several."""

    image: str = Field(description="An image file as base64, or as a data: URL.", min_length=1, examples=[PIXEL])
    query: Query | Annotated[list[Query], Field(min_length=1)] = Field(examples=["the red ring"])
    mask_format: MaskFormat = "rle"
    turns: Annotated[int, Field(ge=1, le=MAX_TURNS)] | None = Field(
        None,
        description="Maximum number of answers; after each the policy is shown its mask. Default: the server's option.",
    )
    decoding: DecodingBody | None = None
    min_confidence: float = Field(0, ge=0, le=1, description="objects of lower confidence are left out")

    def decoding_over(self, own: Decoding) -> Decoding:
        """How it is answered by a server that was started with `own`. Raises SegrlError."""
        return (self.decoding or DecodingBody()).over(own, self.turns)

    @property
    def queries(self) -> list[str]:
        """The queries, one or several."""
        return [self.query] if isinstance(self.query, str) else self.query


class MasksRequest(_Strict):
    """An image, sent or named by the `image_id` of an earlier answer, and mask prompts."""

    image: str | None = Field(None, description="An image file as base64, or as a data: URL.", examples=[PIXEL])
    image_id: str | None = Field(None, description="From an earlier response, in place of the image.")
    prompts: Annotated[list[Prompt], FailFast()] = Field(min_length=1, examples=[[{"box_xyxy": [4, 4, 20, 20]}]])
    mask_format: MaskFormat = "rle"

    @model_validator(mode="after")
    def _names_one_image(self) -> MasksRequest:
        if (self.image is None) == (self.image_id is None):
            raise ValueError("give the image or its image_id")
        return self


class RleBody(BaseModel):
    """COCO's compressed run lengths, as pycocotools reads them."""

    size: tuple[int, int] = Field(description="[height, width]")
    counts: str


class Mask(BaseModel):
    """One object's mask at the image's size, in the format that was asked for."""

    area: int = Field(description="pixels")
    box_xyxy: tuple[float, float, float, float] | None = Field(description="of the mask; null for an empty one")
    score: float | None = Field(description="IoU that the segmenter predicts; null if it predicts none")
    confidence: float | None = Field(
        None, description="share of a vote's samples that hold the object; without a vote the score"
    )
    rle: RleBody | None = None
    polygons: list[list[float]] | None = Field(None, description="COCO polygons: [x1, y1, x2, y2, …] each")
    png: str | None = Field(None, description="base64 of a grey PNG, 0 outside and 255 inside")


class TurnBody(BaseModel):
    """One turn of an answer: its text, and what stood after it."""

    move: Literal["answer", "points", "done", "broken"] = Field(description="what it did")
    text: str
    status: StatusName
    detail: str
    prompts: list[Prompt]
    masks: list[Mask]


class VotesBody(BaseModel):
    """How far several samples agree."""

    samples: int
    readable: int
    nothing: int = Field(description='readable ones that say "nothing there"')
    agreement: list[float] = Field(description="of each mask the share of the readable samples that hold it")


class QueryResult(BaseModel):
    """The answer to one query. Without masks `status` says why: `no_target` is the answer "nothing there"."""

    query: str
    status: StatusName
    detail: str = Field(description="why the policy's answer could not be parsed; empty if it could")
    repairs: list[str] = Field(description="what the lenient reading repaired or dropped, one line each")
    reasoning: str | None
    text: str = Field(description="what the policy wrote")
    votes: VotesBody | None = Field(None, description="how far several samples agree; null without a vote")
    prompts: list[Prompt]
    masks: list[Mask]
    turns: list[TurnBody] = Field([], description="of an answer in several turns, in their order")


class SegmentResponse(BaseModel):
    """The answers to a request's queries, in their order."""

    image_id: str = Field(description="names the image in a later /v1/masks")
    width: int
    height: int
    results: list[QueryResult]


class MasksResponse(BaseModel):
    """A mask for each prompt, in their order; of a phrase alone one for each instance, with its box in `prompts`."""

    image_id: str
    width: int
    height: int
    prompts: list[Prompt] = Field([], description="what each mask is of")
    masks: list[Mask]


class ErrorBody(BaseModel):
    """Why a request was not answered."""

    error: str
    detail: str


def _mask_body(mask: np.ndarray, score: float | None, sure: float | None, mask_format: MaskFormat) -> dict[str, Any]:
    """A `(H, W)` bool mask as a Mask."""
    body: dict[str, Any] = {"area": int(mask.sum()), "box_xyxy": mask_to_box(mask), "score": score, "confidence": sure}
    if mask_format == "rle":
        body["rle"] = to_rle(mask)
    elif mask_format == "polygon":
        body["polygons"] = mask_to_polygons(mask)
    else:
        body["png"] = base64.b64encode(png_bytes(mask)).decode("ascii")
    return body


def _told(values: np.ndarray | None, count: int) -> list[float | None]:
    return [None] * count if values is None else values.tolist()


def _turn_body(turn: Answered, asked: SegmentRequest) -> dict[str, Any]:
    whole = _query_result(turn, asked)
    kept = {name: whole[name] for name in ("text", "status", "detail", "prompts", "masks")}
    return {"move": turn.result.move.value, **kept}


def segment_body(image_id: str, image: Image.Image, answers: Sequence[Answered], asked: SegmentRequest) -> bytes:
    """The JSON of a SegmentResponse."""
    results = [_query_result(one, asked) for one in answers]
    return _json({"image_id": image_id, "width": image.width, "height": image.height, "results": results})


def _query_result(one: Answered, asked: SegmentRequest) -> dict[str, Any]:
    result, count = one.result, len(one.masks)
    scores, sure = _told(result.scores, count), _told(result.confidence, count)
    rows = [
        (prompt, _mask_body(mask, score, confidence, asked.mask_format))
        for prompt, mask, score, confidence in zip(result.prompts, one.masks, scores, sure, strict=True)
        if confidence is None or confidence >= asked.min_confidence
    ]
    return {
        "query": result.query,
        "status": result.status.value,
        "detail": result.answer.detail,
        "repairs": list(result.repairs),
        "reasoning": result.reasoning,
        "text": result.text,
        "votes": None if result.votes is None else result.votes.to_json(),
        "prompts": [prompt.to_json() for prompt, _ in rows],
        "masks": [body for _, body in rows],
        "turns": [_turn_body(turn, asked) for turn in one.turns],
    }


def masks_body(image_id: str, image: Image.Image, found: Cut, mask_format: MaskFormat) -> bytes:
    """The JSON of a MasksResponse."""
    scores = _told(found.scores, len(found.masks))
    bodies = [_mask_body(mask, score, score, mask_format) for mask, score in zip(found.masks, scores, strict=True)]
    prompts = [prompt.to_json() for prompt in found.answer.prompts]
    size = {"width": image.width, "height": image.height}
    return _json({"image_id": image_id, **size, "prompts": prompts, "masks": bodies})


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, allow_nan=False).encode()


REF = "#/components/schemas/{model}"
_FILE = {"type": "string", "format": "binary", "description": "An image file."}
_FORMAT = {"type": "string", "enum": ["rle", "polygon", "png"], "default": "rle"}

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body cannot be read."},
    401: {"model": ErrorBody, "description": "The token is missing or wrong."},
    404: {"model": ErrorBody, "description": "The image is not known to the server (any more)."},
    408: {"model": ErrorBody, "description": "The request took longer than the server allows."},
    413: {"model": ErrorBody, "description": "Too many bytes or pixels."},
    429: {
        "model": ErrorBody,
        "description": "Too many concurrent requests of this client; Retry-After says when to try again.",
    },
    415: {"model": ErrorBody, "description": "Neither JSON nor multipart/form-data."},
    422: {"model": ErrorBody, "description": "A value is not valid, or exceeds a limit."},
    503: {"model": ErrorBody, "description": "Too many concurrent requests; Retry-After says when to try again."},
}


def _body(
    model: str, required: dict[str, Any], optional: dict[str, Any] | None = None, encoding: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A request's body for OpenAPI: `model` as JSON, or a form with its image, the other fields and a mask format."""
    schema = {
        "type": "object",
        "required": ["image", *required],
        "properties": {"image": _FILE, **required, "mask_format": _FORMAT, **(optional or {})},
    }
    sent = {"schema": schema} if encoding is None else {"schema": schema, "encoding": encoding}
    content = {"application/json": {"schema": {"$ref": REF.format(model=model)}}, "multipart/form-data": sent}
    return {"requestBody": {"required": True, "content": content}}


SEGMENT_BODY = _body(
    "SegmentRequest",
    {"query": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}},
    {
        "turns": {"type": "integer", "minimum": 1, "maximum": MAX_TURNS},
        "decoding": {"type": "string", "description": "JSON: a DecodingBody."},
        "min_confidence": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    },
    {"query": {"style": "form", "explode": True}},
)
MASKS_BODY = _body("MasksRequest", {"prompts": {"type": "string", "description": "JSON: a list of Prompt."}})


def install(app: FastAPI) -> None:
    """Makes `app.openapi()` hold the models that request bodies refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, models = models_json_schema(
                [(SegmentRequest, "validation"), (MasksRequest, "validation")], ref_template=REF
            )
            page.setdefault("components", {}).setdefault("schemas", {}).update(models["$defs"])
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
