"""Mutated data files through the readers: `python reader_fuzz.py N SEED DIR` prints one line of JSON.

Each case damages one file of a small valid set (bytes cut, doubled, flipped; JSON values replaced by hostile
ones) and reads the whole set. It ends in examples or in a DataError of one line; anything else is a fault.
"""

from __future__ import annotations

import copy
import json
import random
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from dataset_files import annotation, box_mask, coco_image, crowd_runs, rectangle, save_image, save_json, save_mask
from PIL import Image

from segrl import brush_rle, datasets
from segrl.devices import peak_memory_mib
from segrl.errors import DataError
from segrl.images import read_picture
from segrl.masks import read_mask, to_rle

A, B = (1, 1, 5, 4), (6, 2, 10, 7)
SECONDS = 5.0
"""Processor time that no case exceeds."""
MEBIBYTES = 1000
"""What the process holds at most in any case, with all that it has imported."""


class TooSlow(BaseException):
    """A case that took longer; no reader catches it."""


def _stop(*_: object) -> None:
    raise TooSlow


HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 3, 1e8, -1e300, 1e300, float("nan"), float("inf"), 10**30, 2**31, 2**63, "", "x", "\ud800", "\0",
    "1e9", "../../etc/passwd", [], [[]], {}, [None], [[1e8, 0, 5, 5, 0, 9]], [[1, 2, 3, 4, 5, 6]] * 50, [30000, 30000],
    {"size": [30000, 30000], "counts": "a"}, {"size": [8, 12], "counts": "9"}, {"bytes": None, "path": "a.jpg"},
    [[[[[[[[[]]]]]]]]], list(range(2000)), {"counts": [2**40, -5], "size": [8, 12]},
)  # fmt: skip
NUMBERS = (b"1e308", b"-1", b"nan", b"99999999999999999999", b"1e9", b"0", b"0.0000001", b"inf")


def coco(place: Path) -> tuple[Path, Callable[[], Any]]:
    save_image(place / "images" / "7.png")
    parts = [annotation(1, 7, [rectangle(*A)]), annotation(2, 7, dict(to_rle(box_mask(B))))]
    parts += [annotation(3, 7, crowd_runs(box_mask(A)), iscrowd=1), annotation(4, 7, [], category_id=1)]
    categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "cat"}]
    about = {"images": [coco_image(7, file_name="7.png")], "annotations": parts, "categories": categories}
    return save_json(place / "a.json", about), lambda: datasets.load(
        "coco", root=place, annotations="a.json", without_mask="box"
    )


def labelme(place: Path) -> tuple[Path, Callable[[], Any]]:
    save_image(place / "a.jpg")
    shapes = [{"label": "dog", "points": [[1, 1], [5, 1], [5, 4]], "shape_type": "polygon", "group_id": 1}]
    shapes += [{"label": "cat", "points": [[5, 4], [7, 4]], "shape_type": "circle"}]
    shapes += [{"label": "box", "points": [[5, 4], [7, 6]], "shape_type": "rectangle"}]
    about = {"imagePath": "a.jpg", "imageHeight": 8, "imageWidth": 12, "shapes": shapes}
    return save_json(place / "a.json", about), lambda: datasets.load("labelme", root=place, without_mask="box")


def yolo(place: Path) -> tuple[Path, Callable[[], Any]]:
    save_image(place / "images" / "a.jpg")
    (place / "data.yaml").write_text("names: [dog, cat]\ntrain: images\n")
    (place / "labels").mkdir()
    path = place / "labels" / "a.txt"
    path.write_text("0 0.1 0.1 0.5 0.1 0.5 0.6\n1 0.5 0.5 0.2 0.2\n")
    return path, lambda: datasets.load("yolo", root=place, without_mask="box", negatives=True)


def yolo_classes(place: Path) -> tuple[Path, Callable[[], Any]]:
    return place / "data.yaml", yolo(place)[1]


def jsonl(place: Path) -> tuple[Path, Callable[[], Any]]:
    save_image(place / "a.jpg")
    save_mask(place / "m.png", box_mask(A))
    masks = [dict(to_rle(box_mask(A))), [rectangle(*A)], "m.png", crowd_runs(box_mask(B)), [[True] * 12] * 8, None]
    prompts = [{"box_xyxy": [1, 1, 5, 4], "points_xy": [[2, 2]], "labels": [1]}]
    rows = [{"image": "a.jpg", "query": "x", "mask": mask, "prompts": prompts} for mask in masks]
    path = place / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path, lambda: datasets.load("jsonl", root=place)


