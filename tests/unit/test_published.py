"""The table of published checkpoints, the words that they were trained with, and what docs say of both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segrl import answers, policies
from segrl.errors import ModelError
from segrl.evaluation import EvalSettings
from segrl.loading import fitting_max_new_tokens, fitting_options, fitting_segmenter
from segrl.policies.prompt_preview import shown_prompt
from segrl.policies.published import published
from segrl.policies.settings import read_template
from segrl.types import Example, Frame, MaskPrompt, Status

DOCS = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
TEMPLATE = 'Where is "{query}"? Answer as {"bbox_2d": [1, 2, 3, 4]}.'
KNOWN = {  # format, frame, input_wh, segmenter, best of three, longest answer
    "geshang/Seg-R1-3B": ("seg-r1", "resized", (768, 768), "facebook/sam2.1-hiera-large", False, 512),
    "Ricky06662/Seg-Zero-7B": ("seg-zero", "resized", (840, 840), "facebook/sam2-hiera-large", True, 1024),
    "Ricky06662/VisionReasoner-7B": ("json-list", "resized", (840, 840), "facebook/sam2-hiera-large", True, 1024),
    "Ricky06662/Visurf-7B-Best-on-gRefCOCO": (
        "json-list",
        "resized",
        (840, 840),
        "facebook/sam2-hiera-large",
        True,
        1024,
    ),
    "hao05/Dr_Seg": ("json-list", "resized", (840, 840), "facebook/sam2-hiera-large", True, 3000),
    "sj9909/StAR-7B": ("json-list", "resized", (840, 840), "facebook/sam2.1-hiera-large", True, 1024),
    "sj9909/StAR-8B": ("json-list", "relative_1000", (840, 840), "facebook/sam2.1-hiera-large", True, 1024),
    "sj9909/StAR-32B": ("json-list", "relative_1000", (840, 840), "facebook/sam2.1-hiera-large", True, 1024),
    "RicardoString/Think2Seg-RS-7B": ("think2seg", "resized", (840, 840), "facebook/sam2.1-hiera-small", False, 2048),
    "Qwen/Qwen3-VL-8B-Instruct": ("qwen-json", "relative_1000", None, "facebook/sam2.1-hiera-large", False, 512),
}


@pytest.mark.parametrize("name", KNOWN)
def test_how_a_published_checkpoint_is_used(name: str):
    row = published(name)
    assert row is not None
    settings = row.settings
    found = (settings.answer_format, settings.frame, settings.input_wh, fitting_segmenter(name))
    assert (*found, row.best_of_three, fitting_max_new_tokens(name)) == KNOWN[name]
    chosen = {"multimask": True} if row.best_of_three else {}
    assert fitting_options(name, fitting_segmenter(name)) == chosen
    assert fitting_options(name, "grabcut") == fitting_options(name, "tiny") == {}
    asked = EvalSettings(policy=name, dataset="reasonseg")
    assert asked.fitted_segmenter_options == chosen
    single = EvalSettings(policy=name, dataset="reasonseg", segmenter_options={"multimask": False})
    assert single.fitted_segmenter_options == {"multimask": False}


def test_docs_say_what_the_table_says():
    for row in policies.PUBLISHED:
        for name in row.names:
            line = next(line for line in DOCS.splitlines() if line.startswith("|") and f"`{name}`" in line)
            assert f"`{row.settings.answer_format}`" in line
            assert ("best of three" in line) == row.best_of_three
            assert row.segmenter.removeprefix("facebook/") in line
            if row.settings.input_wh:
                assert f"{row.settings.input_wh[0]}×{row.settings.input_wh[1]}" in line
            assert row.wording in line


def test_a_directory_is_known_by_its_name_and_by_that_of_the_folder_above(tmp_path: Path):
    for folder in ("StAR-8B", "StAR-8B/lora_adapter", "StAR-8B/huggingface"):
        (tmp_path / folder).mkdir()
        assert published(str(tmp_path / folder)) is published("sj9909/StAR-8B")
    (tmp_path / "lora_adapter").mkdir()
    assert published(str(tmp_path / "lora_adapter")) is None


def test_the_words_of_the_training_come_from_a_file(tmp_path: Path):
    file = tmp_path / "words.txt"
    file.write_text(TEMPLATE + "\n")
    settings = policies.PolicySettings("json-list", prompt_template=read_template(file))
    policies.write_settings(tmp_path, settings)
    assert json.loads((tmp_path / "segrl.json").read_text())["prompt_template"] == "prompt_template.txt"
    assert policies.read_settings(tmp_path) == settings
    shown = shown_prompt(str(tmp_path), " the cup ", plain=True)
    assert shown.text == 'Where is "the cup"? Answer as {"bbox_2d": [1, 2, 3, 4]}.'
    other = shown_prompt(str(tmp_path), "the cup", answer_format="seg-r1", plain=True)
    assert other.text == answers.get("seg-r1").prompt("the cup")  # the words were another format's


@pytest.mark.parametrize(
    ("text", "hint"), [("Find it.", "holds no {query}"), (None, "cannot read the prompt template")]
)
def test_a_template_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, hint: str):
    file = tmp_path / "words.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ModelError, match=hint):
        read_template(file)
    (tmp_path / "segrl.json").write_text('{"prompt_template": "words.txt"}')
    with pytest.raises(ModelError, match=rf"segrl\.json: .*{hint}"):
        policies.read_settings(tmp_path)


def test_only_a_file_beside_the_weights_is_read(tmp_path: Path):
    """A checkpoint from elsewhere names no file of this machine."""
    (tmp_path / "secret.txt").write_text("{query}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "segrl.json").write_text('{"prompt_template": "../secret.txt"}')
    with pytest.raises(ModelError, match="cannot read"):
        policies.read_settings(tmp_path / "model")


FRAME = Frame.resized(840, 840)
TWO_OF_EACH = (
    '<think>A plane.</think><answer>```json[{"bbox_2d": [10,20,110,220], "positive_points": [[30, 40], [50, 60]], '
    '"negative_points": [[15, 200]]}]```</answer>'
)


def test_think2seg_reads_what_its_checkpoints_write():
    answer = answers.parse(TWO_OF_EACH, "think2seg", frame=FRAME)
    points = ((30.0, 40.0), (50.0, 60.0), (15.0, 200.0))
    assert answer.prompts == (MaskPrompt((10.0, 20.0, 110.0, 220.0), points, (1, 1, 0), FRAME),)
    assert answers.get("think2seg").required_parts <= answer.parts
    cut = answers.parse(TWO_OF_EACH[:-20], "think2seg", frame=FRAME, reading="lenient")
    assert cut.prompts[0].points_xy[:2] == points[:2]
    again = answers.get("think2seg").render(answer.prompts, "A plane.")
    assert answers.parse(again, "think2seg", frame=FRAME).prompts == answer.prompts
    nothing = answers.get("think2seg").render([], "None.")
    assert answers.parse(nothing, "think2seg").status is Status.NO_TARGET


@pytest.mark.parametrize(
    "entry",
    ['{"negative_points": [[1, 2]]}', '{"bbox_2d": [1, 2, 30, 40], "negative_points": [[1]]}', '{"label": "plane"}'],
)
def test_think2seg_refuses_what_says_nothing(entry: str):
    assert answers.parse(f"<answer>[{entry}]</answer>", "think2seg").status is Status.BAD_VALUES


def test_training_asks_in_those_words(tmp_path: Path):
    from segrl.training.parts import Reader

    settings = policies.PolicySettings("json-list", "relative_1000", prompt_template=TEMPLATE)
    reader = Reader(settings, "json-list", lambda image_wh: FRAME, lambda chat: "")
    example = Example("1", "1", Image.new("RGB", (8, 8)), "the cup", np.zeros((0, 8, 8), dtype=bool))
    assert reader.prompt(example)[0]["content"][1]["text"] == TEMPLATE.replace("{query}", "the cup")
