"""The turns of an answer as a strip of pictures: any can be looked at again, corrected, and gone on from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from segrl.answers import Move, says_done
from segrl.errors import SegrlError
from segrl.policies import ConversingPolicy
from segrl.turns import MAX_TURNS
from segrl.types import MaskPrompt, Status
from segrl.web import schemas
from segrl.web.demo import results
from segrl.web.demo.options import UNCHANGED, Options, decoding_of
from segrl.web.errors import one_line

if TYPE_CHECKING:
    from segrl.pipeline import Pipeline
    from segrl.result import Result

Panel = Any
"""`segrl.web.demo.page.Panel`, which holds a strip."""
Asked = Any
"""`segrl.web.demo.page.Asked`."""

ENDED = "The model has had all its turns, or said that it is done."
UNREAD = results.line("unread", "The last answer could not be read, so the mask before it is kept.")
UNTOLD = results.line(
    "unread", "The model saw this mask, but its answer format has no words for these boxes and points by hand."
)
SAYS = {Move.ANSWER: "answer", Move.POINTS: "more points", Move.DONE: "done", Move.BROKEN: "not readable"}


@dataclass(frozen=True)
class Step:
    """One turn. said: the text, or what a person drew instead. key: of its result in the store. title: in the strip."""

    said: str | tuple[MaskPrompt, ...]
    key: str
    title: str


@dataclass(frozen=True)
class Talk:
    """The turns so far, the place of the one that is shown, and how they are answered."""

    steps: tuple[Step, ...] = ()
    shown: int = 0
    options: Options = field(default_factory=lambda: UNCHANGED)


@dataclass(frozen=True, eq=False)
class Strip:
    """A panel's strip. state: its Talk."""

    pictures: gr.HTML
    choice: gr.Radio
    button: gr.Button
    state: gr.State

    @classmethod
    def build(cls) -> Strip:
        """Hidden until there is something to show; the button never appears for a policy that takes one request."""
        pictures = gr.HTML("", visible=False, elem_classes="segrl-turns")
        choice = gr.Radio([], label="Turn", visible=False, info="Choose one to see or correct its mask.")
        button = gr.Button("Let the model look and go on", visible=False, size="sm")
        return cls(pictures, choice, button, gr.State(Talk()))

    @property
    def outputs(self) -> list[Any]:
        """Pictures, choice, button, state."""
        return [self.pictures, self.choice, self.button, self.state]


def most(models: Iterable[Pipeline]) -> int:
    """Turns that a visitor can ask for at once."""
    return max(schemas.MAX_TURNS, *(model.decoding.turns for model in models))


def slider(models: Sequence[Pipeline]) -> gr.Slider:
    """How many turns are asked for; hidden where no policy can be shown its mask."""
    can_look = any(isinstance(model.policy, ConversingPolicy) for model in models)
    info = "Maximum number of answers; after each answer the model is shown its mask."
    own = models[0].decoding.turns
    return gr.Slider(1, most(models), value=own, step=1, label="Turns", info=info, visible=can_look, elem_id="turns")


def can_go_on(panel: Panel) -> bool:
    """Whether the panel's policy can be shown its mask."""
    return isinstance(panel.model.policy, ConversingPolicy)


def strip(panel: Panel, talk: Talk) -> tuple[Any, ...]:
    """A talk in a strip's outputs."""
    figures = "".join(
        f'<figure class="{"shown" if i == talk.shown else ""}"><img src="files/{escape(step.key)}/small.jpg" alt="">'
        f"<figcaption>{i + 1}: {escape(step.title)}</figcaption></figure>"
        for i, step in enumerate(talk.steps)
    )
    choices = [(f"{i + 1}: {step.title}", i) for i, step in enumerate(talk.steps)]
    several = len(talk.steps) > 1
    return (
        gr.HTML(f'<div class="strip">{figures}</div>', visible=several),
        gr.Radio(choices=choices, value=talk.shown if talk.steps else None, visible=several),
        gr.Button(visible=can_go_on(panel) and bool(talk.steps)),
        talk,
    )


