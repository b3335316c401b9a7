"""Results that a page shows, and the files that it offers of them."""

from __future__ import annotations

import io
import json
import secrets
import tempfile
from collections import OrderedDict
from pathlib import Path

from fastapi import APIRouter, HTTPException, Response
from PIL import Image

from segrl import exports, overlay
from segrl.masks import png_bytes
from segrl.pipeline import Result

SHOWN_SIDE = 1600
"""The longer side of what a browser is sent to draw; masks that are taken along have the image's own size."""


class ResultStore:
    """The `size` results shown last, each under a key that cannot be guessed."""

    def __init__(self, size: int = 256) -> None:
        self.size = size
        self._kept: OrderedDict[str, Result] = OrderedDict()

    def put(self, result: Result) -> str:
        """The key of a result; the oldest one goes when there are too many."""
        key = secrets.token_urlsafe(12)
        self._kept[key] = result
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
        return key

    def get(self, key: str) -> Result | None:
        """The result, or None if it is gone."""
        return self._kept.get(key)


def picture(result: Result) -> bytes:
    """The image as JPEG, made smaller where it is large."""
    return _file(_shown(result.image, Image.Resampling.LANCZOS), "JPEG")


def layer(result: Result) -> bytes:
    """The masks alone as a PNG with transparency, as `overlay.draw` colours them."""
    return _file(_shown(overlay.layer(result.masks), Image.Resampling.NEAREST), "PNG")


def mask(result: Result) -> bytes:
    """All masks as one grey PNG of the image's size."""
    return png_bytes(result.mask)


def drawn(result: Result) -> bytes:
    """The image with masks, boxes and points over it, as PNG."""
    return _file(result.overlay(), "PNG")


def coco(result: Result) -> bytes:
    """COCO's JSON for this one image."""
    with tempfile.TemporaryDirectory() as folder:
        record = exports.record("picture.png", [result], file_name="picture.png", name="picture")
        path = exports.get("coco")(Path(folder), [result.query]).finish([record])
        return json.dumps(json.loads(path.read_text())).encode()


FILES = {
    "picture.jpg": (picture, "image/jpeg"),
    "layer.png": (layer, "image/png"),
    "mask.png": (mask, "image/png"),
    "coco.json": (coco, "application/json"),
    "overlay.png": (drawn, "image/png"),
}


def routes(store: ResultStore) -> APIRouter:
    """`/files/KEY/NAME` for every name in FILES."""
    router = APIRouter()

    @router.get("/files/{key}/{name}")
    def file(key: str, name: str) -> Response:
        result = store.get(key)
        if result is None or name not in FILES:
            raise HTTPException(404, "this result is gone: ask again")
        make, kind = FILES[name]
        return Response(make(result), media_type=kind, headers={"Cache-Control": "private, max-age=3600, immutable"})

    return router


def _shown(image: Image.Image, how: Image.Resampling) -> Image.Image:
    scale = SHOWN_SIDE / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def _file(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, quality=90, compress_level=1)
    return file.getvalue()
