"""What segrl must know about a policy beyond its weights: `segrl.json` in the policy's directory.

    {"answer_format": "seg-r1", "frame": "resized", "input_wh": [768, 768], "segmenter": "facebook/sam2.1-hiera-large"}

Every key is optional; what is missing follows from the model family (`segrl.policies.frames`). `prompt_template`
names a file beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.answers import NATIVE_FORMATS
from segrl.errors import ModelError, SegrlError
from segrl.files import write_atomically
from segrl.plugins import PREFIX
from segrl.text import did_you_mean, first_line
from segrl.turns import TurnView

if TYPE_CHECKING:
    from PIL import Image


_SERVED = "openai:"
_ADDRESS = re.compile(r"@(?=https?://)")


def is_served(name: str) -> bool:
    """Whether the name is that of a model behind a server, `openai:MODEL@http://host:port/v1`."""
    return name.startswith(_SERVED)


def model_name(name: str) -> str:
    """The name of the model: MODEL of one behind a server, any other as it is.

    >>> model_name("openai:Qwen/Qwen3-VL-8B-Thinking@http://localhost:8000/v1"), model_name("tiny")
    ('Qwen/Qwen3-VL-8B-Thinking', 'tiny')
    """
    return _ADDRESS.split(name.removeprefix(_SERVED), maxsplit=1)[0] if is_served(name) else name


FILE_NAME = "segrl.json"
TEMPLATE_NAME = "prompt_template.txt"

QUERY = "{query}"
"""Where a prompt template holds the user's words."""

OTHER_ANSWER_FORMAT = "json-list"
"""What a policy of a family whose own answers are not known is asked for."""


def answer_format_of(settings: PolicySettings, family: str) -> str:
    """The format that a policy writes: what its settings say, else what its family was trained to write."""
    return settings.answer_format or NATIVE_FORMATS.get(family, OTHER_ANSWER_FORMAT)


FRAME_NAMES = ("original", "resized", "smart_resize", "relative_1000", "relative_1")
"""`original`: pixels of the image as it is. `resized`: pixels of the image squashed to `input_wh`.
`smart_resize`: pixels of the image as the checkpoint's own processor resizes it. `relative_1000`: 0–1000.
`relative_1`: 0–1."""


@dataclass(frozen=True)
class PolicySettings:
    """How to feed a policy and how to read it. None means "as the model family does".

    answer_format: name of an answer format. frame: one of FRAME_NAMES. input_wh: (width, height)
    to which every image is squashed before the processor sees it. system: system prompt. segmenter: name of
    the segmenter that it was trained with, which is then the default. prompt_template: the text prompt that it was
    trained with, `{query}` in the place of the query, where that is not the answer format's (`read_template`).
    turns: what it is shown after a turn (the options of `segrl.turns.TurnView`), for a policy that was trained to
    correct its masks. queries: the only ones that it answers, each asked in the words of the first
    (`AnswerFormat.limited_to`). Raises ModelError for an unknown frame, a size that is no size, `resized` without a
    size, a template without `{query}`, and queries that are none.
    """

    answer_format: str | None = None
    frame: str | None = None
    input_wh: tuple[int, int] | None = None
    system: str | None = None
    segmenter: str | None = None
    prompt_template: str | None = None
    turns: Mapping[str, Any] | None = None
    queries: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.queries is not None:
            object.__setattr__(self, "queries", _checked_queries(self.queries))
        if self.turns is not None:
            try:
                TurnView.from_options(self.turns)
            except SegrlError as error:
                raise ModelError(f"turns: {error}") from error
        if not isinstance(self.segmenter, str | None):
            raise ModelError(f"segmenter is a name, not {self.segmenter!r}")
        if self.frame is not None and self.frame not in FRAME_NAMES:
            raise ModelError(f"unknown frame {self.frame!r}: choose one of {', '.join(FRAME_NAMES)}")
        if self.input_wh is not None:
            object.__setattr__(self, "input_wh", _checked_wh(self.input_wh))
        if self.frame == "resized" and self.input_wh is None:
            raise ModelError("frame 'resized' needs input_wh: the width and height that images are resized to")
        if self.prompt_template is not None and QUERY not in str(self.prompt_template):
            raise ModelError(f"prompt_template holds no {QUERY}, which is where the query goes")

    @property
    def view(self) -> TurnView:
        """What the policy is shown after a turn."""
        return TurnView.from_options(self.turns or {})

    def override(self, **options: Any) -> PolicySettings:
        """These settings with every option that is not None put in its place.

        Another answer format takes a prompt template that was for the first one away.
        """
        given = {key: value for key, value in options.items() if value is not None}
        if self.answer_format not in (None, given.get("answer_format", self.answer_format)):
            given.setdefault("prompt_template", None)
        return replace(self, **given)


