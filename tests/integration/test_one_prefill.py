"""Completions of one prompt that is read once are those of a prompt read for each: for every family, padded or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_families import BUILD, save_family
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from segrl.policies.chat import rendered
from segrl.policies.model_speedups import keep_room
from segrl.policies.one_prefill import equal_prompts, equal_rows, generate, images_by_row, reading_once

PICTURES = [Image.radial_gradient("L").resize((90, 70)).convert("RGB"), Image.new("RGB", (60, 60), (10, 90, 200))]
ASKED = [(0, "the red circle"), (1, "the star at the left of all"), (0, "the red circle"), (0, "the ring")]
ROWS = [0, 1, 2, 1, 3, 0]
"""Of `ASKED`; the first and the third are equal."""
# peft asks for an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

FAMILIES = (*BUILD, "fast_vlm")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        save_family(family, place / family, sharp=True)
    return place


def loaded(directory: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model, and a padded batch of `ROWS`."""
    processor = AutoProcessor.from_pretrained(directory, padding_side="left")
    texts = [rendered(processor, ASKED[row][1]) for row in ROWS]
    images = [[PICTURES[ASKED[row][0]]] for row in ROWS]
    inputs = dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))
    assert 0 in inputs["attention_mask"]
    return AutoModelForImageTextToText.from_pretrained(directory).eval(), inputs


def config(**options: Any) -> GenerationConfig:
    written = {"return_dict_in_generate": True, "output_logits": True}
    return GenerationConfig(max_new_tokens=8, pad_token_id=0, eos_token_id=1, top_k=0, **{**written, **options})


@contextmanager
def tokens_read(model: Any) -> Iterator[list[int]]:
    """Rows times columns of each forward pass of the language model."""
    read: list[int] = []
    text = model.model.language_model
    handle = text.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    yield read
    handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampled", [False, True])
def test_tokens_and_log_probabilities_are_equal(place: Path, family: str, sampled: bool):
    model, inputs = loaded(place / family)
    groups = [[0, 2, 5], [1, 3], [4]] if family != "qwen3_5" else [[0, 2, 4, 5], [1, 3]]  # it knows none of the words
    assert equal_prompts(model, inputs) == groups
    found = []
    for write in (model.generate, lambda **kwargs: generate(model, **kwargs)):
        torch.manual_seed(0)
        given = {"inputs": inputs} if found else inputs
        with tokens_read(model) as read:
            found.append(write(**given, generation_config=config(do_sample=sampled)))
    rows, length = inputs["input_ids"].shape
    assert read[:2] == [len(groups) * (length - 1), rows]
    plain, shared = found
    assert torch.equal(shared.sequences, plain.sequences)
    assert shared.sequences.shape == (rows, length + 8)
    logps = [torch.stack(one.logits).log_softmax(-1) for one in found]
    torch.testing.assert_close(logps[1], logps[0], rtol=0, atol=1e-5)
    assert logps[0].abs().max() > 3


def test_adapters_are_used(place: Path):
    from peft import LoraConfig, get_peft_model

    model, inputs = loaded(place / "qwen2_5_vl")
    without = generate(model, inputs, generation_config=config(return_dict_in_generate=False))
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.eval()
    plain, shared = (
        write(generation_config=config(return_dict_in_generate=False))
        for write in (lambda **kwargs: adapted.generate(**inputs, **kwargs), lambda **k: generate(adapted, inputs, **k))
    )
    assert torch.equal(shared, plain)
    assert not torch.equal(shared, without)


def test_what_was_put_around_generate_stays(place: Path):
    """The cache with room, which policies and trainers give a model."""
    model, inputs = loaded(place / "qwen3_vl")
    plain = model.generate(**inputs, generation_config=config(return_dict_in_generate=False))
    keep_room(model)
    roomy = model.generate
    with reading_once(model), tokens_read(model) as read:
        shared = model.generate(**inputs, generation_config=config(return_dict_in_generate=False))
    assert torch.equal(shared, plain)
    assert len(inputs["input_ids"]) == read[1] < read[0] < inputs["input_ids"].numel()
    assert model.generate is roomy
    other, inputs = loaded(place / "qwen3_vl")
    with reading_once(other):
        assert "generate" in vars(other)
    assert "generate" not in vars(other)


def test_what_cannot_be_shared_is_generated_as_always(place: Path):
    model, inputs = loaded(place / "qwen3_vl")
    alone = {name: value[:2] for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
    rows = len(inputs["input_ids"])
    for given, options, expected in (
        (alone, {}, 2),
        (inputs, {"num_beams": 2}, 2 * rows),
        (inputs, {"cache_implementation": "static"}, rows),
    ):
        with tokens_read(model) as read:
            found = generate(model, given, generation_config=config(return_dict_in_generate=False, **options))
        assert read[0] == expected * inputs["input_ids"].shape[1]
        plain = model.generate(**given, generation_config=config(return_dict_in_generate=False, **options))
        assert torch.equal(found, plain)
    assert equal_prompts(model, {**inputs, "pixel_values_videos": torch.zeros(1)}) == []


def test_images_belong_to_the_rows_whose_tokens_they_fill():
    image_token = 9
    ids = torch.tensor([[1, 9, 9, 2, 9, 3], [9, 9, 9, 9, 4, 4], [5, 5, 5, 5, 5, 5]])
    pixels = torch.arange(14.0)[:, None]  # two patches of a token
    grids = torch.tensor([[1, 2, 2], [1, 1, 2], [1, 2, 4]])
    inputs = {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": grids}
    found = images_by_row(inputs, image_token)
    assert found is not None
    assert [[len(part) for part in row] for row in found] == [[6, 2], [8, 1], [0, 0]]
    assert torch.equal(found[1][0], pixels[6:])
    assert images_by_row({**inputs, "pixel_values": pixels[:-1]}, image_token) is None
    assert images_by_row({"input_ids": ids}, image_token) == [[], [], []]


X = 0  # padding
IDS_MP = torch.tensor([[X, 5, 6], [7, 8, 9], [X, 5, 6], [7, 8, 9], [X, 5, 6]])
MASK_MP = (IDS_MP != X).long()
NO_IMAGES: list[list[torch.Tensor]] = [[]] * 5


def test_groups_have_equal_prompts_whatever_their_padding():
    assert equal_rows(IDS_MP, MASK_MP, NO_IMAGES) == [[0, 2, 4], [1, 3]]
    wider, mask = (torch.nn.functional.pad(tensor, (2, 0)) for tensor in (IDS_MP[:1], MASK_MP[:1]))
    both, masks = (
        torch.cat([wider, torch.tensor([[1, 1, X, 5, 6]])]),
        torch.cat([mask, torch.tensor([[0, 0, 0, 1, 1]])]),
    )
    assert equal_rows(both, masks, NO_IMAGES) == [[0, 1]]


def test_groups_have_equal_images_too():
    a, b = torch.zeros(4, 3), torch.ones(4, 3)
    assert equal_rows(IDS_MP, MASK_MP, [[a], [a], [b], [a], [a.clone()]]) == [[0, 4], [1, 3], [2]]
    assert equal_rows(IDS_MP, MASK_MP, [[a], [a], [a, a], [a], [a]]) == [[0, 4], [1, 3], [2]]
