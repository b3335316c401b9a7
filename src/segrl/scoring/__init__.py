"""Pure functions: masks and ground truth → numbers. Undefined never happens: each says what the empty case gives."""

from segrl.scoring.metrics import boundary_iou, e_measure, f_measure, iou, s_measure, weighted_f
from segrl.scoring.score import score

__all__ = ["boundary_iou", "e_measure", "f_measure", "iou", "s_measure", "score", "weighted_f"]
