"""The page: pictures and queries on one side, an editor for each policy on the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from segrl.errors import SegrlError
from segrl.pipeline import Pipeline, Result
from segrl.web.demo import messages
from segrl.web.demo.result_store import ResultStore
from segrl.web.errors import Refused
from segrl.web.images import decode
from segrl.web.schemas import Prompt

Picture = tuple[Image.Image, str]
"""An image and the query about it."""
Example = tuple[Image.Image, str]

HISTORY = 20
MAX_PIXELS = 25_000_000
MAX_QUERY = 1000
INTRODUCTION = "Say what to look for. The model answers with boxes and points, and a segmenter cuts out the mask."
BETWEEN_PIECES = 0.08
"""Seconds between two looks at what is being written."""

_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

PROMPTS = TypeAdapter(list[Prompt])


def asset(name: str) -> str:
    """A file that ships beside this module."""
    return (files(__package__) / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Turn:
    """What was asked and what each policy answered."""

    image: Image.Image
    query: str
    results: tuple[Result, ...]


@dataclass(frozen=True, eq=False)
class Panel:
    """One policy's part of the page; `outputs` is the order in which its functions answer."""

    name: str
    model: Pipeline
    store: ResultStore
    status: gr.HTML
    text: gr.Textbox
    editor: gr.HTML
    state: gr.State

    @property
    def outputs(self) -> list[Any]:
        """Status, text, editor, state."""
        return [self.status, self.text, self.editor, self.state]

    def show(self, result: Result, *, edited: bool = False) -> tuple[Any, ...]:
        """A result in all outputs. After an edit the boxes and points stay what the browser has, and the text too."""
        key = self.store.put(result)
        value: dict[str, Any] = {"files": f"files/{key}/", "size_wh": result.image.size, "masks": len(result.masks)}
        if not edited:
            value["objects"] = [prompt.to_json() for prompt in result.prompts]
        text = gr.skip() if edited else result.text
        return messages.of_result(result, edited=edited), text, value, result

    def answer(self, asked: Picture) -> Iterator[tuple[Any, ...]]:
        """The model's text as it is written, then the result."""
        image, query = asked
        yield messages.line("busy", "Looking …"), gr.Textbox("", visible=True), {"busy": True}, None
        stream = self.model.stream(image, query)
        shown = time.monotonic()
        try:
            for _ in stream:
                if time.monotonic() - shown > BETWEEN_PIECES:
                    shown = time.monotonic()
                    yield gr.skip(), stream.text, gr.skip(), None
            yield messages.line("busy", "Cutting out the mask …"), stream.text, gr.skip(), None
            yield self.show(stream.result)
        except SegrlError as error:
            yield messages.line("unread", " ".join(str(error).split())), stream.text, gr.skip(), None
        finally:
            stream.close()

    def edit(self, result: Result | None, event: gr.EventData) -> tuple[Any, ...]:
        """The masks of boxes and points that were changed by hand."""
        if result is None:
            raise gr.Error("Ask about a picture first.")
        try:
            prompts = PROMPTS.validate_python(event._data.get("objects"))[:64]
        except (ValidationError, AttributeError) as error:
            raise gr.Error("These boxes and points make no sense.") from error
        made = self.model.masks(result.image, [one.to_mask_prompt() for one in prompts], result.query)
        return self.show(made, edited=True)


def opened(path: str | None, query: str) -> Picture:
    """What a visitor asks, or a gr.Error that says what is missing."""
    if not path:
        raise gr.Error("Choose a picture first: upload one, paste one, or take an example.")
    if not query or not query.strip():
        raise gr.Error("Say what to look for.")
    if len(query) > MAX_QUERY:
        raise gr.Error(f"That is too long: at most {MAX_QUERY} characters.")
    try:
        return decode(Path(path).read_bytes(), MAX_PIXELS), query.strip()
    except Refused as error:
        raise gr.Error(error.detail) from error


def remember(names: Sequence[str]) -> Callable[..., tuple[list[Turn], Any]]:
    """A function that puts a turn of these policies at the end of the history; one without answers is not kept."""

    def keep(history: list[Turn], asked: Picture, *results: Result | None) -> tuple[list[Turn], Any]:
        told = tuple(result for result in results if result is not None)
        if len(told) == len(results):
            history = [*history, Turn(*asked, told)][-HISTORY:]
        return history, history_list(names, history)

    return keep


def history_list(names: Sequence[str], history: Sequence[Turn]) -> Any:
    """The newest first and chosen, for it is what is shown; a choice's value is its place in `history`."""
    entries = [
        (messages.history_entry(i + 1, turn.query, list(zip(names, turn.results, strict=True))), i)
        for i, turn in enumerate(history)
    ]
    return gr.Radio(choices=entries[::-1], value=len(entries) - 1 if entries else None, visible=bool(entries))


def compare(*results: Result | None) -> Any:
    """The line about answers side by side, shown once there is something to say."""
    told = messages.agreement(results)
    return gr.HTML(told, visible=bool(told))


