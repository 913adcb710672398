"""Dependency points one way: errors <- streams <- formats <- {volumes, domains} <- hosts <- commands <- bin."""

from __future__ import annotations

import ast
import re
import sys

import pytest
from product import IN_PYTHON, PROGRAMS, Module, imports, module_of, modules
from support import BIN, ROOT

# What each room may import of the others. volumes and domains don't know each other.
ALLOWED: dict[str, set[str]] = {
    "": set(),
    "start": {"commands"},
    "lean": set(),
    "errors": {"lean"},
    "latesignals": set(),
    "descriptors": set(),
    "directories": set(),
    "writers": {"errors", "descriptors"},
    "streams": {"errors", "descriptors", "writers"},
    "reports": set(),
    "amounts": set(),
    "progressline": {"amounts", "errors"},
    "progress": {"reports", "progressline"},
    "environments": set(),
    "endings": {"errors", "reports"},
    "processes": {"errors", "descriptors", "reports", "endings", "environments"},
    "passphrase": {"errors", "processes"},
    "programs": {"errors", "latesignals", "environments", "streams"},
    "filters": {"errors", "streams", "programs", "formats"},
    "processtree": {"volumes"},
    "treewalk": {"errors"},
    "trees": {"errors", "descriptors", "directories", "streams", "programs", "treewalk", "formats", "volumes"},
    "formats": {"errors", "streams", "formats"},
    "keys": {"errors", "programs", "processes", "passphrase", "formats", "keys"},
    "storing": {"errors", "latesignals", "descriptors", "directories", "streams"},
    "volumes": {
        *("errors", "latesignals", "descriptors", "directories", "environments", "streams", "formats"),
        *("processes", "programs", "volumes"),
    },
    "series": {"errors", "descriptors", "directories", "streams", "formats", "series"},
    "domains": {"amounts", "errors", "streams", "formats", "domains"},
    "hosts": {
        *("amounts", "errors", "latesignals", "descriptors", "directories", "environments", "processtree"),
        *("streams", "treewalk", "formats", "volumes", "domains", "hosts"),
    },
}
ALLOWED["runs"] = {
    *("errors", "descriptors", "directories", "streams", "reports", "endings", "environments"),
    *("processtree", "formats", "volumes", "domains", "hosts", "runs"),
}
for _room in ALLOWED.values():
    _room.add("lean")
ALLOWED["commands"] = {*ALLOWED, "commands", "__version__"} - {""}

# Who may use which package that is not Python's own.
PACKAGES = {"formats": {"cryptography", "scrypt"}, "commands": {"docopt"}, "progressline": {"tqdm"}}

MODULES = modules()
IDS = [module.name for module in MODULES]
COMMANDS = {name.replace("-", "_") for name in PROGRAMS}


def test_no_arrow_points_back() -> None:
    for module in MODULES:
        assert module.room in ALLOWED, f"{module.room} is a new room: say above what it may know"
        for name in imports(module.tree):
            assert not name.startswith("."), f"{module.name}: {name}: imports are written out"
            if name.startswith("qbtools."):
                assert name.split(".")[1] in ALLOWED[module.room], f"{module.name} must not know {name}"


def test_few_packages_and_each_in_its_place() -> None:
    for module in MODULES:
        foreign = {name.split(".")[0] for name in imports(module.tree)} - set(sys.stdlib_module_names) - {"qbtools"}
        assert foreign <= PACKAGES.get(module.room, set()), module.name


def test_the_design_page_names_every_room_and_module() -> None:
    page = (ROOT / "man/qb-design.7").read_text()
    rows = dict(re.findall(r"^\.It Pa (\w+) Ta (.*)$", page, re.MULTILINE))
    words = {room: set(text.split(", ")) - {"nothing"} for room, text in rows.items()}
    everything = ALLOWED.keys() - {"", "lean", "commands"}
    words["commands"] = {*everything, "__version__"} if words["commands"] == {"everything"} else set()
    assert words == {room: known - {room, "lean"} for room, known in ALLOWED.items() if room}
    named = set(re.findall(r"\w+", page))
    assert {part for name in IDS for part in name.split(".") if part not in COMMANDS} <= named


def imported(module: Module) -> set[str]:
    """Our modules that a module imports anywhere: an import inside a function counts, too."""
    return {part for name in imports(module.tree) for part in (name, name.rpartition(".")[0])} & {*IDS} - {"qbtools"}


def test_nothing_goes_in_a_circle() -> None:
    left = {module.name: imported(module) for module in MODULES}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_the_check_without_a_passphrase_needs_no_package() -> None:
    by_name = dict(zip(IDS, MODULES, strict=True))
    needed, new = set(), {"qbtools.formats.structure"}
    while new:
        needed |= new
        new = {name for module in new for name in imported(by_name[module])} - needed
    roots = {name.split(".")[0] for module in needed for name in imports(by_name[module].tree)}
    assert "qbtools.formats.chunks" in needed and roots <= {*sys.stdlib_module_names, "qbtools"}


def test_modules_are_short() -> None:
    for module in MODULES:
        # About 300 lines, a command about 100: where one grows past that, a second idea is hiding in it.
        is_command = module.room == "commands" and module.name.split(".")[-1] in COMMANDS
        assert module.lines <= (115 if is_command else 320), module.name


@pytest.mark.parametrize("program", IN_PYTHON)
def test_programs_differ_only_in_their_names(program: str) -> None:
    """Everything except one call is in the package."""

    def nameless(name: str) -> str:
        text = (BIN / name).read_text()
        call = f'start.run("{name}", "qbtools.commands.{module_of(name)}")\n'
        assert text.endswith(call)
        return text.removesuffix(call)

    assert nameless(program) == nameless(IN_PYTHON[0])
    assert nameless(program).startswith("#!/usr/bin/env -S python3 -IS\nimport _signal\n")
    assert nameless(program).count("\n") <= 12
    assert (BIN / program).stat().st_mode & 0o777 == 0o755


def test_no_command_without_a_program() -> None:
    """A module with a DOC belongs to a program."""
    for module in MODULES:
        assigned: list[ast.expr] = []
        for node in module.tree.body:
            if isinstance(node, ast.Assign):
                assigned += node.targets
            elif isinstance(node, ast.AnnAssign):
                assigned.append(node.target)
        if any(isinstance(target, ast.Name) and target.id == "DOC" for target in assigned):
            assert module.name.split(".")[-1] in COMMANDS
