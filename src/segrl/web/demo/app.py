"""The page as an ASGI application, with the files that it offers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from fastapi import FastAPI

from segrl.pipeline import Pipeline

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from segrl.web.demo.page import Example, asset, build
from segrl.web.demo.shelf import Shelf, routes

MAX_FILE_SIZE = "32mb"


def create_app(models: Mapping[str, Pipeline], examples: Sequence[Example] | None = None) -> FastAPI:
    """The page over policies by name, side by side where there are several. It loads nothing from other hosts."""
    app, shelf = FastAPI(openapi_url=None), Shelf()
    app.include_router(routes(shelf))
    page = build(models, examples if examples is not None else tiny_examples(), shelf)
    page.queue(default_concurrency_limit=4, max_size=64)
    system = ["system-ui", "sans-serif"]
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=gr.themes.Soft(font=system, font_mono=["ui-monospace", "monospace"]),
        css=asset("page.css"),
        footer_links=[],
        max_file_size=MAX_FILE_SIZE,
        show_error=False,  # what is meant for visitors is a gr.Error
        ssr_mode=False,
    )


def tiny_examples() -> list[Example]:
    """Scenes of the embedded default with a query each; held out from all training."""
    from segrl.tiny.scenes import TinyScenes

    scenes = TinyScenes(6, 9_500, ("colour_shape", "pair", "none", "position", "several", "size"))
    return [(scene.image, scene.query) for scene in scenes]
