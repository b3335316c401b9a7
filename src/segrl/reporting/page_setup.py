"""What the pages share: the templates' environment, style sheets and scripts."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from segrl.reporting import charts, story

if TYPE_CHECKING:
    from jinja2 import Environment


def page_file(name: str) -> str:
    """The text of a style sheet or script of `segrl/reporting/page`."""
    return resources.files("segrl.reporting").joinpath("page", name).read_text(encoding="utf-8")


def environment() -> Environment:
    """Templates of `segrl/reporting/page`; everything is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("segrl.reporting", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"signed": story.signed, "interval": story.interval, "show": charts.show}
    made.globals |= {"verdict": story.verdict}
    return made
