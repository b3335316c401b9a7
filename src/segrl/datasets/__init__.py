"""Data sets: each a lazy sequence of examples. Importing this package loads no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from segrl.datasets.image_masks import LAYOUTS
from segrl.errors import DataError, SegrlError
from segrl.plugins import PREFIX, import_here
from segrl.text import did_you_mean, first_line
from segrl.types import Example

__all__ = ["NAMES", "load"]


_READERS: Mapping[str, str] = {
    "folder": "segrl.datasets.folder.Folder",
    "tiny": "segrl.tiny.scenes.TinyScenes",
    "tiny-drills": "segrl.tiny.scenes.TinyDrills",
    "coco": "segrl.datasets.coco_json.CocoJson",
    "joined": "segrl.datasets.derived.Joined",
    "labelme": "segrl.datasets.labelme.LabelMe",
    "yolo": "segrl.datasets.yolo.Yolo",
    "label-studio": "segrl.datasets.label_studio.LabelStudio",
    "jsonl": "segrl.datasets.json_lines.JsonLines",
    "refcoco": "segrl.datasets.referring.refcoco",
    "refcoco+": "segrl.datasets.referring.refcoco_plus",
    "refcocog": "segrl.datasets.referring.refcocog",
    "grefcoco": "segrl.datasets.referring.grefcoco",
    "reasonseg": "segrl.datasets.reasonseg.ReasonSeg",
    "fcot": "segrl.datasets.cold_start.FCoT",
    "seg-zero": "segrl.datasets.cold_start.SquashedSet",
    "visionreasoner": "segrl.datasets.cold_start.SquashedSet",
    "hf": "segrl.datasets.hugging_face.HuggingFace",
    "lisa-grounding": "segrl.datasets.reasonseg.LisaGrounding",
    "star": "segrl.datasets.reasoning.star",
    "reasonseg-r": "segrl.datasets.reasoning.reasonseg_r",
    "reasonseg-x": "segrl.datasets.reasoning.reasonseg_x",
    "muse": "segrl.datasets.reasoning.questions_of",
    "mmr": "segrl.datasets.reasoning.questions_of",
    "earthreason": "segrl.datasets.reasoning.EarthReason",
    "lvis": "segrl.datasets.reasoning.Lvis",
    **dict.fromkeys(LAYOUTS, "segrl.datasets.image_masks.ImageMasks"),
}
"""The class or function of each data set, imported when it is loaded."""

_ALIKE = ("seg-zero", "visionreasoner", "muse", "mmr", *LAYOUTS)
"""Sets that one reader reads by their names."""

NAMES = tuple(_READERS)
"""Names that `load` knows."""


def _reader(name: str) -> Callable[..., Sequence[Example]]:
    module, _, reader = _READERS[name].rpartition(".")
    found = getattr(import_module(module), reader)
    first = {"joined": load, **dict.fromkeys(_ALIKE, name)}  # what these take before their options
    return partial(found, first[name]) if name in first else found


def load(name: str, **options: Any) -> Sequence[Example]:
    """The data set `name` with its reader's own options, as a lazy sequence of examples.

    `python:my_data.Cells` is one of your own: a class or function that gives a sequence of `segrl.types.Example`.

    Every set takes `sample={"n": 3000, "seed": 0}`: that many examples, drawn with the seed, in the set's
    order; `augment={"views": 8, "flip": True}`: that many views of each (`segrl.datasets.derived`), for
    training on few images; `turns={"segmenter": "grabcut"}`: transcripts of turns for a cold start
    (`segrl.datasets.turns`); and `pictures={"max_megapixels": 400}`: what the reader of pictures is told where a
    file alone does not say it (`segrl.images.PictureOptions`). Raises DataError for an unknown name or option (naming
    the nearest), a missing option, and whatever the reader finds wrong with the options and the files.

    >>> len(load("tiny", n=3, seed=0))
    3
    """
    if name not in _READERS and not name.startswith(PREFIX):
        raise DataError(f"unknown data set {name!r}; {did_you_mean(name, NAMES)} ({', '.join(NAMES)})")
    sample, augment, pictures, turns = (options.pop(key, None) for key in ("sample", "augment", "pictures", "turns"))
    examples = _own(name, options) if name.startswith(PREFIX) else _build(_reader(name), name, options)
    if pictures is not None:
        from segrl.datasets.rows import pass_on
        from segrl.images import PictureOptions

        pass_on(PictureOptions.from_options(pictures), examples)
    if sample is not None:
        from segrl.datasets.derived import Subset

        examples = Subset(examples, sample)
    if augment is not None:
        from segrl.datasets.derived import Augmented

        examples = Augmented(examples, augment)
    if turns is not None:
        from segrl.datasets.turns import Transcripts

        examples = Transcripts(examples, turns)
    return examples


def _own(name: str, options: Mapping[str, Any]) -> Sequence[Example]:
    """The data set of one's own called `python:PATH`: a class or function that gives a sequence of examples."""
    from segrl.datasets.derived import Own

    try:
        return Own(name, _build(import_here(name), name, options))
    except SegrlError:
        raise
    except ImportError as error:
        raise DataError(f"cannot import the data set {name} ({error})") from error
    except Exception as error:
        raise DataError(f"the data set {name}: {type(error).__name__}: {first_line(error)}") from error


def _build(reader: Callable[..., Sequence[Example]], name: str, options: Mapping[str, Any]) -> Sequence[Example]:
    """Call a reader, with wrong options reported by name."""
    parameters = inspect.signature(reader).parameters
    for option in options:
        if option not in parameters:
            hint = did_you_mean(option, [*parameters, "sample", "augment", "pictures", "turns"])
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
