"""The docs are true: what is generated is up to date, examples run, links lead somewhere, commands exist."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlops_assets.cli import cli
from mlops_assets.tables import tables_page

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
TABLES_COMMAND = "python -m mlops_assets.tables > docs/tables.md"

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def modules_with_examples() -> list[str]:
    """Modules whose docstrings hold an example; the others are not worth an import."""
    files = sorted((ROOT / "mlops_assets").rglob("*.py"))
    with_examples = (file for file in files if re.search(r"^\s*>>> ", file.read_text(), re.MULTILINE))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in with_examples]


def prose_of(page: str) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page)


def mlops_commands(page: str) -> Iterator[list[str]]:
    """Every `mlops ...` line of a page's code blocks and inline code, split into words."""
    lines = [line for block in FENCE.findall(page) for line in block.splitlines()]
    for text in [*lines, *CODE.findall(prose_of(page))]:
        text = text.strip().removeprefix("$ ")
        if re.match(r"mlops [a-z]", text):
            yield words_of(text)


def words_of(line: str) -> list[str]:
    """The words of a command; a line whose quoted text goes on below is cut at its blanks."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.split()


def unknown_words(words: list[str]) -> list[str]:
    """The command and the options of an `mlops ...` line that the command line does not have."""
    _mlops, name, *rest = words
    command = cli.commands.get(name)
    if command is None:
        return [name]
    known = {option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts}
    known |= {"--help", "-h"}
    return [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose_of(page)))
    return {heading.strip().replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading in it."""
    dead = []
    for link in LINK.findall(prose_of(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    return dead


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_page_of_tables_is_up_to_date() -> None:
    written = (ROOT / "docs" / "tables.md").read_text()
    assert written == tables_page(), f"docs/tables.md is out of date; run: {TABLES_COMMAND}"


@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert dead_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_mlops_command_exists(page: Path) -> None:
    unknown = {" ".join(words): unknown_words(words) for words in mlops_commands(page.read_text())}
    assert {line: words for line, words in unknown.items() if words} == {}


def test_a_command_that_does_not_exist_is_noticed() -> None:
    """The rule above, broken on purpose: a verb, an option, a line with a prompt."""
    page = "```\n$ mlops fly away\nmlops status --of day\n```\nand `mlops replay SERVICE --to DAY`\n"
    assert [unknown_words(words) for words in mlops_commands(page)] == [["fly"], ["--of"], []]


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A Title\n[a](page.md#a-title) [b](gone.md) [c](#gone) [d](https://example.com/gone)\n")
    assert dead_links(page) == ["gone.md", "#gone"]
