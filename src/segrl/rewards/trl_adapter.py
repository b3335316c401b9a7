"""The reward engine as TRL's reward functions: one per term, all reading one scored batch."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl.answers import Move
from segrl.coordinates import lies_outside
from segrl.masks import from_rle, to_rle
from segrl.rewards.engine import Completions, RewardBatch, RewardEngine
from segrl.rewards.rollout import Rollout
from segrl.turns import to_row
from segrl.types import Status

if TYPE_CHECKING:
    from PIL import Image

    from segrl.turns import Conversation

ROLLOUT_COLUMN = "segrl_rollout"
"""Our column in TRL's completions table: one JSON text per completion, empty on steps that are not sampled."""

RewardFunction = Callable[..., list[float | None]]


@dataclass(frozen=True)
class BatchInfo:
    """What the adapter knows of the batch it scored last.

    step: the first update that trains on it, counted from 1. completions_sha: SHA-256 over all
    completion ids, in order.
    """

    step: int
    completions_sha: str


@dataclass(frozen=True)
class Shuffle:
    """The control of the proof: rewards are shuffled within each group of `num_generations` completions.

    All terms of a completion move together, so that the group's rewards stay what they are and
    only no longer belong to their completions. The permutation follows from the seed and the step.
    """

    seed: int
    num_generations: int

    def permutation(self, keys: Sequence[str], step: int) -> list[int]:
        """For each completion, the index of the one whose rewards it is paid.

        keys: the example of each completion. Raises ValueError if a group holds more than one.
        """
        size, order = self.num_generations, []
        rng = np.random.default_rng([self.seed, step])
        for start in range(0, len(keys), size):
            if len(set(keys[start : start + size])) != 1 or start + size > len(keys):
                raise ValueError("shuffle_rewards needs whole groups, one after the other, in each process")
            order += (start + rng.permutation(size)).tolist()
        return order


