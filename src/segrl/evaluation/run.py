"""Examples → records → metrics, by any number of processes, which may be killed at any moment: the end is the same.

The unit of work is a window: examples that are answered together (one, unless a batch size was
given). Window k is process (k mod N)'s. What is finished stands in the journal; whoever starts next
does what is missing. The process that finds all examples there writes the result.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.devices import peak_memory_mib
from segrl.errors import SegrlError
from segrl.evaluation.measures import measures, object_ious
from segrl.evaluation.records import EvalRecord, write_jsonl
from segrl.evaluation.result import write_result
from segrl.evaluation.run_dir import LONG_PATIENCE_S, EvalDir, merge_journal, open_journal, remove_journal
from segrl.evaluation.settings import EvalSettings, Loaded, describe, load, window_size
from segrl.files import append_rows
from segrl.inference import Decoding, Reply, answer
from segrl.jobs import Executor, InProcess, Journal, WorkerDied, WorkerInfo, locked
from segrl.jobs.workers import Work
from segrl.masks import to_rle
from segrl.policies import MAX_NEW_TOKENS
from segrl.turns import MAX_TURNS, Turn, to_row
from segrl.types import Example, Score

if TYPE_CHECKING:
    from segrl.policies import Policy
    from segrl.text_to_masks import TextToMasks


OnWindow = Callable[[Sequence[EvalRecord], int, int], None]
"""Called after each window with its records, how many examples of this share are finished, and how many it has."""


@dataclass(frozen=True)
class Share:
    """Which part of an evaluation a process does: process `rank` of `world`."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> Share:
        """As torchrun and accelerate set RANK and WORLD_SIZE; the whole without them."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def run(
    evaluation: EvalSettings | Loaded,
    out: Path | str,
    *,
    share: Share | None = None,
    on_window: OnWindow | None = None,
) -> bool:
    """Does this process's part of an evaluation in `out`, or the rest of it; True if the whole is finished then.

    evaluation: the settings, or what they name, loaded already. share: without it as the environment says. Raises
    SegrlError for what the user can put right, also where `out` holds another evaluation.
    """
    directory, share = EvalDir(Path(out)), share or Share.of_environment()
    _answer(
        directory,
        share,
        InProcess(),
        partial(_answered, evaluation=evaluation, out=directory.path, share=share),
        on_window,
    )
    return finish(directory)


def run_on(settings: EvalSettings, out: Path | str, executor: Executor, on_window: OnWindow | None = None) -> bool:
    """`run` by several processes of this machine or a cluster, each on its own GPU; the result is that of one.

    Raises SegrlError with what the first process that failed says. If this process dies, so do they.
    """
    directory = EvalDir(Path(out))
    work = partial(_answered, evaluation=settings, out=directory.path.absolute(), share=None)
    _answer(directory, Share(), executor, work, on_window)
    return finish(directory)


def write_evaluation(description: Mapping[str, Any], records: Sequence[EvalRecord], out: Path | str) -> dict[str, Any]:
    """Writes answers that were made elsewhere as a finished evaluation in `out`, over one that is there.

    description: what run.json says (`settings.describe`). Returns what summary.json says.
    """
    directory = EvalDir(Path(out))
    directory.describe(description)
    write_jsonl(records, directory.records)
    return write_result(directory)


def evaluate(
    policy: Policy,
    text_to_masks: TextToMasks,
    examples: Sequence[Example],
    *,
    batch_size: int = 1,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[EvalRecord]:
    """Greedy answers of `policy` to every example, read and scored; one record each, in order, and no file.

    batch_size: sequences generated together; 1 means that no answer can depend on another example.
    Images are opened a few batches at a time, so memory does not grow with the data set.
    """
    decoding = Decoding(max_new_tokens, batch_size)
    records: list[EvalRecord] = []
    for places in _windows(len(examples), window_size(batch_size)):
        records += evaluate_window(policy, text_to_masks, [examples[place] for place in places], decoding)
    return records


def finish(directory: EvalDir) -> bool:
    """Writes records, metrics and summary if all examples are there; False, and nothing, if some are missing."""
    n = int(directory.description()["dataset"]["examples"])
    message = f"the result in {directory.path} is being written by another process: it will be there in a moment"
    with locked(directory.lock, message, LONG_PATIENCE_S):
        if not directory.records.exists() and not merge_journal(directory.journal, n, directory.records):
            return False
        remove_journal(directory.journal)
        if not directory.summary.exists():
            write_result(directory)
        return True


def _fix_threads(threads: int | None) -> None:
    """The number of threads decides in which order torch adds numbers, and so their last bits."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _answer(
    directory: EvalDir,
    share: Share,
    executor: Executor,
    work: Work[range, list[EvalRecord]],
    on_window: OnWindow | None,
) -> None:
    """Answers the windows of this share that are not in the journal yet. work: claims the directory first."""
    with ExitStack() as stack:
        share_of = _ShareOf(directory, share)
        for places, records in executor.run(share_of.left(stack), work):
            if isinstance(records, WorkerDied):
                raise SegrlError(f"{records.why}; what is finished is kept, and the same command goes on")
            share_of.add(places, records)
            if on_window is not None:
                on_window(records, share_of.finished, share_of.total)


