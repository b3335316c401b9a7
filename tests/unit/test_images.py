"""The one reader of pictures: depths, transparency, profiles, pages, sizes, and what is no picture."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from segrl import errors
from segrl.errors import DataError
from segrl.images import PictureOptions, TooManyPixels, as_image, read_image, read_picture, to_rgb

RAMP = np.linspace(0, 1, 12).reshape(1, 12).repeat(4, axis=0)
"""What every file below shows, dark to bright."""


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    errors.forget_warnings()


def deep(full: int, channels: int | None = None) -> np.ndarray:
    grey = np.rint(RAMP * full).astype(np.uint16)
    return grey if channels is None else np.repeat(grey[..., None], channels, axis=2)


def tiff(samples: np.ndarray, path: Path, **tags: int) -> Path:
    Image.fromarray(samples).save(path, **({"tiffinfo": {281: tags["white"]}} if tags else {}))
    return path


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("full", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("channels", [None, 3])
def test_deep_samples_are_scaled_by_what_the_file_holds(tmp_path, suffix, full, channels, caplog):
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), deep(full, channels))
    pixels = np.asarray(read_image(path))
    assert np.abs(pixels[..., 0] - RAMP * 255).max() <= 1
    assert (pixels == pixels[..., :1]).all()
    assert [record.message for record in caplog.records] == (
        [] if full == 65535 else [f"{path} does not declare its full scale: {full} is taken for white (full_scale)"]
    )
    read_image(path)
    assert len(caplog.records) == (full != 65535)  # once, not for every file


def test_a_chunk_that_claims_two_gigabytes_takes_none(tmp_path):
    """OpenCV, which reads colours of 16 bits, takes what a chunk claims."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint16))
    data = (tmp_path / "a.png").read_bytes()
    place = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:place] + b"\x75\0\0\0" + data[place + 4 :])
    with pytest.raises(DataError, match="a length in it is wrong"):
        read_image(tmp_path / "a.png")


def test_colours_of_16_bits_keep_their_order(tmp_path):
    samples = np.zeros((2, 3, 4), dtype=np.uint16)
    samples[..., 3] = 65535
    samples[..., 0], samples[..., 2] = 100, 4000  # OpenCV writes blue first
    cv2.imwrite(str(tmp_path / "a.png"), samples)
    assert np.asarray(read_image(tmp_path / "a.png"))[0, 0].tolist() == [249, 0, 6]


@pytest.mark.parametrize(("scale", "option"), [(1, None), (255, None), (7.5, 7.5)])
def test_floats_are_scaled(tmp_path, scale, option):
    path = tiff((RAMP * scale).astype(np.float32), tmp_path / "a.tiff")
    pixels = np.asarray(read_image(path, pictures=PictureOptions(full_scale=option)))
    assert np.abs(pixels[..., 0] - RAMP * 255).max() <= 1


def test_a_declared_white_is_taken(tmp_path, caplog):
    path = tiff(deep(300), tmp_path / "a.tiff", white=600)
    assert np.asarray(read_image(path)).max() == 128
    assert not caplog.records
    assert np.asarray(read_image(path, pictures=PictureOptions(full_scale=1200))).max() == 64


