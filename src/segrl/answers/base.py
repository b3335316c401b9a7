"""What every answer format can do."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from inspect import isabstract
from typing import Any, ClassVar

from segrl.answers.lenient import recover, says_none
from segrl.answers.mask_prompts import default_reasoning
from segrl.answers.reading import Found, split_reasoning
from segrl.answers.scan import Scan
from segrl.coordinates import convert
from segrl.errors import DataError, SegrlError
from segrl.plugins import PREFIX, import_here
from segrl.text import first_line
from segrl.types import UNKNOWN_FRAME, Answer, Frame, MaskPrompt, Reading


class AnswerFormat(ABC):
    """A text format: query → text prompt, and answer text ⇄ mask prompts.

    name: its name in recipes. required_parts: the `Answer.parts` that the all-or-nothing `format`
    reward requires. system: the instruction for real models as system prompt; empty if the
    text prompt is complete. scans: what the lenient reading looks for, in this order; empty for a
    format that is only read strictly. needs: what its mask prompts may hold beside boxes and points, as
    `segmenters.takes` names it.
    """

    name: ClassVar[str]
    required_parts: ClassVar[frozenset[str]]
    system: ClassVar[str] = ""
    scans: ClassVar[tuple[Scan, ...]] = ()
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def prompt(self, query: str) -> str:
        """The text prompt sent to the policy, after the image, for the user's `query`."""

    def worded(self, template: str | None) -> AnswerFormat:
        """The same format, asked for in other words: the text prompt is `template`, the query put for `{query}`.

        None changes nothing.
        """
        if template is None:
            return self
        other = copy(self)
        vars(other)["prompt"] = partial(_filled, template)
        return other

    @property
    def wording(self) -> str:
        """The text prompt with `{query}` in the place of the query; the one prompt that there is after `limited_to`."""
        return self.prompt("{query}")

    def limited_to(self, queries: Sequence[str] | None) -> AnswerFormat:
        """The same format for a policy that knows these queries alone, each asked in the words of the first.

        Letter case and a final full stop do not count. `prompt` then raises DataError for any other query. None
        changes nothing.
        """
        if queries is None:
            return self
        other = copy(self)
        vars(other)["prompt"] = partial(_known, self.prompt(queries[0]), tuple(queries))
        return other

    @abstractmethod
    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The answer text for mask prompts in the policy's frame; no prompts mean "nothing there".

        Numbers are rounded as `round_prompt` does. Raises ValueError for what the format cannot
        express, and for reasoning with think tags.
        """

    def written(
        self, prompts: Sequence[MaskPrompt], frame: Frame, image_wh: tuple[int, int], reasoning: str = ""
    ) -> str:
        """The answer that says these mask prompts (in any known frame) of an image, in the policy's `frame`.

        Without `reasoning` it says where each of them is. Raises ValueError for what the format cannot say, and
        FrameError for a frame that is not known.
        """
        theirs = [convert(prompt, frame, image_wh) for prompt in prompts]
        return self.render(theirs, reasoning or default_reasoning(theirs))

    @abstractmethod
    def read(self, body: str, frame: Frame) -> Found:
        """The strict parse of `body`, the text after the reasoning. Never raises."""

    def parse(
        self, text: str, *, truncated: bool = False, frame: Frame = UNKNOWN_FRAME, reading: Reading = "strict"
    ) -> Answer:
        """The answer in any `text`, with mask prompts in `frame`, in time linear in its length.

        truncated: the completion reached the token limit. reading: `lenient` also recovers complete objects
        from broken or truncated text, by `scans`; `Answer.repairs` lists what was done. Never raises; a text that
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


def _known(prompt: str, queries: Sequence[str], query: str) -> str:
    if _plain(query) not in {*map(_plain, queries), "{query}"}:
        asked = ", ".join(f'"{known}"' for known in queries)
        raise DataError(
            f"this policy answers {asked} only, not {query.strip()!r}: that needs a larger one, "
            "for instance --policy geshang/Seg-R1-7B (a GPU with 24 GB; downloaded when it is first used)"
        )
    return prompt


def _plain(query: str) -> str:
    return " ".join(query.casefold().split()).rstrip(".?!")


def _filled(template: str, query: str) -> str:
    return template.replace("{query}", query.strip())


def think_block(reasoning: str) -> str:
    """The think block that holds `reasoning`. Raises ValueError if a think tag stands in it."""
    if "<think>" in reasoning or "</think>" in reasoning:
        raise ValueError("reasoning must not hold think tags: it would end early when read again")
    return f"<think>{reasoning}</think>"


def number_list(values: Sequence[float]) -> str:
    """`[1,2,3]`, as the papers' templates write numbers."""
    return f"[{','.join(str(value) for value in values)}]"


@lru_cache
def own_format(name: str) -> AnswerFormat:
    """The answer format called `python:PATH`: a subclass of AnswerFormat, made without arguments, or an object.

    Raises SegrlError for a path that leads nowhere or to something else; so does what it does later, if it
    fails or returns something else than it should.
    """
    path = name.removeprefix(PREFIX)
    try:
        found = import_here(path)
    except ImportError as error:
        raise SegrlError(f"answer format {name}: cannot import {path!r} ({error})") from error
    if isinstance(found, type) and issubclass(found, AnswerFormat):
        if isabstract(found):
            raise SegrlError(f"answer format {name}: {path!r} is abstract: it lacks prompt, render or read")
        found = found()
    if not isinstance(found, AnswerFormat):
        raise SegrlError(f"answer format {name}: {path!r} is not a segrl.answers.AnswerFormat")
    for method, returned in (("prompt", str), ("render", str), ("parse", Answer)):
        setattr(found, method, _checked(name, getattr(found, method), returned))
    return found


def _checked(name: str, method: Callable[..., Any], returned: type) -> Callable[..., Any]:
    """`method`, with its failures and wrong returns as a SegrlError; a ValueError says that it cannot write this."""

    @functools.wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            result = method(*args, **kwargs)
        except (SegrlError, ValueError) as error:
            if returned is str:
                raise
            raise SegrlError(f"answer format {name}: {method.__name__}: {first_line(error)}") from error
        except Exception as error:
            raise SegrlError(
                f"answer format {name}: {method.__name__} failed: {type(error).__name__}: {first_line(error)}"
            ) from error
        if not isinstance(result, returned):
            said = f"{type(result).__name__}, not {returned.__name__}"
            raise SegrlError(f"answer format {name}: {method.__name__} returned {said}")
        return result

    return checked
