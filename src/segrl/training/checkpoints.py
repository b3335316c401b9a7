"""A run's directory: whose it is, how far it came, and which checkpoint is whole.

recipe.yaml        the resolved recipe
run.json           revision, versions, command, device of each start
steps.jsonl        one row per logged step
rollouts.jsonl     one row per logged group
pictures/          the images of those groups, made small
reward_check.json  what gold and wrong answers earn, from before step 1
evaluation/        before/, after/, held_out/step_N/: evaluations as `segrl eval` writes them
checkpoints/       TRL's own; checkpoint-N is whole if it holds COMPLETE, with what that says of its files
start/             the weights that training starts from, where they were made of an adapter and its base
model/             the trained policy, in the ordinary `from_pretrained` layout
finished.json      written last
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from PIL import Image

from segrl.devices import is_main, rank, wait_for_all
from segrl.errors import DataError, RecipeError
from segrl.evaluation import EvalDir
from segrl.files import Below, json_line, read_rows, write_atomically, write_image
from segrl.text import differences
from segrl.training.recipe import Recipe, parse_recipe, read_values
from segrl.training.sections import CheckpointSection

if TYPE_CHECKING:
    from segrl.training.parts import PolicyParts


SIDE_PX = 640
"""No side of a kept picture is longer."""
EXACT_PIXELS = 256 * 256
"""Pictures of at most so many pixels are kept as they are (PNG); larger ones are photographs, and go as JPEG."""


@dataclass(frozen=True)
class Pictures:
    """Pictures by image id, whatever characters that holds."""

    directory: Path

    def save(self, image_id: str, image: Image.Image) -> None:
        """Keep a picture, made smaller where a side is above SIDE_PX; one that is there already stays."""
        if self._found(image_id) is not None:
            return
        small = image.convert("RGB")
        small.thumbnail((SIDE_PX, SIDE_PX))
        suffix = ".png" if small.width * small.height <= EXACT_PIXELS else ".jpg"
        path = self._path(image_id, suffix)
        write_image(path, small, mark=f".{rank()}", quality=85)  # PNG has no quality and takes no notice

    def open(self, image_id: str) -> Image.Image | None:
        """A kept picture, or None. Raises DataError for one that cannot be read."""
        path = self._found(image_id)
        if path is None:
            return None
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except OSError as error:
            raise DataError(f"cannot read the picture {path}: {error}") from error

    def _found(self, image_id: str) -> Path | None:
        return next((path for suffix in (".png", ".jpg") if (path := self._path(image_id, suffix)).exists()), None)

    def _path(self, image_id: str, suffix: str) -> Path:
        return self.directory / (hashlib.sha256(image_id.encode()).hexdigest()[:20] + suffix)


COMPLETE = "segrl_complete.json"
"""Written into a checkpoint after everything else: names, sizes and checksums of all its files."""

NOT_MODEL = (
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "trainer_state",
    "training_args",
    "entropy_ctrl",
    "latest",  # DeepSpeed's
    "pytorch_model_fsdp",  # the weights a second time, for accelerate
    "zero_to_fp32",
    COMPLETE,
)
"""Beginnings of the files of a checkpoint that are no part of the model."""


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path

    recipe, steps, rollouts = Below("recipe.yaml"), Below("steps.jsonl"), Below("rollouts.jsonl")
    pictures, reward_check = Below("pictures"), Below("reward_check.json")
    checkpoints, model, finished = Below("checkpoints"), Below("model"), Below("finished.json")
    start = Below("start")
    """The weights that training starts from, if they were made of an adapter and what lies below it."""

    def held_out(self, step: int) -> Path:
        """The evaluation of the held-out examples after a step."""
        return self.path / "evaluation" / "held_out" / f"step_{step}"

    @property
    def has_begun(self) -> bool:
        """Whether a run has left anything here: a logged step, a checkpoint, an evaluation."""
        logged = self.steps.exists() and self.steps.stat().st_size > 0
        return logged or any(self.checkpoints.glob("checkpoint-*")) or (self.path / "evaluation").exists()

    def claim(self, recipe: Recipe) -> None:
        """Makes the directory this recipe's, or finds that it is already; a run that never began claims nothing.

        Raises RecipeError, naming the keys that differ, if it holds another recipe's run, DataError for one of an older
        layout (`refuse_old_layout`).
        """
        refuse_old_layout(self.path)
        ours = recipe.as_dict()
        if self.recipe.exists() and self.has_begun:
            theirs = _with_defaults(read_values(self.recipe))
            differing = [
                f"{key} is {_brief(there)} there and {_brief(here)} here"
                for key, there, here in sorted(differences(theirs, ours), key=lambda one: one[0])
            ]
            if differing:
                raise RecipeError(
                    f"{self.path} holds a run of another recipe ({'; '.join(differing)}): "
                    "choose another --out, or start the recipe that began it"
                )
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(self.recipe, yaml.safe_dump(ours, sort_keys=False, allow_unicode=True))

    def last_complete(self, say: Callable[[str], None] = print) -> Path | None:
        """The newest whole checkpoint, its contents checked; what is not whole is out of the way afterwards.

        What a killed process left half written or half deleted is removed, since its files would stand among
        those of the next save. A damaged one is kept as `damaged-checkpoint-N`. say: told of each.
        """
        newest, damaged = None, False
        for path in sorted(self.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True):
            if not (path / COMPLETE).exists():
                say(f"removing {path}: it was not written to its end")
                shutil.rmtree(path)
            elif newest is None and (damage := damage_of(path)) is None:
                newest = path
            elif newest is None:
                damaged, aside = True, path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                say(f"{path} is damaged ({damage}): not used, and kept as {aside.name}")
        if newest is None and damaged:
            say("no whole checkpoint is left: the run begins again at its first step")
        return newest

    def rewind(self, step: int) -> None:
        """Drops every logged row that belongs to a later step than `step`, and what was half written."""
        for path in (self.steps, self.rollouts):
            rows = [row for row in read_rows(path) if row["step"] <= step]
            write_atomically(path, "".join(json_line(row) for row in rows))
        shutil.rmtree(self.checkpoints / "completions", ignore_errors=True)


def refuse_old_layout(root: Path) -> None:
    """Raises DataError for the evaluations of segrl 0.1.0 in a run, which were files and no directories."""
    old = next(iter(sorted((root / "evaluation").glob("*.jsonl"))), None)
    if old is not None:
        raise DataError(
            f"{old} was written by segrl 0.1.0, whose evaluations this version does not read: remove {old.parent} and "
            "start the run's segrl train command again; what is trained is kept, and it is measured anew"
        )


def _with_defaults(values: Any) -> Any:
    """A kept recipe with what newer versions say by default; as it is where they would refuse it."""
    try:
        return parse_recipe(values).as_dict()
    except (RecipeError, TypeError, ValueError):
        return values


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint directory's name."""
    return int(checkpoint.name.rpartition("-")[2])


