"""The page as an ASGI application, with the files that it offers."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from PIL import Image

from segrl.pipeline import Pipeline
from segrl.segmenters import Segmenter

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from segrl.web.demo.edits import Edits
from segrl.web.demo.guard import Guard
from segrl.web.demo.page import Example, Kept, asset, build
from segrl.web.demo.results import ResultStore, routes
from segrl.web.demo.turns import most
from segrl.web.images import RecentImages
from segrl.web.limits import Limits
from segrl.web.service import bounded

MAX_KEPT = 512 * 2**20
"""Bytes of results, and as many of pictures, that visitors can see again."""
MAX_DISK = 2 * 2**30
"""Bytes of uploads on the disk."""
SCENES = ("tiny", "tiny-scenes", "tiny-fresh")
"""Policies that know drawn scenes only."""
PHOTOGRAPHS = {
    "astronaut": "NASA, public domain",
    "cat": "Stefan van der Walt, CC0",
    "coffee": "Rachel Michetti, CC0",
    "rocket": "SpaceX, public domain",
}
"""Examples in the folder photographs: author and terms."""


def create_app(
    models: Mapping[str, Pipeline],
    examples: Sequence[tuple[Image.Image, str]] | None = None,
    limits: Limits | None = None,
    *,
    unasked: Segmenter | None = None,
    max_kept: int = MAX_KEPT,
    max_disk: int = MAX_DISK,
) -> FastAPI:
    """The page over policies by name, side by side where there are several. It loads nothing from other hosts.

    unasked: what cuts out boxes and points on a picture about which no policy was asked, if it is not each policy's
    own segmenter. max_kept: bytes of results, and as many of pictures, that visitors can see again. max_disk: bytes of
    uploads.
    """
    limits = limits or Limits()
    folder = upload_folder()
    app, store = FastAPI(openapi_url=None), ResultStore(max_kept)
    shown = {name: bounded(model, limits.max_mask_pixels) for name, model in models.items()}
    edits = Edits(shown, store, limits, unasked)
    app.include_router(edits.routes())  # before those of the results, whose paths it would be taken for
    app.include_router(routes(store))
    kept = Kept(store, RecentImages(max_kept), folder, limits, edits, most(models.values()))
    chosen = fitting_examples(models) if examples is None else [Example(*one) for one in examples]
    page = build(shown, chosen, kept)
    page.queue(default_concurrency_limit=4, max_size=64)
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=_theme(),
        css=asset("page.css"),
        footer_links=[],
        max_file_size=limits.max_bytes,
        show_error=False,  # what is meant for visitors is a gr.Error
        ssr_mode=False,
    )
    page.has_launched = True  # only then does Gradio check the paths that requests name; mounting does not say so

    def forget(session: str) -> None:
        """Gradio would remember for ever that events of this session have not been heard."""
        page._queue.pending_event_ids_session.pop(session, None)

    app.add_middleware(
        Guard, folder=folder, limits=limits, max_disk=max_disk, functions=frozenset(page.fns), forget=forget
    )
    return app


@cache
def upload_folder() -> Path:
    """A folder of this process alone for uploads; it goes when the process ends."""
    folder = tempfile.mkdtemp(prefix="segrl-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder
    return Path(folder)


def _theme() -> gr.themes.Base:
    """Fonts that every machine has, and colours that can be read."""
    soft = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return soft.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        button_primary_background_fill="*primary_600",
        checkbox_label_background_fill_selected="*primary_600",
    )


def fitting_examples(models: Collection[str]) -> list[Example]:
    """Drawn scenes with a query each, held out from all training, where a policy knows no more; and photographs.

    The photographs are asked about where every policy can be, and shown to draw on where one knows drawn scenes only.
    """
    from segrl.tiny.scenes import TinyScenes

    is_for_scenes = any(name in SCENES for name in models)
    query = "" if is_for_scenes else "the main object"
    photographs = [Example(photograph(name), query, f"{name} ({terms})") for name, terms in PHOTOGRAPHS.items()]
    scenes = TinyScenes(6, 9_500, ("colour_shape", "pair", "none", "position", "several", "size"))
    return [*(Example(scene.image, scene.query) for scene in scenes if is_for_scenes), *photographs]


def photograph(name: str) -> Image.Image:
    """One that ships beside this module; its author and terms: photographs/README.md."""
    with (files(__package__) / "photographs" / f"{name}.jpg").open("rb") as file:
        return Image.open(file).convert("RGB")
