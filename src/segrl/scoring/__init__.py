"""Pure functions: masks and ground truth → numbers. Undefined never happens: each says what the empty case gives."""

from segrl.scoring.boundary import boundary_iou
from segrl.scoring.counted import e_measure, f_measure
from segrl.scoring.overlap import iou
from segrl.scoring.score import score
from segrl.scoring.structure import s_measure
from segrl.scoring.weighted_f import weighted_f

__all__ = ["boundary_iou", "e_measure", "f_measure", "iou", "s_measure", "score", "weighted_f"]
