"""A Label Studio ML backend on the same server, under `/label-studio`.

Label Studio asks `/predict` for pre-annotations of tasks; each label's hint (or else its value) is the query.
With a smart keypoint or rectangle drawn by the annotator it asks for the mask of just that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue

from segrl import __version__
from segrl.masks import PackedMasks
from segrl.web import parsing
from segrl.web.errors import Refused, invalid
from segrl.web.images import from_base64
from segrl.web.limits import Limits, Take, check_token, guarded, read_body, while_client_waits
from segrl.web.regions import Wanted, drawn_on, hints, read_config, region
from segrl.web.schemas import ERRORS
from segrl.web.service import Answered, Service

logger = logging.getLogger(__name__)

LOCAL_BACKENDS = (
    "Label Studio refuses back ends on loopback and private addresses unless it is started with ML_BLOCK_LOCAL_IP=false"
)
ANNOTATED = 50
"""Values of a body beside those of other requests: tasks come with their annotations, whose brush strokes are lists."""
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

    tasks: Annotated[list[Task], Field(min_length=1, max_length=100), FailFast()]
    label_config: str
    params: Params = Params()


class Prediction(BaseModel):
    """One task's regions, as Label Studio imports them. score: the share of queries that were answered. detail:
    why there is no region; empty when nothing is wrong."""

    result: list[dict[str, Any]]
    score: float
    model_version: str
    detail: str = ""


class Health(BaseModel):
    """note: what to know before connecting. last_failure: why the last task that failed has no result."""

    status: str
    model_class: str
    note: str
    last_failure: str


class Predictions(BaseModel):
    """In the order of the tasks."""

    results: list[Prediction]


def build(service: Service) -> APIRouter:
    """The routes of the backend."""
    settings = service.settings
    source = ImageSource(settings.label_studio_url, settings.label_studio_key, settings.limits)

    async def authorized(request: Request) -> None:
        check_token(request, settings.token)

    router = APIRouter(prefix="/label-studio", tags=["Label Studio"], dependencies=[Depends(authorized)])
    body = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}

    @router.get("/health")
    @router.get("/", include_in_schema=False)
    async def health() -> Health:
        """Label Studio's question whether the backend is there, and what a person should know."""
        return Health(status="UP", model_class="segrl", note=LOCAL_BACKENDS, last_failure=source.last_failure)

    @router.post("/setup", responses=ERRORS)
    async def setup() -> dict[str, str]:
        """Asked once when a project connects: a key that Label Studio refuses is told at once; nothing is kept."""
        await source.check_key()
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

        async def work(take: Take) -> bytes:
            body = await read_body(request, service.limits.max_bytes, take)
            asked = await service.in_thread(
                lambda: parsing.validated(Predict, body, service.limits, max_items=ANNOTATED * service.limits.max_items)
            )
            found = await while_client_waits(request, _predict(service, source, asked, take))
            return await service.in_thread(lambda: found.model_dump_json().encode())

        return await guarded(request, service.segment_places, service.memory, service.limits.seconds, work)

    return router


async def _predict(service: Service, source: ImageSource, asked: Predict, take: Take) -> Predictions:
    limits = service.limits
    wanted = await service.in_thread(
        lambda: read_config(asked.label_config, max_tags=limits.max_items, max_depth=limits.max_depth)
    )
    if len(wanted) > limits.max_queries:
        detail = f"{len(wanted)} labels; this server looks for {limits.max_queries} at once"
        raise Refused(422, "too_many_queries", detail)
    smart = asked.params.context or {}
    results: list[Prediction] = []
    failures: list[Refused] = []
    for task in asked.tasks:
        try:
            results.append(await _one(_Task(service, source, task, take), wanted, smart))
        except Refused as refused:
            source.failed(refused.detail)
            failures.append(refused)
            results.append(Prediction(result=[], score=0.0, model_version=MODEL_VERSION, detail=refused.detail))
    if len(failures) == len(asked.tasks):
        raise failures[0]
    return Predictions(results=results)


@dataclass(frozen=True)
class _Task:
    """One task, and what serves it."""

    service: Service
    source: ImageSource
    task: Task
    take: Take

    async def image(self, key: str) -> Image.Image:
        """The image under a key of the task's data. Raises Refused."""
        address = self.task.data.get(key)
        if not isinstance(address, str):
            raise invalid(f"tasks: no image under data.{key}")
        return (await self.service.open_image(await self.source.get(address), self.take))[1]

    async def regions(self, labels: Sequence[Wanted], masks: Sequence[PackedMasks]) -> list[dict[str, Any]]:
        """The regions of each label's masks, without those of empty ones."""
        tolerance = self.service.settings.polygon_tolerance_px

        def written() -> list[dict[str, Any] | None]:
            return [region(one, mask, tolerance) for one, found in zip(labels, masks, strict=True) for mask in found]

        return [one for one in await self.service.in_thread(written) if one]


async def _one(task: _Task, wanted: list[Wanted], smart: dict[str, JsonValue]) -> Prediction:
    drawn = await _drawn(task, wanted, smart.get("result"))
    if drawn is not None:
        return Prediction(result=drawn, score=1.0, model_version=MODEL_VERSION)
    found: list[Answered] = []
    regions: list[dict[str, Any]] = []
    for labels in _by_image(wanted):
        image = await task.image(labels[0].image_key)
        answers = await task.service.segment(image, [one.query for one in labels])
        regions += await task.regions(labels, [one.masks for one in answers])
        found += answers
    return Prediction(result=regions, score=_read(found), model_version=MODEL_VERSION)


