"""What docs/watch-a-log.md tells a newcomer to do works as it stands there, word for word."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlops_assets.cli import cli

PAGE = (Path(__file__).parent.parent / "docs" / "watch-a-log.md").read_text()
FILES = re.findall(r"^```\w+ (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CONSOLES = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_a_newcomer_follows_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is written, every command is given; where the page shows an answer, that is the answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loans", raising=False)
    monkeypatch.delenv("MLOPS_HOME", raising=False)
    for name, text in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    given = 0
    for block in CONSOLES:
        commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        answer = "\n".join(line for line in block.splitlines() if not line.startswith("$ "))
        for command in commands:
            verb, *words = shlex.split(command)
            if verb == "export":
                monkeypatch.setenv(*words[0].split("="))
                continue
            done = CliRunner().invoke(cli, words)
            assert done.exit_code == 0, (command, done.output, done.exception)
            assert not answer or done.output.rstrip("\n") == answer, command
            given += 1
    assert len(FILES) == 8 and given == 5