class TrlRewards:
    """Scores what TRL generated and hands each term out as a reward function of its own.

    TRL calls every reward function with the same list of completion ids; the first call of a batch
    scores it and the others read the result. Weights go to TRL's `reward_weights`.

    read: completion ids → (text, truncated, tokens), see `segrl.policies.read_completion`.
    logs_rollouts: whether a step's completions go to the rollout log; keep_pictures then gets their
    image ids and original images. finished: TRL's environments and the completion ids → the conversations of turns
    that they are; None where each completion is a single answer. timed: beginning and end of each scored batch
    (`time.monotonic`); who reads it empties it.
    """

    def __init__(
        self,
        engine: RewardEngine,
        read: Callable[[Sequence[int]], tuple[str, bool, int]],
        *,
        shuffle: Shuffle | None = None,
        logs_rollouts: Callable[[int], bool] = lambda step: False,
        keep_pictures: Callable[[Sequence[str], Sequence[Image.Image]], None] = lambda image_ids, images: None,
        finished: Callable[[Sequence[Any], Sequence[Sequence[int]]], list[Conversation]] | None = None,
    ) -> None:
        self.engine, self._read, self._shuffle, self._logs_rollouts = engine, read, shuffle, logs_rollouts
        self._keep_pictures, self._finished = keep_pictures, finished
        self.last: BatchInfo | None = None
        self.timed: deque[tuple[float, float]] = deque(maxlen=1000)
        self._scored_ids: Any = None
        self._paid: dict[str, list[float | None]] = {}

    @property
    def weights(self) -> list[float]:
        """One weight per function, for TRL's `reward_weights`."""
        return [term.weight for term in self.engine.terms]

    def functions(self) -> list[RewardFunction]:
        """One reward function per term, named after it, as TRL's `reward_funcs` wants them."""
        return [self._function(term.name) for term in self.engine.terms]

    def _function(self, name: str) -> RewardFunction:
        def reward(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
            if completion_ids is not self._scored_ids:
                self._score(completion_ids, columns)
            return self._paid[name]

        reward.__name__ = name
        return reward

    def _score(self, completion_ids: list[list[int]], columns: Mapping[str, Any]) -> None:
        begun = time.monotonic()
        step = columns["trainer_state"].global_step + 1
        batch = self.engine.score(self._completions(completion_ids, columns))
        paid = batch.values
        if self._shuffle is not None:
            order = self._shuffle.permutation(columns["example_id"], step)
            paid = {name: [values[i] for i in order] for name, values in paid.items()}
        self._log(batch, paid, step, columns)
        self.last = BatchInfo(step, completions_sha(completion_ids))
        # The list itself is kept: as long as it lives, no other batch can be mistaken for it.
        self._scored_ids, self._paid = completion_ids, paid
        self.timed.append((begun, time.monotonic()))

    def _completions(self, completion_ids: list[list[int]], columns: Mapping[str, Any]) -> Completions:
        conversations = None if self._finished is None else self._finished(columns["environments"], completion_ids)
        read = map(self._read, completion_ids) if conversations is None else map(_as_one, conversations)
        texts, truncated, n_tokens = zip(*read, strict=True)
        truths: dict[int, np.ndarray] = {}
        targets = []
        for rles, hw in zip(columns["ground_truth"], columns["image_hw"], strict=True):
            if id(rles) not in truths:
                truths[id(rles)] = np.stack([from_rle(r) for r in rles]) if rles else np.zeros((0, *hw), dtype=bool)
            targets.append(truths[id(rles)])
        ignores = [None if rle is None else from_rle(rle) for rle in columns["ignore"]]
        return Completions(
            texts,
            truncated,
            n_tokens,
            columns["example_id"],
            columns["original"],
            columns["image_id"],
            targets,
            ignores,
            columns["query"],
            conversations,
        )

    def _log(
        self, batch: RewardBatch, paid: dict[str, list[float | None]], step: int, columns: Mapping[str, Any]
    ) -> None:
        scores = [rollout.score for rollout in batch.rollouts]
        columns["log_metric"]("giou", sum(score.iou for score in scores) / len(scores))
        if self._finished is not None:
            _log_turns(batch.rollouts, columns["log_metric"])
        shares = Counter(score.status for score in scores)
        for status in Status:
            columns["log_metric"](f"status/{status.value}", shares[status] / len(scores))
        rows = [""] * len(scores)
        if self._logs_rollouts(step):
            rows = [json.dumps(self._row(batch, paid, step, columns, i)) for i in range(len(scores))]
            self._keep_pictures(columns["image_id"], columns["original"])
        columns["log_extra"](ROLLOUT_COLUMN, rows)

    def _row(
        self, batch: RewardBatch, paid: dict[str, list[float | None]], step: int, columns: Mapping[str, Any], i: int
    ) -> dict[str, Any]:
        rollout = batch.rollouts[i]
        terms = {name: values[i] for name, values in paid.items()}
        return {
            "step": step,
            "example_id": rollout.example_id,
            "image_id": columns["image_id"][i],
            "image_hw": list(columns["image_hw"][i]),
            "query": columns["query"][i],
            "tags": dict(columns["tags"][i]),
            "truth": columns["ground_truth"][i],
            "completion": {
                "text": rollout.text,
                "status": rollout.score.status.value,
                "outside": _outside(rollout, columns["original"][i].size),
                "truncated": rollout.truncated,
                "tokens": rollout.n_tokens,
                "prompts": [prompt.to_json() for prompt in rollout.answer.prompts],
                "mask": to_rle(rollout.segmentation.union.cpu().numpy()),
                "iou": rollout.score.iou,
                "terms": terms,
                "reward": self.engine.total(terms),
                **({"turns": [to_row(one.turn, one.score.iou) for one in rollout.turns]} if rollout.turns else {}),
            },
        }


def _log_turns(rollouts: Sequence[Rollout], log_metric: Callable[[str, float], None]) -> None:
    """How many turns there were, how often the policy said that it was done, and gIoU after each turn.

    A conversation that was over before a turn counts there with what stood at its end.
    """
    n = len(rollouts)
    longest = max(len(one.turns) for one in rollouts)
    log_metric("turns/mean", sum(len(one.turns) for one in rollouts) / n)
    log_metric("turns/done", sum(one.turns[-1].turn.move is Move.DONE for one in rollouts) / n)
    for k in range(longest):
        log_metric(f"turns/giou_{k + 1}", sum(one.turns[min(k, len(one.turns) - 1)].score.iou for one in rollouts) / n)


def _as_one(conversation: Conversation) -> tuple[str, bool, int]:
    """A conversation's texts joined, whether the last was cut off, and the tokens of all."""
    text = "\n\n".join(turn.text for turn in conversation.turns)
    return text, conversation.turns[-1].truncated, conversation.n_tokens


def _outside(rollout: Rollout, image_wh: tuple[int, int]) -> bool:
    """Whether a completion writes numbers beyond the image; what is logged of it is clipped."""
    written = rollout.segmentation.written
    return written is not None and any(lies_outside(prompt, image_wh) for prompt in written.prompts)


def completions_sha(completion_ids: Sequence[Sequence[int]]) -> str:
    """SHA-256 (hex) over token ids, lengths included, so that equal hashes mean equal completions."""
    digest = hashlib.sha256()
    for ids in completion_ids:
        digest.update(np.array([len(ids), *ids], dtype=np.int64).tobytes())
    return digest.hexdigest()
