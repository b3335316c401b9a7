"""The page on answer formats: what each asks, and answers that it writes, made by the formats themselves."""

from __future__ import annotations

import sys

from prose import prose

from segrl import answers
from segrl.answers import AnswerFormat
from segrl.types import MaskPrompt

QUERY = "the cup nearest the edge"
REASONING = "Two cups. The right one is nearer."
BOX = (212.0, 90.0, 301.0, 188.0)
ONE = MaskPrompt(BOX, ((256.0, 140.0), (240.0, 160.0)), (1, 1))
POINTS = MaskPrompt(None, ((256.0, 140.0), (220.0, 100.0)), (1, 0))
WORDS = MaskPrompt(phrase="the right cup")

HEAD = f"""# Answer formats

An answer format says how a model is asked and how its text is read. Each one below is shown with the request for
"{QUERY}", an answer that names one object, and the answer that says "nothing there". The texts are made by
the code when this site is built.

- Name the format with `--answer-format`, or with `answer_format` in a recipe. Without it the policy's own is used.
- `segrl prompts show --policy P --query "…"` prints what one model is sent, chat template included.
- Coordinates are in the frame of the policy, not of the format: see [conventions](../conventions.md#frames).
- A text that cannot be read is never an error and never "nothing there". It gets one of the
  [statuses](../conventions.md#status-of-an-answer) that say what is wrong with it.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n\n".join([HEAD, *(_section(answers.get(name)) for name in answers.names())]) + "\n"


def _section(form: AnswerFormat) -> str:
    module = sys.modules[type(form).__module__]
    shares = sum(isinstance(one, type) and one.__module__ == module.__name__ for one in vars(module).values()) > 1
    about = prose(type(form).__doc__ if shares else module.__doc__)
    system = [f"System prompt:\n\n{_text(form.system)}"] if form.system else []
    parts = [
        f"## {form.name}",
        about,
        *system,
        f"Text prompt, after the image:\n\n{_text(form.prompt(QUERY))}",
        f"One object:\n\n{_text(_one_object(form))}",
        f"Nothing there:\n\n{_text(_nothing(form))}",
    ]
    return "\n\n".join(parts)


def _one_object(form: AnswerFormat) -> str:
    """The first that the format can say: box and points, points alone, words alone."""
    for prompt, reasoning in ((ONE, REASONING), (POINTS, REASONING), (WORDS, "")):
        try:
            return form.render((prompt,), reasoning)
        except ValueError:
            continue
    raise ValueError(f"{form.name} says neither boxes nor points nor words")


def _nothing(form: AnswerFormat) -> str:
    try:
        return form.render((), "No cup here.")
    except ValueError:  # a format without reasoning
        return form.render(())


def _text(text: str) -> str:
    return f"````` {{ .text .output }}\n{text}\n`````"  # longer than a fence that an answer may hold
