"""A picture of plain coloured shapes, for segmenters that take words."""

from __future__ import annotations

from PIL import Image, ImageDraw

RING, SQUARE = (20, 20, 60, 60), (70, 20, 105, 55)


def scene() -> Image.Image:
    """A red ring, a blue square and a red square on grey, 160×120."""
    picture = Image.new("RGB", (160, 120), (120, 120, 120))
    draw = ImageDraw.Draw(picture)
    draw.ellipse(RING, outline=(205, 50, 45), width=10)
    draw.rectangle(SQUARE, fill=(55, 85, 205))
    draw.rectangle((20, 75, 50, 105), fill=(205, 50, 45))
    return picture