@pytest.mark.parametrize(
    ("samples", "hint"),
    [
        (RAMP.astype(np.float32) - 0.5, "lie between -0.5 and 0.5"),
        ((RAMP * 1e6).astype(np.float32), "full_scale says"),
        (np.full((4, 4), np.nan, np.float32), "not finite"),
        ((RAMP * 1e6).astype(np.int32), "full_scale says"),
    ],
)
def test_samples_whose_scale_cannot_be_told_are_refused(tmp_path, samples, hint):
    with pytest.raises(DataError, match=rf"a\.tiff.*{hint}"):
        read_image(tiff(samples, tmp_path / "a.tiff"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    image.convert(mode).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 255, 255, 255]


def adobe_like_profile() -> bytes:
    """A profile with the primaries of sRGB turned: red and blue change places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    return bytes(profile.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ"))


def test_colour_profiles_become_srgb(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "srgb.png", icc_profile=srgb)
    assert np.array_equal(np.asarray(read_image(tmp_path / "srgb.png")), pixels)  # not moved by a level
    image.save(tmp_path / "other.png", icc_profile=adobe_like_profile())
    assert np.abs(np.asarray(read_image(tmp_path / "other.png")).astype(int) - pixels[..., ::-1]).max() <= 3
    assert not caplog.records
    image.save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert np.array_equal(np.asarray(read_image(tmp_path / "broken.png")), pixels)
    assert "profile of" in caplog.text


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".webp", ".png"])
def test_pages_are_a_choice_that_is_said_once(tmp_path, suffix, caplog):
    pages = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for name in ("a", "b"):
        options = {"lossless": True} if suffix == ".webp" else {}
        pages[0].save(tmp_path / f"{name}{suffix}", save_all=True, append_images=pages[1:], **options)
    path = tmp_path / f"a{suffix}"
    assert read_image(path).getpixel((3, 3)) == (255, 0, 0)
    read_image(tmp_path / f"b{suffix}")
    assert [("several pages" in r.message, r.levelno) for r in caplog.records] == [(True, logging.WARNING)]
    assert read_image(path, pictures=PictureOptions(page=1)).getpixel((3, 3)) == (0, 0, 255)
    with pytest.raises(DataError, match="no page 2"):
        read_image(path, pictures=PictureOptions(page=2))


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".jp2", ".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"])
def test_formats_are_read_alike_by_path_and_by_bytes(tmp_path, suffix):
    Image.new("RGB", (40, 24), (180, 90, 30)).save(tmp_path / f"a{suffix}")
    by_path = np.asarray(read_image(tmp_path / f"a{suffix}"))
    assert np.abs(by_path.astype(int) - (180, 90, 30)).max() <= 4
    assert np.array_equal(by_path, np.asarray(as_image((tmp_path / f"a{suffix}").read_bytes())))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_once(tmp_path, suffix, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 9, 3)).astype(np.uint8)).resize((90, 60))
    stored.save(tmp_path / f"a{suffix}", exif=exif)
    with Image.open(tmp_path / f"a{suffix}") as image:
        wanted = ImageOps.exif_transpose(image).convert("RGB")
    picture = read_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(np.asarray(picture.image), np.asarray(wanted))
    assert (picture.orientation, picture.stored_hw) == (orientation, (60, 90))


def giant_png(width: int, height: int) -> bytes:
    """A whole, valid file of one grey that is tiny on disk."""
    row = zlib.compressobj()
    rows = b"".join(row.compress(b"\0" + bytes(width // 8)) for _ in range(height)) + row.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_huge_picture_gets_our_words_and_an_option(tmp_path):
    (tmp_path / "a.png").write_bytes(giant_png(20_000, 15_000))
    with pytest.raises(TooManyPixels, match=r"a\.png has 20000×15000 pixels, 300 megapixels; at most 179.*max_megapix"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(giant_png(1600, 1000))
    with pytest.raises(TooManyPixels):
        read_image(tmp_path / "b.png", pictures=PictureOptions(max_megapixels=1))
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 1000  # as if it were a huge one to Pillow
    try:
        assert read_image(tmp_path / "b.png", pictures=PictureOptions(max_megapixels=2)).size == (1600, 1000)
        assert Image.MAX_IMAGE_PIXELS == 1000
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is none of JPEG, PNG"),
        (b"\x89PNG\r\n\x1a\n broken", "a broken PNG file|cannot read"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, data, hint):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.png.*({hint})"):
        read_image(tmp_path / "a.png")


def test_a_picture_in_memory_is_read_as_its_file_is(tmp_path):
    for mode in ("LA", "P", "CMYK", "F", "1"):
        image = Image.new("RGB", (3, 2), (255, 255, 255)).convert("L" if mode in ("F", "LA") else "RGB").convert(mode)
        if mode == "F":
            image = image.point(lambda value: value / 255)
        assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (9, 8, 7)).save(file, "PNG")
    assert read_image(file, "a picture").getpixel((0, 0)) == (9, 8, 7)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"pages": 1}, "no option 'pages'; it has page"),
        ({"page": -1}, "page is a whole number"),
        ({"page": True}, "page is a whole number"),
        ({"full_scale": 0}, "full_scale is a number above 0"),
        ({"max_megapixels": None}, "max_megapixels is a number"),
        ({"max_megapixels": float("inf")}, "max_megapixels is a number"),
        ({"masks": "turned"}, "upright or stored"),
        ("first", "pictures takes"),
    ],
)
def test_wrong_options_of_reading(options, hint):
    with pytest.raises(DataError, match=hint):
        PictureOptions.from_options(options)