def label_studio(place: Path) -> tuple[Path, Callable[[], Any]]:
    save_image(place / "images" / "a.jpg")
    size = {"original_width": 12, "original_height": 8, "image_rotation": 0}
    rle = {"format": "rle", "rle": brush_rle.encode(box_mask(A)), "brushlabels": ["dog"]}
    ring = {"points": [[10, 10], [50, 10], [50, 60]], "polygonlabels": ["dog"]}
    box = {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 10, "rectanglelabels": ["cat"]}
    kinds = ("brushlabels", "polygonlabels", "rectanglelabels")
    result = [{"id": k, "type": k, "value": v, **size} for k, v in zip(kinds, (rle, ring, box), strict=True)]
    tasks = [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": result}]}]
    return save_json(place / "export.json", tasks), lambda: datasets.load(
        "label-studio", root=place, without_mask="box"
    )


def picture(place: Path) -> tuple[Path, Callable[[], Any]]:
    """One of many formats and depths, read as a picture and as a mask."""
    place.mkdir(parents=True, exist_ok=True)
    grey = np.linspace(0, 255, 40 * 60).reshape(40, 60)
    colours = Image.fromarray(np.dstack([grey, grey[::-1], grey.T.reshape(40, 60)]).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    number = int(place.name) % 12
    suffix = (".png", ".jpg", ".gif", ".webp", ".avif", ".jp2", ".bmp", ".ppm", ".tif", ".png", ".png", ".tif")[number]
    path = place / f"a{suffix}"
    if number < 9:
        colours.save(path, **({"exif": exif} if suffix in (".jpg", ".png", ".webp", ".tif") else {}))
    elif number == 9:
        cv2.imwrite(str(path), (np.asarray(colours).astype(np.uint16) << 4))
    elif number == 10:
        colours.quantize(16).save(path, transparency=3)
    else:
        Image.fromarray((grey / 255).astype(np.float32)).save(path)
    return path, lambda: [_or_refused(lambda: read_mask(path)), read_picture(path)]


def _or_refused(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except DataError:
        return None


KINDS = {
    "coco": coco, "labelme": labelme, "yolo": yolo, "yolo-classes": yolo_classes, "jsonl": jsonl,
    "label-studio": label_studio, "image": picture,
}  # fmt: skip


def mutate(data: bytes, kind: str, draw: random.Random) -> bytes:
    """The bytes with one to three faults."""
    if kind in ("coco", "labelme", "label-studio", "jsonl") and draw.random() < 0.7:
        return _mutate_json(data, draw)
    for _ in range(draw.randint(1, 3)):
        data = _mutate_bytes(data, draw)
    return data


def _mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    at, end = sorted((draw.randint(0, len(data)), draw.randint(0, len(data))))
    end = min(end, at + 64)
    how = draw.randint(0, 6)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + data[end:]
    if how == 2:
        return data[:end] + data[at:end] * draw.choice((1, 3, 2000)) + data[end:]
    if how == 3:
        return data[:at] + draw.randbytes(end - at) + data[end:]
    if how == 4:
        return data[:at] + draw.choice(NUMBERS) + data[end:]
    if how == 5:
        return (
            data[:at]
            + draw.choice((b"[", b"{", b"\xff\xfe", b"\n- &a [*a]\n", b"\0", b'"')) * draw.choice((1, 5000))
            + data[at:]
        )
    flipped = bytearray(data)
    for _ in range(min(8, len(flipped))):
        flipped[draw.randrange(len(flipped))] = draw.randrange(256)
    return bytes(flipped)


def _mutate_json(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    root = [json.loads(lines[place])]
    for _ in range(draw.randint(1, 3)):
        parent, key = draw.choice(list(_nodes(root)))
        parent[key] = copy.deepcopy(draw.choice(HOSTILE))
    lines[place] = json.dumps(root[0]).encode()
    return b"\n".join(lines)


def _nodes(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _nodes(value[key])


def one_case(kind: str, path: Path, whole: bytes, load: Callable[[], Any], draw: random.Random) -> str:
    """What came of it: read, refused, or the traceback of a fault."""
    path.write_bytes(mutate(whole, kind, draw))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        list(load())
    except DataError as error:
        return "refused" if "\n" not in str(error) else f"two lines: {error}"
    except (Exception, TooSlow):  # noqa: BLE001  # a fault is what this looks for
        return f"{kind} {path.suffix}: {traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read"


def with_its_memory(outcome: str, kind: str) -> tuple[str, float]:
    """The outcome of the last case, a fault where it took too much memory, and the peak in MiB since this was asked
    last."""
    peak = peak_memory_mib() or 0.0
    if (resets := Path("/proc/self/clear_refs")).exists():
        resets.write_text("5")  # VmHWM begins again
    return (f"{kind}: {peak} MiB, {outcome}" if peak > MEBIBYTES else outcome), peak


def main(n: int, seed: int, folder: Path) -> dict[str, Any]:
    """`n` cases, the kinds in turn: counts, faults with their numbers, and the peak of the process's memory."""
    signal.signal(signal.SIGPROF, _stop)
    warnings.simplefilter("ignore")  # as in a command: Pillow's remarks on damaged files
    sets = [(kind, *make(folder / f"{kind}-{i}" / str(i))) for i in range(12) for kind, make in KINDS.items()]
    wholes = [path.read_bytes() for _, path, _ in sets]
    counts: Counter[str] = Counter()
    faults: list[str] = []
    most = 0.0
    for number in range(n):
        (kind, path, load), whole = sets[number % len(sets)], wholes[number % len(sets)]
        outcome = one_case(kind, path, whole, load, random.Random(f"{seed} {number}"))
        outcome, peak = with_its_memory(outcome, kind)
        most = max(most, peak)
        counts[f"{kind} {outcome if outcome in ('read', 'refused') else 'fault'}"] += 1
        if outcome not in ("read", "refused"):
            faults.append(f"case {number} of seed {seed}: {outcome}")
            print(faults[-1], file=sys.stderr, flush=True)
    found = {"counts": dict(sorted(counts.items())), "n_faults": len(faults), "faults": faults[:5]}
    return {"cases": n, "peak_mib": round(most), **found}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
