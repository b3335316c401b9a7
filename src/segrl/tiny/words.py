"""Every word that the tiny world knows, and its size; scenes and the tokenizer both read them here."""

from __future__ import annotations

SIDE = 112
"""Width and height of a scene, and of the square that every image is squashed to for the tiny policy."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 50, 45),
    "green": (50, 160, 70),
    "blue": (55, 85, 205),
    "yellow": (225, 200, 55),
    "purple": (150, 60, 170),
}
SHAPES = ("circle", "square", "triangle", "star", "ring")
SIZES = ("small", "large")
