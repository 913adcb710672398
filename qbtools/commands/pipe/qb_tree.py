"""qb-tree: writes a directory as a tar archive, and extracts it again."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError

DOC = f"""\
Usage:
  qb-tree [options] [--extract] PATH NAME
  qb-tree [options] --verify NAME

Write the directory PATH to standard output as a tar archive, in which it is called
NAME. With --extract read such an archive from standard input, and write the file or
directory NAME in it to PATH. PATH must not exist, and appears when it is complete.

Options:
  --extract             Extract an archive.
  --verify              Read an archive to its end, as --extract does, and write
                        nothing.
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Saves, extracts or checks; see DOC."""
    from qbtools import trees
    from qbtools.formats import chunks

    path, name = call.options["PATH"], call.options["NAME"]
    problem = chunks.name_problem(name)
    if problem:
        raise UsageError(f"{name}: {problem}")
    if call.options["--verify"]:
        trees.check(name, call.stdin())
    elif call.options["--extract"]:
        trees.extract(path, name, call.stdin(), call.warn)
    else:
        trees.save(path, name, call.stdout(), call.warn)
