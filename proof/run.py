"""The proof: reinforcement learning beside its controls, over several seeds.

    python proof/run.py --out runs/proof --page docs/proof.md          (what `make proof` runs)
    python proof/run.py --out runs/short --page runs/short.md --short  (two steps each, in the tests)

Arms, each measured on the same held-out scenes: the cold start; more SFT for as long as the
reinforcement learning took; RL with the rewards shuffled within each group; RL; gold mask prompts
through the segmenter (the ceiling); RL asked the queries of other scenes; and, for each trained
policy, the second skill (counting). What is measured already in --out is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segrl.evaluation import EvalDir, EvalRecord, EvalSettings, Loaded, load, read_jsonl, run
from segrl.experiment import measure
from segrl.files import write_atomically
from segrl.training import Recipe, load_recipe, train
from segrl.training.parts import Parts
from segrl.training.recipe import eval_settings

HERE = Path(__file__).parent
COUNT_SEED = 9003


@dataclass(frozen=True)
class Plan:
    """How long everything is: the full proof, or its short form."""

    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    n_counts: int


FULL = Plan(seeds=(0, 1, 2), overrides=(), n_counts=600)
SHORT = Plan(
    seeds=(0,),
    overrides=(
        "trainer.max_steps=2",
        "trainer.save_steps=1",
        "trainer.per_device_train_batch_size=16",
        "evaluation.dataset.n=22",
    ),
    n_counts=8,
)


class Proof:
    """One proof in the directory `out`; every stage leaves a file and is skipped when that is there."""

    def __init__(self, out: Path, plan: Plan, say: Callable[[str], None] = print) -> None:
        self.out, self.plan, self.say = out, plan, say
        self.rl = Parts(load_recipe(HERE / "rl.yaml", plan.overrides))

    def run(self) -> dict[str, Any]:
        """All arms; returns the records' places and the numbers that are no records."""
        self.measured("cold", lambda out: measure(self.rl, "tiny", out))
        self.measured("ceiling", lambda out: run(self._gold(), out))
        self.measured("chance", lambda out: run(self._chance(), out))
        self._count("cold", "tiny")
        for seed in self.plan.seeds:
            self._seed(seed)
        return json.loads(self._facts_path.read_text(encoding="utf-8"))

    def _seed(self, seed: int) -> None:
        rl = load_recipe(HERE / "rl.yaml", [*self.plan.overrides, f"seed={seed}"])
        shuffled = load_recipe(HERE / "rl.yaml", [*self.plan.overrides, f"seed={seed}", "control.shuffle_rewards=true"])
        seconds = self._train(f"rl-{seed}", rl)
        self._train(f"shuffled-{seed}", shuffled)
        self._train(f"sft-{seed}", self._more_sft(seed), stop_after=seconds)
        for arm in ("rl", "shuffled", "sft"):
            name = f"{arm}-{seed}"
            model = str(self.out / name / "model")
            self.measured(name, lambda out, model=model: measure(self.rl, model, out))
            self._count(name, model)
        swapped = str(self.out / f"rl-{seed}" / "model")
        self.measured(f"swapped-{seed}", lambda out: run(self._swapped(swapped), out))

    def _more_sft(self, seed: int) -> Recipe:
        """More cold start, a new stretch of scenes for each seed."""
        short = ["trainer.per_device_train_batch_size=4"] if self.plan is SHORT else []
        return load_recipe(HERE / "more_sft.yaml", [f"seed={seed}", f"dataset.seed={2000 + seed}", *short])

    def _train(self, name: str, recipe: Recipe, stop_after: float | None = None) -> float:
        """Seconds of training."""
        facts = self._facts()
        if name not in facts:
            self.say(f"training {name}")
            callbacks = [] if stop_after is None else [stop_callback(stop_after)]
            result = train(recipe, self.out / name, callbacks=callbacks, say=self.say)
            facts[name] = {"seconds": result.seconds, "steps": result.last_step}
            write_atomically(self._facts_path, json.dumps(facts, indent=1) + "\n")
        return float(facts[name]["seconds"])

    @property
    def _facts_path(self) -> Path:
        return self.out / "facts.json"

    def _facts(self) -> dict[str, Any]:
        return json.loads(self._facts_path.read_text(encoding="utf-8")) if self._facts_path.exists() else {}

    def evaluation(self, name: str) -> EvalDir:
        """Where an arm's evaluation is kept."""
        return EvalDir(self.out / "evaluation" / name)

    def measured(self, name: str, make: Callable[[Path], object]) -> None:
        """Has `make` write the evaluation of an arm, unless it is there."""
        directory = self.evaluation(name)
        if not directory.is_finished:
            self.say(f"measuring {name}")
            make(directory.path)

    def records(self, name: str) -> list[EvalRecord]:
        """The records of an arm that has been measured."""
        return read_jsonl(self.evaluation(name).records)

    def _gold(self) -> Loaded:
        """Ideal mask prompts through the segmenter: the most that a perfect pointer would get."""
        section = self.rl.recipe.evaluation
        assert section is not None  # rl.yaml has one
        options = {**section.dataset.options, "gold": "tight"}
        return load(EvalSettings("oracle", section.dataset.name, "grabcut", {"prompts": "example"}, options))

    def _chance(self) -> Loaded:
        """Ideal mask prompts for as many objects as are asked for, drawn at random: no understanding at all."""
        import numpy as np

        from segrl.answers import own_points
        from segrl.tiny.gold import tight_prompt

        gold, rng = self._gold(), np.random.default_rng(0)
        guessed = []
        for example in gold.examples:
            masks = example.meta["named"].masks
            drawn = rng.permutation(len(masks))[: len(example.targets)]
            prompts = own_points([tight_prompt(masks, int(i)) for i in drawn])
            guessed.append(replace(example, meta={**example.meta, "prompts": prompts}))
        return replace(gold, examples=guessed)

    def _swapped(self, model: str) -> Loaded:
        """The same scenes and truths, each asked the query of the next scene of its kind."""
        loaded = load(eval_settings(self.rl.recipe, model))
        examples, kinds = list(loaded.examples), len(loaded.settings.dataset_options["kinds"])
        queries = [examples[(i + kinds) % len(examples)].query for i in range(len(examples))]
        return replace(loaded, examples=[replace(e, query=q) for e, q in zip(examples, queries, strict=True)])

    def _count(self, name: str, model: str) -> None:
        """The second skill: whether each held-out scene's objects are counted rightly."""
        path = self.out / f"{name}.counts.json"
        if path.exists():
            return
        from segrl import datasets, policies

        examples = list(datasets.load("tiny", n=self.plan.n_counts, seed=COUNT_SEED, kinds=["count"]))
        completions = policies.load(model).generate(
            [e.image for e in examples],
            [e.meta["prompt_text"] for e in examples],
            max_new_tokens=120,
            batch_size=32,
        )
        right = [
            group[0].text.endswith(f"<answer>{e.meta['count']}</answer>")
            for group, e in zip(completions, examples, strict=True)
        ]
        write_atomically(path, json.dumps(right) + "\n")

    def counts(self, name: str) -> list[bool]:
        """Which scenes an arm counted rightly."""
        return json.loads((self.out / f"{name}.counts.json").read_text(encoding="utf-8"))


def stop_callback(seconds: float, clock: Callable[[], float] = time.monotonic) -> Any:
    """A transformers callback that ends and saves a training run after so many seconds of `clock`."""
    from transformers import TrainerCallback

    class StopAfter(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.begun = clock()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if clock() - self.begun >= seconds:
                control.should_training_stop = control.should_save = control.should_log = True

    return StopAfter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    proof = Proof(arguments.out, SHORT if arguments.short else FULL)
    facts = proof.run()
    from page import write_page

    write_page(proof, facts, arguments.page)
    print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
