"""Published checkpoints that segrl knows by name: how each is asked and read, and which segmenter goes with it.

The one table of them. What is here was read in the authors' own code; a `segrl.json` beside the weights
and options given to `load` come before it. Prompts are in our words: where a checkpoint was trained with
others, `wording` says where its authors keep them, for the option `prompt_template`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from segrl.answers import get
from segrl.policies.settings import PolicySettings, model_name

SAM_2 = "facebook/sam2-hiera-large"
SAM_2_1 = "facebook/sam2.1-hiera-large"
SAM_2_1_SMALL = "facebook/sam2.1-hiera-small"

MAX_NEW_TOKENS = 512
"""The longest answer of a policy that is not known to need more."""

PARTS = ("huggingface", "lora_adapter")
"""Folders in which some authors put a checkpoint's files: its name is that of the folder above."""


@dataclass(frozen=True)
class Published:
    """How to use the checkpoints called `names` (on the hub; `*` stands for anything).

    bases: for each name the model that it began from. max_new_tokens: room for their reasoning and answer.
    best_of_three: their authors take the mask that SAM scores highest of its three (the segmenter's option
    `multimask`), not its single mask. wording: where the prompt of their training stands in the authors' code.
    """

    names: tuple[str, ...]
    settings: PolicySettings
    segmenter: str = SAM_2_1
    max_new_tokens: int = MAX_NEW_TOKENS
    bases: tuple[str, ...] = ()
    best_of_three: bool = False
    wording: str = ""

    def base_of(self, name: str) -> str:
        """The model that the checkpoint called `name` began from; itself, where that is not said."""
        matches = [base for own, base in zip(self.names, self.bases, strict=False) if fits(name, own)]
        return matches[0] if matches else model_name(name)


_3B, _7B = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
_8B, _32B = "Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-32B-Instruct"
_SQUASHED = PolicySettings("json-list", "resized", (840, 840))
_STAR = "ysj9909/StAR: QUESTION_TEMPLATE in inference_scripts/infer_multi_object.py"

PUBLISHED = (
    # 768×768 as it was trained; its authors' demo and referring evaluations give it 1024×1024 (`input_wh`).
    Published(
        ("geshang/Seg-R1-3B", "geshang/Seg-R1-7B"),
        PolicySettings("seg-r1", "resized", (768, 768), get("seg-r1").system),
        bases=(_3B, _7B),
        wording="geshang0111/Seg-R1: the system prompt of its training script",
    ),
    Published(
        ("Ricky06662/Seg-Zero-3B", "Ricky06662/Seg-Zero-7B", "Ricky06662/Seg-Zero-7B-Best-on-ReasonSegTest"),
        PolicySettings("seg-zero", "resized", (840, 840)),
        SAM_2,
        1024,
        bases=(_3B, _7B, _7B),
        best_of_three=True,
        wording="dvlab-research/Seg-Zero: QUESTION_TEMPLATE in inference_scripts/infer.py",
    ),
    Published(
        (
            "Ricky06662/VisionReasoner-7B",
            "Ricky06662/Visurf-7B-Best-on-gRefCOCO",
            "Ricky06662/Visurf-7B-NoThink-Best-on-gRefCOCO",
        ),
        _SQUASHED,
        SAM_2,
        1024,
        bases=(_7B, _7B, _7B),
        best_of_three=True,
        wording="JIA-Lab-research/VisionReasoner: DETECTION_TEMPLATE in vision_reasoner/models/",
    ),
    Published(
        ("hao05/Dr_Seg",),
        _SQUASHED,
        SAM_2,
        3000,
        bases=(_7B,),
        best_of_three=True,
        wording="eVI-group-SCU/Dr-Seg: QUESTION_TEMPLATE in evaluation_scripts/evaluation_drseg.py",
    ),
    # Adapters: the weights lie in the folder lora_adapter, and need `base` where their base is not on the hub's path.
    Published(("sj9909/StAR-7B",), _SQUASHED, SAM_2_1, 1024, bases=(_7B,), best_of_three=True, wording=_STAR),
    Published(
        ("sj9909/StAR-8B", "sj9909/StAR-32B"),
        PolicySettings("json-list", "relative_1000", (840, 840)),
        SAM_2_1,
        1024,
        bases=(_8B, _32B),
        best_of_three=True,
        wording=_STAR,
    ),
    Published(
        ("RicardoString/Think2Seg-RS-3B", "RicardoString/Think2Seg-RS-7B"),
        PolicySettings("think2seg", "resized", (840, 840), get("think2seg").system),
        SAM_2_1_SMALL,
        2048,
        bases=(_3B, _7B),
        wording="Ricardo-XZ/Think2Seg-RS: SYSTEM_PROMPT, USER_PROMPT in open_r1/dataset/EarthReason_datasets.py",
    ),
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
    return next((row for row in table if any(fits(name_or_path, name) for name in row.names)), None)


def fits(name_or_path: str, name: str) -> bool:
    """Whether a name, or the directory that it is, is called as a row's `name` (with `*` in it) says."""
    wanted, name = model_name(name_or_path).lower(), name.lower()
    if fnmatchcase(wanted, name):
        return True
    directory = Path(model_name(name_or_path))
    if not directory.is_dir():
        return False
    called = directory.parent if directory.name in PARTS else directory
    return fnmatchcase(called.name.lower(), Path(name).name)


def published_settings(name_or_path: str) -> PolicySettings:
    """Those of a checkpoint that is known by its name; all None for any other."""
    row = published(name_or_path)
    return PolicySettings() if row is None else row.settings