class _ShareOf:
    """The windows of one share, and its journal, which is opened when the first of them is asked for.

    finished, total: examples.
    """

    def __init__(self, directory: EvalDir, share: Share) -> None:
        self._directory, self._share = directory, share
        self._journal: Journal | None = None
        self.finished = self.total = 0

    def left(self, stack: ExitStack) -> Iterator[range]:
        """Windows of which any example is missing. stack: holds the journal until the last one is answered."""
        if self._directory.records.exists():
            return
        said = self._directory.description()
        size = window_size(int(said["decoding"]["batch_size"]))
        windows = _windows(int(said["dataset"]["examples"]), size)[self._share.rank :: self._share.world]
        path = self._directory.journal / f"{self._share.rank}.lines"
        self._journal = journal = stack.enter_context(open_journal(path))
        missing = [places for places in windows if not all(place in journal for place in places)]
        self.total = sum(map(len, windows))
        self.finished = self.total - sum(map(len, missing))
        yield from missing

    def add(self, places: range, records: Sequence[EvalRecord]) -> None:
        """Writes a window's records."""
        assert self._journal is not None  # no window was given before it was opened
        rows = ({"place": place, **record.to_json()} for place, record in zip(places, records, strict=True))
        self._journal.add(*rows, remember=False)
        self.finished += len(places)


