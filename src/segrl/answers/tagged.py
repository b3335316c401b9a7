"""What seg-r1 and points-only share: points and labels in tags of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from segrl.answers.base import number_list
from segrl.answers.lenient_json import read_whole
from segrl.answers.prompts import MAX_POINTS, check_count, read_labels, read_points
from segrl.answers.reading import BadValues, Found, blocks
from segrl.types import MaskPrompt, Point, Status


def segment_prompt(query: str) -> str:
    """Seg-R1's text prompt: a sentence (it ends in `.`, `?` or `!`) as it stands, else
    "Identify and segment " and the expression."""
    query = query.strip()
    return query if query.endswith((".", "?", "!")) else f"Identify and segment {query}"


def find_blocks(body: str, tags: re.Pattern[str]) -> tuple[Found, dict[str, list[str]]]:
    """A reading and the contents of each tag, in order; the reading has a fault if the tags are missing or broken."""
    reading, contents = Found(), dict[str, list[str]]()
    for name, content in reading.attempt(list, blocks(body, tags)) or ():
        contents.setdefault(name, []).append(content)
    reading.is_complete = not reading.faults and "labels" in contents
    if not contents and not reading.faults:
        reading.faults.append((Status.NO_ANSWER, "no tags of the answer format"))
    return reading, contents


def read_points_into(reading: Found, contents: Mapping[str, Sequence[str]]) -> tuple[list[Point], list[int]]:
    """All points and their labels, and the two parts noted in `reading`; ([], []) if they are missing or faulty."""
    if "points" not in contents and "labels" not in contents:
        return [], []
    found = reading.attempt(_read_points, contents.get("points", ()), contents.get("labels", ()))
    if found is None:
        return [], []
    reading.parts |= {"points", "labels"}
    return found


def _read_points(points: Sequence[str], labels: Sequence[str]) -> tuple[list[Point], list[int]]:
    """The n-th labels tag belongs to the n-th points tag. Raises LiteralError and BadValues."""
    point_values, label_values = [read_whole(text) for text in points], [read_whole(text) for text in labels]
    all_points = [read_points(value) for value in point_values]
    all_labels = [read_labels(value) for value in label_values]
    if [len(block) for block in all_points] != [len(block) for block in all_labels]:
        n_points, n_labels = sum(map(len, all_points)), sum(map(len, all_labels))
        raise BadValues(f"{n_points} points with {n_labels} labels: each list of points needs one of as many labels")
    check_count(sum(map(len, all_points)), MAX_POINTS, "points")
    return [p for block in all_points for p in block], [label for block in all_labels for label in block]


def render_points(prompts: Sequence[MaskPrompt]) -> str:
    """The two tags with all points of all prompts."""
    points = ",".join(number_list(point) for prompt in prompts for point in prompt.points_xy)
    labels = number_list([label for prompt in prompts for label in prompt.labels])
    return f"<points>[{points}]</points>, <labels>{labels}</labels>"
