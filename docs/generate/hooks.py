"""What MkDocs calls while it builds the site: the menu, the pages made from the code, formulas, links out of docs/."""

from __future__ import annotations

import re
from pathlib import Path

import answers_page
import api_page
import commands_page
import modules_page
import recipe_page
from latex2mathml.converter import convert
from menu import menu
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
GENERATED = {
    "reference/answers.md": answers_page.page,
    "reference/api.md": api_page.page,
    "reference/commands.md": commands_page.page,
    "reference/modules.md": modules_page.page,
    "reference/recipe.md": recipe_page.page,
}
"""Pages that are made from the code, by path in the site."""

_FORMULA = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_INLINE = re.compile(r"(?<![\w$\\])\$([^$`\n]+)\$(?![\w$])")
_OUTWARD = re.compile(r"\]\(\.\./([^)#\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fits the menu to the pages that there are."""
    docs = Path(config.docs_dir)
    written = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    config.nav = menu(config.nav or [], written | GENERATED.keys())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages made from the code."""
    for path, page in GENERATED.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns formulas into MathML, and brings files of the repository that a page links to into the site."""
    if "/" in page.file.src_uri:
        return markdown
    if _FORMULA.search(markdown):  # elsewhere a dollar sign is one of the shell's
        markdown = _INLINE.sub(_inline, _FORMULA.sub(_mathml, markdown))
    return _OUTWARD.sub(lambda found: _bring(found, config, files), markdown)


def _mathml(found: re.Match[str]) -> str:
    formula = convert(" ".join(found[1].split()), display="block")
    return f'<div class="formula">{formula}</div>'


def _inline(found: re.Match[str]) -> str:
    return f"<span>{convert(found[1], display='inline')}</span>"  # alone at the start of a line it would be a block


def _bring(found: re.Match[str], config: MkDocsConfig, files: Files) -> str:
    """The same link to a copy in the site; what is no file of the repository is left as it is, and MkDocs warns."""
    source = ROOT / found[1]
    if not source.is_file():
        return found[0]
    place = f"repository/{found[1]}" + (".txt" if source.suffix == ".md" else "")
    if files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, abs_src_path=str(source)))
    return f"]({place})"
