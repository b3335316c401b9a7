"""The folder reader, reading images, gold mask prompts."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tries import tries

from segrl import datasets
from segrl.answers import default_reasoning
from segrl.datasets.folder import split_targets
from segrl.datasets.gold import gold_answer, gold_prompt, spread_points
from segrl.errors import DataError
from segrl.images import as_image, content_id, read_image
from segrl.types import ORIGINAL, Example, MaskPrompt

PENN_FUDAN = Path(__file__).parents[2].parent / "shared" / "data" / "penn-fudan"


def make_folder(root: Path, n: int = 3, size_wh: tuple[int, int] = (12, 8)) -> Path:
    """`n` images with masks of one to `n` instances."""
    for name in ("images", "masks"):
        (root / name).mkdir()
    for i in range(n):
        Image.new("RGB", size_wh, (i * 40, 10, 10)).save(root / "images" / f"p{i}.png")
        values = np.zeros(size_wh[::-1], dtype=np.uint8)
        for k in range(i + 1):
            values[:, 2 * k] = k + 1
        Image.fromarray(values).save(root / "masks" / f"p{i}.png")
    return root


def save_mask(values: np.ndarray, path: Path) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


def test_one_example_per_image_with_one_target_per_instance(tmp_path):
    examples = datasets.load("folder", root=make_folder(tmp_path), query="people")
    assert [(e.id, e.targets.shape, e.query) for e in examples] == [
        (f"p{i}", (i + 1, 8, 12), "people") for i in range(3)
    ]
    assert len({e.image_id for e in examples}) == 3
    assert examples[2].truth.sum() == 3 * 8
    assert [e.id for e in examples[1:]] == ["p1", "p2"]
    assert examples[-1].id == "p2"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_a_file_name_that_is_no_utf_8(tmp_path):
    root = make_folder(tmp_path)
    for file in [*root.glob("images/p0.*"), *root.glob("masks/p0.*")]:
        file.rename(os.fsdecode(os.fsencode(file.parent) + b"/caf\xe9" + os.fsencode(file.suffix)))
    ids = [example.id for example in datasets.load("folder", root=root)]
    assert ids == [r"caf\udce9", "p1", "p2"]


def test_half_of_full_scale_is_the_targets_threshold():
    path = Path("m.png")
    sixteen_bits = np.array([[65535, 200], [32768, 0]])
    assert split_targets(sixteen_bits, "binary", path).tolist() == [[[True, False], [True, False]]]
    assert split_targets(np.array([[255, 127], [128, 0]]), "binary", path).tolist() == [[[True, False], [True, False]]]


@pytest.mark.parametrize(
    ("values", "options", "targets"),
    [
        ([0, 255], {}, 1),
        ([0, 1], {}, 1),
        ([0, 7], {}, 1),
        ([0], {}, 0),
        ([0, 1, 2, 5], {}, 3),
        ([0, 60, 200, 255], {"mask_values": "binary"}, 1),
        ([0, 60], {"mask_values": "binary"}, 0),
        ([0, 60, 200, 255], {"mask_values": "instances"}, 3),
    ],
)
def test_mask_values(tmp_path, values, options, targets):
    make_folder(tmp_path, n=1)
    save_mask(np.resize(values, (8, 12)), tmp_path / "masks" / "p0.png")
    (example,) = datasets.load("folder", root=tmp_path, **options)
    assert example.targets.shape == (targets, 8, 12)


def test_smoothed_edges_are_not_taken_for_instances(tmp_path):
    make_folder(tmp_path, n=1, size_wh=(16, 16))
    save_mask(np.arange(256).reshape(16, 16), tmp_path / "masks" / "p0.png")
    with pytest.raises(DataError, match="mask_values: binary"):
        datasets.load("folder", root=tmp_path)[0]


def test_a_missing_mask_or_image_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "masks" / "p1.png").unlink()
    with pytest.raises(DataError, match=r"p1\.png has no mask"):
        datasets.load("folder", root=tmp_path)
    (tmp_path / "images" / "p1.png").rename(tmp_path / "images" / "p1.hidden")
    (tmp_path / "images" / "p2.png").unlink()
    with pytest.raises(DataError, match=r"p2\.png has no image"):
        datasets.load("folder", root=tmp_path)


def test_a_mask_of_another_size_is_named(tmp_path):
    make_folder(tmp_path)
    save_mask(np.ones((12, 8)), tmp_path / "masks" / "p1.png")
    with pytest.raises(DataError, match=r"p1\.png is 8×12 pixels but its image p1\.png is 12×8"):
        datasets.load("folder", root=tmp_path)[1]


def test_a_mask_drawn_on_a_turned_photograph_fits_and_one_of_another_scale_is_named(tmp_path):
    make_folder(tmp_path, n=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 12 wide and 8 high, shown turned a quarter to the right
    Image.new("RGB", (12, 8)).save(tmp_path / "images" / "turned.jpg", exif=exif)
    Image.new("RGB", (24, 16)).save(tmp_path / "images" / "wide.png")
    values = np.zeros((8, 12))
    values[0, 0], values[7, 11] = 1, 2
    for stem in ("turned", "wide"):
        save_mask(values, tmp_path / "masks" / f"{stem}.png")
    examples = datasets.load("folder", root=tmp_path)
    turned = examples[1]
    assert [np.argwhere(mask).tolist() for mask in turned.targets] == [[[0, 7]], [[11, 0]]]
    with pytest.raises(DataError, match=r"wide\.png is 12×8 pixels but its image wide\.png is 24×16"):
        examples[2]


def test_all_sets_are_indexed_alike(tmp_path):
    make_folder(tmp_path, n=4)
    folder = {"name": "folder", "root": str(tmp_path)}
    whole = datasets.load(**folder)
    for examples in (
        whole,
        datasets.load(**folder, sample={"n": 4}),
        datasets.load("joined", sets=[{**folder, "sample": {"n": 4}}]),
        datasets.load("joined", sets=[folder], sample={"n": 4}),
    ):
        names = [example.id.rpartition("/")[2] for example in examples]
        assert names == ["p0", "p1", "p2", "p3"]
        assert [example.id.rpartition("/")[2] for example in examples[1:-1]] == names[1:-1]
        assert examples[-1].id == examples[3].id
        for beyond in (4, -5):
            with pytest.raises(IndexError):
                examples[beyond]


def test_broken_files_are_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "images" / "p0.png").write_bytes(b"no image")
    whole = (tmp_path / "masks" / "p1.png").read_bytes()
    (tmp_path / "masks" / "p1.png").write_bytes(whole[: len(whole) // 2])
    examples = datasets.load("folder", root=tmp_path)
    with pytest.raises(DataError, match=r"p0\.png"):
        examples[0]
    with pytest.raises(DataError, match=r"p1\.png"):
        examples[1]


def test_missing_and_empty_folders_and_twins(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        datasets.load("folder", root=tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        datasets.load("folder", root=tmp_path)
    (tmp_path / "images").rmdir()
    make_folder(tmp_path)
    Image.new("RGB", (12, 8)).save(tmp_path / "images" / "p0.jpg")
    with pytest.raises(DataError, match="same stem"):
        datasets.load("folder", root=tmp_path)


def test_split_is_seeded_disjoint_and_complete(tmp_path):
    make_folder(tmp_path, n=6)

    def stems(part, seed=0):
        return datasets.load("folder", root=tmp_path, split={"train": 4, "seed": seed}, part=part).stems

    assert stems("train") == stems("train")
    assert len(stems("train")) == 4
    assert sorted(stems("train") + stems("test")) == [f"p{i}" for i in range(6)]
    assert len({stems("test", seed) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"split": {"train": 3}},
        {"part": "train"},
        {"split": {"train": 3}, "part": "val"},
        {"split": {"train": 2}, "part": "train"},
        {"split": {"train": 2, "sed": 0}, "part": "train"},
        {"split": {"train": 0.5}, "part": "train"},
        {"split": 3, "part": "train"},
        {"mask_values": "index"},
    ],
)
def test_wrong_folder_options(tmp_path, options):
    make_folder(tmp_path, n=2)
    with pytest.raises(DataError):
        datasets.load("folder", root=tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [("foldr", {}, "'folder'"), ("folder", {"root": ".", "quary": "x"}, "'query'"), ("folder", {}, "'root'")],
)
def test_wrong_names_are_answered_with_the_nearest(name, options, hint):
    with pytest.raises(DataError, match=hint):
        datasets.load(name, **options)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA", "1", "I;16"])
def test_every_mode_is_read_as_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((6, 9), 50000, dtype=np.uint16)).save(path)
    else:
        Image.new("RGB", (9, 6), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (9, 6))
    assert np.asarray(image).min() > 150


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((6, 9, 3), dtype=np.uint8)
    pixels[:3] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: shown 6 wide and 9 high, bright on the right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.size == (6, 9)
    assert np.asarray(image)[:, 3:].min() == 255
    assert np.asarray(image)[:, :3].max() == 0


def test_whatever_a_user_holds_becomes_an_image(tmp_path):
    pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    for held in (path, str(path), path.read_bytes(), Image.fromarray(pixels), pixels):
        assert np.array_equal(np.asarray(as_image(held)), pixels)
    assert as_image(pixels[..., 0]).size == (9, 6)


@pytest.mark.parametrize(
    ("held", "hint"),
    [
        (b"no image", "of those bytes"),
        ("https://example.org/a.png", "does not open URLs"),
        ("nowhere.png", r"nowhere\.png"),
        (np.zeros((4, 4)), "uint8"),
        (np.zeros((4, 4, 2), dtype=np.uint8), "uint8"),
        (np.zeros((0, 4), dtype=np.uint8), "uint8"),
    ],
)
def test_what_is_no_image_is_told(held, hint):
    with pytest.raises(DataError, match=hint):
        as_image(held)


def test_content_id_sees_pixels_and_shape():
    a = Image.new("RGB", (4, 6))
    assert content_id(a) == content_id(a.copy())
    assert content_id(a) != content_id(Image.new("RGB", (6, 4)))
    assert content_id(a) != content_id(Image.new("RGB", (4, 6), (1, 0, 0)))


def ring(hw: tuple[int, int], thick: float) -> np.ndarray:
    ys, xs = np.indices(hw)
    radius = np.hypot(xs - hw[1] / 2, ys - hw[0] / 2)
    return (radius < 20) & (radius >= 20 - thick)


THIN = {
    "ring": ring((48, 64), 1.5),
    "diagonal": np.eye(30, 44, dtype=bool),
    "pixel": np.eye(1, 9, 8, dtype=bool).repeat(1, axis=0),
    "row": np.indices((5, 40))[0] == 2,
    "full": np.ones((7, 11), dtype=bool),
}


@pytest.mark.parametrize("name", THIN)
def test_gold_points_lie_on_thin_and_hollow_objects(name):
    mask = THIN[name]
    prompt = gold_prompt(mask, n_points=3, n_negatives=2)
    positives = [p for p, label in zip(prompt.points_xy, prompt.labels, strict=True) if label]
    negatives = [p for p, label in zip(prompt.points_xy, prompt.labels, strict=True) if not label]
    assert len(set(positives)) == len(positives) == min(3, mask.sum())
    assert all(mask[int(y), int(x)] for x, y in positives)
    assert not any(mask[int(y), int(x)] for x, y in negatives)
    assert prompt.frame == ORIGINAL


@tries(60)
@given(st.data())
def test_gold_prompt_holds_for_any_mask(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 13))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    if not mask.any():
        with pytest.raises(ValueError, match="empty"):
            gold_prompt(mask)
        return
    prompt = gold_prompt(mask, n_points=2, n_negatives=1)
    x1, y1, x2, y2 = map(int, prompt.box_xyxy)
    assert mask[y1:y2, x1:x2].sum() == mask.sum()
    assert mask[y1, :].any()
    assert mask[y2 - 1, :].any()
    assert mask[:, x1].any()
    assert mask[:, x2 - 1].any()
    for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True):
        assert mask[int(y), int(x)] == bool(label)
        assert x1 <= x < x2
        assert y1 <= y < y2


def test_the_first_point_is_deep_and_the_second_far():
    mask = np.zeros((40, 90), dtype=bool)
    mask[10:31, 5:85] = True
    first, second = spread_points(mask, 2)
    assert first[1] == second[1] == 20
    assert abs(first[0] - second[0]) > 20


def test_negatives_stand_on_the_neighbour_inside_the_box():
    mask, other = np.zeros((40, 40), dtype=bool), np.zeros((40, 40), dtype=bool)
    mask[5:35, 5:35] = True
    mask[20:35, 20:35] = False
    other[23:35, 23:35] = True
    prompt = gold_prompt(mask, n_points=1, n_negatives=1, negatives_near=other)
    assert prompt.labels == (1, 0)
    x, y = map(int, prompt.points_xy[1])
    assert other[y, x]
    mask[:] = False
    mask[5:35, 5:34] = True
    mask[5, 5:36] = True
    assert 0 not in gold_prompt(mask, n_negatives=1).labels  # what is free in the box is too narrow


def example(targets: np.ndarray) -> Example:
    return Example("e", "i", Image.new("RGB", targets.shape[2:0:-1]), "q", targets)


def test_gold_answer_goes_from_left_to_right():
    targets = np.zeros((2, 20, 30), dtype=bool)
    targets[0, 5:15, 20:29] = True
    targets[1, 5:15, 2:8] = True
    prompts = gold_answer(example(targets), n_points=1)
    assert [p.box_xyxy for p in prompts] == [(2, 5, 8, 15), (20, 5, 29, 15)]
    assert default_reasoning(prompts) == "1 at (5,10), 2 at (25,10). it is 1 and 2"
    assert default_reasoning([MaskPrompt(frame=ORIGINAL, phrase="red ring")]) == "1 red ring. it is 1"
    assert gold_answer(example(targets[:0])) == ()
    targets[1] = False
    with pytest.raises(DataError, match="target 1 of e has no pixel"):
        gold_answer(example(targets))


@pytest.mark.skipif(not PENN_FUDAN.is_dir(), reason="the street photographs are not on this machine")
def test_street_photographs():
    options = {"root": PENN_FUDAN, "query": "people", "split": {"seed": 0, "train": 120}}
    train, test = (datasets.load("folder", part=part, **options) for part in ("train", "test"))
    assert (len(train), len(test)) == (120, 50)
    assert not set(train.stems) & set(test.stems)
    for photograph in (train[0], test[0]):
        prompts = gold_answer(photograph, n_negatives=1)
        assert len(prompts) == len(photograph.targets) >= 1
