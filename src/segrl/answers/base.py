"""What every answer format can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from segrl.answers.lenient import recover, says_none
from segrl.answers.reading import Found, split_reasoning
from segrl.answers.scan import Scan
from segrl.types import UNKNOWN_FRAME, Answer, Frame, MaskPrompt, Reading


class AnswerFormat(ABC):
    """How a policy is asked and how it answers: text prompt ⇄ query, answer text ⇄ mask prompts.

    name: as recipes write it. required_parts: the `Answer.parts` that an all-or-nothing `format`
    reward asks for. system: the instruction that real models get as system prompt; empty where the
    text prompt says everything. scans: what the lenient reading looks for, in this order; empty for a
    format that is only read strictly.
    """

    name: ClassVar[str]
    required_parts: ClassVar[frozenset[str]]
    system: ClassVar[str] = ""
    scans: ClassVar[tuple[Scan, ...]] = ()

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
    def read(self, body: str, frame: Frame) -> Found:
        """What stands in `body`, the text after the reasoning, by the strict rule. Never raises."""

    def parse(
        self, text: str, *, truncated: bool = False, frame: Frame = UNKNOWN_FRAME, reading: Reading = "strict"
    ) -> Answer:
        """The answer in any `text`, with mask prompts in `frame`, in time linear in its length.

        truncated: the completion was cut off at the token limit. reading: `lenient` also takes whole objects
        out of broken or cut text, by `scans`; `Answer.repairs` says what was done. Never raises; a text that
        holds no usable answer gives a status that says why.
        """
        reasoning, body, has_think = split_reasoning(text)
        found = self.read(body, frame)
        if has_think:
            found.parts.add("think")
        answer = found.to_answer(reasoning, truncated)
        if reading == "lenient" and self.scans and (answer.status.is_failure or not found.is_all):
            answer = recover(text, answer, self.scans, truncated=truncated, frame=frame)
        if answer.status.is_failure and says_none(body):
            return replace(answer, says_none=True)
        return answer


def think_block(reasoning: str) -> str:
    """The think block that holds `reasoning`. Raises ValueError if a think tag stands in it."""
    if "<think>" in reasoning or "</think>" in reasoning:
        raise ValueError("reasoning must not hold think tags: it would end early when read again")
    return f"<think>{reasoning}</think>"


def number_list(values: Sequence[float]) -> str:
    """`[1,2,3]`, as the papers' templates write numbers."""
    return f"[{','.join(str(value) for value in values)}]"
