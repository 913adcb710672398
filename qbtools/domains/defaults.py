"""The defaults of a host for properties that a domain does not set: the lines of its verb `defaults` (qb-host(7))."""

from __future__ import annotations

import re

from qbtools.domains import names
from qbtools.domains.lines import read_fields
from qbtools.errors import Damaged
from qbtools.lean import NamedTuple
from qbtools.streams import Reader

_WITHOUT = "without"
_FURTHER = "further"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,83}")


class Defaults(NamedTuple):
    """The defaults of a host; None or empty if it has none. All names are checked.

    kernels, pools: the default first, then all others. A host that names none accepts any.
    without: texts that the name of a domain must not contain there. further: the names of further files that the host
    takes back.
    """

    template: str | None = None
    netvm: str | None = None
    dispvm: str | None = None
    kernels: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    def to_lines(self) -> str:
        """Lines of KEY and VALUE, separated by a tab, for read()."""
        pairs = [("template", self.template), ("netvm", self.netvm), ("dispvm", self.dispvm)]
        pairs += [("kernel", name) for name in self.kernels] + [("pool", name) for name in self.pools]
        pairs += [(_WITHOUT, text) for text in self.without] + [(_FURTHER, name) for name in self.further]
        return "".join(f"{key}\t{value}\n" for key, value in pairs if value is not None)


def read(reader: Reader) -> Defaults:
    """Reads the lines up to EOF. If a key is missing, the host has no such default.

    `kernel`, `pool`, `without` and `further` may occur several times. Damaged for an unknown key, for another key that
    occurs twice, and for a malformed value.
    """
    keys = ("template", "netvm", "dispvm", "kernel", "pool", _WITHOUT, _FURTHER)
    found: dict[str, list[str]] = {key: [] for key in keys}
    for number, fields in read_fields(reader):
        if len(fields) != 2 or fields[0] not in found:
            raise Damaged(f"line {number} is not a key ({', '.join(found)}) and its value, separated by a tab")
        key, value = fields
        several = key in ("kernel", "pool", _WITHOUT, _FURTHER)
        if problem := _problem(key, value):
            raise Damaged(f"line {number}: {key} {value}: {problem}")
        if value in found[key] or (found[key] and not several):
            raise Damaged(f"line {number}: {key} occurs twice")
        found[key].append(value)
    template, netvm, dispvm = (next(iter(found[key]), None) for key in ("template", "netvm", "dispvm"))
    kernels, pools, without, further = (tuple(found[key]) for key in ("kernel", "pool", _WITHOUT, _FURTHER))
    return Defaults(template, netvm, dispvm, kernels, pools, without, further)


def _problem(key: str, value: str) -> str | None:
    if key == _WITHOUT:  # a text that no name can have forbids nothing
        return None if names.domain_problem(f"a{value}") is None and value else "no name of a domain contains this text"
    if key == _FURTHER:
        good = _FILE.fullmatch(value) and value != "empty" and not value.endswith(".img")
        return None if good else "no further file that a host takes back can be called that"
    return names.word_problem(value) if key in ("kernel", "pool") else names.domain_problem(value)
