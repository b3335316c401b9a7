"""A picture with what was found drawn over it: masks, boxes and points.

Colours are Okabe and Ito's, which people with any colour vision tell apart; what differs in meaning
differs in shape too: points on the object are discs with a plus, points off it squares with a cross.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from segrl.types import ORIGINAL, MaskPrompt, Point

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Of the first object, the second, …; then again from the first."""

_TINT = 0.45
_DIMMED = 0.15
_LIGHT = (0, 255, 255)
_POSITIVE, _NEGATIVE, _WHITE, _DARK = (0, 158, 115), (204, 60, 140), (255, 255, 255), (20, 20, 20)


def draw(image: Image.Image, masks: np.ndarray, prompts: Sequence[MaskPrompt] = ()) -> Image.Image:
    """A copy of an RGB image with masks tinted and outlined, and boxes and points of the prompts over them.

    masks: `(N, H, W)` bool at the image's size; N = 0 leaves the image as it is. prompts: in original
    pixels, the i-th in the colour of the i-th mask. Lines grow with the image. Raises ValueError for
    masks of another size or a prompt in another frame.
    """
    if masks.shape[1:] != (image.height, image.width):
        raise ValueError(f"masks of {masks.shape[1:]} on an image of {(image.height, image.width)}")
    if any(prompt.frame != ORIGINAL for prompt in prompts):
        raise ValueError("an overlay is drawn in original pixels")
    line = _line(*image.size)
    pixels = np.array(image)
    for i, mask in enumerate(masks):
        _tint(pixels, mask, COLOURS[i % len(COLOURS)], line)
    drawn = Image.fromarray(pixels)
    pen = ImageDraw.Draw(drawn)
    for i, prompt in enumerate(prompts):
        _box(pen, prompt, COLOURS[i % len(COLOURS)], line)
    for prompt in prompts:
        for point, label in zip(prompt.points_xy, prompt.labels, strict=True):
            _point(pen, point, label == 1, line)
    return drawn


def layer(masks: np.ndarray) -> Image.Image:
    """What `draw` lays over a picture for `(N, H, W)` bool masks, as RGBA; transparent where there is none."""
    line = _line(masks.shape[2], masks.shape[1])
    pixels = np.zeros((*masks.shape[1:], 4), dtype=np.uint8)
    for i, mask in enumerate(masks):
        pixels[mask] = (*COLOURS[i % len(COLOURS)], round(255 * _TINT))
        pixels[_edge(mask, line), 3] = 255
    return Image.fromarray(pixels)


def cutout(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """An RGB image as RGBA whose alpha is 255 on a `(H, W)` bool mask and 0 elsewhere; the colours stay as they are.

    Raises ValueError for a mask of another size.
    """
    if mask.shape != (image.height, image.width):
        raise ValueError(f"a mask of {mask.shape} on an image of {(image.height, image.width)}")
    return Image.fromarray(np.dstack([np.asarray(image), mask.astype(np.uint8) * 255]))


def outline(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """A copy of an RGB image with the outline of a `(H, W)` bool mask, light with a dark rim, and nothing else."""
    line = _line(*image.size)
    pixels = np.array(image)
    pixels[_edge(mask, 2 * line)] = _DARK
    pixels[_edge(mask, line)] = _LIGHT
    return Image.fromarray(pixels)


def spotlight(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """A copy of an RGB image that is as it was on a `(H, W)` bool mask and `_DIMMED` times as bright elsewhere."""
    pixels = np.array(image)
    pixels[~mask] = (pixels[~mask] * _DIMMED).astype(np.uint8)
    return Image.fromarray(pixels)


def _line(width: int, height: int) -> int:
    return max(1, round(max(width, height) / 400))


def _tint(pixels: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], line: int) -> None:
    pixels[mask] = (pixels[mask] * (1 - _TINT) + np.array(colour) * _TINT).astype(np.uint8)
    pixels[_edge(mask, line)] = colour


def _edge(mask: np.ndarray, line: int) -> np.ndarray:
    """The mask's pixels that lie at most `line` from its outside."""
    import cv2

    square = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def _box(pen: ImageDraw.ImageDraw, prompt: MaskPrompt, colour: tuple[int, int, int], line: int) -> None:
    if prompt.box_xyxy is None:
        return
    x1, y1, x2, y2 = prompt.box_xyxy
    corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # Pillow's maximum is inclusive
    pen.rectangle(corners, outline=_DARK, width=line + 2)
    pen.rectangle(corners, outline=colour, width=line)


def _point(pen: ImageDraw.ImageDraw, point: Point, on_object: bool, line: int) -> None:
    (x, y), radius, arm = point, 4 * line, 2 * line
    around = (x - radius, y - radius, x + radius, y + radius)
    if on_object:
        pen.ellipse(around, fill=_POSITIVE, outline=_WHITE, width=line)
        strokes = [((x - arm, y), (x + arm, y)), ((x, y - arm), (x, y + arm))]
    else:
        pen.rectangle(around, fill=_NEGATIVE, outline=_WHITE, width=line)
        strokes = [((x - arm, y - arm), (x + arm, y + arm)), ((x - arm, y + arm), (x + arm, y - arm))]
    for stroke in strokes:
        pen.line(stroke, fill=_WHITE, width=line)
