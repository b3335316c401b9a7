"""Bool masks as closed rings: one ring for each connected part, its holes joined to it by bridges.

A bridge runs from a hole straight up through the part, is walked there and back, and so encloses
nothing: filled by the even-odd rule the ring is the part with its holes. Drawn with a line, the
bridge covers pixels of the part only.

With a tolerance rings are simplified (`simplify`) so that a person can edit them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EDITABLE_PX = 1.25
"""The tolerance of polygons that people edit. The centres of a mask's border pixels lie half a pixel inside its edge
and those behind them one and a half: with it only border pixels change, and a round object has some 35 points."""


def simplify(ring: np.ndarray, tolerance_px: float) -> np.ndarray:
    """A closed `(K, 2)` ring with fewer of its points, by Douglas and Peucker (1973): `(M, 2)`, 3 ≤ M ≤ K.

    No place of either ring is further than `tolerance_px` pixels from the other one; 0 changes nothing. Small
    parts are held to a twentieth of their side (the root of their area), and one that would shrink to a line is
    given back as it is.
    """
    import cv2

    side = float(np.sqrt(_area(ring)))
    tolerance = min(tolerance_px, side / 20)
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    fewer = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance, closed=True)[:, 0]
    return fewer.astype(ring.dtype) if len(fewer) >= 3 and _area(fewer) > 0 else ring


def _area(ring: np.ndarray) -> float:
    (x, y), (next_x, next_y) = ring.astype(float).T, np.roll(ring, -1, axis=0).astype(float).T
    return abs(float((x * next_y - next_x * y).sum())) / 2


def pixel_rings(mask: np.ndarray, tolerance_px: float = 0.0) -> list[np.ndarray]:
    """Rings through the pixels at the border of a `(H, W)` bool mask, for readers that draw the line as well.

    One `(K, 2)` int64 array of (x, y) for each part (pixels that touch at a side or a corner), K ≥ 1;
    none for an empty mask. Filled with its outline (OpenCV's fillPoly) the rings give the mask again, if
    `tolerance_px` (see `simplify`) is 0.
    """
    return [simplify(_corners(ring), tolerance_px) for ring in _trace(mask)]


def edge_rings(mask: np.ndarray, tolerance_px: float = 0.0) -> list[np.ndarray]:
    """Rings along the edges between pixels, for readers that fill what is enclosed (pycocotools).

    As `pixel_rings`; the ring of a single pixel (x, y) is the square from (x, y) to (x + 1, y + 1), so
    K ≥ 4. A pixel belongs to the mask exactly if its centre is enclosed (tolerance 0).
    """
    box = _bounds(mask)
    if box is None:
        return []
    x, y = box[1].start, box[0].start
    doubled = mask[box].repeat(2, axis=0).repeat(2, axis=1)
    # Of a doubled pixel the first row and column lie on its low edge (2x → x), the others on its high one.
    return [np.add(simplify(_corners((ring + 1) // 2), tolerance_px), (x, y)) for ring in _trace(doubled)]


def _bounds(mask: np.ndarray) -> tuple[slice, slice] | None:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)) if len(xs) else None


def _trace(mask: np.ndarray) -> list[np.ndarray]:
    """A ring for each part with every border pixel in it."""
    import cv2

    found, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not found:
        return []
    rings = [contour[:, 0, :].astype(np.int64) for contour in found]
    holes: dict[int, list[np.ndarray]] = {i: [] for i, node in enumerate(hierarchy[0]) if node[3] < 0}
    for ring, (_, _, _, parent) in zip(rings, hierarchy[0], strict=True):
        if parent >= 0:
            holes[int(parent)].append(ring)
    return [_join(rings[i], inside, mask) for i, inside in holes.items()]


def _join(outer: np.ndarray, holes: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """The outer ring with its holes, from the highest down: what lies above a hole has been joined before it."""
    ring = outer
    for hole in sorted(holes, key=lambda hole: int(hole[:, 1].min())):
        top = int(hole[:, 1].argmin())
        x, y = hole[top]
        above = np.flatnonzero(~mask[:y, x])
        end = int(above[-1]) + 1 if len(above) else 0
        at = int(np.flatnonzero((ring[:, 0] == x) & (ring[:, 1] == end))[0])
        around = np.concatenate([hole[top:], hole[: top + 1]])
        ring = np.concatenate([ring[: at + 1], around, ring[at:]])
    return ring


def _corners(ring: np.ndarray) -> np.ndarray:
    """The ring without repeated points and points in the middle of a straight run; a turn back is a corner."""
    moved = np.any(ring != np.roll(ring, 1, axis=0), axis=1)
    ring = ring[moved] if moved.any() else ring[:1]
    before, after = np.sign(ring - np.roll(ring, 1, axis=0)), np.sign(np.roll(ring, -1, axis=0) - ring)
    turns = np.any(before != after, axis=1)
    return ring[turns] if turns.any() else ring
