"""Segment, correct, train: three commands on real photographs, with an annotator's edits simulated in between."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segrl import brush_rle, datasets
from segrl.files import read_rows
from segrl.masks import read_mask_values

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "penn-fudan"
STEMS = [f"FudanPed{n:05d}" for n in (1, 2, 3, 4)]
QUERY = "all people"

pytestmark = pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the street photographs are not on this machine")


def segrl(*arguments: object) -> str:
    """A command as a user types it."""
    code = "from segrl.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first command: drafts of the shipped tiny policy, which has never seen a photograph."""
    place = tmp_path_factory.mktemp("circle")
    (place / "photos").mkdir()
    for stem in STEMS:
        shutil.copy(PHOTOGRAPHS / "images" / f"{stem}.jpg", place / "photos")
    out = place / "drafts"
    formats = ["--format", "labelme,coco,yolo", "--segmenter", "box", "--device", "cpu", "--policy", "tiny-scenes"]
    segrl("segment", place / "photos", "--query", QUERY, "--out", out, *formats)
    return out


def people(stem: str) -> list[np.ndarray]:
    """What the annotator sees on a photograph: a mask for each person. The last photograph is cleared."""
    values = read_mask_values(PHOTOGRAPHS / "masks" / f"{stem}.png")
    return [] if stem == STEMS[-1] else [values == value for value in range(1, values.max() + 1)]


def traced(mask: np.ndarray) -> list[np.ndarray]:
    """The parts of an object as a person clicks them: corners within a pixel of the outline."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rings = [cv2.approxPolyDP(ring, 1.0, True)[:, 0, :].astype(float) for ring in found]
    return [ring for ring in rings if len(ring) >= 3]


def correct_labelme(drafts: Path) -> Path:
    """Every draft replaced by what is there, in the files that `segrl segment` wrote."""
    for path in sorted((drafts / "labelme").glob("*.json")):
        file = json.loads(path.read_text())
        file["shapes"] = [
            {"label": QUERY, "points": (ring + 0.5).tolist(), "group_id": n, "shape_type": "polygon", "flags": {}}
            for n, mask in enumerate(people(path.stem))
            for ring in traced(mask)
        ]
        path.write_text(json.dumps(file))
    return drafts / "labelme"


def check(examples: object, root: Path) -> None:
    """The data set holds what the annotator drew: a target for each person, and nothing on the cleared one."""
    found = {Path(row.image).stem: example for row, example in zip(examples.rows, examples, strict=True)}
    assert sorted(found) == STEMS
    for stem, example in found.items():
        wanted = people(stem)
        assert example.query == QUERY
        assert len(example.targets) == len(wanted)
        for target, truth in zip(example.targets, wanted, strict=True):
            assert (target & truth).sum() / (target | truth).sum() > 0.97


def test_labelme_in_three_commands(drafts: Path, tmp_path: Path) -> None:
    root = correct_labelme(drafts)
    check(datasets.load("labelme", root=root, negatives=True), root)
    small = ["trainer.max_steps=2", "trainer.save_steps=1", "trainer.max_completion_length=40"]
    few = ["trainer.num_generations=4", "trainer.per_device_train_batch_size=4", "trainer.logging_steps=1"]
    segrl("train", ROOT / "recipes/corrected.yaml", "--out", tmp_path / "run", f"dataset.root={root}", *small, *few)
    assert [row["step"] for row in read_rows(tmp_path / "run" / "steps.jsonl")] == [1, 2]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_coco(drafts: Path) -> None:
    file = json.loads((drafts / "coco.json").read_text())
    images = {image["id"]: Path(image["file_name"]).stem for image in file["images"]}
    category = file["categories"][0]["id"]
    file["annotations"] = [
        {"id": 100 * id + n, "image_id": id, "category_id": category, "iscrowd": 0, "segmentation": _coco(mask)}
        for id, stem in images.items()
        for n, mask in enumerate(people(stem))
    ]
    (drafts / "corrected.json").write_text(json.dumps(file))
    photos = str(drafts.parent / "photos")
    options = {"annotations": "corrected.json", "images": photos, "negatives": True}
    check(datasets.load("coco", root=drafts, **options), drafts)


def _coco(mask: np.ndarray) -> list[list[float]]:
    """COCO's polygons run along the edges between pixels: the object traced at twice its size."""
    doubled = mask.repeat(2, axis=0).repeat(2, axis=1)
    return [((ring + 0.5) / 2).ravel().tolist() for ring in traced(doubled)]


def test_yolo(drafts: Path, tmp_path: Path) -> None:
    """Labels as a tool writes them beside the images, with the classes of our export."""
    shutil.copytree(drafts.parent / "photos", tmp_path / "images")
    shutil.copy(drafts / "yolo" / "data.yaml", tmp_path)
    (tmp_path / "labels").mkdir()
    for stem in STEMS:
        with Image.open(tmp_path / "images" / f"{stem}.jpg") as image:
            width, height = image.size
        rings = [max(traced(mask), key=cv2_area) for mask in people(stem)]
        lines = [" ".join(["0", *(f"{v:.6f}" for v in ((ring + 0.25) / (width, height)).ravel())]) for ring in rings]
        (tmp_path / "labels" / f"{stem}.txt").write_text("\n".join(lines))
    about = (tmp_path / "data.yaml").read_text().splitlines()
    (tmp_path / "data.yaml").write_text(
        "\n".join(line for line in about if not line.startswith(("path", "train", "val")))
    )
    check(datasets.load("yolo", root=tmp_path, negatives=True), tmp_path)


def cv2_area(ring: np.ndarray) -> float:
    return float(cv2.contourArea(ring.astype(np.float32)))


def test_label_studio(drafts: Path) -> None:
    """Brushes and polygons in turn, on images that were uploaded."""
    tasks = []
    for number, stem in enumerate(STEMS):
        result = []
        for n, mask in enumerate(people(stem)):
            size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
            percent = 100 / np.array(mask.shape[::-1])
            ring = np.array(max(_coco(mask), key=len)).reshape(-1, 2)
            value, kind = (
                ({"format": "rle", "rle": brush_rle.encode(mask)}, "brushlabels")
                if n % 2
                else ({"points": (ring * percent).tolist()}, "polygonlabels")
            )
            result.append({"id": f"r{n}", "type": kind, "value": {**value, kind: [QUERY]}, **size})
        data = {"image": f"/data/upload/3/{number:08x}-{stem}.jpg"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": result}], "predictions": []})
    (drafts / "export.json").write_text(json.dumps(tasks))
    photos = str(drafts.parent / "photos")
    check(datasets.load("label-studio", root=drafts, images=photos, negatives=True), drafts)
