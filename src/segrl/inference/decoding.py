"""How completions are drawn: greedily, or several samples that vote, or once more about what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segrl.errors import SegrlError
from segrl.inference.vote import VoteRule
from segrl.policies import MAX_NEW_TOKENS
from segrl.text import check_options
from segrl.turns import MAX_TURNS, Turn

if TYPE_CHECKING:
    from PIL import Image

    from segrl.policies import Completion, Policy
    from segrl.text_to_masks import TextToMasks
    from segrl.types import Segmentation

PLAIN = "plain decoding"
"""What run.json says of a result without test-time options."""

SAMPLING = 1.0
"""Temperature of the samples of a vote, unless somebody says otherwise."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated; every field determines the result.

    max_new_tokens: None is what fits the policy where it is known, and MAX_NEW_TOKENS elsewhere.
    batch_size: sequences generated together. samples: completions voted over (1: none). temperature: of the samples;
    0 is greedy; None is 0 for one completion and SAMPLING for several. second_look: ask again about a crop of what was
    found (`segrl.inference.answering`). vote: the rule.
    turns: answers of a conversation at most; after each the policy is shown its mask (`segrl.turns`).
    Raises SegrlError for numbers that are none, and for more than one of a vote, a second look and turns.
    """

    max_new_tokens: int | None = None
    batch_size: int = 1
    samples: int = 1
    temperature: float | None = None
    seed: int = 0
    second_look: bool = False
    vote: VoteRule = field(default_factory=VoteRule)
    turns: int = 1

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("batch_size", 1), ("turns", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise SegrlError(f"{name} is a whole number from {least} on, not {value!r}")
        longest = self.max_new_tokens
        if longest is not None and (type(longest) is not int or longest < 1):
            raise SegrlError(f"max_new_tokens is a whole number from 1 on, not {longest!r}")
        if self.temperature is not None and not _is_finite_from_0(self.temperature):
            raise SegrlError(f"temperature is a number from 0 on, not {self.temperature!r}")
        if self.samples > 1 and self.second_look:
            raise SegrlError("a vote and a second look are two options: choose one")
        if self.turns > 1 and (self.samples > 1 or self.second_look):
            raise SegrlError("turns go with neither a vote nor a second look: choose one")
        if self.turns > MAX_TURNS:
            raise SegrlError(f"turns is a whole number from 1 to {MAX_TURNS}, not {self.turns!r}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Decoding:
        """From plain values, those of the rule under `vote`. Raises SegrlError for an option that there is not."""
        rule = values.get("vote", {})
        if not isinstance(rule, Mapping):
            raise SegrlError(f"decoding.vote is a mapping of options, not {rule!r}")
        check_options("decoding", cls, values)
        check_options("decoding.vote", VoteRule, rule)
        return cls(**{**values, "vote": VoteRule(**rule)})

    @property
    def heat(self) -> float:
        """The temperature, by default that which fits."""
        if self.temperature is not None:
            return self.temperature
        return SAMPLING if self.samples > 1 else 0.0

    @property
    def held(self) -> int:
        """How many answers' masks are in memory at once for one question: those of all turns, the three of a second
        look (of the image, of the crop, and those laid back), and of a vote's samples an eighth, a bit a pixel."""
        if self.samples > 1:
            return math.ceil(self.samples / 8)
        return 3 if self.second_look else self.turns

    @property
    def is_plain(self) -> bool:
        """One greedy completion, whose text can be told while it is written."""
        return self.samples == 1 and self.heat == 0 and not self.second_look and self.turns == 1

    @property
    def title(self) -> str:
        """The test-time options in a few words; empty for plain decoding."""
        if self.turns > 1:
            return f"at most {self.turns} turns"
        if self.samples > 1:
            return f"vote of {self.samples} samples at temperature {self.heat:g}"
        sampled = f"one sample at temperature {self.heat:g}" if self.heat else ""
        return ", ".join(filter(None, [sampled, "second look" if self.second_look else ""]))

    def to_json(self) -> dict[str, Any]:
        """Everything that was decided; the rule of a vote where there is one."""
        plain = {name: value for name, value in vars(self).items() if name != "vote"} | {"temperature": self.heat}
        return plain | ({"vote": vars(self.vote)} if self.samples > 1 else {})


def _is_finite_from_0(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")


PLAINLY = Decoding()
"""One greedy completion for each question."""


@dataclass(frozen=True)
class Reply:
    """One query's answer: the completion that stands for it, its masks, and all texts if there were several.

    The completion's tokens and seconds are those of all texts together. turns: of a conversation.
    """

    completion: Completion
    segmentation: Segmentation
    samples: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()


def ask(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    decoding: Decoding,
) -> list[list[Completion]]:
    """The completions for each image and query: `decoding.samples` of them."""
    options: dict[str, Any] = {} if decoding.heat == 0 else {"temperature": decoding.heat, "seed": decoding.seed}
    if decoding.samples > 1:
        options["num_samples"] = decoding.samples
    return policy.generate(
        images,
        [text_to_masks.answer_format.prompt(query) for query in queries],
        max_new_tokens=decoding.max_new_tokens or MAX_NEW_TOKENS,
        batch_size=decoding.batch_size,
        **options,
    )
