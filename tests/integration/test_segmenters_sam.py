"""The SAM segmenter's bookkeeping: what is encoded when, what is kept, what goes wrong."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from PIL import Image
from random_weights import save_random

from segrl import segmenters
from segrl.devices import default_device, parse_device
from segrl.errors import ModelError, SegrlError
from segrl.segmenters.cache import MemoryCache
from segrl.segmenters.encoding import Batcher
from segrl.segmenters.protocol import Embedding
from segrl.training import parse_recipe
from segrl.training.parts import Parts
from segrl.types import ORIGINAL, RELATIVE_1000, Answer, MaskPrompt, Status

BOX = MaskPrompt((2, 2, 20, 15), frame=ORIGINAL)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    return save_random("sam2", tmp_path_factory.mktemp("sam2"))


def image(value: int, width: int = 30, height: int = 20) -> Image.Image:
    return Image.new("RGB", (width, height), (value, 90, 30))


def fresh(path, **options):
    """A segmenter with counters at zero."""
    segmenters.loading.load_sam.cache_clear()
    return segmenters.load(str(path), device="cpu", **options)


def test_an_image_is_encoded_once_for_a_group_and_not_again(sam2):
    segmenter = fresh(sam2)
    answers = [Answer(Status.OK, (MaskPrompt((x, 10, 900, 800), frame=RELATIVE_1000),)) for x in range(8)]
    for _ in range(2):
        found = segmenters.segment(segmenter, [image(5)] * 8, answers)
        assert segmenter.encoder_calls == 1
    assert all(s.masks.shape == (1, 20, 30) and s.masks.dtype == torch.bool for s in found)
    segmenter.encode([image(5), image(6), image(6)])
    assert segmenter.encoder_calls == 2


def test_prompts_of_equal_shape_are_decoded_together(sam2):
    segmenter = fresh(sam2, decode_batch=8)
    embeddings = segmenter.encode([image(1), image(2)])
    points = MaskPrompt(None, ((3, 4),), (1,), ORIGINAL)
    masks = segmenter.decode(embeddings, [[BOX, points, BOX], [BOX]])
    assert segmenter.decoder_calls == 2
    assert [tuple(m.shape) for m in masks] == [(3, 20, 30), (1, 20, 30)]
    assert segmenter.decode(embeddings[:1], [[]])[0].shape == (0, 20, 30)


def test_a_process_loads_a_segmenter_once(sam2):
    segmenter = fresh(sam2)
    assert segmenters.load(str(sam2), device="cpu") is segmenter
    assert not segmenter.model.training
    assert not any(parameter.requires_grad for parameter in segmenter.model.parameters())


def test_the_cache_is_bounded_and_changes_nothing(sam2):
    segmenter = fresh(sam2)
    [embedding] = segmenter.encode([image(0)])
    segmenter = fresh(sam2, cache_bytes=2 * embedding.nbytes)
    cache = segmenter.stores[0]
    plain = fresh(sam2, cache_bytes=0)
    for value in (1, 2, 1, 3, 1, 2):
        ours, expected = segmenter.encode([image(value)]), plain.encode([image(value)])
        assert torch.equal(segmenter.decode(ours, [[BOX]])[0], plain.decode(expected, [[BOX]])[0])
        assert cache.nbytes <= 2 * embedding.nbytes
    assert (segmenter.encoder_calls, plain.encoder_calls) == (4, 6)


def test_a_later_run_encodes_nothing_that_is_on_disk(sam2, tmp_path):
    first = fresh(sam2, cache_dir=str(tmp_path))
    [embedding] = first.encode([image(1)])
    expected = first.decode([embedding], [[BOX]])[0]
    later = fresh(sam2, cache_dir=str(tmp_path))
    for _ in range(2):
        assert torch.equal(later.decode(later.encode([image(1)]), [[BOX]])[0], expected)
    assert later.encoder_calls == 0
    [path] = tmp_path.glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    again = fresh(sam2, cache_dir=str(tmp_path))
    assert torch.equal(again.decode(again.encode([image(1)]), [[BOX]])[0], expected)
    assert again.encoder_calls == 1


def test_another_encoder_does_not_read_the_same_files(sam2, tmp_path):
    other = save_random("sam2", tmp_path / "other", seed=1)
    fresh(sam2, cache_dir=str(tmp_path / "kept")).encode([image(1)])
    segmenter = fresh(other, cache_dir=str(tmp_path / "kept"))
    segmenter.encode([image(1)])
    assert segmenter.encoder_calls == 1


def test_a_half_precision_cache_takes_half_the_memory():
    embedding = Embedding((2, 3), {"a": torch.ones(4), "b": torch.arange(3)})
    cache = MemoryCache(1000, torch.bfloat16)
    cache.put("k", embedding)
    kept = cache.get("k")
    assert cache.nbytes == 4 * 2 + 3 * 8
    assert {name: t.dtype for name, t in kept.tensors.items()} == {"a": torch.bfloat16, "b": torch.int64}


def test_out_of_memory_halves_the_batch_says_so_once_and_goes_on(caplog):
    sizes = []

    def work(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return [10 * item for item in batch]

    batcher = Batcher(8, "counting")
    with caplog.at_level(logging.WARNING):
        assert batcher.run(work, range(9), ValueError) == [10 * i for i in range(9)]
        assert batcher.run(work, range(3), ValueError) == [0, 10, 20]
    assert sizes == [8, 4, 2, 2, 2, 2, 1, 2, 1]
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [
        " counting in batches of 4 from now on, not 8",
        " counting in batches of 2 from now on, not 4",
    ]


def test_one_image_that_does_not_fit_is_named(sam2, monkeypatch):
    segmenter = fresh(sam2)

    encode = type(segmenter.family).features

    def only_one_fits(family, model, pixel_values):
        if segmenter.encoder_calls:
            raise torch.OutOfMemoryError
        return encode(family, model, pixel_values)

    monkeypatch.setattr(type(segmenter.family), "features", only_one_fits)
    answers = [Answer(Status.OK, (BOX,))] * 2
    with pytest.raises(ModelError, match=r"^image b: an image of 30×20 does not fit.*segmenter\.dtype"):
        segmenters.segment(segmenter, [image(76), image(77)], answers, image_ids=["a", "b"])


def test_decoding_that_runs_out_of_memory_goes_on_in_smaller_batches(sam2, monkeypatch, caplog):
    segmenter = fresh(sam2, decode_batch=4, cache_bytes=0)
    embeddings, prompts = segmenter.encode([image(1)]), [[MaskPrompt((x, 2, 20, 15), frame=ORIGINAL) for x in range(5)]]
    plain = segmenter.decode(embeddings, prompts)[0]
    decode, fits = segmenter._decode_batch, 2

    def limited(embeddings, jobs):
        if len(jobs) > fits:
            raise torch.OutOfMemoryError
        return decode(embeddings, jobs)

    monkeypatch.setattr(segmenter, "_decode_batch", limited)
    assert torch.equal(segmenter.decode(embeddings, prompts)[0], plain)
    assert caplog.text.count("decoding prompts in batches of 2 from now on, not 4") == 1
    fits = 0
    with pytest.raises(ModelError, match=r"a prompt on an image of 30×20 does not fit.*segmenter\.device"):
        segmenter.decode(embeddings, prompts)


def test_a_recipe_names_the_segmenters_device(monkeypatch):
    asked = []
    monkeypatch.setattr(segmenters.loading, "load_sam", lambda name, device=None: asked.append((name, device)))
    recipe = parse_recipe(
        {
            "method": "grpo",
            "policy": "tiny",
            "dataset": "tiny",
            "answer_format": "seg-r1",
            "rewards": {"iou": 1},
            "segmenter": {"name": "facebook/sam2.1-hiera-large", "device": "cuda:7"},
        }
    )
    assert Parts(recipe).segmenter is None  # what the stand-in gives
    assert asked == [("facebook/sam2.1-hiera-large", "cuda:7")]


def test_the_device_follows_the_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert default_device() == torch.device("cuda", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")


def broken(sam2, tmp_path, *, remove=(), config=None):
    path = tmp_path / "model"
    shutil.copytree(sam2, path)
    for name in remove:
        (path / name).unlink(missing_ok=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"remove": PROCESSORS}, "has no processor: copy preprocessor_config.json"),
        ({"remove": ("config.json",)}, "holds no config.json"),
        ({"remove": ("model.safetensors",)}, "cannot read the weights"),
        ({"config": {"model_type": "bert"}}, "is a bert, no segmenter that takes boxes and points"),
        ({"config": {"model_type": "nonsense"}}, "cannot read the segmenter"),
    ],
)
def test_an_incomplete_directory_is_one_line(sam2, tmp_path, change, message):
    path = broken(sam2, tmp_path, **change)
    with pytest.raises(ModelError, match=message) as caught:
        fresh(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused(sam2, tmp_path):
    from safetensors.torch import load_file, save_file

    path = broken(sam2, tmp_path)
    weights = load_file(path / "model.safetensors")
    weights.pop("mask_decoder.iou_token.weight")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete: 1 missing, first mask_decoder\.iou_token\.weight"):
        fresh(path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grabcut", {"max_sied": 3}, "max_sied.*max_side"),
        ("./nowhere", {}, "no directory ./nowhere"),
        ("grabcut", {"multimask": True}, "multimask"),
    ],
)
def test_wrong_names_and_options_are_one_line(name, options, message):
    with pytest.raises(ModelError, match=message):
        segmenters.load(name, **options)


@pytest.mark.parametrize("name", ["gpu", "cuda:2", "cuda:x", "", "meta", True])
def test_a_device_that_is_not_here_is_one_line(sam2, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ModelError, match=r"finds no device .* here: use cpu, cuda:0, cuda:1$"):
        segmenters.load(str(sam2), device=name)
    assert [str(parse_device(known)) for known in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


def test_an_unknown_dtype_is_one_line(sam2):
    with pytest.raises(ModelError, match="no dtype called float8"):
        fresh(sam2, dtype="float8")


def test_an_unknown_segmenter_is_a_one_line_error():
    with pytest.raises(SegrlError) as caught:
        segmenters.load("no-such-thing-here")
    assert "no-such-thing-here" in str(caught.value)
    assert "\n" not in str(caught.value)
