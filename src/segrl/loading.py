"""Policies and segmenters by name: what fits what, and the pipeline that they make together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl import answers, policies
from segrl.errors import SegrlError
from segrl.inference import Decoding
from segrl.inference.answering import check_turns
from segrl.pipeline import Pipeline
from segrl.policies import MAX_NEW_TOKENS
from segrl.tiny import DEFAULT_POLICY, POLICIES
from segrl.types import Reading

if TYPE_CHECKING:
    from segrl.policies import Policy
    from segrl.segmenters import Segmenter
    from segrl.text_to_masks import TextToMasks

logger = logging.getLogger(__name__)

DEFAULT_SEGMENTER = "facebook/sam2.1-hiera-large"
"""The frozen segmenter of both papers' families; the tiny policy goes with GrabCut, which needs no weights."""

WORD_SEGMENTER = "concept:facebook/sam3"
"""The segmenter of answers in words."""

WEIGHTLESS = ("grabcut", "box", "shapes")
"""Segmenters that run on the CPU whatever the policy runs on."""


def make_text_to_masks(
    policy: Policy, segmenter: Segmenter, answer_format: str | None = None, reading: Reading = "strict"
) -> TextToMasks:
    """What turns this policy's texts into masks; `answer_format` None is the policy's own, its wording included."""
    from segrl.text_to_masks import TextToMasks

    settings = getattr(policy, "settings", None)
    chosen = answers.get(answer_format or policy.answer_format).worded(getattr(settings, "prompt_template", None))
    chosen = chosen.limited_to(getattr(settings, "queries", None))
    return TextToMasks(chosen, policy.frame_for, segmenter, reading)


def fitting_segmenter(policy: str, answer_format: str | None = None) -> str:
    """The segmenter that `load` takes for a policy: SAM 3 for answers in words, GrabCut for
    drawn scenes, the tiny one for tiny-photos, that of a published policy, the one that a policy was trained with (its
    segrl.json says which), or SAM 2.1 large."""
    if policy == policies.WORDS or (answer_format is not None and answers.get(answer_format).needs):
        return WORD_SEGMENTER
    row = policies.published(policy)
    if row is not None:
        return row.segmenter
    if policy in POLICIES:
        return "tiny" if policy == "tiny-photos" else "grabcut"
    return _trained_with(policy) or DEFAULT_SEGMENTER


def drawing_segmenter(names: Iterable[str], chosen: str | None = None) -> Segmenter | None:
    """What cuts out boxes and points on pictures about which none of these policies was asked: the tiny segmenter,
    where a policy's own has no weights; None where each has better ones or somebody has chosen."""
    from segrl import segmenters

    return (
        segmenters.load("tiny") if not chosen and any(fitting_segmenter(name) in WEIGHTLESS for name in names) else None
    )


def fitting_options(policy: str, segmenter: str) -> dict[str, Any]:
    """Options of the segmenter that go with a policy: which of SAM's masks a published one's authors choose."""
    row = policies.published(policy)
    is_sam = segmenter not in (*WEIGHTLESS, "tiny")
    return {"multimask": True} if row is not None and row.best_of_three and is_sam else {}


def _trained_with(policy: str) -> str | None:
    if policies.is_served(policy):
        return None
    if Path(policy).is_dir():
        return policies.read_settings(policy).segmenter
    from segrl.policies.loading import find_settings

    return find_settings(policy).segmenter


def fitting_max_new_tokens(policy: str) -> int:
    """The longest answer that `load` lets a policy write: that of a published one, or MAX_NEW_TOKENS."""
    row = policies.published(policy)
    return row.max_new_tokens if row else MAX_NEW_TOKENS


def takes_device(name: str) -> bool:
    """Whether a policy or segmenter is put on a device here: not one behind a server, nor one without weights."""
    return name not in (*WEIGHTLESS, policies.WORDS) and not policies.is_served(name)


def load(
    policy: str = DEFAULT_POLICY,
    *,
    segmenter: str | None = None,
    answer_format: str | None = None,
    max_new_tokens: int | None = None,
    device: str | None = None,
    reading: Reading = "lenient",
    decoding: Decoding | Mapping[str, Any] | None = None,
    **policy_options: Any,
) -> Pipeline:
    """A pipeline by names: a policy and a segmenter that fits it.

    policy: a name of `tiny.POLICIES`, a directory, a name on the hub, or what else `policies.load` takes.

    The settings of a published checkpoint are known by its name (`policies.published`), those of one that segrl
    trained are in its segrl.json; for any other a warning says what was assumed.
    segmenter: a name for `segmenters.load`; without it `fitting_segmenter`. max_new_tokens: without it
    `fitting_max_new_tokens`. device: of policy and segmenter, of each that runs here (`takes_device`).
    reading: how answers are parsed; "strict" as in training and in the evaluation protocol.
    decoding: how every question is answered, as `segrl.Decoding` or in plain values (`{"samples": 8}`).
    policy_options: for instance `frame`, `input_wh`, `system`, `prompt_template`, `dtype` (`policies.loading.load`).
    Where the policy's authors take the best of SAM's three masks (`Published.best_of_three`), so does the segmenter.
    Raises SegrlError for anything that cannot be loaded.
    """
    from segrl import segmenters

    chosen = decoding if isinstance(decoding, Decoding) else Decoding.of(decoding or {})
    longest = Decoding(max_new_tokens=max_new_tokens).max_new_tokens  # a wrong one is told before minutes of loading
    if answer_format is not None:
        answers.get(answer_format)  # and a wrong name
    loaded = policies.load(policy, answer_format=answer_format, **_placed(policy, device), **policy_options)
    check_turns(loaded, chosen.turns)
    if assumed := getattr(loaded, "assumed", ""):
        logger.warning(assumed)
    name = fitting_segmenter(policy, answer_format) if segmenter is None else segmenter
    found = segmenters.load(name, **fitting_options(policy, name), **_placed(name, device))
    text_to_masks = make_text_to_masks(loaded, found, reading=reading)
    return Pipeline(loaded, text_to_masks, max_new_tokens=longest or fitting_max_new_tokens(policy), decoding=chosen)


def folder_options(policy: str, segmenter: str | None = None, **options: Any) -> dict[str, Any]:
    """Options of `load` as the folder of a job keeps them: with the segmenter that is taken, without what says nothing:
    None and a decoding without entries. What is given as 0, False or "" is kept.

    Raises SegrlError for a decoding that is no plain values.
    """
    if not isinstance(options.get("decoding") or {}, Mapping):
        raise SegrlError('the decoding of a folder is given in plain values, for instance {"samples": 8}')
    chosen = fitting_segmenter(policy, options.get("answer_format")) if segmenter is None else segmenter
    plain: dict[str, Any] = {"answer_format": None, "max_new_tokens": None, "reading": "lenient"}
    said = {name: value for name, value in options.items() if value is not None and value != {}}
    return {"segmenter": chosen, "policy": policy} | plain | said


def _placed(name: str, device: str | None) -> dict[str, str]:
    return {"device": device} if device is not None and takes_device(name) else {}
