"""The developers' map is true: each rule of `house_rules.py` is held against the tree, file by file.

The snippets at the bottom break each rule on purpose, so a rule that can no longer go red is noticed.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import house_rules
import pytest
from house_rules import (
    HEAVY,
    LOOPS,
    MAX_BODY_LINES,
    MAX_FILE_LINES,
    PACKAGE,
    Rule,
    Source,
    examples_use_public_names,
    files_are_named_after_one_noun,
    files_stay_readable,
    functions_fit_on_a_screen,
    heavy_imports_wait,
    loops_meet_in_tables,
    nobody_imports_upwards,
    nothing_names_a_machine,
    only_the_calendar_reads_clocks,
    only_the_day_loop_imports_all_four,
    only_the_rim_knows_dagster,
    promises_stand_alone,
    sql_stands_in_sql_functions,
)

ROOT = Path(__file__).resolve().parent.parent


# --- the tree held against the rules --------------------------------------------------------------


def tracked_files() -> list[Path]:
    """What is, or is about to be, in the repository: ignored files are the machine's own business."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:  # an unpacked archive: there is no git to ask
        hidden = (".venv", ".git", ".mlops", "__pycache__", "build", ".hypothesis")
        candidates = [p for p in ROOT.rglob("*") if not any(part in hidden or part.startswith(".") for part in p.parts)]
    else:
        candidates = [ROOT / name for name in listing.stdout.split("\0") if name]
    return sorted(path for path in candidates if path.is_file())


def read_source(path: Path, public_names: frozenset[str] = frozenset()) -> Source | None:
    try:
        return Source(PurePosixPath(path.relative_to(ROOT).as_posix()), path.read_text("utf-8"), public_names)
    except UnicodeDecodeError:
        return None


def declared_public_names() -> frozenset[str]:
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


@pytest.fixture(scope="module")
def tracked() -> list[Source]:
    names = declared_public_names()
    return [source for path in tracked_files() if (source := read_source(path, names))]


@pytest.fixture(scope="module")
def python_files(tracked: list[Source]) -> list[Source]:
    return [source for source in tracked if source.path.suffix == ".py"]


@pytest.fixture(scope="module")
def package(python_files: list[Source]) -> list[Source]:
    return [source for source in python_files if source.within()]


def breaches(rule: Rule, sources: Iterable[Source]) -> list[str]:
    return [f"{source.path}:{line}: {why}" for source in sources for line, why in rule(source)]


def hold(rule: Rule, sources: list[Source]) -> None:
    assert sources, "no file was looked at"
    found = breaches(rule, sources)
    assert not found, "\n" + "\n".join(found)


def heavy_modules_after(statement: str) -> list[str]:
    """Which of the slow imports a fresh interpreter holds after `statement`."""
    heavy = sorted(HEAVY | {"dagster"})
    code = f"import sys\n{statement}\nprint(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def module_name(path: PurePosixPath) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def test_declaring_a_service_never_waits_for_dagster_mlflow_or_gx():
    assert heavy_modules_after(f"import {PACKAGE}") == []


def test_the_arithmetic_of_the_loops_imports_without_dagster_mlflow_or_gx(package: list[Source]):
    """Not even through a second file: everything but the rim is imported in one fresh interpreter."""
    inner = [
        s for s in package if s.is_plain_loop_file or s.within("service") or s.path.stem in {"tables", "decisions"}
    ]
    assert heavy_modules_after("\n".join(f"import {module_name(source.path)}" for source in inner)) == []


def test_only_the_rim_knows_dagster(package: list[Source]):
    hold(only_the_rim_knows_dagster, package)


def test_mlflow_and_gx_are_imported_where_they_are_used(package: list[Source]):
    hold(heavy_imports_wait, package)


def test_a_loop_never_imports_another_loop(package: list[Source]):
    hold(loops_meet_in_tables, package)


def test_only_the_day_loop_imports_all_four(package: list[Source]):
    hold(only_the_day_loop_imports_all_four, package)


def test_nobody_imports_upwards(package: list[Source]):
    hold(nobody_imports_upwards, package)


def test_promises_import_nothing_but_promises(package: list[Source]):
    hold(promises_stand_alone, package)


def test_examples_use_only_what_a_stranger_can_import(package: list[Source]):
    hold(examples_use_public_names, package)


def test_only_the_calendar_reads_clocks(package: list[Source]):
    hold(only_the_calendar_reads_clocks, package)


def test_sql_stands_in_functions_named_sql(package: list[Source]):
    hold(sql_stands_in_sql_functions, package)


def test_functions_fit_on_a_screen(package: list[Source]):
    hold(functions_fit_on_a_screen, package)


