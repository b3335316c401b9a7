"""The controls under "How it is answered": a vote of samples, its rule, a second look, and a minimum confidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from pydantic import Field, ValidationError

from segrl.errors import SegrlError
from segrl.inference import Decoding
from segrl.web.errors import first_fault
from segrl.web.limits import Limits
from segrl.web.schemas import DecodingBody, Vote


class Options(DecodingBody):
    """What a visitor has chosen; what is None is as the page was started."""

    min_confidence: float = Field(0, ge=0, le=1)


UNCHANGED = Options()


@dataclass(frozen=True)
class Controls:
    """The controls in the order in which their values come."""

    samples: gr.Slider
    temperature: gr.Number
    seed: gr.Number
    second_look: gr.Checkbox
    same_object: gr.Slider
    least_votes: gr.Slider
    nothing: gr.Slider
    mask: gr.Radio
    min_confidence: gr.Slider

    @property
    def inputs(self) -> list[Any]:
        """All of them."""
        return list(vars(self).values())


def controls(own: Decoding, limits: Limits) -> Controls:
    """The controls, showing how the page was started."""
    with gr.Accordion("How it is answered", open=False, elem_id="options"):
        most = max(limits.max_samples, own.samples)
        samples = gr.Slider(
            1, most, own.samples, step=1, label="Samples that vote", elem_id="samples", interactive=most > 1
        )
        temperature = gr.Number(
            own.temperature, label="Temperature (empty: 1 for a vote, else 0)", minimum=0, elem_id="temperature"
        )
        seed = gr.Number(own.seed, label="Seed", minimum=0, precision=0, elem_id="seed")
        second_look = gr.Checkbox(own.second_look, label="Second look (ask again about a crop)", elem_id="second-look")
        rule = own.vote
        same = gr.Slider(
            0.05, 1, rule.same_object, step=0.05, label="Same object from this IoU on", elem_id="same-object"
        )
        least = gr.Slider(
            0.05, 1, rule.least_votes, step=0.05, label="Share of votes that an object needs", elem_id="least-votes"
        )
        nothing = gr.Slider(
            0.05, 1, rule.nothing, step=0.05, label='Share of votes for "nothing there"', elem_id="nothing"
        )
        mask = gr.Radio(["best", "consensus"], value=rule.mask, label="Mask of an object", elem_id="vote-mask")
        sure = gr.Slider(0, 1, 0, step=0.05, label="Minimum confidence", elem_id="min-confidence")
    return Controls(samples, temperature, seed, second_look, same, least, nothing, mask, sure)


def chosen(values: tuple[Any, ...]) -> Options:
    """The options that the controls' values say. Raises gr.Error for values that no control gives."""
    samples, temperature, seed, second_look, same, least, nothing, mask, sure = values
    try:
        return Options(
            samples=samples,
            temperature=temperature,
            seed=seed,
            second_look=second_look,
            vote=Vote(same_object=same, least_votes=least, nothing=nothing, mask=mask),
            min_confidence=sure,
        )
    except ValidationError as error:
        raise gr.Error(first_fault(error)) from error


def decoding_of(options: Options, own: Decoding, limits: Limits, turns: int = 1) -> Decoding:
    """How one answer is generated with these options; the page asks for one turn after the other.

    Raises gr.Error for what is not possible, also for `turns` of them.
    """
    try:
        found = options.over(own, turns)
    except SegrlError as error:
        raise gr.Error(str(error)) from error
    if found.samples > max(limits.max_samples, own.samples):
        raise gr.Error(f"{found.samples} samples; this page draws {limits.max_samples} at most")
    return replace(found, turns=1)
