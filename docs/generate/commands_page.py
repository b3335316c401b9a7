"""The page on commands, made from the application that `segrl` runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
    usage = " ".join([path, *(_placeholder(p) for p in arguments), *(_usage(p) for p in options if p.required)])
    more = " [OPTIONS]" if any(not p.required for p in options) else ""
    parts = [
        f"## {path.removeprefix('segrl ')}",
        f"    {usage}{more}",
        prose(command.help),
        table(("argument", ""), [(code(_placeholder(p)), cell(p.help or "")) for p in arguments]),
        table(("option", "", "default"), [_row(p) for p in options]),
    ]
    return "\n\n".join(part for part in parts if part)


def _placeholder(parameter: Any) -> str:
    """What stands for a value: the metavar that the command gives, or the name of its type."""
    if parameter.metavar:
        return str(parameter.metavar)
    return str(parameter.name if parameter.param_type_name == "argument" else parameter.type.name.split()[0]).upper()


def _usage(option: Any) -> str:
    flag = option.opts[0]
    return flag if option.is_flag else f"{flag} {_placeholder(option)}"


def _row(option: Any) -> tuple[str, str, str]:
    flags = [*option.opts[1:], *option.secondary_opts]
    shown = ", ".join(code(flag) for flag in [_usage(option), *flags])
    said = [option.help or "", f"Also read from `{option.envvar}`." if option.envvar else ""]
    return shown, cell(" ".join(said)), "needed" if option.required else _default(option)


def _default(option: Any) -> str:
    shown = isinstance(option.default, str | int | float | Path) and option.default is not False
    return code(option.default) if shown else ""
