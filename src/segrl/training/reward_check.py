"""The reward check before step 1: do gold answers earn clearly more than wrong ones?

A reward that pays a blank answer, the whole image or a random box as well as the right one teaches
just that, and shows it only after hours. A few training examples tell it in seconds.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from segrl.coordinates import convert
from segrl.datasets.gold import gold_prompts
from segrl.devices import is_main
from segrl.errors import DataError, RecipeError
from segrl.files import write_atomically
from segrl.rewards import Completions, RewardBatch, RewardEngine
from segrl.training.checkpoints import RunDir
from segrl.training.recipe import Recipe
from segrl.types import ORIGINAL, RELATIVE_1000, Example, MaskPrompt

if TYPE_CHECKING:
    from segrl.training.parts import Parts, Reader

GOLD = "gold"
GOOD_IOU = 0.5
"""Below it no answer is right by chance, however bad gold's own mask is."""

_TRIES = 4  # examples read per example wanted: some have targets without a pixel


@dataclass(frozen=True)
class Earned:
    """What one kind of answer earns, mean over the examples on which it is not a right answer.

    n: how many those are. lead: by how much gold earns more on the same examples; None for gold.
    read: share of the answers that could be read. terms: each term before its weight; None where it
    never applies.
    """

    answer: str
    n: int
    reward: float
    lead: float | None
    read: float
    terms: Mapping[str, float | None]


@dataclass(frozen=True)
class RewardCheck:
    """The table, gold first, and what is wrong with it: one sentence each, empty where gold is clearly best."""

    rows: tuple[Earned, ...]
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether gold is clearly best."""
        return not self.faults

    @property
    def silent_terms(self) -> list[str]:
        """The terms that applied to no answer of any kind."""
        return [term for term in self.rows[0].terms if all(row.terms[term] is None for row in self.rows)]

    def lines(self) -> list[str]:
        """The table as plain text, a header first."""
        terms = list(self.rows[0].terms)
        head = ["answers", "n", "reward", "gold leads by", "read", *terms]
        body = [
            [row.answer, str(row.n), _number(row.reward), _number(row.lead), f"{row.read:.0%}"]
            + [_number(row.terms[term]) for term in terms]
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        return [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (head, *body)
        ]

    def to_json(self) -> dict[str, object]:
        """As reward_check.json holds it."""
        return {"passed": self.passed, "faults": list(self.faults), "rows": [asdict(row) for row in self.rows]}


def ensure_reward(parts: Parts, run: RunDir, say: Callable[[str], None] = print) -> None:
    """Checks the reward of a GRPO run that has not begun, unless the recipe says no or it passed here before.

    The table goes to reward_check.json. Raises RecipeError after showing it if gold is not clearly best.
    """
    recipe = parts.recipe
    begun = run.steps.exists() and run.steps.stat().st_size > 0
    if recipe.method != "grpo" or not recipe.reward_check.samples or begun or _passed(run, recipe):
        return
    check = check_recipe(parts)
    if is_main():  # processes that are started together check alike
        write_atomically(run.reward_check, json.dumps({"recipe": recipe.as_dict(), **check.to_json()}, indent=1) + "\n")
    if check.passed:
        runner_up = max(check.rows[1:], key=lambda row: row.reward, default=None)
        beside = (
            "" if runner_up is None else f", the best of the wrong ones ({runner_up.answer}) {runner_up.reward:.3g}"
        )
        say(f"reward check: gold answers earn {check.rows[0].reward:.3g}{beside}")
        for term in check.silent_terms:
            say(f"reward check: the term {term} applied to none of the answers; does it return a number?")
        return
    for line in check.lines():
        say(line)
    raise RecipeError(
        f"reward check: {' '.join(check.faults)} Change rewards, segmenter, answer_format or the policy's frame; "
        "reward_check: false in the recipe goes on without"
    )


def _passed(run: RunDir, recipe: Recipe) -> bool:
    """Whether this very recipe passed in an earlier start."""
    if not run.reward_check.exists():
        return False
    kept = json.loads(run.reward_check.read_text(encoding="utf-8"))
    return bool(kept["passed"]) and kept.get("recipe") == json.loads(json.dumps(recipe.as_dict()))


def check_recipe(parts: Parts) -> RewardCheck:
    """The reward check of a GRPO recipe; needs its processor, segmenter and data, and no weights of the policy."""
    policy, recipe = parts.policy, parts.recipe
    wanted = recipe.reward_check
    examples = _drawn(parts.examples, wanted.samples, recipe.seed)

    def count_tokens(text: str) -> int:
        return len(policy.processor.tokenizer(text)["input_ids"])

    return check_rewards(parts.engine, policy.reader, examples, count_tokens, margin=wanted.margin, seed=recipe.seed)


def check_rewards(
    engine: RewardEngine,
    reader: Reader,
    examples: Sequence[Example],
    count_tokens: Callable[[str], int] = len,
    *,
    margin: float = 0.1,
    seed: int = 0,
) -> RewardCheck:
    """Scores gold answers of `examples` and wrong ones beside them.

    empty: "nothing there". full image: a box around everything with five points. random boxes: one
    with a point in its middle. shuffled: the gold answer of another example, at the same place of
    the image. An answer that is right on an example all the same ("nothing there" where nothing is, an
    object at the same place) is not counted there. Gold is clearly best if its lead over each of them
    is above `margin` × its largest lead: what all answers are paid alike does not count, as it does
    not in a group's advantages.
    """
    answers = _answers(reader, examples, random.Random(seed))
    scored = {name: engine.score(_completions(texts, examples, count_tokens)) for name, texts in answers.items()}
    rows = [_earned(name, scored[name], scored[GOLD], _wrong(name, scored[name], scored[GOLD])) for name in scored]
    counted = tuple(row for row in rows if row.n)
    return RewardCheck(counted, tuple(_faults(counted, margin, engine)))


def _drawn(examples: Sequence[Example], wanted: int, seed: int) -> list[Example]:
    """Some examples at random, those left out that have no right answer."""
    places = random.Random(seed).sample(range(len(examples)), min(_TRIES * wanted, len(examples)))
    drawn: list[Example] = []
    for place in places:
        example = examples[place]
        if all(mask.any() for mask in example.targets):
            drawn.append(example)
        if len(drawn) == wanted:
            return drawn
    if not drawn:
        raise DataError(f"reward check: none of {len(places)} training examples has a target with a pixel")
    return drawn


def _answers(reader: Reader, examples: Sequence[Example], rng: random.Random) -> dict[str, list[str]]:
    """Texts in the policy's words, one per example, for each kind of answer."""
    wrong: dict[str, Callable[[int, Example], Sequence[MaskPrompt]]] = {
        "empty": lambda i, example: (),
        "full image": lambda i, example: (_full_image(*example.image.size),),
        "random boxes": lambda i, example: (_random_box(*example.image.size, rng),),
        "shuffled": lambda i, example: _moved(examples[(i + 1) % len(examples)]),
    }
    texts = {GOLD: [reader.completion(example) for example in examples]}
    for name, prompts in wrong.items():
        texts[name] = [reader.written(prompts(i, one), one.image.size) for i, one in enumerate(examples)]
    return texts


