"""Seconds and tokens of a question in the tiny world: words as asked, one answer, a vote, a second look, turns.

python bench/answers.py                                   (part of `make bench`: some minutes)
python bench/answers.py --concept runs/words/sft-words/copy/model      (also a policy that answers in words)
python bench/answers.py --short --out DIR                 (two questions: for the tests, the numbers mean nothing)

All ways answer the same questions, one at a time, in one process and in turn, so that whatever else the machine does
falls on all of them alike. Writes answers.json and the table of docs/words_and_votes.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tables import write_table
from timing import side_by_side

import segrl
from segrl.devices import core_count, device_name
from segrl.files import write_atomically
from segrl.inference import Decoding, answer
from segrl.pipeline import Pipeline
from segrl.tiny.scenes import TinyScenes
from segrl.types import Example

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "words_and_votes.md"
KINDS = ("colour_shape", "pair", "several", "none", "size", "position")
SEED = 9006
SAMPLES = (4, 8, 16)
HEAD = ("| way | segmenter | seconds a question | of one answer | tokens a question |", "|---|---|---|---|---|")
ONE = "one answer"


@dataclass(frozen=True)
class Row:
    """One way of answering. seconds, tokens: of a question, on average; seconds are the median over the rounds."""

    way: str
    segmenter: str
    seconds: float
    tokens: float

    def line(self, of_one: float) -> str:
        """The row of the table. of_one: seconds of one answer."""
        times = f"{self.seconds:.3f} | {self.seconds / of_one:.2f}"
        return f"| {self.way} | {self.segmenter} | {times} | {self.tokens:.0f} |"


@dataclass(frozen=True)
class Way:
    """How questions are answered."""

    name: str
    model: Pipeline
    segmenter: str
    decoding: Decoding

    def ask(self, scenes: Sequence[Example]) -> int:
        """Answers all questions; returns the tokens that were written."""
        tokens = 0
        for scene in scenes:
            (reply,) = answer(
                self.model.policy, self.model.text_to_masks, [scene.image], [scene.query], [scene.id], self.decoding
            )
            tokens += reply.completion.n_tokens
        return tokens


def main() -> None:
    """Measure, print, write."""
    options = read_options()
    torch.set_num_threads(options.threads)
    scenes = list(TinyScenes(options.questions, SEED, KINDS))
    rows = measured(ways(options.concept, options.samples), scenes, options.rounds)
    of_one = next(row.seconds for row in rows if row.way == ONE)
    lines = [*HEAD, *(row.line(of_one) for row in rows)]
    print("\n".join(lines))
    machine = {"device": device_name(), "threads": options.threads, "questions": len(scenes), "rounds": options.rounds}
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    write_atomically(options.out / "answers.json", json.dumps(content, indent=1) + "\n")
    if options.out == HERE and not options.short:
        size = f"{len(scenes)} questions, medians of {options.rounds} rounds"
        said = f"`python bench/answers.py` on {machine['device']}, {size}:"
        write_table("bench/answers.py", [said, "", *lines], PAGE)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concept", help="a policy that answers in the format concept; without it no such row")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5, help="that are measured, after one that warms up")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--threads", type=int, default=core_count())
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        options.questions, options.rounds, options.samples = 2, 1, (4,)
    return options


def ways(concept: str | None, samples: Sequence[int]) -> list[Way]:
    """Every way, over as few loaded models as there can be."""
    words, tiny = segrl.load("words", segmenter="shapes"), segrl.load("tiny", max_new_tokens=104)
    plain = Decoding(max_new_tokens=tiny.max_new_tokens)
    found = [Way("words as asked (`--policy words`)", words, "shapes", plain), Way(ONE, tiny, "GrabCut", plain)]
    for count in samples:
        vote = Decoding(plain.max_new_tokens, count, count)
        found.append(Way(f"a vote, `--samples {count}`", tiny, "GrabCut", vote))
    found.append(Way("`--second-look`", tiny, "GrabCut", Decoding(plain.max_new_tokens, second_look=True)))
    found.append(Way("`--turns 3`", tiny, "GrabCut", Decoding(plain.max_new_tokens, turns=3)))
    if concept is not None:
        spoken = segrl.load(concept, segmenter="shapes", answer_format="concept")
        found.append(Way("one answer in words (`concept`)", spoken, "shapes", Decoding(max_new_tokens=128)))
    return found


def measured(found: Sequence[Way], scenes: Sequence[Example], rounds: int) -> list[Row]:
    """A row for each way, all of them in turn."""
    tokens: dict[str, int] = {}

    def asking(way: Way) -> Callable[[], None]:
        def work() -> None:
            tokens[way.name] = way.ask(scenes)

        return work

    seconds = side_by_side({way.name: asking(way) for way in found}, rounds)
    n = len(scenes)
    return [Row(way.name, way.segmenter, seconds[way.name] / n, tokens[way.name] / n) for way in found]


if __name__ == "__main__":
    main()
