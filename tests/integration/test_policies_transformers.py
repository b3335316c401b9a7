"""The policy that runs here, on a freshly initialised tiny Qwen3-VL."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segrl import policies
from segrl.errors import ModelError
from segrl.policies.frames import SmartResize
from segrl.policies.transformers_policy import GumbelNoise, TransformersPolicy
from segrl.tiny import model as tiny_model
from segrl.types import RELATIVE_1000, Frame

SETTINGS = policies.PolicySettings("seg-r1", "resized", (112, 112))
SMALL = tiny_model.Shape(width=48, layers=2, mlp=64, vision_width=48, vision_layers=2, vision_mlp=64)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("policy")
    tiny_model.save(path, SMALL)
    policies.write_settings(path, SETTINGS)
    return path


@pytest.fixture(scope="module")
def policy(directory) -> TransformersPolicy:
    return policies.load(str(directory))


def pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)) for _ in range(n)]


PROMPTS = ["the red circle", "the largest object of all", "the blue star", "the green ring"]


def texts(answers) -> list[list[str]]:
    return [[completion.text for completion in row] for row in answers]


def test_settings_come_from_the_directory_and_options_override_them(directory, policy):
    assert policy.answer_format == "seg-r1"
    assert policy.frame_for((640, 480)) == Frame.resized(112, 112)
    other = policies.load(str(directory), frame="relative_1000", input_wh=[56, 56], answer_format="sam-r1")
    assert (other.answer_format, other.frame_for((640, 480))) == ("sam-r1", RELATIVE_1000)
    assert other.settings.input_wh == (56, 56)


def test_greedy_results_do_not_depend_on_the_batch(policy):
    images = pictures(4)
    alone = policy.generate(images, PROMPTS, max_new_tokens=12)
    together = policy.generate(images[::-1], PROMPTS[::-1], max_new_tokens=12, batch_size=3)[::-1]
    assert texts(alone) == texts(together)
    assert all(row[0].truncated and row[0].n_tokens == 12 and row[0].seconds > 0 for row in alone)


def test_samples_are_seeded_and_do_not_depend_on_the_batch(policy):
    images, options = pictures(3), {"max_new_tokens": 8, "temperature": 1.0, "num_samples": 3}
    first = texts(policy.generate(images, PROMPTS[:3], seed=5, batch_size=4, **options))
    again = texts(policy.generate(images[::-1], PROMPTS[2::-1], seed=5, batch_size=1, **options))[::-1]
    assert first == again
    assert all(len(set(row)) == 3 for row in first)
    assert first != texts(policy.generate(images, PROMPTS[:3], seed=6, batch_size=4, **options))
    twice = texts(policy.generate(images[:1] * 2, PROMPTS[:1] * 2, seed=5, **options))
    assert twice[0] == first[0]
    assert twice[0] != twice[1]


def test_a_request_is_read_once_for_all_its_samples(policy):
    """Its picture too; batches are as wide as asked for."""
    rows: dict[str, list[int]] = {"prompt": [], "token": [], "patches": []}

    def count(module, args, kwargs):
        n, length = kwargs["inputs_embeds"].shape[:2]
        rows["prompt" if length > 1 else "token"].append(n)

    text, eyes = policy.model.model.language_model, policy.model.model.visual
    hooks = [text.register_forward_pre_hook(count, with_kwargs=True)]
    hooks.append(eyes.register_forward_pre_hook(lambda module, args: rows["patches"].append(len(args[0]))))
    options = {"max_new_tokens": 2, "temperature": 1.0, "num_samples": 4}
    policy.generate(pictures(2), ["the red circle"] * 2, batch_size=8, **options)
    policy.generate(pictures(2), ["the red circle"] * 2, batch_size=3, **options)
    for hook in hooks:
        hook.remove()
    once = rows["patches"][1]
    assert rows == {
        "prompt": [2, 1, 1],
        "token": [8] * 2 + [3, 3, 1, 1] * 2,
        "patches": [2 * once, once, once],
    }


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"autocast": True}])
def test_bfloat16_weights_or_arithmetic(directory, options):
    policy = policies.load(str(directory), **options)
    assert policy.model.dtype is (torch.bfloat16 if "dtype" in options else torch.float32)
    ((completion,),) = policy.generate(pictures(1), PROMPTS[:1], max_new_tokens=3)
    assert completion.n_tokens == 3


def test_greedy_samples_are_copies(policy):
    (row,) = policy.generate(pictures(1), PROMPTS[:1], max_new_tokens=3, num_samples=2)
    assert row[0] == row[1]


def test_nothing_is_generated_for_no_request(policy):
    assert policy.generate([], [], max_new_tokens=3) == []


def test_gumbel_noise_draws_from_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).repeat(4000, 1)
    drawn = GumbelNoise(range(4000), 2.0, torch.device("cpu"))(torch.empty(0), logits).argmax(-1)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(shares, (logits[0] / 2.0).softmax(-1), atol=0.03)


def test_decoding_settings_beside_the_weights_are_ignored(directory, policy, tmp_path):
    images = pictures(1)
    expected = texts(policy.generate(images, PROMPTS[:1], max_new_tokens=6))
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    sampled = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "max_new_tokens": 1, "min_length": 99}
    (copy / "generation_config.json").write_text(json.dumps(sampled))
    other = policies.load(str(copy))
    own = other.model.generation_config
    other.model.train()
    assert texts(other.generate(images, PROMPTS[:1], max_new_tokens=6)) == expected
    assert other.model.generation_config is own
    assert other.model.training


class _Parrot(torch.nn.Module):
    """Stands for a model that writes fixed token ids after any prompt."""

    def __init__(self, model, ids):
        super().__init__()
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self.generation_config, self.ids = None, ids

    def generate(self, input_ids, **_):
        return torch.cat([input_ids, torch.tensor(self.ids).expand(len(input_ids), -1)], dim=1)


@pytest.mark.parametrize(
    ("ending", "truncated", "n_tokens"), [("<|im_end|>", False, 2), ("<|endoftext|>", False, 2), ("red", True, 4)]
)
def test_special_tokens_stay_and_the_end_is_cut(policy, ending, truncated, n_tokens):
    ids = policy.processor.tokenizer.convert_tokens_to_ids(["<|vision_start|>", ending, "blue", "<|endoftext|>"])
    ids = ids[:3] + ids[2:3] if truncated else ids
    parrot = TransformersPolicy(_Parrot(policy.model, ids), policy.processor, SETTINGS)
    ((completion,),) = parrot.generate(pictures(1), PROMPTS[:1], max_new_tokens=4)
    expected = "<|vision_start|>redblueblue" if truncated else "<|vision_start|>"
    assert (completion.text, completion.truncated, completion.n_tokens) == (expected, truncated, n_tokens)


def test_an_opening_think_of_the_template_is_put_in_front(directory, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text().rstrip().removesuffix("{% endif -%}") + "<think>\n{% endif -%}")
    policy = policies.load(str(copy))
    assert policy.render("x").endswith("<|im_start|>assistant\n<think>\n")
    ((completion,),) = policy.generate(pictures(1), ["x"], max_new_tokens=2)
    assert completion.text.startswith("<think>\n")


def test_the_system_prompt_of_the_settings_is_sent(directory):
    assert policies.load(str(directory), system="people").render("x").startswith("<|im_start|>system\npeople<|im_end|>")


def one_line(name: str, **options) -> str:
    with pytest.raises(ModelError) as raised:
        policies.load(name, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_cannot_be_loaded_is_told_in_one_line(directory, tmp_path, monkeypatch):
    def no_such_model(*_, **__):
        raise ConnectionError("no such model\n\nmore about it")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_such_model)
    assert "no model directory" in one_line("./nowhere")
    assert "is a file" in one_line(str(directory / "config.json"))
    assert "holds no model" in one_line(str(tmp_path))
    assert "was not found on the hub (no such model)" in one_line("runs/forgotten")
    assert "unknown dtype" in one_line(str(directory), dtype="float23")
    assert "finds no device 'gpu' here: use cpu" in one_line(str(directory), device="gpu")
    assert "has no option fram: did you mean frame?" in one_line(str(directory), fram="original")
    assert "choose one of" in one_line(str(directory), frame="pixels")


@pytest.mark.parametrize(
    ("lost", "hint"),
    [
        (["processor_config.json"], "preprocessor_config.json"),
        (["processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"], "processor"),
        (["model.safetensors"], "cannot load the model"),
        (["config.json"], "holds no model"),
    ],
)
def test_a_directory_that_lacks_a_file(directory, tmp_path, lost, hint):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    for name in lost:
        (copy / name).unlink()
    assert hint in one_line(str(copy))


def test_broken_or_partial_weights(directory, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    weights = load_file(copy / "model.safetensors")
    name = next(key for key in weights if "layers.1.mlp" in key)
    del weights[name]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert name in one_line(str(copy))
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "cannot load the model" in one_line(str(copy))


@pytest.mark.parametrize("image_wh", [(640, 480), (33, 1000), (2000, 1999), (28, 28)])
def test_smart_resize_equals_what_the_processor_does(image_wh):
    from transformers import Qwen2VLImageProcessor

    images = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 300})
    resize = SmartResize.of(images)
    assert resize is not None
    _, rows, columns = images(Image.new("RGB", image_wh), return_tensors="pt")["image_grid_thw"][0].tolist()
    assert resize.size_wh(image_wh) == (columns * 14, rows * 14)


def tiny_qwen2_5_vl():
    """A freshly initialised Qwen2.5-VL and its processor, which shows at most 16 patches of 28 pixels."""
    import transformers as t

    from segrl.tiny.model import build_tokenizer

    tokenizer = build_tokenizer()
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16}
    processor = t.Qwen2_5_VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=t.Qwen2VLVideoProcessor(size=pixels),
        chat_template=tokenizer.chat_template,
    )
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = [tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names]
    size = {"hidden_size": 32, "intermediate_size": 64}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 1, "rope_parameters": rope, **size, **ends}
    vision = {"depth": 1, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [0], **size}
    config = t.Qwen2_5_VLConfig(
        text_config={"num_attention_heads": 2, "num_key_value_heads": 2, **text},
        vision_config=vision,
        **dict(
            zip(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), ids, strict=True)
        ),
    )
    torch.manual_seed(0)
    return t.Qwen2_5_VLForConditionalGeneration(config), processor


def test_qwen2_5_vl_writes_pixels_of_its_own_resize_and_batches_by_grid():
    policy = TransformersPolicy(*tiny_qwen2_5_vl(), policies.PolicySettings())
    assert policy.frame_for((640, 480)) == policy.frame_for((641, 480)) == Frame.resized(112, 84)
    assert policy.answer_format == "qwen-json"
    images = [Image.new("RGB", size, (9 * i, 0, 0)) for i, size in enumerate([(640, 480), (100, 300), (641, 480)])]
    together = texts(policy.generate(images, ["red"] * 3, max_new_tokens=4, batch_size=3))
    assert together == texts(policy.generate(images, ["red"] * 3, max_new_tokens=4))
