"""Data sets: one reader per file, each a lazy sequence of examples. Importing this package loads no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from segrl.datasets.image_mask_layouts import LAYOUTS
from segrl.errors import DataError, SegrlError
from segrl.plugins import PREFIX, import_here
from segrl.text import did_you_mean, first_line
from segrl.types import Example

__all__ = ["NAMES", "load"]


def _folder(**options: Any) -> Sequence[Example]:
    from segrl.datasets.folder import Folder

    return _build(Folder, "folder", options)


def _tiny(**options: Any) -> Sequence[Example]:
    from segrl.tiny.scenes import TinyScenes

    return _build(TinyScenes, "tiny", options)


def _tiny_drills(**options: Any) -> Sequence[Example]:
    from segrl.tiny.drills import TinyDrills

    return _build(TinyDrills, "tiny-drills", options)


def _reader(name: str, module: str, reader: str) -> Callable[..., Sequence[Example]]:
    """`reader` of `segrl.datasets.<module>`, imported when it is called."""

    def load_it(**options: Any) -> Sequence[Example]:
        return _build(getattr(import_module(f"segrl.datasets.{module}"), reader), name, options)

    return load_it


def _image_masks(name: str) -> Callable[..., Sequence[Example]]:
    """The reader of image and mask folders, told which set it reads."""

    def load_it(**options: Any) -> Sequence[Example]:
        from segrl.datasets.image_masks import ImageMasks

        return _build(partial(ImageMasks, name), name, options)

    return load_it


_READERS: Mapping[str, Callable[..., Sequence[Example]]] = {
    "folder": _folder,
    "tiny": _tiny,
    "tiny-drills": _tiny_drills,
    "coco": _reader("coco", "coco_json", "CocoJson"),
    "joined": _reader("joined", "joined", "Joined"),
    "labelme": _reader("labelme", "labelme", "LabelMe"),
    "yolo": _reader("yolo", "yolo", "Yolo"),
    "label-studio": _reader("label-studio", "label_studio", "LabelStudio"),
    "jsonl": _reader("jsonl", "json_lines", "JsonLines"),
    "refcoco": _reader("refcoco", "referring", "refcoco"),
    "refcoco+": _reader("refcoco+", "referring", "refcoco_plus"),
    "refcocog": _reader("refcocog", "referring", "refcocog"),
    "grefcoco": _reader("grefcoco", "referring", "grefcoco"),
    "reasonseg": _reader("reasonseg", "reasonseg", "ReasonSeg"),
    "fcot": _reader("fcot", "fcot", "FCoT"),
    "seg-zero": _reader("seg-zero", "seg_zero", "seg_zero"),
    "visionreasoner": _reader("visionreasoner", "seg_zero", "visionreasoner"),
    "hf": _reader("hf", "hugging_face", "HuggingFace"),
    "lisa-grounding": _reader("lisa-grounding", "lisa_grounding", "LisaGrounding"),
    **{name: _image_masks(name) for name in LAYOUTS},
}

NAMES = tuple(_READERS)
"""Names that `load` knows."""


def load(name: str, **options: Any) -> Sequence[Example]:
    """The data set `name` with its reader's own options, as a lazy sequence of examples.

    `python:my_data.Cells` is one of your own: a class or function that gives a sequence of `segrl.types.Example`.

    Every set takes `sample={"n": 3000, "seed": 0}`: that many examples, drawn with the seed, in the set's
    order; `augment={"views": 8, "flip": True}`: that many views of each (`segrl.datasets.augmented`), for
    training on few images; and `pictures={"max_megapixels": 400}`: what the reader of pictures is told where a
    file alone does not say it (`segrl.images.PictureOptions`). Raises DataError for an unknown name or option (naming
    the nearest), a missing option, and whatever the reader finds wrong with the options and the files.

    >>> len(load("tiny", n=3, seed=0))
    3
    """
    if name not in _READERS and not name.startswith(PREFIX):
        raise DataError(f"unknown data set {name!r}; {did_you_mean(name, NAMES)} ({', '.join(NAMES)})")
    augment, pictures = options.pop("augment", None), options.pop("pictures", None)
    examples = _own(name, options) if name.startswith(PREFIX) else _READERS[name](**options)
    if pictures is not None:
        from segrl.datasets.rows import pass_on
        from segrl.images import PictureOptions

        pass_on(PictureOptions.from_options(pictures), examples)
    if augment is None:
        return examples
    from segrl.datasets.augmented import Augmented

    return Augmented(examples, augment)


def _own(name: str, options: Mapping[str, Any]) -> Sequence[Example]:
    """The data set of one's own called `python:PATH`: a class or function that gives a sequence of examples."""
    from segrl.datasets.own import Own

    try:
        return Own(name, _build(import_here(name), name, options))
    except SegrlError:
        raise
    except ImportError as error:
        raise DataError(f"cannot import the data set {name} ({error})") from error
    except Exception as error:
        raise DataError(f"the data set {name}: {type(error).__name__}: {first_line(error)}") from error


def _build(reader: Callable[..., Sequence[Example]], name: str, options: Mapping[str, Any]) -> Sequence[Example]:
    """Call a reader, with wrong options reported by name; one without `sample` is read whole and sampled then."""
    parameters = inspect.signature(reader).parameters
    if "sample" in options and "sample" not in parameters:
        from segrl.datasets.rows import Subset

        rest = {key: value for key, value in options.items() if key != "sample"}
        examples = _build(reader, name, rest)
        return examples if options["sample"] is None else Subset(examples, options["sample"])
    for option in options:
        if option not in parameters:
            hint = did_you_mean(option, [*parameters, "sample", "augment"])
            raise DataError(f"the data set {name!r} has no option {option!r}; {hint}")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and options.get(option) is None:
            raise DataError(f"the data set {name!r} needs the option {option!r}, which has no default")
    try:
        return reader(**options)
    except OSError as error:  # such as a name in a file that is too long to be a path
        raise DataError(
            f"the data set {name!r} cannot be read: {error.strerror}: {str(error.filename)!r:.120}"
        ) from error
    except (TypeError, AttributeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise DataError(f"the data set {name!r} cannot be made with {given}: {error}") from error
