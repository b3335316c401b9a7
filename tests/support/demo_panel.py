"""One policy's part of the demo page, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import gradio as gr

from segrl.pipeline import Pipeline
from segrl.web.demo import page
from segrl.web.demo.edits import Edits
from segrl.web.demo.results import ResultStore
from segrl.web.images import RecentImages
from segrl.web.limits import Limits

T = TypeVar("T")


def in_loop(build: Callable[[], T]) -> T:
    """What `build` makes in a running event loop: without one Gradio makes its own, which nobody closes."""

    async def made() -> T:
        return build()

    return asyncio.run(made())


def in_blocks(build: Callable[[], T]) -> T:
    """What `build` makes inside a page."""

    def made() -> T:
        with gr.Blocks():
            return build()

    return in_loop(made)


def panel_of(model: Pipeline, folder: Path) -> page.Panel:
    """The panel over a pipeline, with a store of its own."""
    store, limits = ResultStore(), Limits()
    kept = page.Kept(store, RecentImages(2**20), folder, limits, Edits({"mine": model}, store, limits))
    return in_blocks(lambda: page._panel("mine", model, kept))
