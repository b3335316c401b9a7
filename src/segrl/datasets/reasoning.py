"""Reasoning segmentation beyond ReasonSeg, in the layouts that the authors give away.

star, reasonseg-r, reasonseg-x: tables of StAR's authors (arXiv 2603.14382) on the hub, or what their download
script saved. Training rows have several objects, evaluation rows one mask; ReasonSeg-X names its type of reasoning:

    {"problem": "the two closest cups", "solution_mask": [[[false, …]], …], "image": <840×840>}
    {"text": "what keeps the rain off", "mask": [[false, …], …], "ann_id": "…", "reasoning_type": "…", "image": <JPEG>}

muse (PixelLM, arXiv 2312.02228), mmr (arXiv 2503.13881): a list of pictures in one JSON file, MUSE's objects as
polygons, MMR's as run lengths; pictures are COCO's, found by the file name in `file_name` or `coco_url`:

    {"id": 9, "height": 480, "width": 640, "coco_url": "http://…/train2017/000000000009.jpg",
     "questions": ["Which two …?"], "answers": [[{"id": 13446, "segmentation": [[…]]}, {…}]]}

earthreason (SegEarth-R1, arXiv 2504.09644): `train/images/x.jpg`, `train/labels/x.png` (above 0 is target, an empty
one says that nothing is there), `train/QAs/x.json` with `{"questions": ["…", …]}`, each an example.

lvis: `lvis_v1_train.json` beside COCO's pictures: one example per picture and category in it, all its objects the
targets. Categories that a picture is not annotated with to the end (`not_exhaustive_category_ids`) are left out;
with `negatives` those that are known to be absent (`neg_category_ids`) say that nothing is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.datasets.drawing import Instance, stack
from segrl.datasets.hugging_face import TableRows
from segrl.datasets.rows import Rows, files_by_stem, first_folder
from segrl.errors import DataError
from segrl.files import legible, read_json
from segrl.types import Example

STAR = "sj9909/visionreasoner_multi_object_refcocolvis_masks_840"
REASONSEG_R = "sj9909/ReasonSeg_refine"
REASONSEG_X = "sj9909/ReasonSegX_{split}"
_SPLITS = ("train", "val", "validation", "test")


class ReasoningTable(TableRows):
    """A table of StAR's. root, split: see TableRows; a table with one split has it whatever its name is."""

    def __init__(self, root: Path | str, *, split: str) -> None:
        columns = self._open(root, split)
        found = [
            next((name for name in names if name in columns), None)
            for names in (("text", "problem"), ("solution_mask", "mask"))
        ]
        if None in found or "image" not in columns:
            raise DataError(f"{self.name} is no table of StAR's: it has {', '.join(columns)}")
        self._query, self._masks = (str(name) for name in found)

    def _open(self, root: Path | str, split: str) -> list[str]:
        first: DataError | None = None
        for name in dict.fromkeys((split, *_SPLITS)):
            try:
                super().__init__(root, split=name, columns=("image",))
            except DataError as error:
                first = first or error
            else:
                return list(self.table.column_names)
        assert first is not None  # the loop runs at least once
        raise first

    def read(self, place: int, row: Mapping[str, Any]) -> Example:
        where, canvas = self.where(place), self.canvas(self.image_file(place, row["image"]))
        written = row[self._masks]
        several = list(written or ()) if self._masks == "solution_mask" else [written] if written else []
        kind = row.get("reasoning_type") or row.get("rtype")
        return Example(
            id=str(row.get("ann_id") or row.get("id") or place),
            image_id=canvas.content_id,
            image=canvas.image,
            query=str(row[self._query]).strip(),
            targets=stack([canvas.written(mask, self.root, where) for mask in several], canvas.hw, where),
            tags={} if kind is None else {"kind": str(kind)},
        )


def star(root: Path | str = STAR, *, split: str = "train") -> ReasoningTable:
    """StAR's first stage: RefCOCO and LVIS, several objects, pictures squashed to 840×840."""
    return ReasoningTable(root, split=split)


