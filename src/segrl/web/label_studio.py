"""A Label Studio ML backend on the same server, under `/label-studio`.

Label Studio asks `/predict` for pre-annotations of tasks; each label's hint (or else its value) is the query.
With a smart keypoint or rectangle drawn by the annotator it asks for the mask of just that.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from segrl import __version__
from segrl.pipeline import Result
from segrl.web import parsing
from segrl.web.errors import Refused, invalid
from segrl.web.images import from_base64
from segrl.web.limits import Limits, check_token, read_body, while_client_waits
from segrl.web.regions import Wanted, drawn_on, hints, read_config, region
from segrl.web.schemas import ERRORS
from segrl.web.service import Service

MODEL_VERSION = f"segrl-{__version__}"


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Task(_Open):
    """A task; `data` holds the image's address under the key that the configuration names."""

    data: dict[str, JsonValue]


class Params(_Open):
    """What Label Studio adds. context: the smart regions that the annotator has drawn."""

    context: dict[str, JsonValue] | None = None


class Predict(_Open):
    """What `/predict` is asked."""

    tasks: Annotated[list[Task], Field(min_length=1, max_length=100)]
    label_config: str
    params: Params = Params()


class Prediction(BaseModel):
    """One task's regions, as Label Studio imports them. score: the share of queries that were answered."""

    result: list[dict[str, Any]]
    score: float
    model_version: str


class Predictions(BaseModel):
    """In the order of the tasks."""

    results: list[Prediction]


def build(service: Service) -> APIRouter:
    """The routes of the backend."""
    settings = service.settings
    source = ImageSource(settings.label_studio_url, settings.label_studio_key, settings.limits)

    def authorized(request: Request) -> None:
        check_token(request, settings.token)

    router = APIRouter(prefix="/label-studio", tags=["Label Studio"], dependencies=[Depends(authorized)])
    body = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}

    @router.get("/health")
    @router.get("/", include_in_schema=False)
    async def health() -> dict[str, str]:
        """Label Studio's question whether the backend is there."""
        return {"status": "UP", "model_class": "segrl"}

    @router.post("/setup", responses=ERRORS)
    async def setup() -> dict[str, str]:
        """Asked once when a project connects; nothing is kept."""
        return {"model_version": MODEL_VERSION}

    @router.get("/versions")
    async def versions() -> dict[str, list[str]]:
        """The one version there is."""
        return {"versions": [MODEL_VERSION]}

    @router.post("/webhook", responses=ERRORS)
    async def webhook() -> dict[str, str]:
        """News of annotations; the backend does not learn from them."""
        return {"status": "ignored"}

    @router.post("/predict", response_model=Predictions, responses=ERRORS, openapi_extra=body)
    async def predict(request: Request) -> Response:
        """Pre-annotations of tasks."""
        async with service.segment_places.one(), asyncio.timeout(service.limits.seconds):
            asked = parsing.validated(Predict, await read_body(request, service.limits.max_bytes))
            found = await while_client_waits(request, _predict(service, source, asked))
            return Response(found.model_dump_json(), media_type="application/json")

    return router


async def _predict(service: Service, source: ImageSource, asked: Predict) -> Predictions:
    wanted = read_config(asked.label_config)
    if len(wanted) > service.limits.max_queries:
        detail = f"{len(wanted)} labels; this server looks for {service.limits.max_queries} at once"
        raise Refused(422, "too_many_queries", detail)
    smart = asked.params.context or {}
    results = [await _one(service, source, task, wanted, smart) for task in asked.tasks]
    return Predictions(results=results)


async def _one(
    service: Service, source: ImageSource, task: Task, wanted: list[Wanted], smart: dict[str, JsonValue]
) -> Prediction:
    drawn = await _drawn(service, source, task, wanted, smart.get("result"))
    if drawn is not None:
        return Prediction(result=drawn, score=1.0, model_version=MODEL_VERSION)
    found: list[Result] = []
    regions: list[dict[str, Any] | None] = []
    for labels in _by_image(wanted):
        image = await _open(service, source, task, labels[0].image_key)
        results = await service.segment(image, [one.query for one in labels])
        regions += [region(one, mask) for one, result in zip(labels, results, strict=True) for mask in result.masks]
        found += results
    return Prediction(result=[one for one in regions if one], score=_read(found), model_version=MODEL_VERSION)


async def _drawn(
    service: Service, source: ImageSource, task: Task, wanted: list[Wanted], smart: JsonValue
) -> list[dict[str, Any]] | None:
    """The region of what the annotator drew, of the image that it lies on; None if nothing was drawn."""
    if not smart:
        return None
    named = drawn_on(smart)
    labels = next(iter(_by_image([one for one in wanted if not named or one.to_name in named])), [])
    if not labels:
        return []
    image = await _open(service, source, task, labels[0].image_key)
    drawn = hints(smart, image.size)
    if drawn is None:
        return None
    prompt, label = drawn
    mask = (await service.masks(image, [prompt])).union.cpu().numpy()
    regions = [region(one, mask) for one in labels if one.kind == "brushlabels" and label in (None, one.label)]
    return [one for one in regions[:1] if one]


def _by_image(wanted: list[Wanted]) -> list[list[Wanted]]:
    """The labels of each image together; a configuration may show several images of a task."""
    groups: dict[str, list[Wanted]] = {}
    for one in wanted:
        groups.setdefault(one.image_key, []).append(one)
    return list(groups.values())


async def _open(service: Service, source: ImageSource, task: Task, key: str) -> Image.Image:
    address = task.data.get(key)
    if not isinstance(address, str):
        raise invalid(f"tasks: no image under data.{key}")
    return (await service.open_image(await source.get(address)))[1]


def _read(results: list[Result]) -> float:
    """The share of answers that could be read."""
    return float(np.mean([not result.status.is_failure for result in results]))


class ImageSource:
    """Fetches images from `base_url` with its access token; None fetches nothing.

    Redirects are not followed, so no other host is ever asked.
    """

    def __init__(self, base_url: str | None, key: str | None, limits: Limits) -> None:
        self._base = None if base_url is None else httpx.URL(base_url.rstrip("/") + "/")
        self._limits = limits
        self._headers = {"Authorization": f"Token {key}"} if key else {}

    async def get(self, address: str) -> bytes:
        """The bytes of an image: of a `data:` address, of a path on the host, or of an address on it.

        Raises Refused: 422 for every other address and for what the host does not give, 413 for too many bytes.
        """
        if address.startswith("data:"):
            return from_base64(address)
        try:
            url = self._allowed(address)
            async with (
                httpx.AsyncClient(headers=self._headers, timeout=self._limits.seconds, trust_env=False) as client,
                client.stream("GET", url) as response,
            ):
                if response.status_code != 200:
                    raise invalid(f"tasks: Label Studio answers {response.status_code} when asked for the image")
                return await self._read(response)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise invalid("tasks: Label Studio does not give the image") from error

    def _allowed(self, address: str) -> httpx.URL:
        if self._base is None:
            raise invalid("tasks: this server fetches no images; start it with --label-studio-url")
        url = self._base.join(address)
        if _origin(url) != _origin(self._base):
            raise invalid(
                "tasks: images come from the Label Studio that this server was told of, and from nowhere else"
            )
        return url

    async def _read(self, response: httpx.Response) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > self._limits.max_bytes:
                raise Refused(413, "body_too_large", f"the image is larger than {self._limits.max_bytes} bytes")
        return bytes(data)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
