"""The page: pictures and queries on one side, an editor for each policy on the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import gradio as gr
import numpy as np
from PIL import Image

from segrl.errors import SegrlError
from segrl.pipeline import Pipeline
from segrl.result import Result
from segrl.types import Answer, Status
from segrl.web.demo import results, turns
from segrl.web.demo.edits import Edits
from segrl.web.demo.guard import uploaded
from segrl.web.demo.history import Past, recall
from segrl.web.demo.options import UNCHANGED, Options, chosen, controls, decoding_of
from segrl.web.demo.results import ResultStore
from segrl.web.demo.turns import Strip
from segrl.web.errors import Refused, one_line
from segrl.web.images import RecentImages, decode
from segrl.web.limits import Limits
from segrl.web.schemas import MAX_TURNS


class Example(NamedTuple):
    """An image and a query; without one ("") it is shown ready for boxes and points. title: what it shows, whose it
    is and on what terms."""

    image: Image.Image
    query: str
    title: str = ""

    @property
    def label(self) -> str:
        """Of its button."""
        return f"{self.query or 'Draw on it'}: {self.title}" if self.title else self.query


INTRODUCTION = "Mark an object with a box or a point to get its mask; or describe it, and the model marks it."
BETWEEN_PIECES = 0.08
"""Seconds between two looks at what is being written."""

_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def asset(name: str) -> str:
    """A file that ships beside this module."""
    return (files(__package__) / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Asked:
    """What is asked. image_id: under which `Kept.pictures` has the image. name: of its file. turns: at most. options:
    how it is answered."""

    image_id: str
    name: str
    query: str
    turns: int = 1
    options: Options = field(default_factory=lambda: UNCHANGED)


@dataclass(frozen=True)
class Kept:
    """What all visitors' pages share: results and pictures within a bound of memory. A page's own state holds keys.

    folder: where uploads lie, and nothing else. edits: makes the masks of what is drawn by hand. most_turns: that a
    visitor can ask for at once.
    """

    store: ResultStore
    pictures: RecentImages
    folder: Path
    limits: Limits
    edits: Edits
    most_turns: int = MAX_TURNS

    def picture(self, asked: Asked) -> Image.Image:
        """The image. Raises gr.Error if it is gone."""
        try:
            return self.pictures.get(asked.image_id)
        except Refused as error:
            raise gr.Error("The picture is no longer on the server: choose it again.") from error

    def opened(self, path: str | None, query: str) -> Asked:
        """The picture that a visitor uploaded. Raises gr.Error for any other file, and for what is no picture."""
        if not path:
            raise gr.Error("Choose a picture first: upload one, paste one, or take an example.")
        try:
            file = uploaded(path, self.folder, self.limits.max_bytes)
            image = decode(file.read_bytes(), self.limits.max_pixels)
        except Refused as error:
            raise gr.Error(error.detail) from error
        return Asked(self.pictures.put(image), file.name, query)

    def question(self, path: str | None, query: str, turns: float = 1, *values: Any) -> Asked:
        """What a visitor asks; values: of the controls. Raises gr.Error that says what is missing."""
        if path and not (query and query.strip()):
            raise gr.Error("Say what to look for.")
        if len(query or "") > self.limits.max_query_chars:
            raise gr.Error(f"That is too long: at most {self.limits.max_query_chars} characters.")
        asked = self.opened(path, (query or "").strip())
        return self.answered_as(asked, turns, *values)

    def answered_as(self, asked: Asked, turns: float = 1, *values: Any) -> Asked:
        """The same with what the controls say. Raises gr.Error for values that no control gives."""
        return replace(asked, turns=int(turns) if 1 <= turns <= self.most_turns else 1, options=chosen(values))


@dataclass(frozen=True, eq=False)
class Panel:
    """One policy's part of the page; `outputs` is the order in which its functions answer. state: the key of the
    result that is shown."""

    name: str
    model: Pipeline
    kept: Kept
    status: gr.HTML
    text: gr.Textbox
    editor: gr.HTML
    state: gr.State
    strip: Strip

    @property
    def outputs(self) -> list[Any]:
        """Status, text, editor, state."""
        return [self.status, self.text, self.editor, self.state]

    def show(self, result: Result, name: str) -> tuple[Any, ...]:
        """An answer in all outputs."""
        key = self.kept.store.put(result, name)
        objects = [prompt.to_json() for prompt in result.prompts]
        words = self.kept.edits.takes_words(self.name, result)
        value = {**self._shown(key, result, name), "objects": objects, "words": words}
        return results.of_result(result), result.text, value, key

    def begin(self, asked: Asked) -> tuple[Any, ...]:
        """A picture about which nothing was asked: boxes and points can be drawn at once."""
        image = self.kept.picture(asked)
        nothing = Result(image, "", "", Answer(Status.NO_TARGET), np.zeros((0, image.height, image.width), dtype=bool))
        _, _, value, key = self.show(nothing, asked.name)
        return results.line("idle", results.DRAW), gr.skip(), value, key

    def answer(self, asked: Asked) -> Iterator[tuple[Any, ...]]:
        """The model's text as it is written, then the result."""
        image = self.kept.picture(asked)
        several = asked.turns if turns.can_go_on(self) else 1
        decoding = decoding_of(asked.options, self.model.decoding, self.kept.limits, several)
        busy = "Generating the answer …" if decoding.samples == 1 else f"Generating {decoding.samples} answers …"
        yield results.line("busy", busy), gr.Textbox("", visible=True), {"busy": True}, None
        stream = self.model.stream(image, asked.query, decoding=decoding)
        shown = time.monotonic()
        try:
            for _ in stream:
                if time.monotonic() - shown > BETWEEN_PIECES:
                    shown = time.monotonic()
                    yield gr.skip(), stream.text, gr.skip(), None
            yield results.line("busy", "Segmenting …"), stream.text, gr.skip(), None
            yield self.show(stream.result.surer(asked.options.min_confidence), asked.name)
        except SegrlError as error:
            yield results.line("unread", escape(one_line(error))), stream.text, gr.skip(), None
        finally:
            stream.close()

    def edit(self, event: gr.EventData) -> tuple[Any, ...]:
        """The masks of boxes and points that were changed by hand.

        The browser says which result they belong to and numbers its edits; the number comes back with the masks,
        or with the reason why there are none. Boxes, points and the text stay what the browser has.
        """
        asked = event._data if isinstance(event._data, dict) else {}
        number = asked.get("number")
        try:
            result, name = self.kept.edits.masks(self.name, asked.get("of"), asked.get("objects"))
        except (Refused, SegrlError) as error:
            detail = error.detail if isinstance(error, Refused) else one_line(error)
            return results.line("unread", escape(detail)), gr.skip(), {"edit": number}, gr.skip()
        key = self.kept.store.put(result, name)
        value = {**self._shown(key, result, name), "edit": number}
        return results.of_result(result, edited=True), gr.skip(), value, key

    def _shown(self, key: str, result: Result, name: str) -> dict[str, Any]:
        """What the editor is told of a result."""
        return {
            "key": key,
            "files": f"files/{key}/",
            "preview": f"files/{key}/preview.png?model={quote(self.name, safe='')}&objects=",
            "size_wh": result.image.size,
            "masks": len(result.masks),
            "name": Path(name).stem,
        }


