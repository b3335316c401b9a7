"""Results as the page shows them: in words that say whether something was found, and as files to download."""

from __future__ import annotations

import io
import json
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
from fastapi import APIRouter, HTTPException, Response
from PIL import Image

from segrl import exports, overlay
from segrl.masks import PackedMasks, png_bytes
from segrl.recent import Recent
from segrl.result import Result
from segrl.types import Status

DRAW = "Draw a box around an object or put a point on it to get its mask, or enter a query and press Ask."
NOTHING_YET = "Choose a picture. Then draw a box or put a point on an object, or enter a query and press Ask."
_SCENES = "A very small model that ships with segrl. It knows drawn shapes like the examples, not photographs."
ABOUT = {
    "tiny-photos": "A small model that ships with segrl. It finds what stands out in a photograph: the main object.",
    **dict.fromkeys(("tiny", "tiny-scenes"), _SCENES),
    "tiny-fresh": "The tiny model before any training: hardly any of its answers can be read.",
}
"""What a visitor must know of a policy before believing its answers."""

SHOWN_REPAIRS = 20
"""Lines that are shown of what was repaired."""

SAME = 0.8
"""IoU from which masks are said to agree."""


def line(kind: str, text: str) -> str:
    """A line that screen readers announce. kind: `busy`, `found`, `none`, `unread`, or `idle`."""
    return f'<p class="segrl-line segrl-{kind}" role="status">{text}</p>'


def of_result(result: Result, *, edited: bool = False) -> str:
    """The line about a result, and what the lenient reading repaired; after an edit it speaks of the hand-made
    prompts."""
    return _told(result, edited) + ("" if edited else _repairs(result.repairs))


def _repairs(repairs: Sequence[str]) -> str:
    """What was repaired or dropped, folded up; empty for nothing."""
    if not repairs:
        return ""
    rows = [f"<li>{escape(one)}</li>" for one in repairs[:SHOWN_REPAIRS]]
    rows += [f"<li>and {len(repairs) - len(rows)} more</li>"] if len(rows) < len(repairs) else []
    return (
        '<details class="segrl-repairs"><summary>The answer was not well-formed: what was repaired or left out'
        f"</summary><ul>{''.join(rows)}</ul></details>"
    )


def _told(result: Result, edited: bool) -> str:
    query = f"“{escape(result.query)}”"
    if edited and not result.mask.any():
        return line("none", "Edited by hand: nothing is marked.")
    if edited:
        return line("found", f"Edited by hand: {_count(result)}, {result.mask.mean():.1%} of the picture.")
    if result.status is Status.OK and result.mask.any():
        return line("found", f"{_count(result)} for {query}, {result.mask.mean():.1%} of the picture.{_votes(result)}")
    if result.status is Status.OK:
        return line("unread", f"The model pointed at something for {query}, but the mask came out empty.")
    if result.status is Status.NO_TARGET and result.answer.detail:  # the model pointed at something, or named it
        return line("none", f"Nothing for {query}: {escape(result.answer.detail)}.")
    if result.status is Status.NO_TARGET:
        return line("none", f"Nothing here: the model says that nothing in this picture fits {query}.{_votes(result)}")
    why = escape(result.answer.detail) or result.status.value.replace("_", " ")
    return line("unread", f"The model's answer could not be read ({why}). So there is no mask.")


def _votes(result: Result) -> str:
    """How far the samples agree, where there were several."""
    votes = result.votes
    if votes is None:
        return ""
    if not votes.agreement:
        return f" {votes.nothing} of {votes.readable} samples agree."
    told = ", ".join(f"{share:.0%}" for share in votes.agreement)
    return f" Agreement of {votes.readable} samples: {told}."


def _count(result: Result) -> str:
    n = len(result.masks)
    return "1 object" if n == 1 else f"{n} objects"


def history_entry(
    number: int, query: str, answers: Sequence[tuple[str, Result]], confidence: float | None = None
) -> str:
    """One line of the history. answers: each policy's name and result; names are told where they differ."""
    told = [(name, _outcome(result)) for name, result in answers]
    outcomes = dict.fromkeys(outcome for _, outcome in told)
    short = query if len(query) <= 60 else query[:59] + "…"
    sure = "" if not confidence else f" ({confidence:.2f})"
    if len(outcomes) == 1:
        return f"{number}. {short}: {next(iter(outcomes))}{sure}"
    return f"{number}. {short}: " + ", ".join(f"{name} {outcome}" for name, outcome in told) + sure


def _outcome(result: Result) -> str:
    if result.status is Status.OK:
        return _count(result)
    return "nothing here" if result.status is Status.NO_TARGET else "not readable"