async def _drawn(task: _Task, wanted: list[Wanted], smart: JsonValue) -> list[dict[str, Any]] | None:
    """The region of what the annotator drew, of the image that it lies on; None if nothing was drawn.

    Raises Refused for a label that no BrushLabels on that image has: there is nothing that could carry the mask.
    """
    if not smart:
        return None
    named = drawn_on(smart)
    labels = next(iter(_by_image([one for one in wanted if not named or one.to_name in named])), [])
    if not labels:
        raise invalid("label_config: no BrushLabels on the image that was drawn on")
    image = await task.image(labels[0].image_key)
    drawn = hints(smart, image.size)
    if drawn is None:
        return None
    prompt, label = drawn
    brush = [one for one in labels if one.kind == "brushlabels" and label in (None, one.label)][:1]
    if not brush:
        raise invalid(
            f"label_config: no BrushLabels on that image has the label {label!r:.80}, so no mask can be shown"
        )
    cut = await task.service.masks(image, [prompt])
    return await task.regions(brush, [cut.masks])


def _by_image(wanted: list[Wanted]) -> list[list[Wanted]]:
    """The labels of each image together; a configuration may show several images of a task."""
    groups: dict[str, list[Wanted]] = {}
    for one in wanted:
        groups.setdefault(one.image_key, []).append(one)
    return list(groups.values())


def _read(answers: list[Answered]) -> float:
    """The share of answers that could be read."""
    return float(np.mean([not one.result.status.is_failure for one in answers]))


class ImageSource:
    """Fetches images from `base_url` with its access token; None fetches nothing.

    key: a personal access token, which Label Studio exchanges for a bearer token of a few minutes, or a legacy
    token. Redirects are not followed, so no other host is ever asked. last_failure: the last line that a task
    was refused with, for the health page; empty at first.
    """

    def __init__(self, base_url: str | None, key: str | None, limits: Limits) -> None:
        self._base = None if base_url is None else httpx.URL(base_url.rstrip("/") + "/")
        self._limits, self._key = limits, key
        self._bearer: str | None = None
        self.last_failure = ""

    def failed(self, detail: str) -> None:
        """Notes why a task has no result: Label Studio shows it to nobody."""
        if detail != self.last_failure:
            logger.warning("a task of Label Studio has no result: %s", detail)
        self.last_failure = detail

    async def get(self, address: str) -> bytes:
        """The bytes of an image: of a `data:` address, of a path on the host, or of an address on it.

        Raises Refused: 422 for every other address and for what the host does not give, 413 for too many bytes.
        """
        if address.startswith("data:"):
            return from_base64(address)
        try:
            url = self._allowed(address)
            data, status = await self._ask(url)
            if status == 401 and self._is_personal:
                self._bearer = None  # it has expired
                data, status = await self._ask(url)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise invalid("tasks: Label Studio does not give the image") from error
        if status in (401, 403):
            raise invalid(f"tasks: Label Studio answers {status} when asked for the image; {self._about_key}")
        if status != 200:
            raise invalid(f"tasks: Label Studio answers {status} when asked for the image")
        return data

    async def check_key(self) -> None:
        """Raises Refused(422) if Label Studio answers and refuses the key."""
        if self._base is None or self._key is None:
            return
        try:
            _, status = await self._ask(self._base.join("api/current-user/whoami"))
        except httpx.HTTPError:
            return  # it may not be reachable from here before the project is set up
        if status in (401, 403):
            raise invalid(f"Label Studio answers {status}; {self._about_key}")

    @property
    def _is_personal(self) -> bool:
        return self._key is not None and self._key.count(".") == 2

    @property
    def _about_key(self) -> str:
        if self._key is None:
            return "give --label-studio-key, a personal access token of Label Studio (Account & Settings)"
        kind = "personal" if self._is_personal else "legacy"
        hint = "" if self._is_personal else "; legacy tokens are off by default: create a personal access token"
        return f"the key is a {kind} token that it does not accept{hint}"

    async def _ask(self, url: httpx.URL) -> tuple[bytes, int]:
        headers = await self._headers()
        async with self._client() as client, client.stream("GET", url, headers=headers) as response:
            return (await self._read(response) if response.status_code == 200 else b""), response.status_code

    async def _headers(self) -> dict[str, str]:
        if self._key is None:
            return {}
        if not self._is_personal:
            return {"Authorization": f"Token {self._key}"}
        if self._bearer is None:
            self._bearer = await self._exchanged()
        return {"Authorization": f"Bearer {self._bearer}"}

    async def _exchanged(self) -> str:
        """The bearer token that Label Studio gives for the personal access token."""
        assert self._base is not None
        async with self._client() as client:
            answer = await client.post(self._base.join("api/token/refresh/"), json={"refresh": self._key})
        if answer.status_code != 200:
            detail = f"Label Studio answers {answer.status_code} to the personal access token: create a new one"
            raise invalid(detail)
        access = answer.json().get("access")
        if not isinstance(access, str) or not access.isascii():
            raise invalid("Label Studio gives no bearer token for the personal access token")
        return access

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=self._limits.seconds, trust_env=False)

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
