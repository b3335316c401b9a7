"""The policy for photographs, by Seg-R1's stages on DUTS-TR, beside its controls.

    python proof/photographs.py run --duts DUTS --ecssd ECSSD --out runs/photographs --page docs/photographs.md
    python proof/photographs.py ship runs/photographs --page docs/photographs.md

`ship` puts the best seed into the package, in half precision, with its card. Stages: the eyes
(`photographs_eyes.py`), the cold start, reinforcement learning with three seeds, as many minutes of more SFT,
reinforcement learning with rewards shuffled in each group. All choices (checkpoint, constant box, seed) are made on
the pictures of DUTS-TR that the recipe holds out; then every arm is measured on DUTS-TE and ECSSD. What is done already
in --out is not done again, so the same command goes on after an interruption. `--short` does two steps of each, in the
tests. `make photographs` runs it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from photographs_page import HELD_OUT, card, show_photographs, write_page

from segrl import VoteRule, answers, datasets
from segrl.evaluation import Decoding, EvalDir, EvalRecord, EvalSettings, read_jsonl, run
from segrl.evaluation.replay import best_constant_box
from segrl.files import write_atomically
from segrl.training import Recipe, train
from segrl.training.checkpoints import RunDir, best_checkpoint
from segrl.training.recipe import load_stages
from segrl.types import RELATIVE_1000, Box, MaskPrompt

RECIPE = Path(__file__).parents[1] / "recipes" / "photographs.yaml"
DECODING = Decoding(max_new_tokens=48, batch_size=32)
VOTE = replace(DECODING, samples=8, vote=VoteRule(mask="consensus"))
MARGINS = (0.05, 0.15, 0.25)
"""Of the constant boxes that are tried beside the best filled one, as shares of width and height."""


@dataclass(frozen=True)
class Plan:
    """How long everything is.

    eyes: options of `photographs_eyes`. overrides: of the recipe. fitted, tried: pictures that the constant box is
    fitted on and chosen on. save: steps of more SFT between checkpoints.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    eyes: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    fitted: int = 1000
    tried: int = 200
    save: int = 200


SHORT = Plan(
    seeds=(0,),
    eyes={"samples": 4, "batch": 2},
    overrides=(
        "evaluation.examples=2",
        *(f"stages.{name}.trainer.{key}=2" for name in ("cold_start", "rl") for key in ("max_steps", "save_steps")),
        *(f"stages.{name}.evaluation.every=2" for name in ("cold_start", "rl")),
        "stages.cold_start.trainer.logging_steps=2",
        "stages.cold_start.trainer.per_device_train_batch_size=2",
        "stages.rl.trainer.per_device_train_batch_size=4",
        "stages.rl.trainer.num_generations=2",
    ),
    fitted=4,
    tried=2,
    save=2,
)