def agreement(results: Sequence[Result | None]) -> str:
    """The line about two or more answers beside each other; empty while one is missing."""
    told = [result for result in results if result is not None]
    if len(told) < 2 or len(told) < len(results):
        return ""
    found = [result for result in told if result.mask.any()]
    if not found:
        return line("same", "None of the policies found anything.")
    if len(found) < len(told):
        return line("differs", f"They disagree: {len(found)} of {len(told)} policies found something.")
    together = np.logical_and.reduce([result.mask for result in found]).sum()
    either = np.logical_or.reduce([result.mask for result in found]).sum()
    kind, verdict = _verdict(together / either)
    shared = f"of everything that they marked, {together / either:.0%} was marked by {_all(len(found))}"
    return line(kind, f"{verdict}: {shared}.")


def _verdict(iou: float) -> tuple[str, str]:
    if iou >= SAME:
        return "same", "They agree"
    return ("partly", "They agree in part") if iou > 0 else ("differs", "They marked different places")


def _all(n: int) -> str:
    return "both" if n == 2 else "all"


PICTURE = "picture.png"
"""The name of a picture that came without one."""
SHOWN_SIDE = 1600
"""The longer side of what a browser is sent to draw; masks that are downloaded have the image's own size."""
SMALL_SIDE = 480
"""The longer side of a picture in a strip."""


@dataclass(frozen=True)
class _Kept:
    """A result without its masks, which are at a bit a pixel."""

    result: Result
    masks: PackedMasks
    name: str

    @property
    def nbytes(self) -> int:
        return 3 * self.result.image.width * self.result.image.height + self.masks.nbytes + len(self.result.text)


class ResultStore:
    """The results shown last, `max_bytes` of them, each under a key that cannot be guessed. For several threads.

    The last one is kept whatever its size.
    """

    def __init__(self, max_bytes: int = 512 * 2**20) -> None:
        self._kept = Recent[_Kept](max_bytes, lambda kept: kept.nbytes, keeps_last=True)

    def put(self, result: Result, name: str = PICTURE) -> str:
        """The key of a result about the picture of that file name; the oldest ones go when there are too many."""
        key, masks = secrets.token_urlsafe(12), PackedMasks.of(result.masks)
        self._kept.put(key, _Kept(replace(result, masks=masks.nothing), masks, name))
        return key

    def get(self, key: str) -> Result | None:
        """The result, or None if it is gone."""
        found = self.named(key)
        return found and found[0]

    def named(self, key: str) -> tuple[Result, str] | None:
        """The result and the picture's file name, or None if they are gone."""
        kept = self._kept.get(key, uses=False)
        if kept is None:
            return None
        height, width = kept.masks.hw
        masks = np.array(list(kept.masks), dtype=bool).reshape(-1, height, width)
        return replace(kept.result, masks=masks), kept.name


def picture(result: Result, name: str) -> bytes:
    """The image as JPEG, made smaller where it is large."""
    return _file(_shown(result.image, Image.Resampling.LANCZOS), "JPEG")


def layer(result: Result, name: str) -> bytes:
    """The masks alone as a PNG with transparency, as `overlay.draw` colours them."""
    return _file(_shown(overlay.layer(result.masks), Image.Resampling.NEAREST), "PNG")


def mask(result: Result, name: str) -> bytes:
    """All masks as one grey PNG of the image's size."""
    return png_bytes(result.mask)


def drawn(result: Result, name: str) -> bytes:
    """The image with masks, boxes and points over it, as PNG."""
    return _file(result.overlay(), "PNG")


def cut_out(result: Result, name: str) -> bytes:
    """What is marked on a transparent ground, as PNG."""
    return _file(overlay.cutout(result.image, result.mask), "PNG")


def small(result: Result, name: str) -> bytes:
    """The image with masks, boxes and points over it as a small JPEG."""
    return _file(_shown(result.overlay(), Image.Resampling.LANCZOS, SMALL_SIDE), "JPEG")


def coco(result: Result, name: str) -> bytes:
    """COCO's JSON for this one image; without a query the category is `object`."""
    with tempfile.TemporaryDirectory() as folder:
        asked = replace(result, query=result.query or "object")
        record = exports.record(name, [asked], file_name=name, name=Path(name).stem)
        path = exports.get("coco")(Path(folder), [asked.query]).finish([record])
        return json.dumps(json.loads(path.read_text())).encode()


FILES = {
    "picture.jpg": (picture, "image/jpeg"),
    "layer.png": (layer, "image/png"),
    "mask.png": (mask, "image/png"),
    "coco.json": (coco, "application/json"),
    "overlay.png": (drawn, "image/png"),
    "cutout.png": (cut_out, "image/png"),
    "small.jpg": (small, "image/jpeg"),
}


def routes(store: ResultStore) -> APIRouter:
    """`/files/KEY/NAME` for every name in FILES."""
    router = APIRouter()

    @router.get("/files/{key}/{name}")
    def file(key: str, name: str) -> Response:
        found = store.named(key)
        if found is None or name not in FILES:
            raise HTTPException(404, "this result is gone: ask again")
        make, kind = FILES[name]
        return Response(make(*found), media_type=kind, headers={"Cache-Control": "private, max-age=3600, immutable"})

    return router


def _shown(image: Image.Image, how: Image.Resampling, side: int = SHOWN_SIDE) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def _file(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, quality=90, compress_level=1)
    return file.getvalue()
