"""The product for the tests of conventions: its modules as syntax trees, its programs and their options."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import docopt
from support import BIN, ROOT

# qb-run is what qb-backup becomes: a program of its own only because bash must be able to start it.
PROGRAMS = sorted(path.name for path in BIN.iterdir() if path.is_file() and path.name != "qb-run")
PACKAGE = ROOT / "qbtools"


@dataclass(frozen=True)
class Module:
    """One module of the product."""

    name: str
    path: Path

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Parsed when a test asks for it: each worker collects all tests, but few look at the trees."""
        return ast.parse(self.path.read_text(), str(self.path))

    @property
    def room(self) -> str:
        """errors, streams, … or the directory: formats, volumes, domains, commands."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def lines(self) -> int:
        return self.path.read_text().count("\n")


IN_PYTHON = [name for name in PROGRAMS if name != "qb-backup"]


def module_of(program: str) -> str:
    """The name of a program's module below qbtools.commands: machines.qb_host_dir of qb-host-dir."""
    name = program.replace("-", "_")
    (path,) = (PACKAGE / "commands").glob(f"*/{name}.py")
    return f"{path.parent.name}.{name}"


@functools.cache
def modules() -> list[Module]:
    """All modules of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found.append(Module(name, path))
    return found


def imports(tree: ast.AST) -> list[str]:
    """Dotted names of all imports in tree, at any place; `from a import b` is a.b."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return found


@functools.cache
def doc(program: str) -> str:
    """The help text of a program, from which its options are parsed."""
    module = importlib.import_module(f"qbtools.commands.{module_of(program)}")
    return str(module.DOC)


@functools.cache
def options(program: str) -> dict[str, int]:
    """Every name of every option, long and short, and the number of its values (0 or 1)."""
    return {
        name: option.argcount
        for option in docopt.parse_defaults(doc(program))
        for name in (option.short, option.long)
        if name
    }


@functools.cache
def option_texts(program: str) -> dict[str, str]:
    """The lines that a help text has for each option: its first name, the line and those that continue it."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^  (-[^\n]*\n(?:   +[^-\s][^\n]*\n)*)", doc(program), re.MULTILINE):
        text = match[1].rstrip("\n")
        name = next(word for word in re.split(r"[ ,=]+", text) if word.startswith("--"))
        assert name not in found, f"{program} describes {name} twice"
        found[name] = text
    return found
