"""The answers that model families were trained to write by themselves, without a cold start.

    qwen2-vl   <|box_start|>(221,423),(569,886)<|box_end|>, behind the object's name in tokens of its own
    qwen-json  ```json [{"bbox_2d": [221,423,569,886], "label": "dog"}] ```      Qwen2.5-VL, Qwen3-VL, Qwen3.5
    internvl   <ref>dog</ref><box>[[221,423,569,886]]</box>
    molmo      <points x1="22.1" y1="42.3" x2="56.9" y2="88.6" alt="dogs">dogs</points>, percentages
    gemini     ```json [{"box_2d": [423,221,886,569], "label": "dog"}] ```       y before x

The text prompts follow public copies of the families' examples; that of qwen2-vl has no primary source. None of the
formats has a place for reasoning: what a thinking policy writes stands in think tags in front, and is rendered there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.json_formats import Field, JsonList, points_of, read_foreground
from segrl.answers.lenient_json import Literal, read_whole
from segrl.answers.mask_prompts import MAX_BOXES, MAX_POINTS, check_count, group, read_box, read_boxes, round_prompt
from segrl.answers.reading import BadValues, Found, Unreadable, blocks, tag_pattern
from segrl.answers.scan import BY_TAGS, scan_fields, scan_percent_points, scan_rows, scan_tags, y_first
from segrl.types import Box, Frame, MaskPrompt, Point, Status

NATIVE_FORMATS = {
    "qwen2_vl": "qwen2-vl",
    "qwen2_5_vl": "qwen-json",
    "qwen3_vl": "qwen-json",
    "qwen3_vl_moe": "qwen-json",
    "qwen3_5": "qwen-json",
    "qwen3_5_moe": "qwen-json",
    "internvl": "internvl",
    "molmo": "molmo",
    "gemini": "gemini",
}
"""`model_type` of a checkpoint's configuration → the answer format that it was trained to write."""

_BOX_TOKEN = re.compile(r"<\|box_(start|end)\|>")
_BOX_TAG = tag_pattern("box")
_POINT_TAG = re.compile(r'<(points?)((?:\s++[A-Za-z]\w*+="[^"<>]*+")++)\s*+>')
_COORDINATE = re.compile(r'\s([xy])([0-9]*+)="\s*+(-?+[0-9]++(?:\.[0-9]*+)?+)\s*+"')
_NOT_THERE = "This isn't in the image."
_NOTHING = re.compile(r"\s*+(?:There are none|This isn't in the image)\.?+\s*+(?:<\|\w++\|>\s*+)?+\Z")


class QwenJson(JsonList):
    """The format named `qwen-json`: a JSON list in a fence, as Qwen2.5-VL and its successors write it."""

    name = "qwen-json"
    required_parts = frozenset({"bbox"})
    order: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    """Places of the written numbers among those of a box or point."""

    def prompt(self, query: str) -> str:
        """The request with which the Qwen3-VL report evaluates referring expressions, in its appendix."""
        return (
            f'Locate every object that matches the description "{query.strip()}" in the image. '
            "Report bbox coordinates in JSON format."
        )

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """Boxes; of a prompt without one its first foreground point. Raises ValueError for a prompt with neither."""
        lines = ",\n".join(f"\t{self.render_entry(round_prompt(prompt))}" for prompt in prompts)
        return _thought(reasoning) + (f"```json\n[\n{lines}\n]\n```" if prompts else "```json\n[]\n```")

    def render_entry(self, prompt: MaskPrompt) -> str:
        """The box, or the first foreground point."""
        (box, point), foreground = self.fields, points_of(prompt, 1)
        if prompt.box_xyxy is None and not foreground:
            raise ValueError(f"{self.name} cannot say background points without a box")
        key, numbers = (box.key, prompt.box_xyxy) if prompt.box_xyxy is not None else (point.key, foreground[0])
        return f'{{"{key}": {number_list([numbers[i] for i in self.order[: len(numbers)]])}, "label": "object"}}'


def _read_yx_box(value: Literal) -> Box:
    return read_box([value[i] for i in (1, 0, 3, 2)] if isinstance(value, list) and len(value) == 4 else value)


