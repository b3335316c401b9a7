"""Decoded samples of any depth, with transparency and colour profile, as 8-bit sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageFile

from segrl.errors import DataError, warn_once
from segrl.text import first_line

FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)
"""Full scales of samples of up to 16 bits: where a file declares none, the smallest that no sample exceeds."""

PROFILE_TOLERANCE = 2
"""A profile that moves no 8-bit value by more than this is sRGB: its pixels stay as they are."""

_BAND = 2**18
"""Samples that are scaled at once, so that the work needs no memory to speak of."""


def file_to_srgb(
    image: ImageFile.ImageFile, deep: np.ndarray | None, name: str, full_scale: float | None = None
) -> Image.Image:
    """An opened file as RGB in sRGB; `name` is for messages, `full_scale` the sample that is white.

    deep: what `deep_samples` found in it. Raises DataError for samples whose scale cannot be told, and whatever
    Pillow's decoders raise.
    """
    declared = _declared_full_scale(image)
    if deep is None:
        image.load()
        return to_srgb(image, name, full_scale, declared)
    colours = _scaled(deep[..., :3], name, full_scale, declared)
    if deep.shape[2] == 4:
        colours = np.dstack([colours, (deep[..., 3] // 256).astype(np.uint8)])
    return _flat(_with_profile(Image.fromarray(colours), image), name)


def to_srgb(
    image: Image.Image, name: str, full_scale: float | None = None, declared: float | None = None
) -> Image.Image:
    """A PIL image of any mode as RGB in sRGB; declared: the white that its file names. Raises as `file_to_srgb`."""
    if image.mode == "F" or image.mode.startswith("I"):
        grey = Image.fromarray(_scaled(np.asarray(image), name, full_scale, declared))
        return _flat(_with_profile(grey, image), name)
    return _flat(image, name)


def _declared_full_scale(image: ImageFile.ImageFile) -> float | None:
    """The white that the file names: Pillow scales JPEG 2000 and PPM by their own; TIFF has a tag."""
    if image.format in ("JPEG2000", "PPM"):
        return 65535
    if image.format == "TIFF":
        declared = image.tag_v2.get(281)  # type: ignore[attr-defined]  # MaxSampleValue
        value = declared[0] if isinstance(declared, tuple) and declared else declared
        return float(value) if isinstance(value, int) and value > 0 else None
    return None


def _with_profile(image: Image.Image, source: Image.Image) -> Image.Image:
    if "icc_profile" in source.info:
        image.info["icc_profile"] = source.info["icc_profile"]
    return image


def deep_samples(image: ImageFile.ImageFile, name: str, page: int = 0) -> np.ndarray | None:
    """Colours of 16 bits, of which Pillow keeps the upper eight, as OpenCV reads them; None for any other file.

    `(H, W, 3)` or, with alpha, `(H, W, 4)` uint16 in RGB order, as they are stored: not turned upright.
    To be asked before anything else of the file, since Pillow forgets the depth when it decodes.
    """
    args = image.tile[0].args if image.tile else None
    rawmode = str(args[0] if isinstance(args, tuple) and args else args)
    if ";16" not in rawmode or image.mode not in ("RGB", "RGBA", "RGBX", "LA"):
        return None
    import cv2

    if image.fp is None or page:
        raise DataError(f"cannot read the image {name}: colours of 16 bits are read on a first page only")
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    if image.format == "PNG" and not _chunks_fit(data):  # OpenCV takes as much memory as a chunk says it has
        raise DataError(f"cannot read the image {name}: it is cut short, or a length in it is wrong")
    samples = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    image.fp.seek(place)
    if samples is None or samples.dtype != np.uint16 or samples.ndim != 3 or samples.shape[:2] != image.size[::-1]:
        raise DataError(f"cannot read the image {name}: it has colours of 16 bits that OpenCV does not read either")
    return samples[..., [2, 1, 0, 3][: samples.shape[2]]]


def _chunks_fit(png: bytes) -> bool:
    """Whether every chunk of a PNG up to its end mark lies within the file."""
    place = 8
    while place + 12 <= len(png):
        if png[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + int.from_bytes(png[place : place + 4], "big")
    return False


def _scaled(samples: np.ndarray, name: str, full_scale: float | None, declared: float | None) -> np.ndarray:
    """Samples of any kind as uint8 of 0 to 255. Raises DataError where their scale cannot be told."""
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"cannot read the image {name}: it holds samples that are not finite")
    full = full_scale or (declared if declared is not None and high <= declared else None)
    if full is None:
        full = next((scale for scale in FULL_SCALES if high <= scale), None)
        if full is None or low < 0:
            raise DataError(
                f"cannot read the image {name}: its samples lie between {low:g} and {high:g}; "
                "full_scale says which of them is white"
            )
        if high > 0 and (samples.dtype.kind == "f" or full != 65535):
            warn_once(
                "full_scale",
                f"{name} does not declare its full scale: {full} is taken for white (full_scale)",
            )
    scaled = np.empty(samples.shape, dtype=np.uint8)
    rows = max(1, _BAND // max(1, samples[0].size))
    for y in range(0, len(samples), rows):
        band = samples[y : y + rows].astype(np.float64)
        # The upper byte of 16 bits, as before; elsewhere rounded.
        scaled[y : y + rows] = band // 256 if full == 65535 else np.clip(band * (255 / full) + 0.5, 0, 255)
    return scaled


def _flat(image: Image.Image, name: str) -> Image.Image:
    """An image of 8 bits in any mode as RGB in sRGB, transparency over white."""
    profile = image.info.get("icc_profile")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = _over_white(image.convert("RGBA"))
    elif image.mode in ("P", "1"):
        image = image.convert("RGB")
    transform = _profile_to_srgb(profile, image.mode, name) if profile else None
    if transform is not None:
        return ImageCms.applyTransform(image, transform) or image
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=alpha)
    return white


def _profile_to_srgb(profile: bytes, mode: str, name: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion from a profile; None where it changes nothing or cannot be used, which is said once."""
    try:
        return _transform(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warn_once("profile", f"the colour profile of {name} cannot be used and is left out: {first_line(error)}")
        return None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode not in ("L", "RGB"):
        return transform
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    sample = Image.fromarray(cube if mode == "RGB" else np.ascontiguousarray(cube[..., 0]))
    converted = np.asarray(ImageCms.applyTransform(sample, transform), dtype=int)
    moved = np.abs(converted - np.asarray(sample.convert("RGB"))).max()
    return transform if moved > PROFILE_TOLERANCE else None