def test_files_stay_readable(python_files: list[Source]):
    hold(files_stay_readable, python_files)


def test_no_file_is_named_utils(tracked: list[Source]):
    hold(files_are_named_after_one_noun, tracked)


def test_no_file_names_a_registry_or_a_path_of_one_machine(tracked: list[Source]):
    hold(nothing_names_a_machine, tracked)


LOCKS = ("requirements.lock", "requirements-build.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_names_and_hashes_and_no_address(name: str):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    allowed = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[\w,-]+\])?==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    wrong = [f"{name}:{number}: {line}" for number, line in enumerate(lines, start=1) if not allowed.fullmatch(line)]
    assert lines and not wrong, "\n" + "\n".join(wrong)


def test_every_direct_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["postgres"]]
    names = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in wanted}
    locked = {line.split("==")[0].split("[")[0] for line in (ROOT / LOCKS[0]).read_text("utf-8").splitlines()}
    assert names - locked == set(), "run `make lock`"


# --- every rule broken on purpose -----------------------------------------------------------------


@dataclass(frozen=True)
class Snippet:
    """A small file, and the lines on which the rule must speak; none at all when it is fine."""

    rule: Rule
    path: str
    text: str
    lines: tuple[int, ...] = ()

    @property
    def sources(self) -> list[Source]:
        return [Source(PurePosixPath(PACKAGE, self.path), self.text, frozenset({"MLService"}))]


LONG = "def judge():\n    '''Says\n    much.'''\n" + "    x = 1\n" * MAX_BODY_LINES

BROKEN = [
    Snippet(only_the_rim_knows_dagster, "tables.py", "import dagster as dg", (1,)),
    Snippet(only_the_rim_knows_dagster, "model_loop/gate.py", "def f():\n    from dagster_duckdb import X", (2,)),
    Snippet(
        heavy_imports_wait,
        "adapters/registry.py",
        "try:\n    import mlflow.sklearn\nfinally:\n    pass",
        (2,),
    ),
    Snippet(heavy_imports_wait, "feature_loop/contracts.py", "from great_expectations import core", (1,)),
    Snippet(loops_meet_in_tables, "model_loop/gate.py", "from mlops_assets.feedback_loop import labels", (1,)),
    Snippet(
        loops_meet_in_tables,
        "model_loop/assets.py",
        "def f():\n    from mlops_assets import feature_loop",
        (2,),
    ),
    Snippet(loops_meet_in_tables, "model_loop/gate.py", "from ..feature_loop.parity import x", (1,)),
    Snippet(
        only_the_day_loop_imports_all_four,
        "cli.py",
        "\n".join(f"from mlops_assets.{loop} import x" for loop in sorted(LOOPS)),
        (4,),
    ),
    Snippet(nobody_imports_upwards, "monitoring_loop/drift.py", "from mlops_assets import day_loop", (1,)),
    Snippet(nobody_imports_upwards, "adapters/lake.py", "from mlops_assets.build import x", (1,)),
    Snippet(promises_stand_alone, "service/labels.py", "import pandas as pd", (1,)),
    Snippet(promises_stand_alone, "service/labels.py", "from mlops_assets import tables", (1,)),
    Snippet(
        examples_use_public_names,
        "examples/bike/service.py",
        "from mlops_assets.service.labels import X",
        (1,),
    ),
    Snippet(examples_use_public_names, "examples/bike/service.py", "from mlops_assets import tables", (1,)),
    Snippet(examples_use_public_names, "examples/bike/service.py", "from ..flights.service import x", (1,)),
    Snippet(
        only_the_calendar_reads_clocks,
        "day_loop.py",
        "import datetime as dt\nx = dt.datetime.now(dt.UTC)",
        (2,),
    ),
    Snippet(only_the_calendar_reads_clocks, "day_loop.py", "from datetime import date as d\nx = d.today()", (2,)),
    Snippet(only_the_calendar_reads_clocks, "day_loop.py", "from time import time\nx = time()", (2,)),
    Snippet(only_the_calendar_reads_clocks, "tables.py", "def f():\n    return 'select now() as at'", (2,)),
    Snippet(sql_stands_in_sql_functions, "tables.py", "Q = 'SELECT day\\nFROM labels'", (1,)),
    Snippet(sql_stands_in_sql_functions, "tables.py", "def read(t):\n    return f'select * from {t}'", (2,)),
    Snippet(sql_stands_in_sql_functions, "tables.py", "def f():\n    run('with a as (select 1) select 1')", (2,)),
    Snippet(sql_stands_in_sql_functions, "tables.py", "def f(t):\n    run(f'delete from {t} where day = ?')", (2,)),
    Snippet(sql_stands_in_sql_functions, "tables.py", "class A:\n    q = 'insert into t values (1)'", (2,)),
    Snippet(sql_stands_in_sql_functions, "tables.py", "Q = 'create table if not exists t (a int)'", (1,)),
    Snippet(sql_stands_in_sql_functions, "tables.py", "Q = 'update t set a = 1'", (1,)),
    Snippet(functions_fit_on_a_screen, "decisions.py", LONG + "    y = 1\n", (1,)),
    Snippet(files_stay_readable, "decisions.py", "x = 1\n" * (MAX_FILE_LINES + 1), (MAX_FILE_LINES + 1,)),
    Snippet(files_are_named_after_one_noun, "adapters/utils.py", "", (1,)),
    Snippet(files_are_named_after_one_noun, "utils/dates.py", "", (1,)),
    Snippet(nothing_names_a_machine, "tables.py", "x = 1\ny = '/ro" + "ot/.cache'", (2,)),
    Snippet(nothing_names_a_machine, "tables.py", "# see https://py" + "pi.org/simple", (1,)),
    Snippet(nothing_names_a_machine, "tables.py", "# pip install --extra-" + "index-url=x", (1,)),
]

