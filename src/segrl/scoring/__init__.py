"""Pure functions: masks and ground truth → numbers. Undefined never happens: each says what the empty case gives."""

from segrl.scoring.boundary import boundary_iou
from segrl.scoring.overlap import iou
from segrl.scoring.score import score
from segrl.scoring.structure import s_measure

__all__ = ["boundary_iou", "iou", "s_measure", "score"]
