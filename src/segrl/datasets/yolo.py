"""YOLO segmentation: a text file of polygons for each image, as Ultralytics reads and many tools export it.

One line of `labels/a.txt`, and the classes of `data.yaml`:

    0 0.250781 0.301042 0.250781 0.417708 0.389844 0.417708
    names: [the dog, the cat]

is the class and x, y of each corner as a share of width and height; as an example: query "the dog" (`query`
is "{category}"), a target per line of that class in the image. Polygons are drawn as Ultralytics draws them. A
line of four numbers is a box (middle, width, height), which has no mask (`without_mask`, see `annotated`).
An image with an empty label file or none gives no example, with `negatives` one for each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from segrl.datasets.annotated import AnnotatedImages, LabelledImage, WithoutMask, per_label
from segrl.datasets.drawing import Instance, filled_box, outlined_by_opencv
from segrl.errors import DataError
from segrl.files import legible, read_text, read_yaml
from segrl.images import IMAGE_SUFFIXES
from segrl.masks import check_corners


class Yolo(AnnotatedImages):
    """The images of one split of `data` (a YAML file under root, or absolute), by file name.

    split: a key of the YAML file (train, val, test) that names folders or lists of images; without one in the
    file, the images under `root/images`. Labels lie where Ultralytics looks for them: under `labels` in the
    place of the last `images` of the path. query, negatives: see the module. without_mask: see `annotated`.
    Raises DataError for files that are missing and lines that cannot be read.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        data: str = "data.yaml",
        split: str = "train",
        query: str = "{category}",
        negatives: bool = False,
        without_mask: WithoutMask = "refuse",
    ) -> None:
        path = Path(root) / data
        about = read_yaml(path)
        names = _names(about, path)
        images, base = _images(about, path, split)
        labelled = [_labelled(image, base, names) for image in images]
        rows = per_label(labelled, query, negatives, names)
        super().__init__(rows, f"{path} {split}", without_mask=without_mask)


def _names(about: Any, path: Path) -> list[str]:
    """The classes in their order: a list, or numbers with names."""
    names = about.get("names") if isinstance(about, Mapping) else None
    if isinstance(names, Mapping):
        names = [names.get(i, names.get(str(i))) for i in range(len(names))]
    if not isinstance(names, list) or not names or None in names:
        raise DataError(f"{path} names no classes: names: [the dog, the cat]")
    return [str(name) for name in names]


def _images(about: Mapping[str, Any], path: Path, split: str) -> tuple[list[Path], Path]:
    """The images of a split, and the folder that they lie under."""
    base = path.parent
    if about.get("path"):
        named = Path(str(about["path"]))
        base = next((place for place in (named, path.parent / named) if named.is_absolute() and place.is_dir()), base)
        if not named.is_absolute() and (path.parent / named).is_dir():
            base = path.parent / named
    places = about.get(split)
    if places is None and any(about.get(key) for key in ("train", "val", "test")):
        raise DataError(
            f"{path} has no split {split!r}; it has {', '.join(k for k in ('train', 'val', 'test') if about.get(k))}"
        )
    listed = [places] if isinstance(places, str) else places or ["images"]
    if not isinstance(listed, list):
        raise DataError(f"{path}: {split} is a folder, a list of images, or several of them")
    found = [image for place in listed for image in _of_place(base / str(place), path)]
    if not found:
        raise DataError(f"{path} {split} holds no image")
    return found, base


def _of_place(place: Path, path: Path) -> Iterable[Path]:
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if place.is_file() and place.suffix == ".txt":
        return [place.parent / line.strip() for line in read_text(place).splitlines() if line.strip()]
    raise DataError(f"{path} names {place}, which is no folder and no list of images")


def _labelled(image: Path, base: Path, names: list[str]) -> LabelledImage:
    """An image with the lines of its label file; none without the file."""
    parts = list(image.parts)
    last = len(parts) - 1 - parts[::-1].index("images") if "images" in parts else None
    if last is not None:
        parts[last] = "labels"
    file = Path(*parts).with_suffix(".txt")
    lines = read_text(file).splitlines() if file.is_file() else []
    objects = [_object(line, n, file, names) for n, line in enumerate(lines, 1) if line.strip()]
    id = image.relative_to(base) if image.is_relative_to(base) else Path(image.name)
    return LabelledImage(legible(id.with_suffix("").as_posix()), image, tuple(objects))


def _object(line: str, number: int, file: Path, names: list[str]) -> tuple[str, Instance]:
    """(class, object) of a line. Raises DataError naming it."""
    name = f"line {number} of {file}"
    try:
        place, *shares = line.split()
        label, numbers = names[_class(place)], [float(share) for share in shares]
    except (ValueError, IndexError) as error:
        raise DataError(f"{name} is no class of 0 to {len(names) - 1} with numbers: {line!r:.60}") from error
    if len(numbers) == 4:
        x, y, width, height = numbers
        check_corners([numbers[:2]], (1, 1), name)
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return label, Instance(name, partial(filled_box, box), None, None, is_box=True)
    if len(numbers) < 6 or len(numbers) % 2:
        raise DataError(f"{name} is neither a box of four numbers nor a polygon: it has {len(numbers)}")
    check_corners([numbers], (1, 1), name)
    return label, Instance(name, partial(outlined_by_opencv, numbers), None, None)


def _class(text: str) -> int:
    """A class number; some tools write it as 0.0."""
    value = float(text)
    if not value.is_integer() or value < 0:
        raise ValueError(text)
    return int(value)
