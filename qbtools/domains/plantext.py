"""A restore plan as text that a person can change (see qb-plan(1)), and as JSON.

The text has a line of column names, a line for each domain with these columns separated by tabs, and the line `end`,
without which it is incomplete. Lines that begin with # are comments; the written ones say what will change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qbtools.domains import names
from qbtools.domains.lines import read_fields
from qbtools.domains.outcome import size_of
from qbtools.domains.planlines import CREATE, SKIP, Plan, PlanLine, Written
from qbtools.domains.qubesxml import Metadata
from qbtools.domains.selection import restorable
from qbtools.errors import Damaged, Truncated
from qbtools.streams import Reader

COLUMNS = (
    *("action", "domain", "name", "class", "template", "netvm", "default_dispvm", "kernel"),
    *("size", "problem"),
)
NONE = "-"
"""Means none, or not known, in a column."""

_END = "end"
_WAYS_TO_SAY_NONE = (NONE, "none")
_HELP = """\
# A restore plan. Each line is a domain: change its action (create, skip), its
# name on the host, template, netvm, default_dispvm or kernel: - is none, default
# is what the host has as its default. Then check it with qb-plan --check.
"""


def to_text(plan: Plan) -> str:
    """The plan as lines, UTF-8 in comments, else ASCII."""
    return "".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    yield _HELP
    yield "\t".join(COLUMNS) + "\n"
    for line in plan.lines:
        yield "\t".join(_fields(line)) + "\n"
        for note in line.notes:
            yield f"#   {line.name}: {note}\n"
    for change in plan.changed:
        yield f"# changed: {change}\n"
    yield _END + "\n"


def _fields(line: PlanLine) -> list[str]:
    action, domain, name, *rest = line.written
    size = NONE if line.size is None else str(line.size)
    return [action, domain or NONE, name or NONE, line.kind, *(one or NONE for one in rest), size, line.problem or NONE]


def as_document(plan: Plan) -> dict[str, object]:
    """The same for programs that read JSON. None is null, default is "default"."""
    return {
        "domains": [
            {
                **line.written._asdict(),
                "class": line.kind,
                "size": line.size,
                "problem": line.problem,
                "notes": list(line.notes),
            }
            for line in plan.lines
        ],
        "problems": len(plan.problems),
        "failure": plan.failure.message if plan.failure else None,
        "changed": list(plan.changed),
    }


def read(reader: Reader, archive: Metadata) -> list[Written]:
    """The lines of a plan, for plan.check.

    Damaged for any other text: other columns, another action, a malformed name, a domain that occurs twice or is not
    saved in archive, and a class or a size that differs from the archive, because these cannot be chosen. Truncated
    if the line `end` is missing. The message names the file. The column problem is ignored.
    """
    try:
        return _read(reader, archive)
    except Damaged as error:
        if error.message.startswith("line "):
            raise type(error)(f"{reader.name}: {error.message}", error.hint) from None
        raise


def _read(reader: Reader, archive: Metadata) -> list[Written]:
    saved = {domain.name: domain for domain in restorable(archive)}
    found: dict[str, Written] = {}
    for number, fields in _between(reader):
        written = _written(number, fields)
        domain = saved.get(written.domain)
        if domain is None:
            raise Damaged(f"line {number}: the archive has no saved domain {written.domain}")
        if written.domain in found:
            raise Damaged(f"line {number}: the domain {written.domain} occurs twice")
        if fields[3] != domain.kind:
            raise Damaged(f"line {number}: {domain.name} is of class {domain.kind}, which cannot be changed")
        size = size_of(domain)
        if fields[8] != (NONE if size is None else str(size)):
            raise Damaged(f"line {number}: the size of {domain.name} cannot be changed")
        found[written.domain] = written
    return list(found.values())


def _between(reader: Reader) -> Iterator[tuple[int, list[str]]]:
    """The lines between the line of column names and the end."""
    header = ended = False
    for number, fields in read_fields(reader, comments=True):
        if ended:
            raise Damaged(f"line {number} follows the end")
        if not header:
            if tuple(fields) != COLUMNS:
                _refuse_blanks(number, fields, COLUMNS)
                raise Damaged(f"line {number} does not name the columns of a plan", "their line must come first")
            header = True
        elif fields == [_END]:
            ended = True
        else:
            yield number, fields
    if not header or not ended:
        raise Truncated(f"{reader.name} ends without its line {_END}", f"its last line must be: {_END}")


def _refuse_blanks(number: int, fields: list[str], columns: Sequence[str] | None = None) -> None:
    """Damaged if the columns are right except that an editor has replaced tabs by spaces."""
    words = " ".join(fields).split()
    if tuple(words) == columns or (columns is None and len(fields) < len(COLUMNS) <= len(words)):
        raise Damaged(f"line {number} has spaces between its columns", "separate the columns by tabs, not by spaces")


def _written(number: int, fields: list[str]) -> Written:
    if len(fields) != len(COLUMNS):
        _refuse_blanks(number, fields)
        raise Damaged(f"line {number} has {len(fields)} columns, not {len(COLUMNS)}", "a tab separates them")
    action, domain, name, _, *untrusted_references, untrusted_kernel = fields[:8]
    if action not in (CREATE, SKIP):
        raise Damaged(f"line {number}: an action is {CREATE} or {SKIP}, not {action}")
    for untrusted_name in (domain, name):
        if problem := names.domain_problem(untrusted_name):
            raise Damaged(f"line {number}: {untrusted_name}: {problem}")
    template, netvm, dispvm = (None if one in _WAYS_TO_SAY_NONE else one for one in untrusted_references)
    for reference in (template, netvm, dispvm):
        if reference is not None and (problem := names.domain_problem(reference)):
            raise Damaged(f"line {number}: {reference}: {problem}")
    kernel = None if untrusted_kernel in _WAYS_TO_SAY_NONE else untrusted_kernel
    if kernel not in (None, names.DEFAULT) and (problem := names.word_problem(kernel)):
        raise Damaged(f"line {number}: the kernel {kernel}: {problem}")
    return Written(action, domain, name, template, netvm, dispvm, kernel)
