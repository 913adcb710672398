"""qb-snapshot list: everything that has a mark of qbtools."""

from __future__ import annotations

import json

from qbtools.commands.cli import Invocation
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import snapshots
from qbtools.volumes.marks import Kept
from qbtools.volumes.problems import Problems

if TYPE_CHECKING:
    from qbtools.volumes.marks import Owner


def show(call: Invocation) -> None:
    """Prints lines, or a JSON document. Raises the first error at the end."""
    out = call.stdout(binary=False)
    problems = Problems()
    found = snapshots.marked(call.options["DIR"], problems)
    if call.options["--json"]:
        text = json.dumps([_document(spec, mark) for spec, mark in found], indent=2) + "\n"
    else:
        text = "".join(f"{spec}\t{_words(mark)}\n" for spec, mark in found)
    out.write(text.encode("utf-8", "surrogateescape"))
    problems.end()


def _document(spec: str, mark: Owner) -> dict[str, object]:
    if isinstance(mark, Kept):
        return {"spec": spec, "pid": None, "dead": False, "backup_id": mark.backup_id}
    return {"spec": spec, "pid": mark.pid, "dead": mark.dead()}


def _words(mark: Owner) -> str:
    if isinstance(mark, Kept):
        return f"{mark.backup_id}\tseries"
    return f"{mark.pid}\t{'dead' if mark.dead() else 'kept'}"
