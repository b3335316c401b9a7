"""Masks to and from files, RLE, boxes and polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from segrl.errors import DataError
from segrl.masks import (
    box_to_mask,
    decode_segmentation,
    from_rle,
    mask_to_box,
    mask_to_polygons,
    png_bytes,
    polygons_to_mask,
    read_mask,
    read_mask_values,
    to_rle,
)

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


@given(MASKS)
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = to_rle(mask)
    assert rle["size"] == list(mask.shape)
    back = from_rle(rle)
    assert back.dtype == bool
    assert np.array_equal(back, mask)
    assert int(coco.area({"size": rle["size"], "counts": rle["counts"].encode()})) == mask.sum()


@given(MASKS)
def test_box_of_a_mask_is_tight(mask: np.ndarray) -> None:
    box = mask_to_box(mask)
    if box is None:
        assert not mask.any()
        return
    x1, y1, x2, y2 = map(int, box)
    assert mask[y1:y2, x1:x2].sum() == mask.sum()
    assert mask[y1:y2, x1].any()
    assert mask[y1:y2, x2 - 1].any()
    assert mask[y1, x1:x2].any()
    assert mask[y2 - 1, x1:x2].any()


@given(st.data(), st.integers(1, 30), st.integers(1, 30))
def test_box_and_mask_round_trip(data: st.DataObject, height: int, width: int) -> None:
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    mask = box_to_mask((x1, y1, x2, y2), (height, width))
    assert mask.shape == (height, width)
    assert mask.sum() == (x2 - x1) * (y2 - y1)
    assert mask_to_box(mask) == (x1, y1, x2, y2)


@pytest.mark.parametrize(
    ("box", "columns"),
    [
        ((2.5, 0, 4.5, 1), [2, 3]),
        ((2.51, 0, 4.51, 1), [3, 4]),
        ((2.6, 0, 2.9, 1), [2]),
        ((2.1, 0, 2.2, 1), [2]),
        ((9.7, 0, 10.0, 1), [9]),
        ((-5.0, 0, 0.5, 1), [0]),
        ((-3.0, 0, 50.0, 1), list(range(10))),
    ],
)
def test_a_box_holds_the_pixels_whose_centres_it_holds(box: tuple[float, ...], columns: list[int]) -> None:
    mask = box_to_mask(box, (1, 10))  # type: ignore[arg-type]
    assert np.flatnonzero(mask[0]).tolist() == columns


def test_polygons() -> None:
    square, other = [1, 1, 4, 1, 4, 4, 1, 4], [6.0, 6.0, 8.0, 6.0, 8.0, 9.0, 6.0, 9.0]
    mask = polygons_to_mask([square, other], (10, 12))
    assert mask.dtype == bool
    assert mask.shape == (10, 12)
    assert mask_to_box(mask) == (1, 1, 8, 9)
    assert np.array_equal(mask, polygons_to_mask([square], (10, 12)) | polygons_to_mask([other], (10, 12)))


@given(MASKS)
def test_polygons_of_a_mask_give_it_again(mask: np.ndarray) -> None:
    assert np.array_equal(polygons_to_mask(mask_to_polygons(mask), mask.shape), mask)


def test_holes_are_joined_to_what_they_lie_in() -> None:
    rings = np.zeros((40, 60), dtype=bool)
    for inset in (2, 4, 8, 10):  # a frame with a frame in its hole
        rings[inset : 40 - inset, inset : 60 - inset] ^= True
    polygons = mask_to_polygons(rings)
    assert len(polygons) == 2
    assert np.array_equal(polygons_to_mask(polygons, (40, 60)), rings)
    square = np.zeros((5, 6), dtype=bool)
    square[1:3, 2:5] = True
    (polygon,) = mask_to_polygons(square)
    assert sorted(zip(polygon[::2], polygon[1::2], strict=True)) == [(2, 1), (2, 3), (5, 1), (5, 3)]


@pytest.mark.parametrize("polygons", [[], [[1, 1, 8, 8]], [[1, 1]]])
def test_what_encloses_nothing_is_an_empty_mask(polygons: list[list[float]]) -> None:
    assert not polygons_to_mask(polygons, (10, 12)).any()


def test_png_round_trip(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((7, 5)) > 0.5
    (tmp_path / "m.png").write_bytes(png_bytes(mask))
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    assert set(np.unique(read_mask_values(tmp_path / "m.png"))) <= {0, 255}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 1]], np.uint8), [False, True]),
        (np.array([[0, 0]], np.uint8), [False, False]),
        (np.array([[127, 128]], np.uint8), [False, True]),
        (np.array([[False, True]]), [False, True]),
        (np.array([[32767, 32768, 65535]], np.uint16), [False, True, True]),
        (np.array([[0, 255]], np.uint16), [False, True]),
        (np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), [False, True]),
    ],
)
def test_read_png_takes_half_of_full_scale(values: np.ndarray, expected: list[bool], tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png")[0].tolist() == expected


def test_index_masks_keep_their_values(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putdata([0, 1, 7])
    image.putpalette([255, 255, 255, 0, 0, 0] + [9] * 762)
    image.save(tmp_path / "p.png")
    assert read_mask_values(tmp_path / "p.png").tolist() == [[0, 1, 7]]
    Image.fromarray(np.array([[0, 1, 300]], np.uint16)).save(tmp_path / "i.png")
    assert read_mask_values(tmp_path / "i.png").tolist() == [[0, 1, 300]]


def test_unreadable_masks_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.png"):
        read_mask(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png"):
        read_mask(tmp_path / "text.png")
    (tmp_path / "cut.png").write_bytes(png_bytes(np.ones((50, 50), bool)))
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png"):
        read_mask_values(tmp_path / "cut.png")


@given(MASKS)
def test_run_lengths_are_read_as_pycocotools_reads_them(mask: np.ndarray) -> None:
    rle = to_rle(mask)
    theirs = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)
    assert np.array_equal(from_rle(rle), theirs)


@pytest.mark.parametrize(
    ("rle", "hint"),
    [
        ({"size": [30_000, 30_000], "counts": "abc"}, "claims a size of 30000×30000"),
        ({"size": [4, 4], "counts": "4"}, "do not add up to 4×4"),
        ({"size": [4, 4], "counts": ""}, "do not add up to 4×4"),
        ({"size": [4, 4], "counts": "\x7f"}, "cannot be read"),
        ({"size": [4, 4], "counts": "oooooooooo"}, "cannot be read"),
        ({"size": [4, 4], "counts": [-1, 17]}, "do not add up"),
        ({"size": [4, 4], "counts": [2**61] * 9}, "do not add up"),
        ({"size": [4, 4], "counts": [10**30]}, "whole numbers"),
        ({"size": [4, 4], "counts": [4, float("nan")]}, "whole numbers"),
        ({"size": [4, 4], "counts": None}, "without counts"),
        ({"size": [0, 4], "counts": []}, "size"),
        ({"size": "44", "counts": []}, "size"),
        ({"counts": [16]}, "size"),
    ],
)
def test_damaged_run_lengths_are_refused_by_name(rle: dict, hint: str) -> None:
    with pytest.raises(DataError, match=f"annotation 7 .*{hint}"):
        from_rle(rle, "annotation 7")


@pytest.mark.parametrize(
    ("segmentation", "hint"),
    [
        ([[1e8, 0, 5, 5, 0, 9]], "far outside"),
        ([[float("inf"), 0, 5, 5, 0, 9]], "far outside"),
        ([[float("nan"), 0, 5, 5, 0, 9]], "far outside"),
        ([[10**400, 0, 5, 5, 0, 9]], "no list of numbers"),
        ([["a", 0, 5, 5, 0, 9]], "no list of numbers"),
        ([{"a": 1}], "no list of numbers"),
        (["abcdef"], "no list of numbers"),
        ([[0, 0, 100, 0, 100, 80, 0, 80] * 20_000], "too long"),
        ("abc", "no segmentation"),
        (None, "no segmentation"),
    ],
)
def test_hostile_segmentations_are_refused_before_they_are_drawn(segmentation: object, hint: str) -> None:
    with pytest.raises(DataError, match=f"annotation 7 .*{hint}"):
        decode_segmentation(segmentation, (80, 100), "annotation 7")


def colours(mode: str, pixels: list[tuple[int, ...]]) -> Image.Image:
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (colours("P", [0, 1, 2]), [False, True, True]),
        (colours("L", [0, 1, 2]), [False, True, True]),
        (colours("L", [0, 60, 200]), [False, False, True]),
        (colours("RGBA", [(9, 9, 9, 0), (9, 9, 9, 255)]), [False, True]),
        (colours("RGBA", [(0, 0, 0, 255), (255, 255, 255, 255)]), [False, True]),
        (colours("LA", [(200, 0), (0, 255)]), [False, True]),
        (colours("RGB", [(0, 0, 0), (128, 0, 0), (0, 0, 90)]), [False, True, True]),
        (Image.fromarray(np.array([[0, 0.4, 0.9]], np.float32)), [False, False, True]),
        (Image.fromarray(np.array([[0, 300, 7]], np.uint16)), [False, True, True]),
    ],
)
def test_every_way_to_store_a_mask_is_read(image: Image.Image, expected: list[bool], tmp_path: Path) -> None:
    path = tmp_path / ("m.tiff" if image.mode == "F" else "m.png")
    image.save(path)
    assert read_mask(path)[0].tolist() == expected


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    with pytest.raises(DataError, match=r"picture\.png holds 1600 colours"):
        read_mask(tmp_path / "picture.png")
    Image.fromarray(np.arange(120, dtype=np.uint8)[None]).save(tmp_path / "dark.png")
    with pytest.raises(DataError, match=r"dark\.png holds 120 values up to 119"):
        read_mask(tmp_path / "dark.png")


def test_colours_of_16_bits_are_labels_too(tmp_path: Path) -> None:
    import cv2

    pixels = np.zeros((1, 3, 3), dtype=np.uint16)
    pixels[0, 1], pixels[0, 2] = (1, 0, 0), (0, 0, 900)
    cv2.imwrite(str(tmp_path / "m.png"), pixels)
    assert read_mask_values(tmp_path / "m.png").tolist() == [[0, 1, 2]]
