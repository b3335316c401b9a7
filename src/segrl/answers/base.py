"""What every answer format can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from segrl.answers.reading import Reading, split_reasoning
from segrl.types import UNKNOWN_FRAME, Answer, Frame, MaskPrompt


class AnswerFormat(ABC):
    """How a policy is asked and how it answers: text prompt ⇄ query, answer text ⇄ mask prompts.

    name: as recipes write it. required_parts: the `Answer.parts` that an all-or-nothing `format`
    reward asks for. system: the instruction that real models get as system prompt; empty where the
    text prompt says everything.
    """

    name: ClassVar[str]
    required_parts: ClassVar[frozenset[str]]
    system: ClassVar[str] = ""

    @abstractmethod
    def prompt(self, query: str) -> str:
        """The text prompt sent to the policy, after the image, for the user's `query`."""

    @abstractmethod
    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The answer text for mask prompts in the policy's frame; none of them says "nothing there".

        Numbers are rounded as `round_prompt` does. Raises ValueError for what the format cannot
        say, and for reasoning that holds think tags.
        """

    @abstractmethod
    def read(self, body: str, frame: Frame) -> Reading:
        """What stands in `body`, the text after the reasoning. Never raises."""

    def parse(self, text: str, *, truncated: bool = False, frame: Frame = UNKNOWN_FRAME) -> Answer:
        """The answer in any `text`, with mask prompts in `frame`, in time linear in its length.

        truncated: the completion was cut off at the token limit. Never raises; a text that holds
        no usable answer gives a status that says why.
        """
        reasoning, body, has_think = split_reasoning(text)
        reading = self.read(body, frame)
        if has_think:
            reading.parts.add("think")
        return reading.to_answer(reasoning, truncated)


def think_block(reasoning: str) -> str:
    """The think block that holds `reasoning`. Raises ValueError if a think tag stands in it."""
    if "<think>" in reasoning or "</think>" in reasoning:
        raise ValueError("reasoning must not hold think tags: it would end early when read again")
    return f"<think>{reasoning}</think>"


def number_list(values: Sequence[float]) -> str:
    """`[1,2,3]`, as the papers' templates write numbers."""
    return f"[{','.join(str(value) for value in values)}]"
