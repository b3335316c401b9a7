"""Camouflage, saliency and fine-mask sets in their authors' folders."""

import numpy as np
import pytest
from dataset_files import box_mask, save_image, save_mask
from PIL import Image

from segrl import datasets
from segrl.datasets.image_masks import LAYOUTS
from segrl.errors import DataError

BOX = box_mask((2, 1, 7, 5))


def write(folder, images, masks, stem, mask=BOX, suffix=".jpg", **image):
    save_image(folder / images / f"{stem}{suffix}", **image)
    save_mask(folder / masks / f"{stem}.png", mask)


CASES = [
    (name, split, way, pairs)
    for name, layout in LAYOUTS.items()
    for split, ways in layout.splits.items()
    for way, pairs in enumerate(ways)
]


@pytest.mark.parametrize("in_home", [False, True])
@pytest.mark.parametrize(("name", "split", "way", "pairs"), CASES, ids=lambda value: str(value)[:20])
def test_every_layout_is_found_under_the_root_and_in_its_own_folder(tmp_path, name, split, way, pairs, in_home):
    folder = tmp_path / LAYOUTS[name].homes[0] if in_home else tmp_path
    for number, pair in enumerate(pairs):
        write(folder, pair.images, pair.masks, f"{pair.only}{number}")
        if pair.only:
            write(folder, pair.images, pair.masks, "other")
    examples = datasets.load(name, root=tmp_path, split=split)
    assert [e.id for e in examples] == [f"{pair.only}{n}" for n, pair in enumerate(pairs)]
    assert all(np.array_equal(e.truth, BOX) for e in examples)
    assert [e.tags.get("kind") for e in examples] == [pair.tag for pair in pairs]


def test_query_tags_and_sample(tmp_path):
    for n in range(4):
        write(tmp_path, "Test/Image", "Test/GT_Object", f"COD10K-CAM-1-Aquatic-1-BatFish-{n}")
    write(tmp_path, "Test/Image", "Test/GT_Object", "COD10K-NonCAM-2-Terrestrial-1-Ant-9", np.zeros((8, 12), bool))
    examples = datasets.load("cod10k", root=tmp_path, query="the animal", sample={"n": 3, "seed": 1})
    assert len(examples) == 3
    assert {(e.query, e.tags["kind"]) for e in examples} == {("the animal", "Aquatic")}
    assert datasets.load("cod10k", root=tmp_path)[0].query.startswith("Identify and segment")


def test_masks_are_read_over_128(tmp_path):
    values = np.zeros((8, 12), dtype=np.uint8)
    values[0], values[1], values[2] = 127, 128, 129
    write(tmp_path, "images", "ground_truth_mask", "soft")
    Image.fromarray(values).save(tmp_path / "ground_truth_mask" / "soft.png")
    write(tmp_path, "images", "ground_truth_mask", "zero_one", BOX)
    save_mask(tmp_path / "ground_truth_mask" / "zero_one.png", BOX, high=1)
    write(tmp_path, "images", "ground_truth_mask", "empty", BOX & False)
    empty, soft, zero_one = datasets.load("ecssd", root=tmp_path)
    assert np.array_equal(soft.truth, box_mask((0, 2, 12, 3)))
    assert np.array_equal(zero_one.truth, BOX)
    assert empty.targets.shape == (0, 8, 12)


def test_images_of_any_mode_and_equal_images(tmp_path):
    for stem, mode in (("a", "L"), ("b", "CMYK"), ("c", "RGB")):
        write(tmp_path, "Imgs", "GT", stem, mode=mode)
    (tmp_path / "Imgs" / "d.jpg").write_bytes((tmp_path / "Imgs" / "c.jpg").read_bytes())
    save_mask(tmp_path / "GT" / "d.png", BOX)
    examples = list(datasets.load("nc4k", root=tmp_path))
    assert {e.image.mode for e in examples} == {"RGB"}
    assert examples[2].image_id == examples[3].image_id
    assert len({e.image_id for e in examples}) == 3


