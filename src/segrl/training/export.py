"""A run's trained policy as one ordinary model directory, for transformers, vLLM and the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from segrl.errors import ModelError, SegrlError
from segrl.evaluation.overlap import read_overlap, words
from segrl.files import write_atomically
from segrl.text import first_line
from segrl.training.checkpoints import RunDir, best_checkpoint, copy_model, damage_of, step_of
from segrl.training.recipe import Recipe, load_recipe

ADAPTER = "adapter_config.json"

Say = Callable[[str], None]


def export(
    directory: Path | str,
    out: Path | str,
    *,
    merge: bool = False,
    best: bool = False,
    dtype: str | None = None,
    push: str | None = None,
    say: Say = print,
) -> Path:
    """Writes the policy of a run to `out`: weights or adapter, processor, segrl.json and a model card.

    directory: a run's (a stage's, where the recipe has stages); one that is not finished gives its
    last whole checkpoint. best: the checkpoint with the highest held-out gIoU instead. merge: an
    adapter is added into the weights that it was trained on. dtype: what the weights are saved in, as
    they are without it; an adapter alone stays as it is. push: a repository on the hub, `owner/name`,
    made private if it is not there. Returns `out`.
    Raises SegrlError for a run without a policy, an `out` that holds something, and a failed upload.
    """
    run, target = RunDir(Path(directory)), Path(out)
    recipe = _recipe_of(run)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SegrlError(f"{target} is not empty: choose another --out")
    building = target.with_name(target.name + ".part")
    copy_model(_source(run, best, say), building)
    is_adapter = (building / ADAPTER).exists()
    if merge and not is_adapter:
        say("there is no adapter to merge: the policy was trained whole")
    if is_adapter and merge:
        _replace_weights(building, _merged(building, dtype))
    elif dtype is not None and not is_adapter:
        _replace_weights(building, _loaded(building, dtype))
    write_atomically(building / "README.md", card(recipe, run, building))
    if target.exists():
        target.rmdir()
    building.rename(target)
    say(f"policy  {target}")
    if push is not None:
        _push(target, push, say)
    return target


def _recipe_of(run: RunDir) -> Recipe:
    if not run.recipe.exists():
        stages = sorted(path.parent.name for path in run.path.glob("*/recipe.yaml"))
        hint = f"; it has the stages {', '.join(stages)}, each a run of its own" if stages else ""
        raise SegrlError(f"{run.path} holds no run{hint}")
    return load_recipe(run.recipe)


def _source(run: RunDir, best: bool, say: Say) -> Path:
    """The trained policy, the best checkpoint, or the last whole one of a run that is not finished."""
    if best:
        found = best_checkpoint(run)
        if found is None:
            raise SegrlError(
                f"{run.path} has no checkpoint with held-out answers: see `checkpoints` in docs/recipes.md"
            )
        if damage := damage_of(found):
            raise SegrlError(f"{found} is damaged ({damage}): export without --best, or train again")
        return found
    if run.model.is_dir():
        return run.model
    for path in sorted(run.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True):
        damage = damage_of(path)
        if damage is None:
            return path
        say(f"{path} is not whole ({damage}): the one before it is used")
    raise SegrlError(f"{run.path} has no checkpoint yet")


def _loaded(directory: Path, dtype: str | None) -> Any:
    from transformers import AutoModelForImageTextToText

    try:
        return AutoModelForImageTextToText.from_pretrained(directory, dtype=dtype or "auto")
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load {directory}: {first_line(error)}") from error


def _merged(directory: Path, dtype: str | None) -> Any:
    """The weights that the adapter was trained on, with the adapter added into them, on the CPU."""
    from peft import PeftModel

    base = json.loads((directory / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    model = PeftModel.from_pretrained(_loaded(base, dtype), directory)
    return model.merge_and_unload()


def _replace_weights(directory: Path, model: Any) -> None:
    for path in directory.iterdir():
        if path.suffix in (".safetensors", ".bin") or path.name.startswith("adapter_") or "index.json" in path.name:
            path.unlink()
    model.save_pretrained(directory)


def card(recipe: Recipe, run: RunDir, directory: Path) -> str:
    """The model card: where the policy comes from, what it was trained on, what was measured, how to use it."""
    is_adapter = (directory / ADAPTER).exists()
    front: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["segrl", "image-segmentation", recipe.method],
    }
    if not Path(recipe.policy.path).exists():
        front["base_model"] = recipe.policy.path
    segmenter = "facebook/sam2.1-hiera-large" if recipe.segmenter is None else recipe.segmenter.name
    what = "An adapter of" if is_adapter else "Trained from"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        f"# {run.path.name}",
        "",
        f"{what} `{recipe.policy.path}`, by {recipe.method.upper()} on `{recipe.dataset.name}`, with segrl. It reads "
        "an image and a request and answers with boxes and points, which a frozen segmenter turns into masks.",
        "",
        *_measured(run),
        "```python",
        "import segrl",
        "",
        f'model = segrl.load("PATH", segmenter="{segmenter}")',
        'model.segment("photo.jpg", "the red cup").mask',
        "```",
        "",
        "transformers loads the directory as it is (`AutoModelForImageTextToText`, `AutoProcessor`); `segrl.json` says "
        "which answer format it writes and what its numbers mean.",
        "",
        "## Recipe",
        "",
        "```yaml",
        yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True).strip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _measured(run: RunDir) -> list[str]:
    """gIoU before and after, where the run measured it; "held-out" only where that holds."""
    path = run.path / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    giou = summary.get("comparison", {}).get("metrics", {}).get("giou", {})
    if giou.get("difference") is None:
        return []
    figures = f"gIoU {giou['a']:.3f} before training and {giou['b']:.3f} after it"
    found = read_overlap(run.path / "evaluation" / "overlap.json")
    lines = [f"On {summary['comparison']['n']} {words(found)}: {figures}.", ""]
    return lines if found is None or not found.warning else [f"**Warning: {found.warning}.**", "", *lines]


def _push(directory: Path, repository: str, say: Say) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=directory)
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = first_line(error)
        raise SegrlError(f"{directory} is written, but not on the hub as {repository}: {reason}") from error
    say(f"hub     {repository}")