def begin(panel: Panel, asked: Asked, key: str | None) -> Iterator[tuple[Any, ...]]:
    """After the first answer, the further turns that were asked for, each shown when it is there."""
    first = None if key is None else panel.kept.store.get(key)
    if first is None or key is None:
        yield (*_unchanged(panel), *strip(panel, Talk()))
        return
    is_done = says_done(first.text)
    title = Move.DONE if is_done else Move.BROKEN if first.status.is_failure else Move.ANSWER
    said = first.prompts if first.samples else first.text  # several samples together wrote no text
    talk = Talk((Step(said, key, SAYS[title]),), options=asked.options)
    yield (*_unchanged(panel), *strip(panel, talk))
    if can_go_on(panel) and not is_done and first.status is not Status.TRUNCATED:
        yield from _further(panel, first, asked.name, talk, asked.turns - 1)


def go_on(panel: Panel, talk: Talk, key: str | None) -> Iterator[tuple[Any, ...]]:
    """One further turn after the one that is shown, or after what was drawn by hand over it."""
    found = None if key is None else panel.kept.store.named(key)
    if found is None or key is None:
        raise gr.Error("The picture is no longer on the server: choose it again.")
    result, name = found
    steps = talk.steps[: talk.shown + 1]
    if not result.text and result.prompts != steps[-1].said:  # of boxes and points that somebody edited
        steps = (*steps, Step(result.prompts, key, "by hand"))
    if len(steps) >= MAX_TURNS or steps[-1].title == SAYS[Move.DONE]:
        raise gr.Error(f"{ENDED} Choose an earlier turn, or correct this one by hand.")
    yield from _further(panel, result, name, replace(talk, steps=steps, shown=len(steps) - 1), 1)


def choose(panel: Panel, talk: Talk, place: int | None) -> tuple[Any, ...]:
    """A turn of the strip in the editor again."""
    found = panel.kept.store.named(talk.steps[place].key) if place is not None and place < len(talk.steps) else None
    if found is None or place is None:
        raise gr.Error("This turn is no longer on the server: ask again.")
    return (*panel.show(*found), *strip(panel, replace(talk, shown=place)))


def _further(panel: Panel, before: Result, name: str, talk: Talk, turns: int) -> Iterator[tuple[Any, ...]]:
    """Up to so many turns more."""
    for _ in range(turns):
        if len(talk.steps) >= MAX_TURNS or talk.steps[-1].title == SAYS[Move.DONE]:
            return
        yield (results.line("busy", "The model looks at its mask …"), *_unchanged(panel)[1:], *strip(panel, talk))
        try:
            how = decoding_of(talk.options, panel.model.decoding, panel.kept.limits)
            whole = panel.model.go_on(before.image, before.query, [step.said for step in talk.steps], decoding=how)
        except SegrlError as error:
            yield (results.line("unread", escape(one_line(error))), *_unchanged(panel)[1:], *strip(panel, talk))
            return
        last = whole.turns[-1]
        said = (UNREAD if last.move is Move.BROKEN else "") + (UNTOLD if _is_untold(talk, whole) else "")
        shown = panel.show(last.surer(talk.options.min_confidence), name)
        steps: Sequence[Step] = (*talk.steps, Step(last.text, shown[-1], SAYS[last.move]))
        talk = replace(talk, steps=tuple(steps), shown=len(steps) - 1)
        yield (shown[0] + said, *shown[1:], *strip(panel, talk))
        if last.answer.status is Status.TRUNCATED:
            return


def _is_untold(talk: Talk, whole: Result) -> bool:
    """Whether what a person drew in the last of these turns stands in no text that the policy read."""
    return not isinstance(talk.steps[-1].said, str) and not whole.turns[len(talk.steps) - 1].text


def _unchanged(panel: Panel) -> tuple[Any, ...]:
    return tuple(gr.skip() for _ in panel.outputs)
