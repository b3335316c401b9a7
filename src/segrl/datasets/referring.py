"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO from the files of their authors.

One row of `refcoco/refs(unc).p`, as it stands there (one object, the expressions that name it):

    {"ref_id": 0, "ann_id": 1719310, "image_id": 581857, "category_id": 1, "split": "train",
     "file_name": "COCO_train2014_000000581857_16.jpg", "sent_ids": [0, 1, 2],
     "sentences": [{"sent_id": 0, "sent": "the lady with the blue shirt",
                    "raw": "THE LADY WITH THE BLUE SHIRT", "tokens": ["the", "lady", …]}, …]}

and as an example: query "the lady with the blue shirt", one target at 427×640. `instances.json` beside
it holds COCO's annotations by `ann_id` and the image files by `image_id`; the row's own `file_name`
carries an annotation number and names no file. In gRefCOCO (`grefs(unc).json`) `ann_id` is a list of
any number of objects, and `[-1]` says that nothing in the image matches.

    root/refcoco/refs(unc).p    root/refcoco/instances.json    root/images/mscoco/images/train2014/

Every expression is an example of its own; the cleaned text (`sent`) is the query, as in LISA's evaluation
and those after it, and `raw`, which gRefCOCO's authors ask with, stays in `meta`. Nothing is filtered but, in
gRefCOCO, crowd annotations among the objects of an expression, which its authors leave out of the truth too.

`refs(unc).p` is a pickle, and a pickle may name any function of any module and have it called. `load_plain` admits what
data is made of and nothing else: dicts, lists, tuples, sets, text, bytes and numbers. numpy's scalars and arrays of
numbers or text come out as plain numbers and lists, so that nothing of numpy's own state is taken from the file. Files
written by Python 2 need no more.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segrl.datasets.drawing import Instance
from segrl.datasets.rows import Rows, distinct, first_folder
from segrl.errors import DataError
from segrl.files import read_json
from segrl.text import first_line
from segrl.types import Example

_PLAIN_KINDS = "biufcSU"
"""Kinds of numpy values that are numbers or text; an object array could hold anything."""


class _Dtype:
    """Stands for a pickled numpy dtype: which kind of number, and its byte order."""

    def __init__(self, spec: str, *_: object) -> None:
        self.dtype = np.dtype(spec)
        if self.dtype.kind not in _PLAIN_KINDS:
            raise pickle.UnpicklingError(f"numpy.{self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])

    def read(self, raw: str | bytes) -> np.ndarray:
        return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, self.dtype)


class _Array(list[Any]):
    """Stands for a pickled numpy array: a list that its values are put into."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_column_major, raw = state
        self.extend(dtype.read(raw).reshape(shape, order="F" if is_column_major else "C").tolist())


def _scalar(dtype: _Dtype, raw: str | bytes) -> Any:
    return dtype.read(raw)[0].item()


def _new_array(*_: object) -> _Array:
    return _Array()


def _bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _of_values(kind: type[bytes] | type[bytearray]) -> Callable[..., bytes | bytearray]:
    """`kind`, which also takes a number: as many zeros, of memory that the file does not hold."""

    def make(*parts: Any) -> bytes | bytearray:
        if parts and isinstance(parts[0], int):
            raise pickle.UnpicklingError(f"{kind.__name__} of a number")
        return kind(*parts)

    return make


_ADMITTED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _bytes,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
}
for _module in ("builtins", "__builtin__"):
    _ADMITTED |= {f"{_module}.{kind.__name__}": kind for kind in (set, frozenset, complex)}
    _ADMITTED |= {f"{_module}.{kind.__name__}": _of_values(kind) for kind in (bytes, bytearray)}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ADMITTED |= {f"{_module}.scalar": _scalar, f"{_module}._reconstruct": _new_array}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`; raises UnpicklingError naming it unless it is plain data."""
        if f"{module}.{name}" not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _ADMITTED[f"{module}.{name}"]


def load_plain(path: Path) -> Any:
    """The data in a pickle file of any protocol, Python 2's included (its byte strings become text).

    Raises DataError if the file is missing, cut short, or names anything but plain data.
    """
    try:
        return _load_as(path, "utf-8")
    except UnicodeDecodeError:
        return _load_as(path, "latin1")


def _load_as(path: Path, encoding: str) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding=encoding).load()
    except UnicodeDecodeError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} cannot be read as plain data, it holds or lacks: {error}") from error
    except Exception as error:  # unpicklers raise anything on broken bytes, OverflowError and MemoryError included
        raise DataError(f"{path} is cut short or no pickle: {first_line(error)}") from error


IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "coco_2014/train2014", "train2014")
"""Where COCO's train2014 images lie under the root: the authors' layouts and the usual ones, tried in this order."""


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression with the objects that it names; none says that nothing matches."""

    id: str
    image: Path
    query: str
    raw: str
    ref_id: int
    instances: tuple[Instance, ...]


class Referring(Rows[Expression]):
    """The expressions of one split of one of the four sets, in the order of the file.

    `meta["boxes_xyxy"]` holds COCO's own boxes (original pixels, one per target, for box accuracy);
    `tags["kind"]` says in gRefCOCO whether an expression names "one", "several" or "no target".
    """

    def __init__(self, expressions: Sequence[Expression], name: str) -> None:
        super().__init__(expressions, name)
        self._is_general = name.startswith("grefcoco")

    def read(self, row: Expression) -> Example:
        """See Rows. Raises DataError where none of the named objects has a pixel."""
        canvas = self.canvas(row.image)
        targets, boxes = canvas.instances(row.instances)
        if row.instances and not len(targets):
            raise DataError(f"no annotation of {row.query!r} ({row.image.name}, ref {row.ref_id}) has a pixel")
        return Example(
            id=row.id,
            image_id=canvas.content_id,
            image=canvas.image,
            query=row.query,
            targets=targets,
            tags={"kind": _kind(len(boxes))} if self._is_general else {},
            meta={"boxes_xyxy": boxes, "raw": row.raw, "ref_id": row.ref_id},
        )


def _kind(count: int) -> str:
    return "no target" if count == 0 else "one" if count == 1 else "several"


def refcoco(root: Path | str, *, split: str = "val", images: str | None = None) -> Referring:
    """RefCOCO, UNC's split: train, val, testA (people), testB (other things).

    images: the folder of COCO's train2014 images, under root or absolute (default: IMAGE_FOLDERS).
    Raises DataError naming what is missing.
    """
    return _load(Path(root), "refcoco", "refs(unc).p", split, images)


def refcoco_plus(root: Path | str, *, split: str = "val", images: str | None = None) -> Referring:
    """RefCOCO+ (no words of place): splits and options as `refcoco`."""
    return _load(Path(root), "refcoco+", "refs(unc).p", split, images)


def refcocog(
    root: Path | str,
    *,
    split: str = "val",
    split_by: str = "umd",
    images: str | None = None,
) -> Referring:
    """RefCOCOg: split_by "umd" has train, val and test; "google" has train and val, which share images."""
    if split_by not in ("umd", "google"):
        raise DataError(f"refcocog is split by umd or google, not {split_by!r}")
    return _load(Path(root), "refcocog", f"refs({split_by}).p", split, images)


def grefcoco(root: Path | str, *, split: str = "val", images: str | None = None) -> Referring:
    """gRefCOCO: train, val, testA, testB, with expressions of several objects and of none."""
    return _load(Path(root), "grefcoco", "grefs(unc).json", split, images)


def _load(root: Path, name: str, refs_name: str, split: str, images: str | None) -> Referring:
    folder = first_folder([root / name], f"the files of {name}")
    refs_file = folder / refs_name
    refs = load_plain(refs_file) if refs_file.suffix == ".p" else read_json(refs_file)
    known = sorted({ref["split"] for ref in _checked(refs, refs_file)})
    if split not in known:
        raise DataError(f"{refs_file} has no split {split!r}; it has {', '.join(known)}")
    chosen = [ref for ref in refs if ref["split"] == split]
    image_folder = first_folder([root / images] if images else [root / f for f in IMAGE_FOLDERS], "COCO's train2014")
    expressions = list(_expressions(chosen, folder / "instances.json", image_folder, refs_file))
    ids = distinct(expression.id for expression in expressions)
    rows = [replace(expression, id=new) for new, expression in zip(ids, expressions, strict=True)]
    return Referring(rows, f"{name} {split}")


def _checked(refs: Any, refs_file: Path) -> list[dict[str, Any]]:
    needed = {"ref_id", "ann_id", "image_id", "split", "sentences"}
    if not isinstance(refs, list) or not all(isinstance(ref, dict) and needed <= ref.keys() for ref in refs):
        raise DataError(f"{refs_file} is no list of references with {', '.join(sorted(needed))}")
    return refs


def _expressions(
    refs: Sequence[Mapping[str, Any]], instances_file: Path, image_folder: Path, refs_file: Path
) -> Iterator[Expression]:
    coco = read_json(instances_file)
    if not isinstance(coco, dict) or not {"images", "annotations"} <= coco.keys():
        raise DataError(f"{instances_file} is no COCO JSON: it needs images and annotations")
    images = {int(image["id"]): image for image in coco["images"]}
    wanted = {int(i) for ref in refs for i in _as_list(ref["ann_id"])}
    annotations = {int(a["id"]): a for a in coco["annotations"] if int(a["id"]) in wanted}
    for ref in refs:
        image = images.get(int(ref["image_id"]))
        lacking = [i for i in _as_list(ref["ann_id"]) if int(i) != -1 and int(i) not in annotations]
        if image is None or lacking:
            what = f"image {ref['image_id']}" if image is None else f"annotation {lacking[0]}"
            raise DataError(f"{refs_file.name} names {what} (ref {ref['ref_id']}), which {instances_file} lacks")
        found = [annotations[int(i)] for i in _as_list(ref["ann_id"]) if int(i) != -1]
        # An expression may name crowds only.
        single = [annotation for annotation in found if not annotation.get("iscrowd")]
        hw = (int(image["height"]), int(image["width"]))
        instances = tuple(Instance.from_coco(annotation, hw) for annotation in single or found)
        for sentence in ref["sentences"]:
            yield Expression(
                id=f"{ref['ref_id']}-{sentence['sent_id']}",
                image=image_folder / image["file_name"],
                query=sentence["sent"],
                raw=sentence.get("raw", sentence["sent"]),
                ref_id=int(ref["ref_id"]),
                instances=instances,
            )


def _as_list(ann_id: Any) -> Sequence[Any]:
    return ann_id if isinstance(ann_id, list | tuple) else [ann_id]