def recall(panels: Sequence[Panel]) -> Callable[..., tuple[Any, ...]]:
    """A function that shows a turn of the history again: picture and query, as if just asked, and the answers."""

    def show(history: list[Turn], chosen: int | None) -> tuple[Any, ...]:
        if chosen is None or not 0 <= chosen < len(history):
            raise gr.Error("This is no longer in the history.")
        turn = history[chosen]
        shown = [panel.show(result) for panel, result in zip(panels, turn.results, strict=True)]
        return (turn.image, turn.query, (turn.image, turn.query), *(part for parts in shown for part in parts))

    return show


def build(models: Mapping[str, Pipeline], examples: Sequence[Example], store: ResultStore) -> gr.Blocks:
    """The page over one policy, or several side by side. examples: images and queries to begin with."""
    with gr.Blocks(title="segrl", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        gr.Markdown(f"# segrl\n{INTRODUCTION}")
        asked, history = gr.State(None), gr.State([])
        with gr.Row(elem_classes="segrl-columns"):
            with gr.Column(scale=1, min_width=300):
                upload, query, ask = _question()
                buttons = _examples(examples)
                past = gr.Radio(
                    [],
                    label="Asked before",
                    info="Choose one to see its answer again.",
                    visible=False,
                    elem_classes="segrl-history",
                    elem_id="history",
                )
            with gr.Column(scale=3, min_width=320):
                compared = gr.HTML("", visible=False, elem_id="compared")
                with gr.Row():
                    panels = [_panel(name, model, store) for name, model in models.items()]
        shown = _Shown(upload, query, asked, history, past, compared, panels)
        for listen in (ask.click, query.submit):
            shown.answers(listen(opened, [upload, query], asked, **_QUIET))
        for button, example in zip(buttons, examples, strict=True):
            shown.answers(button.click(_taking(example), None, [upload, query, asked], **_QUIET))
        shown.wire()
    return page


def _question() -> tuple[gr.Image, gr.Textbox, gr.Button]:
    upload = gr.Image(
        type="filepath", sources=["upload", "clipboard"], label="Picture", height=240, elem_id="upload", buttons=[]
    )
    query = gr.Textbox(label="What to look for", placeholder="the red ring", max_lines=3, elem_id="query")
    return upload, query, gr.Button("Ask", variant="primary", elem_id="ask")


def _examples(examples: Sequence[Example]) -> list[gr.Button]:
    """A button with picture and query for each."""
    with tempfile.TemporaryDirectory() as folder, gr.Column(elem_id="examples"):
        gr.Markdown("Or take an example:")
        buttons = []
        for i, (image, query) in enumerate(examples):
            icon = Path(folder) / f"{i}.png"
            image.save(icon)  # the button keeps a copy
            buttons.append(gr.Button(query, icon=icon, size="sm", elem_classes="segrl-example"))
        return buttons


def _panel(name: str, model: Pipeline, store: ResultStore) -> Panel:
    with gr.Column(scale=2, min_width=320, elem_classes="segrl-panel"):
        about = messages.ABOUT.get(name)
        gr.Markdown(f"### Model: {name}" + (f"\n{about}" if about else ""))
        status = gr.HTML(messages.line("idle", messages.NOTHING_YET))
        editor = gr.HTML(
            {},
            html_template=asset("editor.html"),
            css_template=asset("editor.css"),
            js_on_load=asset("editor.js"),
            apply_default_css=False,
        )
        text = gr.Textbox(
            label="What the model writes",
            info="First its reasoning, then boxes and points as numbers.",
            lines=3,
            max_lines=10,
            interactive=False,
            autoscroll=True,
            buttons=["copy"],
            visible=False,
        )
    return Panel(name, model, store, status, text, editor, gr.State(None))


def _taking(example: Example) -> Callable[[], tuple[Any, ...]]:
    image, query = example
    return lambda: (image, query, (image, query))


@dataclass(frozen=True)
class _Shown:
    """The parts of the page that follow one another."""

    upload: gr.Image
    query: gr.Textbox
    asked: gr.State
    history: gr.State
    past: gr.Radio
    compared: gr.HTML
    panels: Sequence[Panel]

    def answers(self, step: Any) -> None:
        """After a question every policy's answer, one after the other, how far they agree, then the history."""
        for panel in self.panels:
            step = step.success(panel.answer, self.asked, panel.outputs, **_QUIET)
        keep = remember([panel.name for panel in self.panels])
        step = step.success(keep, [self.history, self.asked, *self._states], [self.history, self.past], **_QUIET)
        self._compare(step)

    def wire(self) -> None:
        """What follows a choice in the history, and an edit."""
        outputs = [output for panel in self.panels for output in panel.outputs]
        inputs = [self.history, self.past]
        chosen = self.past.input(recall(self.panels), inputs, [self.upload, self.query, self.asked, *outputs], **_QUIET)
        self._compare(chosen)
        for panel in self.panels:
            edited = panel.editor.edited(panel.edit, panel.state, panel.outputs, trigger_mode="always_last", **_QUIET)
            self._compare(edited)

    @property
    def _states(self) -> list[gr.State]:
        return [panel.state for panel in self.panels]

    def _compare(self, step: Any) -> None:
        if len(self.panels) > 1:
            step.success(compare, self._states, self.compared, **_QUIET)
