"""multipart/form-data whose body is in memory: no temporary file, however it ends."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import python_multipart.multipart as reader
from python_multipart.exceptions import FormParserError

from segrl.web.errors import Refused

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken body


@dataclass
class Part:
    """One field. name: None in a part that names none. is_file: it came with a file name."""

    name: str | None = None
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        """The value of a field that is no file. Raises Refused(400) if it is not UTF-8."""
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _broken("a field is not UTF-8") from error


def parse(content_type: str, body: bytes, max_parts: int) -> list[Part]:
    """The parts of a body in order. Raises Refused: 400 for one that is broken or ends early, 422 for too many."""
    boundary = reader.parse_options_header(content_type)[1].get(b"boundary", b"")
    collector = _Collector(max_parts)
    try:
        parser = reader.MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _broken("the form cannot be read") from error
    if not collector.ended:
        raise _broken("the form ends early")
    return collector.parts


class _Collector:
    """What the parser tells, put together."""

    def __init__(self, max_parts: int) -> None:
        self.max_parts, self.parts, self.ended = max_parts, list[Part](), False
        self._field, self._value = b"", b""

    def callbacks(self) -> reader.MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self.max_parts:
            raise Refused(422, "too_many_fields", f"the form has more than {self.max_parts} fields")
        self.parts.append(Part())

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            options = reader.parse_options_header(self._value)[1]
            if b"name" in options:
                self.parts[-1].name = options[b"name"].decode("utf-8", "replace")
            self.parts[-1].is_file = b"filename" in options
        self._field, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def _end(self) -> None:
        self.ended = True


def _broken(detail: str) -> Refused:
    return Refused(400, "broken_form", detail)
