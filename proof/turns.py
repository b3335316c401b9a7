"""The proof of turns: does a policy that is shown its mask correct it, and does the reward teach that?

    segrl train recipes/tiny_turns.yaml --out runs/tiny_turns      (the cold start of turns; see there what it needs)
    python proof/turns.py --cold runs/tiny_turns/correct/model --out runs/turns --page docs/turns_proof.md
    … --seeds 0 --minutes 0.01 --n 4 --short                                        (a step of each, for tests)
    … --untrained                                                                   (what needs no training)
    … --page-only                                                                   (the page of what is measured)

Arms, from the same cold start and for the same minutes of training (processor time, so that other work on the machine
takes nothing from an arm): one turn, at most two, at most three; two turns where in half of the groups all completions
have one first answer in common, so that their rewards differ by the correction alone; and one turn for as many tokens
as the three-turn run wrote. Each is measured on the same held-out scenes with as many turns as it
was trained for, and with three; then with the pictures of other scenes in place of its own. Beside them stand the
shipped tiny policy, which knows single answers only and is asked to correct them by the text alone, and the first
stage of the cold start (`look/model` beside `correct/model`), which has seen damaged answers and not its own. What is
measured already in --out is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from page import gain_text, giou, machine, table, with_interval
from run import stop_callback

from segrl.evaluation import EvalDir, EvalRecord, Loaded, load, read_jsonl, run
from segrl.files import read_rows, write_atomically
from segrl.policies import Chat, Completion, Policy
from segrl.training import Recipe, load_recipe, train
from segrl.training.recipe import eval_settings

HERE = Path(__file__).parent
TURNS = (1, 2, 3)
SHARED = ("turns.shared_first=0.5", "trainer.scale_rewards=group")
"""Corrections change a reward less than first answers do: each group is scaled by its own spread."""


class OtherPictures:
    """A policy that is shown, in place of its own mask, the picture of the next conversation of its batch."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.answer_format, self.settings = policy, policy.answer_format, policy.settings
        self.frame_for, self.generate = policy.frame_for, policy.generate

    def reply(self, chats: Sequence[Chat], **options: Any) -> list[list[Completion]]:
        """As the policy's, with the pictures moved on by one."""
        moved = []
        for chat, other in zip(chats, [*chats[1:], *chats[:1]], strict=True):
            pictures = [one.picture for one in other.exchanges][: len(chat.exchanges)]
            pairs = zip(chat.exchanges, pictures, strict=False)
            exchanges = tuple(replace(one, picture=picture) for one, picture in pairs)
            moved.append(replace(chat, exchanges=(*exchanges, *chat.exchanges[len(exchanges) :])))
        return list(self.policy.reply(moved, **options))


@dataclass(frozen=True)
class Arm:
    """One training: at most so many turns, for so many seconds or until so many tokens were written.

    overrides: of the recipe.
    """

    name: str
    turns: int
    seed: int
    tokens: float | None = None
    overrides: tuple[str, ...] = ()