def _read_yx_points(value: Literal) -> list[Point]:
    return [(x, y) for y, x in read_foreground(value)]


class Gemini(QwenJson):
    """The format named `gemini`: as qwen-json, but y stands before x in `box_2d` and `point`."""

    name = "gemini"
    order = (1, 0, 3, 2)
    fields = (Field("bbox", "box_2d", _read_yx_box), Field("points", "point", _read_yx_points))
    scans = (y_first(scan_fields), scan_tags, y_first(scan_rows))

    def prompt(self, query: str) -> str:
        """The request of the examples in Gemini's documentation ("Image understanding")."""
        return (
            f'Detect every object that fits "{query.strip()}" in the image. The box_2d should be [ymin, xmin, ymax, '
            "xmax] normalized to 0-1000. Output a JSON list where each entry contains the 2D bounding box in the key "
            '"box_2d" and the text label in the key "label".'
        )


class QwenTokens(AnswerFormat):
    """The format named `qwen2-vl`: the corners of each box between tokens. An empty pair says "nothing there"."""

    name = "qwen2-vl"
    required_parts = frozenset({"bbox"})
    scans = BY_TAGS

    def prompt(self, query: str) -> str:
        """As examples of fine-tuning ask Qwen2-VL; its authors publish no request of their own."""
        return f"Detect the bounding box of {query.strip().rstrip('.')}."

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The box of each prompt. Raises ValueError for a prompt without one."""
        spans = [f"({x1},{y1}),({x2},{y2})" for x1, y1, x2, y2 in _rounded_boxes(prompts, self.name)] or [""]
        return _thought(reasoning) + "".join(f"<|box_start|>{span}<|box_end|>" for span in spans)

    def read(self, body: str, frame: Frame) -> Found:
        return _read_blocks(lambda: list(_token_blocks(body)), _corner_boxes, frame)


class InternVL(AnswerFormat):
    """The format named `internvl`: a list of boxes in a tag; an empty list says "nothing there"."""

    name = "internvl"
    required_parts = frozenset({"bbox"})
    scans = BY_TAGS

    def prompt(self, query: str) -> str:
        """InternVL's request for a box."""
        return (
            "Please provide the bounding box coordinate of the region this sentence describes: "
            f"<ref>{query.strip()}</ref>"
        )

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The box of each prompt. Raises ValueError for a prompt without one."""
        boxes = ", ".join(number_list(box) for box in _rounded_boxes(prompts, self.name))
        return f"{_thought(reasoning)}<box>[{boxes}]</box>"

    def read(self, body: str, frame: Frame) -> Found:
        return _read_blocks(lambda: [content for _, content in blocks(body, _BOX_TAG)], read_boxes, frame)


class Molmo(AnswerFormat):
    """The format named `molmo`: points as percentages, each on an object of its own.

    Read and written in thousandths of the sides, so that the policy's frame is `relative_1000`.
    "This isn't in the image." says that nothing is there, and so does "There are none.".
    """

    name = "molmo"
    required_parts = frozenset({"points"})
    scans = (scan_percent_points, *BY_TAGS)

    def prompt(self, query: str) -> str:
        """The first of the requests for points that Molmo was trained on."""
        return f"Point to {query.strip()}\nPlease say '{_NOT_THERE}' if it is not in the image."

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The first foreground point of each prompt. Raises ValueError for a prompt without one."""
        points = [next(iter(points_of(round_prompt(prompt), 1)), None) for prompt in prompts]
        if None in points:
            raise ValueError("molmo cannot say a prompt without a foreground point")
        said = [(_percent(point[0]), _percent(point[1])) for point in points if point is not None]
        if not said:
            return f"{_thought(reasoning)}{_NOT_THERE}"
        numbers = [str(i) for i in range(1, len(said) + 1)] if len(said) > 1 else [""]
        tag = "points" if len(said) > 1 else "point"
        places = " ".join(f'x{n}="{x}" y{n}="{y}"' for n, (x, y) in zip(numbers, said, strict=True))
        return f'{_thought(reasoning)}<{tag} {places} alt="object">object</{tag}>'

    def read(self, body: str, frame: Frame) -> Found:
        found = Found()
        tags = list(_POINT_TAG.finditer(body))
        if _NOTHING.match(body):
            found.is_complete = True
            found.parts.add("points")
        elif not tags:
            status = Status.BAD_SYNTAX if "<point" in body else Status.NO_ANSWER
            found.faults.append((status, "no <point x=… y=…> that can be read"))
        else:
            found.is_complete = f"</{tags[-1][1]}>" in body[tags[-1].end() :]
            points = found.attempt(_read_percentages, [tag[2] for tag in tags])
            found.prompts = tuple(MaskPrompt(None, (point,), (1,), frame) for point in points or ())
            found.parts |= {"points"} if points else set()
        return found