FINE = [
    Snippet(only_the_rim_knows_dagster, "model_loop/assets.py", "import dagster as dg"),
    Snippet(only_the_rim_knows_dagster, "adapters/engine.py", "from dagster_duckdb import DuckDBResource"),
    Snippet(heavy_imports_wait, "adapters/registry.py", "def f():\n    import mlflow"),
    Snippet(heavy_imports_wait, "adapters/registry.py", "if TYPE_CHECKING:\n    import mlflow"),
    Snippet(loops_meet_in_tables, "model_loop/gate.py", "from mlops_assets.model_loop.evaluation import x"),
    Snippet(
        only_the_day_loop_imports_all_four,
        "build.py",
        "\n".join(f"from mlops_assets.{loop} import assets" for loop in sorted(LOOPS)),
    ),
    Snippet(nobody_imports_upwards, "feature_loop/assets.py", "from mlops_assets.adapters import lake"),
    Snippet(
        promises_stand_alone,
        "service/labels.py",
        "import sqlglot\nfrom datetime import date\nfrom ..errors import X",
    ),
    Snippet(
        examples_use_public_names,
        "examples/bike/service.py",
        "from mlops_assets import MLService\nfrom . import features",
    ),
    Snippet(only_the_calendar_reads_clocks, "adapters/calendar.py", "import time\nx = time.time()"),
    Snippet(only_the_calendar_reads_clocks, "day_loop.py", "import time\nx = time.perf_counter()\ntime.sleep(1)"),
    Snippet(
        only_the_calendar_reads_clocks,
        "day_loop.py",
        "from mlops_assets.adapters import calendar\nx = calendar.now()",
    ),
    Snippet(sql_stands_in_sql_functions, "tables.py", "def day_sql(t):\n    return f'select * from {t}'"),
    Snippet(sql_stands_in_sql_functions, "cli.py", "HELP = 'Update the declaration, then select a day.'"),
    Snippet(
        sql_stands_in_sql_functions,
        "cli.py",
        "def f():\n    '''Select rows from a table.'''\n    g('with care', 'create a table')",
    ),
    Snippet(functions_fit_on_a_screen, "decisions.py", LONG),
    Snippet(files_stay_readable, "decisions.py", "x = 1\n" * MAX_FILE_LINES),
    Snippet(nothing_names_a_machine, "tables.py", "x = '$MLOPS_HOME/work/out'; y = 'sqlite:///mlflow.db'"),
]

RULES = [
    rule
    for name, rule in list(vars(house_rules).items())
    if getattr(rule, "__annotations__", {}).get("return") == "Iterator[Breach]"
]


@pytest.mark.parametrize("snippet", BROKEN, ids=lambda s: f"{s.rule.__name__}-{s.path}")
def test_a_rule_broken_on_purpose_goes_red(snippet: Snippet):
    found = breaches(snippet.rule, snippet.sources)
    assert [line.split(": ")[0] for line in found] == [f"{PACKAGE}/{snippet.path}:{line}" for line in snippet.lines]


@pytest.mark.parametrize("snippet", FINE, ids=lambda s: f"{s.rule.__name__}-{s.path}")
def test_a_rule_that_is_kept_stays_green(snippet: Snippet):
    assert breaches(snippet.rule, snippet.sources) == []


def test_no_rule_is_beyond_breaking():
    assert {rule.__name__ for rule in RULES} == {snippet.rule.__name__ for snippet in BROKEN}