def _full_image(width: int, height: int) -> MaskPrompt:
    places = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
    points = tuple((x * width, y * height) for x, y in places)
    return MaskPrompt((0.0, 0.0, float(width), float(height)), points, (1,) * len(points), ORIGINAL)


def _random_box(width: int, height: int, rng: random.Random) -> MaskPrompt:
    w, h = rng.uniform(0.1, 0.6) * width, rng.uniform(0.1, 0.6) * height
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return MaskPrompt((x, y, x + w, y + h), ((x + w / 2, y + h / 2),), (1,), ORIGINAL)


def _moved(example: Example) -> list[MaskPrompt]:
    """The gold mask prompts of an example as shares of its image, so that they fit any other."""
    return [convert(prompt, RELATIVE_1000, example.image.size) for prompt in gold_prompts(example)]


def _completions(texts: Sequence[str], examples: Sequence[Example], count_tokens: Callable[[str], int]) -> Completions:
    return Completions(
        texts=texts,
        truncated=[False] * len(texts),
        n_tokens=[count_tokens(text) for text in texts],
        example_ids=[example.id for example in examples],
        images=[example.image for example in examples],
        image_ids=[example.image_id for example in examples],
        targets=[example.targets for example in examples],
        ignores=[example.ignore for example in examples],
        queries=[example.query for example in examples],
    )


def _wrong(name: str, batch: RewardBatch, gold: RewardBatch) -> list[int]:
    """On which examples this kind of answer is wrong; for gold, all of them.

    It is right where it says what gold says, and where its mask is as good as gold's and good at all.
    """
    pairs = enumerate(zip(batch.rollouts, gold.rollouts, strict=True))
    return [
        i
        for i, (one, best) in pairs
        if name == GOLD or not (one.text == best.text or one.score.iou >= max(GOOD_IOU, best.score.iou))
    ]


def _earned(name: str, batch: RewardBatch, gold: RewardBatch, places: Sequence[int]) -> Earned:
    def mean(values: Sequence[float | None]) -> float | None:
        applying = [value for i in places if (value := values[i]) is not None]
        return sum(applying) / len(applying) if applying else None

    reward, beside = mean(batch.totals) or 0.0, mean(gold.totals) or 0.0
    failed = [batch.rollouts[i].answer.status.is_failure for i in places]
    return Earned(
        answer=name,
        n=len(places),
        reward=reward,
        lead=None if name == GOLD else beside - reward,
        read=1 - sum(failed) / len(failed) if failed else 0.0,
        terms={term: mean(values) for term, values in batch.values.items()},
    )


def _faults(rows: Sequence[Earned], margin: float, engine: RewardEngine) -> list[str]:
    gold, *others = rows
    faults = []
    if gold.read < 1:
        faults.append(f"Only {gold.read:.0%} of the gold answers can be read.")
    leads = {row.answer: row.lead or 0.0 for row in others}
    for row in others:
        earns = row.reward + leads[row.answer]
        if leads[row.answer] <= margin * max(0.0, *leads.values()):
            by = _paid_by(row, gold, engine)
            faults.append(f"Answers of the kind “{row.answer}” earn {row.reward:.3g} beside gold's {earns:.3g}{by}.")
    return faults


def _paid_by(row: Earned, gold: Earned, engine: RewardEngine) -> str:
    """The terms that pay a wrong answer at least as much as gold, as words."""
    paying = [
        term.name
        for term in engine.terms
        if term.weight > 0
        and (theirs := row.terms[term.name]) is not None
        and theirs >= (gold.terms[term.name] or 0.0)
        and theirs > 0
    ]
    return f" (paid by {', '.join(paying)})" if paying else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