def _thought(reasoning: str) -> str:
    return f"{think_block(reasoning)}\n" if reasoning else ""


def _rounded_boxes(prompts: Sequence[MaskPrompt], name: str) -> list[Box]:
    boxes = [box for prompt in prompts if (box := round_prompt(prompt).box_xyxy) is not None]
    if len(boxes) < len(prompts):
        raise ValueError(f"{name} cannot say points without a box")
    return boxes


def _token_blocks(body: str) -> Iterator[str]:
    """What stands between each pair of box tokens. Raises Unreadable where they are no pairs."""
    start: int | None = None
    for token in _BOX_TOKEN.finditer(body):
        if (token[1] == "start") is not (start is None):
            raise Unreadable(f"{token[0]} where the other box token should stand")
        if start is not None:
            yield body[start : token.start()]
        start = token.end() if token[1] == "start" else None
    if start is not None:
        raise Unreadable("<|box_start|> is never closed")


def _corner_boxes(value: Literal) -> list[Box]:
    """`[[x1, y1], [x2, y2], …]` as boxes. Raises BadValues."""
    corners = value if isinstance(value, list) else [value]
    if len(corners) % 2 or not all(isinstance(corner, list) for corner in corners):
        raise BadValues("a box is two corners, (x1,y1),(x2,y2)")
    pairs = zip(corners[::2], corners[1::2], strict=True)
    return [read_box([*one, *other]) for one, other in pairs if isinstance(one, list) and isinstance(other, list)]


def _read_blocks(find: Callable[[], list[str]], read: Callable[[Literal], list[Box]], frame: Frame) -> Found:
    """Boxes of all blocks, one mask prompt each."""
    found = Found()
    contents = found.attempt(find)
    found.is_complete = bool(contents)
    if contents == []:
        found.faults.append((Status.NO_ANSWER, "no boxes of the answer format"))
    if not contents:
        return found

    boxes = found.attempt(_all_boxes, contents, read)
    if boxes is not None:
        found.parts.add("bbox")
        found.prompts = group(boxes, (), (), frame)
    return found


def _all_boxes(contents: Sequence[str], read: Callable[[Literal], list[Box]]) -> list[Box]:
    boxes = [box for content in contents for box in read(_value(content))]
    check_count(len(boxes), MAX_BOXES, "boxes")
    return boxes


def _value(content: str) -> Literal:
    """The literal in a block; several with commas between them are a list, and so is nothing."""
    stripped = content.strip()
    return read_whole(stripped if stripped.startswith("[") else f"[{stripped}]")


def _read_percentages(tags: Sequence[str]) -> list[Point]:
    """The points of each tag's attributes, in thousandths. Raises BadValues for an x without its y."""
    points: list[Point] = []
    for attributes in tags:
        found = {(axis, number): value for axis, number, value in _COORDINATE.findall(attributes)}
        numbers = [number for axis, number in found if axis == "x"]
        if not numbers or len(found) != 2 * len(numbers) or any(("y", number) not in found for number in numbers):
            raise BadValues("a point is an x and a y, each a percentage")
        if not all(math.isfinite(_thousandths(value)) for value in found.values()):
            raise BadValues("a percentage is a finite number")
        points += [(_thousandths(found["x", number]), _thousandths(found["y", number])) for number in numbers]
    check_count(len(points), MAX_POINTS, "points")
    return points


def _thousandths(percentage: str) -> float:
    return float(f"{percentage}e1")


def _percent(thousandths: float) -> str:
    return f"{thousandths / 10:.1f}"