def mark_complete(checkpoint: Path) -> None:
    """Writes the completion marker; call it when everything else is in place."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != COMPLETE]
    names = [str(path.relative_to(checkpoint)) for path in files]
    content = {
        "step": step_of(checkpoint),
        "files": {name: path.stat().st_size for name, path in zip(names, files, strict=True)},
        "sha256": {name: _sha256(path) for name, path in zip(names, files, strict=True)},
    }
    write_atomically(checkpoint / COMPLETE, json.dumps(content, indent=1))


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has its marker and every file that it names, at its size; contents are not read."""
    return damage_of(checkpoint, with_contents=False) is None


def damage_of(checkpoint: Path, *, with_contents: bool = True) -> str | None:
    """What is wrong with a checkpoint, every file read and compared with its checksum; None for a whole one."""
    try:
        marker = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        files, sums = dict(marker["files"]), dict(marker.get("sha256", {}))  # early ones had none
    except OSError:
        return f"{COMPLETE} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{COMPLETE} cannot be read"
    for name, size in files.items():
        path = checkpoint / name
        try:
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
            if with_contents and name in sums and _sha256(path) != sums[name]:
                return f"the contents of {name} have changed"
        except OSError:
            return f"{name} cannot be read"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def starting_point(policy: PolicyParts, run: RunDir) -> str:
    """Where the weights are that training starts from: the policy's own place, or, for an adapter, `run.start` with
    the adapter merged into the model below it, made once. Raises ModelError as loading the two does."""
    if policy.base is None:
        return policy.path
    if is_main() and not run.start.is_dir():
        from segrl.policies.checkpoint import lay_over
        from segrl.policies.loading import load_model

        building = run.start.with_name(run.start.name + ".part")
        shutil.rmtree(building, ignore_errors=True)
        lay_over(load_model(policy.base, "auto"), policy.path, merge=True).save_pretrained(building)
        policy.processor.save_pretrained(building)
        building.rename(run.start)
    wait_for_all()
    return str(run.start)


def copy_model(checkpoint: Path, target: Path) -> None:
    """The model of a checkpoint without the trainer's state; `target` appears whole or not at all."""
    building = target.with_name(target.name + ".part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.is_file() and not path.name.startswith(NOT_MODEL):
            shutil.copy2(path, building / path.name)
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def best_checkpoint(run: RunDir) -> Path | None:
    """The whole checkpoint with the highest held-out gIoU, the earliest of equals; None where none was measured."""
    measured = [(giou, path) for path in _whole(run) if (giou := held_out_giou(run, step_of(path))) is not None]
    return max(measured, key=lambda pair: pair[0], default=(0.0, None))[1]


def held_out_giou(run: RunDir, step: int) -> float | None:
    """Mean IoU of the held-out answers after a step; None where they were not asked for or are not there."""
    path = EvalDir(run.held_out(step)).metrics
    found = json.loads(path.read_text(encoding="utf-8"))["metrics"]["giou"]["value"] if path.exists() else None
    return None if found is None else float(found)


def drop_others(run: RunDir, rule: CheckpointSection) -> None:
    """Removes every whole checkpoint that the rule does not keep."""
    whole = _whole(run)
    kept = {*whole[-rule.last :], *([best_checkpoint(run)] if rule.best else [])}
    for path in whole:
        if path not in kept:
            (path / COMPLETE).unlink()  # first, so that half of it is never taken for a damaged one
            shutil.rmtree(path)


def _whole(run: RunDir) -> list[Path]:
    """Whole checkpoints, the oldest first."""
    return sorted(filter(is_complete, run.checkpoints.glob("checkpoint-*")), key=step_of)