def _answered(
    windows: Iterable[range], worker: WorkerInfo, evaluation: EvalSettings | Loaded, out: Path, share: Share | None
) -> Iterator[list[EvalRecord]]:
    """The records of each window, by one process. share: what the session says; None for what the worker is."""
    directory = EvalDir(out)
    if worker.count > 1:
        os.environ["LOCAL_RANK"] = str(worker.number)
    if isinstance(evaluation, EvalSettings):
        _fix_threads(evaluation.threads)
    loaded = load(evaluation) if isinstance(evaluation, EvalSettings) else evaluation
    directory.claim(describe(loaded))
    begun, answered, waiting = time.time(), 0, iter(windows)
    together = max(1, loaded.window // window_size(loaded.settings.decoding.batch_size))
    while group := list(islice(waiting, together)):
        records = iter(_answer_window(loaded, [place for places in group for place in places]))
        yield from (list(islice(records, len(places))) for places in group)
        answered += sum(map(len, group))
    if answered:
        append_rows(directory.sessions, [_session(share or Share(worker.number, worker.count), begun, answered)])


def answers_to(loaded: Loaded, places: Sequence[int]) -> list[EvalRecord]:
    """Records of the examples at some places, in order, and no file."""
    size = loaded.window
    return [
        record
        for start in range(0, len(places), size)
        for record in _answer_window(loaded, places[start : start + size])
    ]


def _windows(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _answer_window(loaded: Loaded, places: Sequence[int]) -> list[EvalRecord]:
    settings = loaded.settings
    examples = [loaded.examples[place] for place in places]
    policy = loaded.policy_for(examples)
    return evaluate_window(
        policy, loaded.text_to_masks, examples, settings.fitted_decoding, saliency=settings.wants_saliency
    )


def evaluate_window(
    policy: Policy, text_to_masks: TextToMasks, window: Sequence[Example], decoding: Decoding, *, saliency: bool = False
) -> list[EvalRecord]:
    """Records of a few examples answered together. saliency: measure what only the field of saliency asks for too."""
    from segrl import scoring

    images, queries = [example.image for example in window], [example.query for example in window]
    replies = answer(policy, text_to_masks, images, queries, [example.image_id for example in window], decoding)
    segmentations = [one.segmentation for one in replies]
    truths = [example.truth for example in window]
    scores = scoring.score(segmentations, truths, [example.ignore for example in window])
    turns = _scored_turns(replies, window)
    lenient = read_leniently(text_to_masks, replies, window, decoding)
    rows = zip(window, replies, scores, lenient, turns, strict=True)
    return [_record(*row, decoding.turns, saliency) for row in rows]


Scored = Sequence[tuple[Turn, Score]]


def _scored_turns(replies: Sequence[Reply], window: Sequence[Example]) -> list[Scored]:
    """The turns of each conversation with the score of what stood after them; () for single answers."""
    from segrl import scoring

    flat = [(turn, example) for one, example in zip(replies, window, strict=True) for turn in one.turns]
    stands = [turn.stands for turn, _ in flat]
    scores = iter(scoring.score(stands, [one.truth for _, one in flat], [one.ignore for _, one in flat]))
    return [[(turn, next(scores)) for turn in one.turns] for one in replies]


def _turn_measures(turns: Scored, asked: int) -> dict[str, float]:
    """IoU after each of the turns that were asked for, and tokens by then; {} for a single answer."""
    found = {"turns": float(len(turns))} if turns else {}
    for k in range(1, min(asked, MAX_TURNS) + 1) if turns else ():
        found[f"iou_turn_{k}"] = turns[min(k, len(turns)) - 1][1].iou
        found[f"tokens_turn_{k}"] = float(sum(turn.n_tokens for turn, _ in turns[:k]))
    return found


def _record(
    example: Example,
    seen: Reply,
    score: Score,
    lenient: Mapping[str, Any] | None,
    turns: Scored,
    asked: int,
    saliency: bool,
) -> EvalRecord:
    said, completion = seen.segmentation.answer, seen.completion
    return EvalRecord(
        id=example.id,
        image_id=example.image_id,
        tags=dict(example.tags),
        query=example.query,
        text=completion.text,
        reasoning=said.reasoning,
        detail=said.detail,
        prompts=said.prompts,
        mask=to_rle(seen.segmentation.union.cpu().numpy()),
        truth=to_rle(example.truth),
        tokens=completion.n_tokens,
        seconds=completion.seconds,
        truncated=completion.truncated,
        measures={**measures(example, seen.segmentation, saliency=saliency), **_turn_measures(turns, asked)},
        samples=seen.samples,
        says_none=said.says_none,
        lenient=lenient,
        turns=tuple(to_row(turn, one.iou) for turn, one in turns),
        votes=seen.segmentation.votes,
        object_ious=object_ious(example, seen.segmentation) if seen.segmentation.votes else (),
        **dataclasses.asdict(score),
    )


def _session(share: Share, begun: float, answered: int) -> dict[str, Any]:
    """What one process did: `begun` and `ended` in seconds since 1970."""
    row = {"rank": share.rank, "world": share.world, "samples": answered, "begun": begun, "ended": time.time()}
    return row | {"peak_memory_mib": peak_memory_mib()}


def read_leniently(
    text_to_masks: TextToMasks, replies: Sequence[Reply], window: Sequence[Example], decoding: Decoding
) -> list[Mapping[str, Any] | None]:
    """What `EvalRecord.lenient` holds of each answer. Masks are made only where the two readings differ.

    None for answers of several texts (a vote, a second look, turns), and where the first reading was lenient already.
    """
    from segrl import scoring

    if text_to_masks.reading != "strict" or decoding.samples > 1 or decoding.second_look or decoding.turns > 1:
        return [None] * len(replies)
    lenient = replace(text_to_masks, reading="lenient")
    places = [i for i, one in enumerate(replies) if _differs(lenient, one, window[i].image.size)]
    read = lenient.read(
        [replies[i].completion.text for i in places],
        [window[i].image for i in places],
        image_ids=[window[i].image_id for i in places],
        truncated=[replies[i].completion.truncated for i in places],
    )
    scores = scoring.score(read, [window[i].truth for i in places], [window[i].ignore for i in places])
    found: list[Mapping[str, Any] | None] = [{} for _ in replies]
    for i, one, score in zip(places, read, scores, strict=True):
        numbers = {key: value for key, value in dataclasses.asdict(score).items() if key != "target_area"}
        found[i] = {**numbers, "status": score.status.value, "repairs": list(one.answer.repairs)}
    return found


def _differs(lenient: TextToMasks, one: Reply, image_wh: tuple[int, int]) -> bool:
    """Whether the lenient reading may give another answer: it parses another, or the strict one failed on the image."""
    frame, completion = lenient.frame_for(image_wh), one.completion
    strict = one.segmentation.written
    answer = lenient.answer_format.parse(
        completion.text, truncated=completion.truncated, frame=frame, reading=lenient.reading
    )
    return answer != strict or (not answer.status.is_failure and one.segmentation.answer.status.is_failure)