def refuse_code(settings: PolicySettings, name: str, *, trusted: bool) -> None:
    """Raises ModelError if the policy's own files name code to import (`python:…`), and nobody said that it may run."""
    if not trusted and str(settings.answer_format or "").startswith(PREFIX):
        raise ModelError(
            f"the {FILE_NAME} of {name} names code, {settings.answer_format}, which is not imported unless you say so: "
            "trust_remote_code=True (policy.trust_remote_code=true), or give the answer_format yourself"
        )


def _checked_queries(value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, list | tuple) and len(value) > 0
    if not is_list or not all(isinstance(one, str) and one.strip() for one in value):
        raise ModelError(f"queries is a list of the queries that the policy answers, not {value!r}")
    return tuple(value)


def _checked_wh(value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
        raise ModelError(f"input_wh must be two positive integers (width, height), not {value!r}")
    return pair[0], pair[1]


def read_settings(directory: Path | str) -> PolicySettings:
    """The settings in `directory`'s segrl.json; all None without the file.

    Raises ModelError for a file that is no JSON object, an unknown key (naming the nearest) or a wrong value.
    """
    path = Path(directory) / FILE_NAME
    if not path.is_file():
        return PolicySettings()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} must hold one JSON object")
    known = [field.name for field in fields(PolicySettings)]
    for key in values:
        if key not in known:
            raise ModelError(f"{path}: unknown key {key!r}; {did_you_mean(key, known)}")
    try:
        if values.get("prompt_template") is not None:
            values["prompt_template"] = read_template(Path(directory) / Path(str(values["prompt_template"])).name)
        return PolicySettings(**values)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def read_template(file: Path | str | None) -> str | None:
    """The text prompt in a file, without the line ends at its end; None for None.

    Raises ModelError for a file that cannot be read and one without `{query}`.
    """
    if file is None:
        return None
    try:
        text = Path(file).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeError) as error:
        raise ModelError(f"cannot read the prompt template {file}: {first_line(error)}") from error
    if QUERY not in text:
        raise ModelError(f"the prompt template {file} holds no {QUERY}, which is where the query goes")
    return text


def write_settings(directory: Path | str, settings: PolicySettings) -> None:
    """Write segrl.json into `directory`, which must exist; keys that are None are left out.

    A prompt template is a file beside it.
    """
    values = {key: value for key, value in asdict(settings).items() if value is not None}
    if settings.prompt_template is not None:
        write_atomically(Path(directory) / TEMPLATE_NAME, settings.prompt_template + "\n")
        values["prompt_template"] = TEMPLATE_NAME
    write_atomically(Path(directory) / FILE_NAME, json.dumps(values, indent=2) + "\n")


def prepare_image(image: Image.Image, settings: PolicySettings) -> Image.Image:
    """The picture a policy is shown: RGB, squashed to `settings.input_wh` if that is set.

    The one place where segrl resizes an image for a policy (cold start, reinforcement learning and
    evaluation use it): Pillow's bicubic filter, which averages over the source pixels when it
    shrinks, whatever the aspect ratio. An image that fits already comes back unchanged.
    """
    from PIL import Image as PilImage

    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if settings.input_wh is None or rgb.size == settings.input_wh:
        return rgb
    return rgb.resize(settings.input_wh, PilImage.Resampling.BICUBIC)