class Photographs:
    """The whole work in the directory `out`; every stage leaves a file and is skipped when that is there."""

    def __init__(
        self, out: Path, duts: Path, ecssd: Path | None, plan: Plan, cache: Path | None = None, say: Any = print
    ) -> None:
        self.out, self.duts, self.plan, self.cache, self.say = out, duts, plan, cache, say
        self.sets: dict[str, tuple[str, dict[str, Any]]] = {
            HELD_OUT: ("duts", {"root": str(duts), "split": "train", "hold_out": 20, "part": "held_out"}),
            "DUTS-TE": ("duts", {"root": str(duts), "split": "test"}),
        }
        if ecssd is not None:
            self.sets["ECSSD"] = ("ecssd", {"root": str(ecssd)})

    @property
    def trained(self) -> list[str]:
        """The arms that are policies."""
        return ["cold_start", *self.reinforced, "more_sft", "shuffled"]

    @property
    def reinforced(self) -> list[str]:
        """The arms of reinforcement learning."""
        return [f"rl-{seed}" for seed in self.plan.seeds]

    @property
    def arms(self) -> list[str]:
        """Every row of the page's tables."""
        return ["whole", "constant", *self.trained, "vote", "grabcut", "gold"]

    def run(self) -> None:
        """Everything that is not done yet."""
        self._eyes()
        self._train("cold_start", self._recipe("cold_start", self.out / "eyes" / "model"))
        cold = self.model("cold_start")
        for seed in self.plan.seeds:
            self._train(f"rl-{seed}", self._recipe("rl", cold, f"stages.rl.seed={seed}"))
        self._train("more_sft", self._recipe("cold_start", cold, *self._as_long()))
        self._train("shuffled", self._recipe("rl", cold, "stages.rl.control.shuffle_rewards=true"))
        for arm in [*self.trained, "vote"]:
            self._measure(HELD_OUT, arm)
        self._choose_constant()
        for name in self.sets:
            for arm in self.arms:
                self._measure(name, arm)

    def _eyes(self) -> None:
        from photographs_eyes import options, train

        if not (self.out / "eyes" / "model" / "segrl.json").exists():
            self.say("training the eyes")
            train(options(self.duts, self.out / "eyes", cache=self.cache, **self.plan.eyes))

    def _recipe(self, stage: str, policy: Path, *overrides: str) -> Recipe:
        given = [f"dataset.root={self.duts}", "stages.cold_start.policy.path=" + str(policy)]
        stages = {one.name: one for one in load_stages(RECIPE, [*given, *self.plan.overrides, *overrides])}
        return stages[stage].resolved(policy)

    def _as_long(self) -> list[str]:
        """Overrides for more SFT at a constant rate, in new views' order, for as long as one seed of RL took."""
        cold, rl = (
            json.loads(RunDir(self.out / name).finished.read_text(encoding="utf-8"))
            for name in ("cold_start", self.reinforced[0])
        )
        save = self.plan.save
        steps = max(1, round(rl["seconds"] / cold["seconds"] * cold["last_step"] / save)) * save
        chosen = {
            "max_steps": steps,
            "learning_rate": 3e-4,
            "lr_scheduler_type": "constant_with_warmup",
            "save_steps": save,
        }
        keys = [f"stages.cold_start.trainer.{key}={value}" for key, value in chosen.items()]
        return [*keys, f"stages.cold_start.evaluation.every={save}", "stages.cold_start.seed=1"]

    def _train(self, name: str, recipe: Recipe) -> None:
        if not RunDir(self.out / name).finished.exists():
            self.say(f"training {name}")
            train(recipe, self.out / name, say=self.say)

    def model(self, arm: str) -> Path:
        """The checkpoint of an arm with the best held-out answers."""
        directory = RunDir(self.out / arm)
        return best_checkpoint(directory) or directory.model

    @property
    def best_seed(self) -> str:
        """The arm of reinforcement learning with the best held-out answers."""
        return max(self.reinforced, key=lambda arm: float(self.metrics(HELD_OUT, arm)["giou"]["value"]))

    def evaluation(self, name: str, arm: str) -> EvalDir:
        """Where an arm's evaluation on a set is kept."""
        return EvalDir(self.out / "evaluation" / name.replace(" ", "_") / arm)

    def metrics(self, name: str, arm: str) -> dict[str, Any]:
        """Of a measured arm: name → value and ci95."""
        return dict(json.loads(self.evaluation(name, arm).metrics.read_text(encoding="utf-8"))["metrics"])

    def records(self, name: str, arm: str) -> list[EvalRecord]:
        """The records of a measured arm, by the pictures' names."""
        return read_jsonl(self.evaluation(name, arm).records)

    def _measure(self, name: str, arm: str) -> None:
        directory = self.evaluation(name, arm)
        if not directory.metrics.exists():
            self.say(f"measuring {arm} on {name}")
            dataset, options = self.sets[name]
            run(self._settings(arm, name, dataset=dataset, dataset_options=options), directory.path)

    def _settings(self, arm: str, name: str, segmenter: str = "tiny", **data: Any) -> EvalSettings:
        if arm == "gold":
            return EvalSettings("oracle", segmenter=segmenter, **data)
        if arm == "vote":
            return replace(self._settings(self.best_seed, name, **data), decoding=VOTE)
        if arm == "grabcut":
            return self._settings(self.best_seed, name, "grabcut", **data)
        if arm not in self.trained:
            text = WHOLE if arm == "whole" else json.loads(self._constant_path.read_text())["text"]
            texts = self._script(name, arm, text, data["dataset"], data["dataset_options"])
            return EvalSettings("scripted", segmenter=segmenter, texts=str(texts), **data)
        return EvalSettings(str(self.model(arm)), segmenter=segmenter, decoding=DECODING, **data)

    def _script(self, name: str, arm: str, text: str, dataset: str, options: Mapping[str, Any]) -> Path:
        """The same answer for every picture, as a file."""
        path = self.out / "scripts" / f"{name}-{arm}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = [example.id for example in datasets.load(dataset, **options)]
        write_atomically(path, "".join(json.dumps({"id": one, "text": text}) + "\n" for one in ids))
        return path

    @property
    def _constant_path(self) -> Path:
        return self.out / "constant.json"

    def _choose_constant(self) -> None:
        """The one answer that is best for all pictures: fitted on those for training, chosen on the held-out ones."""
        if self._constant_path.exists():
            return
        self.say("choosing the constant box")
        name, options = self.sets[HELD_OUT]
        training = {**options, "part": "train", "sample": {"n": self.plan.fitted}}
        fitted = best_constant_box(list(datasets.load(name, **training)))
        data = {"dataset": name, "dataset_options": {**options, "sample": {"n": self.plan.tried}}}
        tried: dict[str, float] = {}
        for i, text in enumerate(constant_answers(fitted)):
            directory = EvalDir(self.out / "evaluation" / "constant" / str(i))
            if not directory.metrics.exists():
                texts = self._script("tried", str(i), text, **{"dataset": name, "options": data["dataset_options"]})
                run(EvalSettings("scripted", segmenter="tiny", texts=str(texts), **data), directory.path)
            tried[text] = json.loads(directory.metrics.read_text())["metrics"]["giou"]["value"]
        best = max(tried, key=lambda text: tried[text])
        write_atomically(self._constant_path, json.dumps({"text": best, "tried": tried}, indent=1) + "\n")