def compare(store: ResultStore) -> Callable[..., Any]:
    """A function that makes the line about answers side by side, shown once there is something to say."""

    def told(*keys: str | None) -> Any:
        line = results.agreement([None if key is None else store.get(key) for key in keys])
        return gr.HTML(line, visible=bool(line))

    return told


def build(models: Mapping[str, Pipeline], examples: Sequence[Example], kept: Kept) -> gr.Blocks:
    """The page over one policy, or several side by side. examples: images and queries to begin with."""
    with gr.Blocks(title="segrl", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        gr.Markdown(f"# segrl\n{INTRODUCTION}")
        asked = gr.State(None)
        with gr.Row(elem_classes="segrl-columns"):
            with gr.Column(scale=1, min_width=300):
                upload, query, ask = _question()
                number = turns.slider(list(models.values()))
                how = controls(next(iter(models.values())).decoding, kept.limits).inputs
                buttons = _examples(examples)
                past = Past.build(list(models), kept.store)
            with gr.Column(scale=3, min_width=320):
                compared = gr.HTML("", visible=False, elem_id="compared")
                with gr.Row():
                    panels = [_panel(name, model, kept) for name, model in models.items()]
        shown = _Shown(upload, query, asked, past, compared, panels)
        for listen in (ask.click, query.submit):
            shown.answers(listen(kept.question, [upload, query, number, *how], asked, **_QUIET))
        for i, (button, example) in enumerate(zip(buttons, examples, strict=True)):
            taking = _taking(example, f"{example.title.partition(' ')[0] or f'example-{i + 1}'}.png", kept)
            step = button.click(taking, [number, *how], [upload, query, asked], **_QUIET)
            (shown.answers if example.query else shown.begins)(step)
        shown.begins(upload.upload(kept.opened, [upload, query], asked, **_QUIET))
        shown.wire()
    return page


def _question() -> tuple[gr.Image, gr.Textbox, gr.Button]:
    upload = gr.Image(
        type="filepath",
        image_mode=None,  # Gradio decodes nothing: `decode` does, within limits
        sources=["upload", "clipboard"],
        label="Picture",
        height=240,
        elem_id="upload",
        buttons=[],
    )
    query = gr.Textbox(label="What to look for", placeholder="the red ring", max_lines=3, elem_id="query")
    return upload, query, gr.Button("Ask", variant="primary", elem_id="ask")


def _examples(examples: Sequence[Example]) -> list[gr.Button]:
    """A button with picture and query for each."""
    with tempfile.TemporaryDirectory() as folder, gr.Column(elem_id="examples"):
        gr.Markdown("Or take an example:")
        buttons = []
        for i, example in enumerate(examples):
            icon = Path(folder) / f"{i}.png"
            example.image.save(icon)  # the button keeps a copy
            buttons.append(gr.Button(example.label, icon=icon, size="sm", elem_classes="segrl-example"))
        return buttons


def _panel(name: str, model: Pipeline, kept: Kept) -> Panel:
    with gr.Column(scale=2, min_width=320, elem_classes="segrl-panel"):
        about = results.ABOUT.get(name)
        gr.Markdown(f"### Model: {name}" + (f"\n{about}" if about else ""))
        status = gr.HTML(results.line("idle", results.NOTHING_YET))
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
        strip = Strip.build()
    return Panel(name, model, kept, status, text, editor, gr.State(None), strip)


def _taking(example: Example, name: str, kept: Kept) -> Callable[..., tuple[Any, ...]]:
    image, query, _ = example
    return lambda *values: (image, query, kept.answered_as(Asked(kept.pictures.put(image), name, query), *values))


@dataclass(frozen=True)
class _Shown:
    """The parts of the page that follow one another."""

    upload: gr.Image
    query: gr.Textbox
    asked: gr.State
    past: Past
    compared: gr.HTML
    panels: Sequence[Panel]

    def answers(self, step: Any) -> None:
        """After a question every policy's answer, one after the other, how far they agree, then the history."""
        for panel in self.panels:
            step = step.success(panel.answer, self.asked, panel.outputs, **_QUIET)
            further = partial(turns.begin, panel)
            outputs = [*panel.outputs, *panel.strip.outputs]
            step = step.success(further, [self.asked, panel.state], outputs, **_QUIET)
        past = self.past
        self._compare(step.success(past.keep, [*past.inputs, self.asked, *self._states], past.outputs, **_QUIET))

    def begins(self, step: Any) -> None:
        """After an upload every panel shows the picture, ready for boxes and points."""
        for panel in self.panels:
            step = step.success(panel.begin, self.asked, panel.outputs, **_QUIET)

    def wire(self) -> None:
        """What follows a choice in the history, an edit, and a nudge (which only opens the stream of answers)."""
        outputs = [output for panel in self.panels for output in panel.outputs]
        show, inputs = recall(self.panels), [self.past.history, self.past.choice]
        self._compare(self.past.choice.input(show, inputs, [self.upload, self.query, self.asked, *outputs], **_QUIET))
        self.past.by_doubt.input(self.past.sort, [*self.past.inputs, self.past.choice], self.past.choice, **_QUIET)
        for panel in self.panels:
            edited = panel.editor.edited(panel.edit, None, panel.outputs, trigger_mode="multiple", **_QUIET)
            self._compare(edited)
            panel.editor.nudged(lambda: None, None, None, trigger_mode="multiple", **_QUIET)
            outputs, said = [*panel.outputs, *panel.strip.outputs], panel.strip.state
            panel.strip.choice.input(partial(turns.choose, panel), [said, panel.strip.choice], outputs, **_QUIET)
            panel.strip.button.click(partial(turns.go_on, panel), [said, panel.state], outputs, **_QUIET)

    @property
    def _states(self) -> list[gr.State]:
        return [panel.state for panel in self.panels]

    def _compare(self, step: Any) -> None:
        if len(self.panels) > 1:
            step.success(compare(self.panels[0].kept.store), self._states, self.compared, **_QUIET)
