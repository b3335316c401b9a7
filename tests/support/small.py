"""What tests train in place of the real thing: a policy for one core, and the recipes' data sets with a few rows."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

from dataset_files import (
    TRAIN2014,
    annotation,
    box_mask,
    coco_image,
    rectangle,
    reference,
    save_image,
    save_json,
    save_mask,
)
from PIL import Image

from segrl.policies import PolicySettings, write_settings
from segrl.tiny.model import Shape, save

SHAPE = Shape(width=32, layers=2, heads=2, mlp=64, vision_width=32, vision_layers=2, vision_heads=2, vision_mlp=32)
SETTINGS = PolicySettings("seg-r1", "resized", (112, 112))
WH = (24, 16)
MASK = box_mask((6, 4, 18, 12), (16, 24))


def save_policy(directory: Path, settings: PolicySettings | None = SETTINGS, shape: Shape = SHAPE) -> Path:
    """A random policy; without settings it is as models on the hub: no segrl.json, and it reads long texts."""
    save(directory, shape)
    (directory / "segrl.json").unlink()
    if settings is not None:
        write_settings(directory, settings)
        return directory
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = 32768
    save_json(directory / "config.json", config)
    return directory


def save_data(root: Path, n: int = 6) -> Path:
    """Every data set that a shipped recipe names, n examples each, in its authors' layout under `root`."""
    for name, file, dump in (
        ("refcocog", "refs(umd).p", lambda refs: pickle.dumps(refs, protocol=2)),
        ("grefcoco", "grefs(unc).json", lambda refs: json.dumps(refs).encode()),
    ):
        _referring(root, name, n)
        of = (lambda i: i) if name == "refcocog" else (lambda i: [i, n + i] if i % 3 else [-1])
        refs = [reference(i, i, of(i), [f"the box number {i}"], "train") for i in range(1, n + 1)]
        (root / name / file).write_bytes(dump(refs))
    for folder, images, masks, stem in (
        ("DIS5K", "DIS-TR/im", "DIS-TR/gt", "{}"),
        ("COD10K-v3", "Train/Image", "Train/GT_Object", "COD10K-CAM-1-Aquatic-1-BatFish-{}"),
        ("CAMO-V.1.0-CVIU2019", "Images/Train", "GT", "camourflage_{}"),
        ("DUTS", "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "{}"),
        ("people", "images", "masks", "FudanPed{}"),
    ):
        for i in range(n):
            save_image(root / folder / images / f"{stem.format(i)}.jpg", WH)
            save_mask(root / folder / masks / f"{stem.format(i)}.png", MASK)
    for i in range(n):
        image = save_image(root / "labelme" / f"{i}.jpg", WH)
        corners = [[6.5, 4.5], [17.5, 4.5], [17.5, 11.5], [6.5, 11.5]]  # MASK
        about = {"imagePath": image.name, "imageWidth": WH[0], "imageHeight": WH[1]}
        save_json(root / "labelme" / f"{i}.json", about | {"shapes": [{"label": "the box", "points": corners}]})
    _fcot(root, n)
    _star(root, n)
    _answers(root / "answers")
    return root


def _answers(directory: Path) -> None:
    """An evaluation of the first scenes of recipes/tiny_turns.yaml, in the right mask prompts."""
    from segrl import datasets
    from segrl.datasets.gold import gold_answer

    scenes = datasets.load("tiny", n=16, seed=21, kinds=["colour_shape", "pair"])
    rows = []
    for scene in (scenes[i] for i in range(16)):
        prompts = [prompt.to_json() for prompt in gold_answer(scene)]
        row = {"id": scene.id, "query": scene.query, "status": "ok", "reasoning": "seen", "prompts": prompts}
        rows.append(json.dumps({**row, "text": "<think>seen</think> <bbox>[1,1,9,9]</bbox>"}) + "\n")
    directory.mkdir(parents=True)
    (directory / "records.jsonl").write_text("".join(rows), encoding="utf-8")


def _referring(root: Path, name: str, n: int) -> None:
    images = [coco_image(i, WH) for i in range(1, n + 1)]
    for image in images:
        save_image(root / TRAIN2014 / image["file_name"], WH)
    boxes = [annotation(i, i, [rectangle(6, 4, 18, 12)]) for i in range(1, n + 1)]
    boxes += [annotation(n + i, i, [rectangle(0, 0, 5, 5)]) for i in range(1, n + 1)]
    save_json(root / name / "instances.json", {"images": images, "annotations": boxes, "categories": []})


def _star(root: Path, n: int) -> None:
    """What StAR's download script saves: several masks a row, as rows of true and false."""
    import datasets

    file = io.BytesIO()
    Image.new("RGB", WH, (90, 200, 40)).save(file, "PNG")
    row = {"problem": "the box", "solution_mask": [MASK.tolist()], "image": {"bytes": file.getvalue(), "path": None}}
    table = datasets.Dataset.from_list([row] * n).cast_column("image", datasets.Image())
    for name in ("star", "ReasonSegX_train"):
        datasets.DatasetDict({"train": table}).save_to_disk(root / name)


def _fcot(root: Path, n: int) -> None:
    """A clone of the data set's page: parquet, the pictures within."""
    import datasets

    file = io.BytesIO()
    Image.new("RGB", WH, (200, 90, 40)).save(file, "JPEG")
    row = {
        "image": {"bytes": file.getvalue(), "path": None},
        "problem": "<image>Identify and segment all the primary objects in the image.",
        "thinking": "<think>A box.</think>",
        "solution": "<bbox>[6,4,18,12]</bbox>, <points>[[12,8]]</points>, <labels>[1]</labels>",
    }
    table = datasets.Dataset.from_list([row] * n).cast_column("image", datasets.Image())
    (root / "FCoT" / "data").mkdir(parents=True)
    table.to_parquet(root / "FCoT" / "data" / "train-00000-of-00001.parquet")
