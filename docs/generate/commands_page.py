"""The page on commands, made from the application that `segrl` runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main
from prose import cell, code, prose, table

from segrl.cli.app import app

HEAD = """# Commands

Every command with its arguments and options, made from the code when this site is built. In a terminal
`segrl COMMAND --help` says the same. A user's mistake ends with one line that says what to do, and status 2.
"""


def page() -> str:
    """The whole page as Markdown."""
    sections = [_section(path, command) for path, command in commands()]
    return "\n\n".join([HEAD, *sections]) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """(`segrl eval`, its click command) for every command, those of groups included."""
    yield from _below("segrl", typer.main.get_command(app))


def _below(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def _section(path: str, command: Any) -> str:
    context = typer.Context(command, info_name=path)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [_Option(p, context) for p in command.params if p.param_type_name == "option" and not p.hidden]
    options = [option for option in options if option.flags != "--help"]
    usage = " ".join([path, *(_placeholder(p) for p in arguments), *(o.flags for o in options if o.required)])
    more = " [OPTIONS]" if any(not option.required for option in options) else ""
    parts = [
        f"## {path.removeprefix('segrl ')}",
        f"    {usage}{more}",
        prose(command.help),
        table(("argument", ""), [(code(_placeholder(p)), cell(p.help or "")) for p in arguments]),
        table(("option", "", "default"), [option.row() for option in options]),
    ]
    return "\n\n".join(part for part in parts if part)


def _placeholder(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


class _Option:
    """An option as `--help` writes it (`-q, --query TEXT`), and its row of the table."""

    def __init__(self, option: Any, context: typer.Context) -> None:
        self.flags: str = option.get_help_record(context)[0].replace(" range>", ">")
        self.required: bool = option.required
        self._option = option

    def row(self) -> tuple[str, str, str]:
        """Flags, help, default."""
        variable = self._option.envvar
        said = [self._option.help or "", f"Also read from `{variable}`." if variable else ""]
        return code(self.flags), cell(" ".join(said)), "needed" if self.required else self._default()

    def _default(self) -> str:
        value = self._option.default
        return code(value) if isinstance(value, str | int | float | Path) and value is not False else ""
