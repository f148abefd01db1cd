"""The rules of the developers' map, each a function from one parsed file to its breaches.

Who imports whom, who reads clocks, where SQL stands, how long things may get. `test_house_rules.py` holds the
tree against them and breaks each one on purpose.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

PACKAGE = "mlops_assets"
LOOPS = frozenset({"feature_loop", "model_loop", "feedback_loop", "monitoring_loop"})
DAGSTER_FILES = frozenset({"assets", "sensors", "checks", "build", "component", "definitions", "cli"})
HEAVY = frozenset({"mlflow", "great_expectations"})
MAX_FILE_LINES = 600
MAX_BODY_LINES = 60


@dataclass(frozen=True)
class Source:
    """One Python file, parsed."""

    path: PurePosixPath
    text: str
    public_names: frozenset[str] = frozenset()

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def loop(self) -> str | None:
        return self.path.parts[1] if len(self.path.parts) > 2 and self.path.parts[1] in LOOPS else None

    @property
    def is_plain_loop_file(self) -> bool:
        return self.loop is not None and self.path.stem not in DAGSTER_FILES

    def within(self, *folders: str) -> bool:
        return self.path.is_relative_to(PurePosixPath(PACKAGE, *folders))


@dataclass(frozen=True)
class Import:
    """One imported name: `from a.b import c` has module `a.b` and name `c`; `import a.b` has no name."""

    line: int
    module: str
    name: str | None
    runs_on_import: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module

    @property
    def inside(self) -> tuple[str, ...]:
        """The path inside our package: ("feature_loop", "assets", ...); empty for everyone else's modules."""
        return tuple(self.dotted.split(".")[1:]) if self.top == PACKAGE else ()


Breach = tuple[int, str]
Rule = Callable[[Source], Iterator[Breach]]


# --- reading --------------------------------------------------------------------------------------


def imports(source: Source) -> Iterator[Import]:
    """Every import of a file, wherever it stands, relative ones resolved."""
    yield from imports_under(source.tree, source.path, runs=True)