def reasonseg_r(root: Path | str = REASONSEG_R, *, split: str = "test") -> ReasoningTable:
    """ReasonSeg-R: ReasonSeg's test pictures with corrected annotations."""
    return ReasoningTable(root, split=split)


def reasonseg_x(root: Path | str | None = None, *, split: str = "val") -> ReasoningTable:
    """ReasonSeg-X: 240 examples to train, 156 to validate, 773 to test; root: the folder of one of them, or of all."""
    if split not in ("train", "val", "test"):
        raise DataError(f"reasonseg-x has the splits train, val and test, not {split!r}")
    named = None if root is None else Path(root) / f"ReasonSegX_{split}"
    place = REASONSEG_X.format(split=split) if root is None else named if named and named.is_dir() else root
    return ReasoningTable(place, split=split)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about a picture, and the objects that answer it."""

    id: str
    image: Path
    query: str
    objects: tuple[Instance, ...]


class Questions(Rows[Asked]):
    """Questions of one JSON file, in its order. Raises DataError for an entry that cannot be read."""

    def read(self, row: Asked) -> Example:
        canvas = self.canvas(row.image)
        masks, boxes = canvas.instances(row.objects)
        return Example(row.id, canvas.content_id, canvas.image, row.query, masks, meta={"boxes_xyxy": boxes})


def questions_of(name: str, root: Path | str, *, split: str = "val", images: str = "images") -> Questions:
    """MUSE or MMR: `MUSE_val.json` and so on under root or root/MUSE.

    split: of MUSE also test_less, test_many; of MMR also test_mixed, test_obj_only, test_part_only.
    """
    name = name.upper()
    places = [Path(root) / name / f"{name}_{split}.json", Path(root) / f"{name}_{split}.json"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        near = sorted({path.name for place in places for path in place.parent.glob(f"{name}_*.json")})
        raise DataError(f"there is no {places[1]}" + (f"; there are {', '.join(near)}" if near else ""))
    folder = Folder(Path(root), images)
    return Questions([asked for entry in _entries(file) for asked in _asked(entry, file, folder)], str(file))


class Folder:
    """Where COCO's pictures are: `root/images`, flat or with `train2017`, `val2017` and so on in it."""

    def __init__(self, root: Path, images: str) -> None:
        self._folder = first_folder([root / images, root / "coco", root], "the pictures of COCO")

    def file(self, entry: Mapping[str, Any]) -> Path:
        """The picture that an entry names by `coco_url` or `file_name`. Raises DataError."""
        named = str(entry.get("coco_url") or entry.get("file_name") or "")
        *_, part, name = ("", *named.split("/"))
        if not name or name in (".", ".."):
            raise DataError(f"an entry names no picture: {str(dict(entry))[:80]!r}")
        nested = self._folder / part / name
        return nested if part not in ("", ".", "..") and nested.is_file() else self._folder / name


def _entries(file: Path) -> list[Mapping[str, Any]]:
    found = read_json(file)
    if isinstance(found, dict):
        found = next((found[key] for key in ("data", "items", "records") if isinstance(found.get(key), list)), [found])
    if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
        raise DataError(f"{file} holds no list of pictures with questions")
    return found


