"""The page as an ASGI application, with the files that it offers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from fastapi import FastAPI

from segrl.pipeline import Pipeline

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from segrl.web.demo.page import Example, asset, build
from segrl.web.demo.result_store import ResultStore, routes

MAX_FILE_SIZE = "32mb"


def create_app(models: Mapping[str, Pipeline], examples: Sequence[Example] | None = None) -> FastAPI:
    """The page over policies by name, side by side where there are several. It loads nothing from other hosts."""
    app, store = FastAPI(openapi_url=None), ResultStore()
    app.include_router(routes(store))
    page = build(models, examples if examples is not None else tiny_examples(), store)
    page.queue(default_concurrency_limit=4, max_size=64)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=_theme(),
        css=asset("page.css"),
        footer_links=[],
        max_file_size=MAX_FILE_SIZE,
        show_error=False,  # what is meant for visitors is a gr.Error
        ssr_mode=False,
    )


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


def tiny_examples() -> list[Example]:
    """Scenes of the embedded default with a query each; held out from all training."""
    from segrl.tiny.scenes import TinyScenes

    scenes = TinyScenes(6, 9_500, ("colour_shape", "pair", "none", "position", "several", "size"))
    return [(scene.image, scene.query) for scene in scenes]