def imports_under(node: ast.AST, path: PurePosixPath, *, runs: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(child.lineno, alias.name, None, runs) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = absolute_module(child, path)
            yield from (Import(child.lineno, module, alias.name, runs) for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from imports_under(child, path, runs=False)
        else:
            is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports_under(child, path, runs=runs and not is_function)


def absolute_module(node: ast.ImportFrom, path: PurePosixPath) -> str:
    if not node.level:
        return node.module or ""
    package = path.parts[:-1]
    parents = package[: len(package) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def docstring_nodes(tree: ast.Module) -> set[int]:
    """Ids of bare strings: docstrings and notes under attributes. They are prose, however they start."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def texts(tree: ast.Module) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Every string but docstrings: line, text (a filled-in place reads `x`), names of enclosing functions."""
    yield from texts_under(tree, (), docstring_nodes(tree))


def texts_under(node: ast.AST, names: tuple[str, ...], prose: set[int]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant):
            if isinstance(child.value, str) and id(child) not in prose:
                yield child.lineno, child.value, names
        elif isinstance(child, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "x" for part in child.values)
            yield child.lineno, "".join(str(part) for part in parts), names
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from texts_under(child, (*names, child.name), prose)
        else:
            yield from texts_under(child, names, prose)


def full_names(source: Source) -> Iterator[tuple[int, str]]:
    """Every dotted name with import aliases undone: `dt.datetime.now` reads `datetime.datetime.now`."""
    tree = source.tree
    aliases = {
        alias.asname or alias.name.split(".")[0]: (
            f"{node.module}.{alias.name}"
            if isinstance(node, ast.ImportFrom)
            else alias.name
            if alias.asname
            else alias.name.split(".")[0]
        )
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            head, dot, rest = ast.unparse(node).partition(".")
            yield node.lineno, aliases.get(head, head) + dot + rest


# --- the rules ------------------------------------------------------------------------------------


def only_the_rim_knows_dagster(source: Source) -> Iterator[Breach]:
    if source.path.stem in DAGSTER_FILES or source.within("adapters"):
        return
    for item in imports(source):
        if item.top == "dagster" or item.top.startswith("dagster_"):
            yield (
                item.line,
                f"imports {item.module}; only {', '.join(sorted(DAGSTER_FILES))} and adapters may",
            )


def heavy_imports_wait(source: Source) -> Iterator[Breach]:
    for item in imports(source):
        if item.top in HEAVY and item.runs_on_import:
            yield (
                item.line,
                f"imports {item.module} at module level; import it inside the function that needs it",
            )


def loops_meet_in_tables(source: Source) -> Iterator[Breach]:
    for item in imports(source):
        if source.loop and item.inside and item.inside[0] in LOOPS - {source.loop}:
            yield item.line, f"{source.loop} imports {item.dotted}; loops meet in tables"


def only_the_day_loop_imports_all_four(source: Source) -> Iterator[Breach]:
    """`build` may collect assets, sensors and checks; the plain files of all four meet in one place."""
    if source.path == PurePosixPath(PACKAGE, "day_loop.py"):
        return
    seen: dict[str, int] = {}
    for item in imports(source):
        if item.inside and item.inside[0] in LOOPS and (len(item.inside) < 2 or item.inside[1] not in DAGSTER_FILES):
            seen.setdefault(item.inside[0], item.line)
    if set(seen) == LOOPS:
        yield max(seen.values()), "imports plain files of all four loops; only day_loop.py composes them"


def nobody_imports_upwards(source: Source) -> Iterator[Breach]:
    """definitions, examples -> build, component -> loops -> service -> errors: never against the arrows."""
    above = {"build", "component", "definitions", "cli", "examples"}
    if source.is_plain_loop_file:
        above = above | {"day_loop"}
    is_below = source.loop or source.within("adapters") or source.path.stem in {"tables", "decisions", "errors"}
    for item in imports(source):
        if is_below and item.inside and item.inside[0] in above:
            yield item.line, f"imports {item.dotted}, which stands above it"


def promises_stand_alone(source: Source) -> Iterator[Breach]:
    """service/ is what was promised: no I/O and no arithmetic, so nothing to import them from."""
    if not source.within("service"):
        return
    for item in imports(source):
        ours = item.inside and item.inside[0] in {"service", "errors"}
        theirs = item.top in {"pydantic", "pydantic_core", "sqlglot"} or item.top in sys.stdlib_module_names
        if not (ours or theirs):
            yield (
                item.line,
                f"service/ imports {item.dotted}; it may use service, errors, pydantic, sqlglot, stdlib",
            )


def examples_use_public_names(source: Source) -> Iterator[Breach]:
    """What the example can do, a stranger who installed the package can do. Sibling files are its own."""
    if not source.within("examples") or len(source.path.parts) < 4:
        return
    own = source.path.parts[1:3]
    for item in imports(source):
        if item.top != PACKAGE:
            continue
        is_public = item.module == PACKAGE and (item.name is None or item.name in source.public_names)
        is_public = is_public or item.module == f"{PACKAGE}.build" or item.inside[:2] == own
        if not is_public:
            yield (
                item.line,
                f"an example imports {item.dotted}; only public names of {PACKAGE} and {PACKAGE}.build",
            )


CLOCKS = frozenset(
    [f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")]
    + [f"pandas.Timestamp.{name}" for name in ("now", "utcnow", "today")]
    + [f"sqlalchemy.func.{name}" for name in ("now", "current_date", "current_timestamp")]
    + [f"time.{name}" for name in ("time", "time_ns", "localtime", "gmtime", "ctime")]
    + ["datetime.date.today"]
)
SQL_CLOCK = re.compile(
    r"\b(now\(\)|today\(\)|current_(date|time|timestamp)\b|get_current_timestamp\(\))", re.IGNORECASE
)


def only_the_calendar_reads_clocks(source: Source) -> Iterator[Breach]:
    """A day comes out the same whenever it is computed. Measuring a length (perf_counter) is no clock."""
    if source.path == PurePosixPath(PACKAGE, "adapters", "calendar.py"):
        return
    for line, name in full_names(source):
        if name in CLOCKS:
            yield line, f"reads a clock ({name}); only adapters/calendar.py does"
    for line, text, _ in texts(source.tree):
        if SQL.match(text) and (clock := SQL_CLOCK.search(text)):
            yield line, f"SQL reads a clock ({clock.group()}); pass the instant in as a parameter"


SQL = re.compile(
    r"""\s*(
        select\s+(distinct\b|\*|\d|exists\b|'|\w+\s*\(|.*\bfrom\s+\w)
      | with\s+(recursive\s+)?\w+(\s*\([^)]*\))?\s+as\s+(not\s+|materialized\s+)*\(
      | insert\s+(or\s+\w+\s+)?into\s+\w
      | create\s+(or\s+replace\s+)?(unique\s+|temp\s+|temporary\s+|virtual\s+)*
        (table|view|macro|trigger|index|schema|type|function)\s+\w
      | (delete|truncate)\s+(from|table)\s+\w+\s*($|;|where\b|using\b|returning\b)
      | update\s+[\w."]+\s+set\s+\w+\s*=
      | merge\s+into\s+\w
      | (alter|drop)\s+(table|view|trigger|index|macro|schema)\s+\w
      | copy\s+.*\b(to|from)\s+['x]
      | (set|pragma)\s+\w+\s*=
      | attach\s+['x]
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def sql_stands_in_sql_functions(source: Source) -> Iterator[Breach]:
    for line, text, names in texts(source.tree):
        if SQL.match(text) and not any(name.endswith("_sql") for name in names):
            yield line, f"SQL outside a function named *_sql: {' '.join(text.split())[:50]!r}"


def functions_fit_on_a_screen(source: Source) -> Iterator[Breach]:
    for function in functions(source.tree):
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if lines > MAX_BODY_LINES:
            yield (
                function.lineno,
                f"{function.name} has a body of {lines} lines; {MAX_BODY_LINES} is the limit",
            )


def files_stay_readable(source: Source) -> Iterator[Breach]:
    lines = source.text.count("\n") + (not source.text.endswith("\n"))
    if lines > MAX_FILE_LINES:
        yield MAX_FILE_LINES + 1, f"{lines} lines; {MAX_FILE_LINES} is the limit"


def files_are_named_after_one_noun(source: Source) -> Iterator[Breach]:
    if {"util", "utils"} & {source.path.stem, *source.path.parts}:
        yield 1, "is named utils; the functions in it belong somewhere else"


#: Written in two halves, so that this file does not break its own rule.
MACHINE_TRACES = re.compile(
    "|".join(
        [
            r"pypi\." + "org",
            r"python" + r"hosted\.org",
            r"registry\." + r"npmjs",
            r"deb\." + r"debian\.org",
            r"--(extra-)?" + r"index-url\b(?!\"|`)",
            r"--find" + r"-links\b",
            r"(?<![\w.$}~-])/(work|root)" + r"/[\w.]",
            r"(?<![\w.$}~-])/(home|Users)" + r"/\w+/",
            r"/opt/" + r"(pypi|wheels)",
        ]
    )
)


def nothing_names_a_machine(source: Source) -> Iterator[Breach]:
    for number, line in enumerate(source.text.splitlines(), start=1):
        if found := MACHINE_TRACES.search(line):
            yield number, f"names a registry or a path of one machine: {found.group()!r}"
