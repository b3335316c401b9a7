"""Published checkpoints that segrl knows by name: how each is asked and read, and which segmenter goes with it.

The one table of them. What is here was read in the authors' own code; a `segrl.json` beside the weights
and options given to `load` come before it. The instruction of `seg-r1` is in our words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from segrl.answers import get
from segrl.policies.names import model_name
from segrl.policies.settings import PolicySettings

SAM_2 = "facebook/sam2-hiera-large"
SAM_2_1 = "facebook/sam2.1-hiera-large"

MAX_NEW_TOKENS = 512
"""The longest answer of a policy that is not known to need more."""


@dataclass(frozen=True)
class Published:
    """How to use the checkpoints called `names` (on the hub; `*` stands for anything).

    max_new_tokens: room for their reasoning and answer.
    """

    names: tuple[str, ...]
    settings: PolicySettings
    segmenter: str = SAM_2_1
    max_new_tokens: int = MAX_NEW_TOKENS


PUBLISHED = (
    # 768×768 as it was trained; its authors' demo and referring evaluations give it 1024×1024 (`input_wh`).
    Published(
        ("geshang/Seg-R1-3B", "geshang/Seg-R1-7B"),
        PolicySettings("seg-r1", "resized", (768, 768), get("seg-r1").system),
    ),
    Published(
        ("Ricky06662/Seg-Zero-3B", "Ricky06662/Seg-Zero-7B", "Ricky06662/Seg-Zero-7B-Best-on-ReasonSegTest"),
        PolicySettings("seg-zero", "resized", (840, 840)),
        SAM_2,
        1024,
    ),
    Published(("Ricky06662/VisionReasoner-7B",), PolicySettings("json-list", "resized", (840, 840)), SAM_2, 1024),
    Published(("Qwen/Qwen2.5-VL-*",), PolicySettings("qwen-json", "smart_resize")),
    Published(("Qwen/Qwen3-VL-*-Thinking*",), PolicySettings("qwen-json", "relative_1000"), max_new_tokens=4096),
    Published(("Qwen/Qwen3-VL-*",), PolicySettings("qwen-json", "relative_1000")),
    Published(("Qwen/Qwen2-VL-*",), PolicySettings("qwen2-vl", "relative_1000")),
    Published(("OpenGVLab/InternVL*-HF",), PolicySettings("internvl", "relative_1000")),
)
"""The table; the first row that fits counts."""


def published(name_or_path: str, table: Sequence[Published] = PUBLISHED) -> Published | None:
    """The row for a name on the hub, here or behind a server, or for a directory called as the checkpoint is; or None.

    >>> published("geshang/seg-r1-7b").settings.answer_format
    'seg-r1'
    """
    wanted, is_directory = model_name(name_or_path).lower(), Path(name_or_path).is_dir()
    directory = Path(wanted).name
    for row in table:
        for name in map(str.lower, row.names):
            if fnmatchcase(wanted, name) or (is_directory and fnmatchcase(directory, Path(name).name)):
                return row
    return None


def published_settings(name_or_path: str) -> PolicySettings:
    """Those of a checkpoint that is known by its name; all None for any other."""
    row = published(name_or_path)
    return PolicySettings() if row is None else row.settings