class Proof:
    """One proof in the directory `out`; every stage leaves a file and is skipped when that is there."""

    def __init__(
        self, cold: Path, out: Path, seeds: Sequence[int], minutes: float, n: int, is_short: bool = False
    ) -> None:
        self.cold, self.out, self.seeds, self.seconds, self.n = cold, out, list(seeds), 60 * minutes, n
        self.is_short = is_short

    def recipe(self, turns: int, seed: int, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe of an arm; one turn is the same without turns and without their terms."""
        given = [*overrides, f"seed={seed}", f"policy.path={self.cold}", f"evaluation.dataset.n={self.n}"]
        if self.is_short:
            given += ["trainer.per_device_train_batch_size=8", "evaluation.max_new_tokens=24"]
        if turns == 1:
            given += ["turns=null", "rewards={iou: 1.0, format: 0.2}", "trainer.max_completion_length=104"]
        else:
            given += [f"turns.max={turns}", f"trainer.max_completion_length={104 * turns + 164 * (turns - 1)}"]
        return load_recipe(HERE / "turns.yaml", given)

    def run(self, untrained: bool = False) -> None:
        """All arms, or those that need no training."""
        self.measure("single-turn policy", "tiny")
        self.measure("cold", self.cold)
        if (look := self.cold.parent.parent / "look" / "model").exists():
            self.measure("damaged answers only", look)
        if untrained:
            return
        for seed in self.seeds:
            for turns in TURNS:
                self.trained(Arm(f"{turns}-turns-{seed}", turns, seed))
            self.trained(Arm(f"2-turns-shared-{seed}", 2, seed, overrides=SHARED))
            tokens = read_rows(self.out / f"3-turns-{seed}" / "steps.jsonl")[-1]["num_tokens"]
            self.trained(Arm(f"1-turns-tokens-{seed}", 1, seed, tokens))

    def trained(self, arm: Arm) -> None:
        """Trains an arm and measures it."""
        place = self.out / arm.name
        if not (place / "model").exists():
            print(f"training {arm.name}", flush=True)
            by_time = stop_callback(self.seconds, time.process_time)
            stop = by_time if arm.tokens is None else stop_at_tokens(arm.tokens)
            recipe, begun = self.recipe(arm.turns, arm.seed, arm.overrides), time.process_time()
            longer = recipe.model_copy(update={"trainer": {**recipe.trainer, "max_steps": 10_000, "save_steps": 5}})
            result = train(longer, place, callbacks=[stop], progress=False)
            used = {"seconds": result.seconds, "processor_seconds": time.process_time() - begun}
            facts = {**used, "steps": result.last_step, "threads": torch.get_num_threads()}
            write_atomically(place / "facts.json", json.dumps(facts) + "\n")
        self.measure(arm.name, place / "model")

    def measure(self, name: str, model: Path | str) -> None:
        """Three turns, and three with other pictures."""
        self._evaluation(name, lambda: self._loaded(model))
        self._evaluation(f"{name}-other", lambda: other_pictures(self._loaded(model)))

    def _loaded(self, model: Path | str) -> Loaded:
        settings = eval_settings(self.recipe(3, 0), str(model))
        if model == "tiny":  # asked by the outline and the instruction, as any policy that knows no turns
            settings = replace(settings, policy_options={})
        return load(settings)

    def _evaluation(self, name: str, make: Callable[[], Loaded]) -> None:
        directory = EvalDir(self.out / "evaluation" / name)
        if not directory.is_finished:
            print(f"measuring {name}", flush=True)
            run(make(), directory.path)

    def records(self, name: str) -> list[EvalRecord]:
        """The records of an arm; [] for one that was not measured."""
        directory = EvalDir(self.out / "evaluation" / name)
        return read_jsonl(directory.records) if directory.is_finished else []

    def minutes(self, name: str) -> str:
        """How long an arm trained."""
        facts = self.facts(name)
        seconds = facts.get("processor_seconds", facts.get("seconds", 0))
        return f"{seconds / 60:.1f} min, {facts['steps']} steps" if facts else "–"

    def facts(self, name: str) -> dict[str, Any]:
        """Seconds, steps and threads of an arm's training; {} for one that was not trained here."""
        path = self.out / name / "facts.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def other_pictures(loaded: Loaded) -> Loaded:
    """The same evaluation by a policy that sees other conversations' pictures."""
    policy: Policy = OtherPictures(loaded.policy_for([]))  # type: ignore[assignment]  # a policy by its methods
    facts = {**loaded.policy_facts, "pictures": "of another conversation"}
    return replace(loaded, policy_for=lambda window: policy, policy_facts=facts)


def stop_at_tokens(tokens: float) -> Any:
    """A callback that ends and saves a run once so many tokens were read and written."""
    from transformers import TrainerCallback

    class StopAtTokens(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.num_input_tokens_seen >= tokens:
                control.should_training_stop = control.should_save = control.should_log = True

    return StopAtTokens()


def by_turn(records: Sequence[EvalRecord], k: int) -> np.ndarray:
    """IoU of every record after at most k turns."""
    return np.array([record.measures[f"iou_turn_{k}"] for record in records])


def tokens(records: Sequence[EvalRecord], k: int) -> float:
    """Mean tokens written in at most k turns."""
    return float(np.mean([record.measures[f"tokens_turn_{k}"] for record in records]))


def arms(seed: int) -> list[str]:
    """The names of a seed's trainings."""
    return [*(f"{turns}-turns-{seed}" for turns in TURNS), f"2-turns-shared-{seed}", f"1-turns-tokens-{seed}"]


def write_page(proof: Proof, path: Path) -> None:
    """The page: every number is computed here from the records."""
    names = [
        "single-turn policy",
        "damaged answers only",
        "cold",
        *(name for seed in proof.seeds for name in arms(seed)),
    ]
    measured = [name for name in names if proof.records(name)]
    missing = [name for name in names if name not in measured and name != "damaged answers only"]
    parts = [_head(proof, missing), _turns(proof, measured)]
    parts += [_control(proof, measured), _stopping(proof, measured)]
    write_atomically(path, "\n\n".join(parts) + "\n")


def _head(proof: Proof, missing: Sequence[str]) -> str:
    left_out = f"\n\nNot run: {', '.join(missing)}." if missing else ""
    threads = proof.facts(f"3-turns-{proof.seeds[0]}").get("threads", "–") if proof.seeds else "–"
    return f"""# Does a policy that sees its mask correct it?

This page is written by `python proof/turns.py`; no number is typed in. {machine()}
Torch threads of the trainings: {threads}.
Every arm begins with the same cold start (`recipes/tiny_turns.yaml`; "damaged answers only" is its first stage)
and is measured with at most three turns on the same {proof.n} held-out scenes: greedy answers, GrabCut, failures score
0. Intervals are 95% bootstrap intervals over scenes; differences are paired scene by scene.{left_out}"""


def _turns(proof: Proof, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        records = proof.records(name)
        overlaps = [with_interval(by_turn(records, k)) for k in TURNS]
        spent = " / ".join(f"{tokens(records, k):.0f}" for k in TURNS)
        rows.append([name, proof.minutes(name), *overlaps, gain_text(by_turn(records, 1), by_turn(records, 3)), spent])
    head = ["arm", "training", "gIoU, turn 1", "turn 2", "turn 3", "turn 3 − turn 1", "tokens by turn 1 / 2 / 3"]
    return "## gIoU by turn\n\n" + table(head, rows)


def _control(proof: Proof, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        own, other = proof.records(name), proof.records(f"{name}-other")
        if other:
            first = by_turn(other, 1)
            rows.append([name, gain_text(by_turn(own, 1), giou(own)), gain_text(first, giou(other))])
    note = "A policy that looks at its picture must lose its gain where the picture is of another scene."
    return f"## Another scene's picture\n\n{note}\n\n" + table(
        ["arm", "gain with its own", "gain with another's"], rows
    )


def _stopping(proof: Proof, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        records = proof.records(name)
        done = np.mean([_says_done(record) for record in records])
        mean = np.mean([r.measures["turns"] for r in records])
        after = [r.iou for r in records if _says_done(r)]
        went_on = [r.measures["iou_turn_1"] for r in records if not (len(r.turns) == 2 and _says_done(r))]
        rows.append(
            [name, f"{mean:.2f}", f"{done:.0%}", f"{np.mean(after):.3f}" if after else "–",
             f"{np.mean(went_on):.3f}" if went_on else "–"]
        )  # fmt: skip
    note = (
        "The columns of gIoU by turn are what a fixed number of turns would give. Learned stopping: how many turns "
        "were taken, how often the policy said that it was done, how good the mask was then, and how good the first "
        "mask was where it went on."
    )
    head = ["arm", "turns", "done", "gIoU when done", "gIoU of turn 1 where it went on"]
    return f"## Learned stopping\n\n{note}\n\n" + table(head, rows)


def _says_done(record: EvalRecord) -> bool:
    return bool(record.turns) and record.turns[-1]["move"] == "done"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--page-only", action="store_true")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    proof = Proof(given.cold.resolve(), given.out, given.seeds, given.minutes, given.n, given.short)
    if not given.page_only:
        proof.run(given.untrained)
    write_page(proof, given.page)
    print(f"wrote {given.page}")


if __name__ == "__main__":
    main()