def constant_answers(fitted: Box) -> list[str]:
    """Answers that look at nothing: boxes around the middle and the fitted one, each with and without a point."""
    boxes = [fitted, *((x, y, 1 - x, 1 - y) for x in MARGINS for y in MARGINS)]
    return [constant_answer(box, points) for box in boxes for points in (0, 1)]


def constant_answer(box: Box, points: int = 0) -> str:
    """A box, as shares of the sides, as an answer in thousandths; with a point in its middle if asked for."""
    x1, y1, x2, y2 = (1000 * side for side in box)
    middle = (((x1 + x2) / 2, (y1 + y2) / 2),) * points
    return answers.get("seg-r1").render([MaskPrompt((x1, y1, x2, y2), middle, (1,) * points, RELATIVE_1000)])


WHOLE = constant_answer((0.0, 0.0, 1.0, 1.0))


def measured(out: Path) -> Photographs:
    """The work in `out` with those seeds that were measured on the held-out pictures."""
    every = Photographs(out, Path(), None, Plan())
    runs = [run.name for run in out.glob("rl-*") if every.evaluation(HELD_OUT, run.name).metrics.exists()]
    seeds = sorted(int(run.removeprefix("rl-")) for run in runs)
    if not seeds:
        raise SystemExit(f"{out} has no seed that was measured on held-out pictures: finish its run first")
    return Photographs(out, Path(), None, Plan(seeds=tuple(seeds)))


def ship(out: Path, remark: str, page: Path) -> None:
    """The best seed in half precision into the package, with its card; on the page, what it answers to photographs."""
    import shutil

    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from segrl.policies import read_settings, write_settings
    from segrl.tiny import PHOTOS

    work = measured(out)
    place = work.model(work.best_seed)
    shutil.rmtree(PHOTOS, ignore_errors=True)
    AutoModelForImageTextToText.from_pretrained(place, dtype=torch.float16).save_pretrained(PHOTOS)
    AutoProcessor.from_pretrained(place).save_pretrained(PHOTOS)
    write_settings(PHOTOS, read_settings(place))
    write_atomically(PHOTOS / "README.md", card(work, remark))
    show_photographs(page)
    print(f"wrote {PHOTOS}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    run_parser = commands.add_parser("run")
    run_parser.add_argument("--duts", type=Path, required=True, help="holds DUTS-TR and DUTS-TE")
    run_parser.add_argument("--ecssd", type=Path)
    run_parser.add_argument("--out", type=Path, default=Path("runs/photographs"))
    run_parser.add_argument("--page", type=Path, required=True, help="a page with the markers that are filled")
    run_parser.add_argument(
        "--cache", type=Path, help="folder for the unpacked pictures (2 GB; default: OUT/eyes/cache)"
    )
    run_parser.add_argument("--seeds", type=int, nargs="+", help="of reinforcement learning (default: 0 1 2)")
    run_parser.add_argument("--eyes-samples", type=int, help="how long the eyes are trained (default: 150,000)")
    run_parser.add_argument("--short", action="store_true")
    run_parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="put in place of the recipe's entries")
    run_parser.set_defaults(do=_run)
    ship_parser = commands.add_parser("ship")
    ship_parser.add_argument("out", type=Path)
    ship_parser.add_argument("--remark", default="", help="what a reader of the card should know besides")
    ship_parser.add_argument("--page", type=Path, required=True)
    ship_parser.set_defaults(do=lambda chosen: ship(chosen.out, chosen.remark, chosen.page))
    arguments = parser.parse_args()
    arguments.do(arguments)


def _run(chosen: argparse.Namespace) -> None:
    plan = SHORT if chosen.short else Plan()
    plan = replace(plan, overrides=(*plan.overrides, *chosen.overrides), seeds=tuple(chosen.seeds or plan.seeds))
    if chosen.eyes_samples:
        plan = replace(plan, eyes={**plan.eyes, "samples": chosen.eyes_samples})
    work = Photographs(chosen.out, chosen.duts, chosen.ecssd, plan, chosen.cache)
    work.run()
    write_page(work, chosen.page)
    print(f"wrote {chosen.page}")


if __name__ == "__main__":
    main()