def _asked(entry: Mapping[str, Any], file: Path, folder: Folder) -> Iterator[Asked]:
    try:
        hw = int(entry["height"]), int(entry["width"])
        answers = entry["answers"] if entry.get("answers") is not None else entry["answer"]
        pairs = [(str(text), list(objects)) for text, objects in zip(entry["questions"], answers, strict=False)]
        name = str(entry.get("image_id", entry.get("id", "")))
        found = [
            tuple(Instance(one.get("id", i), one["segmentation"], None, hw) for i, one in enumerate(objects))
            for _, objects in pairs
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: an entry cannot be read: {type(error).__name__}: {error}") from error
    image = folder.file(entry)
    for index, ((text, _), objects) in enumerate(zip(pairs, found, strict=True)):
        yield Asked(f"{legible(name)}-{index}", image, text.strip(), objects)


@dataclass(frozen=True, slots=True)
class Seen:
    """One question about a picture from above, and the file of its mask."""

    id: str
    image: Path
    query: str
    label: Path


class EarthReason(Rows[Seen]):
    """EarthReason's questions of one split, by file name.

    root: holds `train`, `val` and `test`, or an EarthReason or rs_reason_seg/RSReasonSeg folder that does.
    questions: "all" of a picture, or its "first" alone. Raises DataError for a picture without mask or questions.
    """

    def __init__(self, root: Path | str, *, split: str = "val", questions: str = "all") -> None:
        if split not in ("train", "val", "test") or questions not in ("all", "first"):
            raise DataError(
                f"earthreason: split is train, val or test, questions all or first, not {split}, {questions}"
            )
        above = [Path(root), Path(root) / "EarthReason", Path(root) / "rs_reason_seg" / "RSReasonSeg"]
        places = [place for one in above for place in (one / split, one / split / split)]
        images = first_folder([place / "images" for place in places], f"the pictures of EarthReason {split}")
        folder = images.parent
        pictures = files_by_stem(images, (".jpg", ".jpeg", ".png", ".tif"))
        rows = [row for stem, image in pictures.items() for row in _seen(stem, image, folder, questions)]
        super().__init__(rows, f"EarthReason {split} ({folder})")

    def read(self, row: Seen) -> Example:
        canvas = self.canvas(row.image)
        target = canvas.fit(canvas.mask_values(row.label) > 0, str(row.label))
        return Example(row.id, canvas.content_id, canvas.image, row.query, stack([target], canvas.hw))


def _seen(stem: str, image: Path, folder: Path, questions: str) -> Iterable[Seen]:
    label, file = folder / "labels" / f"{stem}.png", folder / "QAs" / f"{stem}.json"
    if not label.is_file():
        raise DataError(f"{image} has no mask {label}")
    found = read_json(file)
    texts = found.get("questions") if isinstance(found, Mapping) else None
    if not isinstance(texts, list) or not texts:
        raise DataError(f"{file} holds no questions")
    for index, text in enumerate(texts if questions == "all" else texts[:1]):
        yield Seen(f"{legible(stem)}-{index}", image, str(text).strip(), label)


class Lvis(Questions):
    """LVIS's categories as queries with several objects, by picture in the file's order.

    annotations: the file, under root. images: the folder of COCO's pictures, under root. negatives: see the module.
    objects: the least and the most of an example. Raises DataError for a file that is no LVIS JSON.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        annotations: str = "lvis_v1_train.json",
        images: str = "images",
        negatives: bool = False,
        objects: Sequence[int] = (1, 120),
    ) -> None:
        file, folder = Path(root) / annotations, Folder(Path(root), images)
        found = read_json(file)
        try:
            low, high = (int(one) for one in objects)
            rows = list(_categories(found, folder, low, high, negatives))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{file} is no LVIS JSON: {type(error).__name__}: {error}") from error
        super().__init__(rows, str(file))


def _categories(found: Mapping[str, Any], folder: Folder, low: int, high: int, negatives: bool) -> Iterator[Asked]:
    names = {one["id"]: str(one["name"]).replace("_(", " (").replace("_", " ") for one in found["categories"]}
    by_image: dict[Any, dict[Any, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for one in found["annotations"]:
        by_image[one["image_id"]][one["category_id"]].append(one)
    for image in found["images"]:
        file, hw = folder.file(image), (int(image["height"]), int(image["width"]))
        unfinished = set(image.get("not_exhaustive_category_ids", ()))
        for category, own in by_image[image["id"]].items():
            if category not in unfinished and low <= len(own) <= high:
                objects = tuple(Instance.from_coco(one, hw) for one in own)
                yield Asked(f"{image['id']}-{category}", file, names[category], objects)
        for category in image.get("neg_category_ids", ()) if negatives else ():
            yield Asked(f"{image['id']}-{category}", file, names[category], ())
