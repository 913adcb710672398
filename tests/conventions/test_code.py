"""Things that the code of the product never does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from product import Module, modules
from support import ROOT

MODULES = modules()

# Formats take and give file objects and bytes: they open nothing, say nothing, and look at nothing around them.
NOT_IN_FORMATS = re.compile(
    r"io\.open|io\.FileIO|os\.open|os\.fdopen|os\.write|os\.environ.*|os\.getenv|os\.isatty|sys\..*|"
    r"pathlib\..*|subprocess\..*|Path\..*|logging\..*|warnings\..*|os\.path\..*|os\.stat|os\.listdir"
)


def dotted(node: ast.AST) -> str:
    """`os.environ` of such an expression; an empty text for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (value := dotted(node.value)):
        return f"{value}.{node.attr}"
    return ""


def where(module: Module, node: ast.AST) -> str:
    return f"{module.path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


def test_formats_touch_nothing_but_what_they_are_given() -> None:
    for module in (module for module in MODULES if module.room == "formats"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                assert dotted(node.func) not in ("open", "print", "input"), where(module, node)
            if isinstance(node, ast.Attribute):
                assert not NOT_IN_FORMATS.fullmatch(dotted(node)), f"{where(module, node)}: {dotted(node)}"


def offences(module: Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield node, "assert: python -O takes it away"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node, "a bare except"
        elif isinstance(node, ast.FunctionDef) and node.name == "__del__":
            yield node, "cleanup in __del__"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in ("print", "input", "eval", "exec", "os.system", "os.popen", "breakpoint"):
                yield node, name
            if any(
                word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
                for word in node.keywords
            ):
                yield node, "shell=True"
            if name in (
                "tempfile.NamedTemporaryFile",
                "tempfile.mkstemp",
                "tempfile.mkdtemp",
                "tempfile.TemporaryFile",
            ):
                yield node, "a temporary file: plaintext stays out of TMPDIR"


def test_what_no_module_does() -> None:
    for module in MODULES:
        assert [f"{where(module, node)}: {what}" for node, what in offences(module)] == []


# errors.py gives each error its status, cli.py ends the program with it.
STATUS_KNOWERS = ("qbtools.commands.cli", "qbtools.errors")


def test_one_place_turns_an_error_into_a_status() -> None:
    for module in (module for module in MODULES if module.name not in STATUS_KNOWERS):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name | ast.Attribute):
                assert dotted(node) not in ("sys.exit", "exit", "quit", "SystemExit", "sys.stderr"), where(module, node)
            if isinstance(node, ast.Attribute) and node.attr == "status":
                # An exception's; a CMD's ending has one too, under a name of its own.
                assert dotted(node.value) not in ("error", "QbError"), where(module, node)


def test_only_errors_knows_a_status() -> None:
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and module.room != "errors":
                names = [
                    target.id
                    for item in node.body
                    if isinstance(item, ast.Assign)
                    for target in item.targets
                    if isinstance(target, ast.Name)
                ]
                assert "status" not in names, where(module, node)


def test_what_is_public_is_described() -> None:
    for module in MODULES:
        if module.path.name == "__init__.py" and not module.tree.body:
            continue
        assert ast.get_docstring(module.tree), module.name
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                # main of a command is the contract of all commands.
                if node.name == "main" and module.room == "commands":
                    continue
                assert ast.get_docstring(node), f"{where(module, node)}: {node.name}"


def test_every_function_says_its_types() -> None:
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef):
                assert node.returns is not None, f"{where(module, node)}: {node.name}"


def messages(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """The messages to the user: the first words of errors and warnings."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = dotted(node.func).rpartition(".")[2]
        if name in ("Failed", "UsageError", "WrongPassphrase", "Damaged", "Truncated", "Refused", "warn"):
            for part in node.args:
                if isinstance(part, ast.JoinedStr):
                    yield node, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in part.values)
                elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield node, part.value


def test_messages_are_lower_case_without_full_stop() -> None:
    for module in MODULES:
        for node, text in messages(module):
            first = re.match(r"[A-Za-z]+", text)
            # Names in capitals stay so: NAME, LIST, GNU, UTF-8.
            begins_well = first is None or first[0].islower() or first[0].isupper() or first[0] in ("Qubes",)
            assert begins_well, where(module, node)
            assert not text.endswith((".", "!")), where(module, node)
            assert "password" not in text.lower(), f"{where(module, node)}: it is called passphrase"


def skips(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name | ast.Attribute) and re.fullmatch(
            r"(pytest\.)?(skip|importorskip|mark\.skip|mark\.skipif|mark\.xfail|xfail)", dotted(node)
        ):
            yield node.lineno


def test_no_test_is_skipped_past_need_and_missing() -> None:
    # QB_REQUIRE_ALL=1 makes those two fail; a skip of another kind would stay unseen.
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "support.py"]
    assert len(files) > 200
    assert {str(path): lines for path in files if (lines := list(skips(path)))} == {}


def test_bash_opens_no_name_of_the_user() -> None:
    """It would show one that it cannot open as it is, control characters included."""
    text = re.sub(r"^ *#.*$", "", (ROOT / "bin/qb-backup").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"[<>]+ *(?:\"[^\"]*\$[^\"]*\"|\$\S+)", text)) <= {
        '>&"$told"',
        '>&"$out"',
        '>"$QB_STREAMS/$stream"',
        '<"$QB_STREAMS/$told"',
    }


def test_the_stages_of_a_run_are_connected_by_pipes_alone() -> None:
    """What goes through a file in memory or another process's descriptors has no end that tells of a dead writer."""
    text = re.sub(r"^ *#.*$", "", (ROOT / "bin/qb-backup").read_text(), flags=re.MULTILINE)
    assert re.findall(r"\bcoproc\b|[<>]\(|/proc/\S*/fd\b|\bmktemp\b|<<<?", text) == []
    rooms = ("qbtools.commands.backup", "qbtools.commands.pipe", "qbtools.runs")
    files = [module.path for module in MODULES if module.name.startswith(rooms)]
    assert [path.name for path in files if re.search(r"memfd|/proc/\S*/fd\b", path.read_text())] == []