def test_masks_of_another_size_are_fitted_or_named(tmp_path):
    write(tmp_path, "imgs", "gt", "half", size_wh=(24, 16))
    write(tmp_path, "imgs", "gt", "turned", orientation=6)
    write(tmp_path, "imgs", "gt", "upright", mask=BOX.T, orientation=8)
    write(tmp_path, "imgs", "gt", "wrong", mask=BOX.T)
    half, turned, upright, _ = (examples := datasets.load("hku-is", root=tmp_path)).rows
    assert np.array_equal(examples.read(half).truth, np.kron(BOX, np.ones((2, 2))) > 0)
    assert np.array_equal(examples.read(turned).truth, np.rot90(BOX, -1))  # drawn on the stored pixels
    assert np.array_equal(examples.read(upright).truth, BOX.T)  # drawn on what is shown
    with pytest.raises(DataError, match=r"wrong\.png is 8×12 pixels but its image wrong\.jpg is 12×8"):
        examples[3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_on_stored_pixels_turns_as_the_image_does(tmp_path, orientation):
    """Bright pixels of the image are the mask, whatever the orientation that swaps the sides."""
    pixels = (BOX * 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for folder in ("Imgs", "GT"):
        (tmp_path / folder).mkdir()
    Image.fromarray(pixels).save(tmp_path / "Imgs" / "a.png", exif=exif)
    save_mask(tmp_path / "GT" / "a.png", BOX)
    (example,) = datasets.load("chameleon", root=tmp_path)
    if orientation >= 5:
        assert np.array_equal(example.truth, np.asarray(example.image)[..., 0] > 128)
    else:
        assert np.array_equal(example.truth, BOX)


def test_every_so_manieth_picture_is_held_out(tmp_path):
    for stem in "edcba":
        write(tmp_path, "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", stem)
    options = {"root": tmp_path, "split": "train"}
    held_out, kept = (datasets.load("duts", **options, hold_out=2, part=part) for part in ("held_out", "train"))
    assert ([e.id for e in held_out], [e.id for e in kept]) == (["a", "c", "e"], ["b", "d"])
    for wrong in ({"hold_out": 1}, {"hold_out": 2, "part": "test"}):
        with pytest.raises(DataError, match="hold_out is a whole number from 2"):
            datasets.load("duts", **options, **wrong)


def test_partners_that_are_missing_are_named(tmp_path):
    write(tmp_path, "DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", "a")
    save_mask(tmp_path / "DUTS-TE/DUTS-TE-Mask/b.png", BOX)
    with pytest.raises(DataError, match=r"b\.png has no image"):
        datasets.load("duts", root=tmp_path)
    for stem in "bcd":
        save_image(tmp_path / f"DUTS-TE/DUTS-TE-Image/{stem}.jpg")
    with pytest.raises(DataError, match=r"c\.jpg has no mask .*1 more"):
        datasets.load("duts", root=tmp_path)
    save_image(tmp_path / "DUTS-TE/DUTS-TE-Image/a.png")
    with pytest.raises(DataError, match="same stem"):
        datasets.load("duts", root=tmp_path)
    with pytest.raises(DataError, match="DUTS-TR/DUTS-TR-Image/"):
        datasets.load("duts", root=tmp_path, split="train")
    with pytest.raises(DataError, match="train, test, not 'val'"):
        datasets.load("duts", root=tmp_path, split="val")


def test_what_the_authors_leave_out(tmp_path):
    write(tmp_path, "DUT-OMRON-image", "pixelwiseGT-new-PNG", "im005")
    save_image(tmp_path / "DUT-OMRON-image" / "img_561715398.jpg")
    assert [e.id for e in datasets.load("dut-omron", root=tmp_path)] == ["im005"]
    write(tmp_path, "Images/Test", "GT", "camourflage_00001")
    write(tmp_path, "Images/Train", "GT", "camourflage_00012")
    assert [e.id for e in datasets.load("camo", root=tmp_path)] == ["camourflage_00001"]
