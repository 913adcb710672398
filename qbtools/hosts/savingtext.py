"""The content of a backup, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qbtools import amounts
from qbtools.domains.selection import LeftOut
from qbtools.hosts import saving
from qbtools.hosts.saving import Failing, Machine
from qbtools.hosts.unsaved import Unsaved

_STATES = {
    (saving.SNAPSHOT, False): "stopped: a snapshot",
    (saving.SNAPSHOT, True): "running: a snapshot",
    (saving.BEFORE_START, False): "stopped",
    (saving.BEFORE_START, True): "running: state from before its start",
    (saving.CURRENT, False): "stopped",
    (saving.CURRENT, True): "running: may be inconsistent",
    (saving.STOPPED, False): "stopped",
    (saving.STOPPED, True): "running",
}
_NUMBERS = ("volumes", "size", "in use")
_HEADER = ("domain", "class", *_NUMBERS, "state")


def table(
    machines: Sequence[Machine],
    left_out: Iterable[LeftOut],
    unsaved: Iterable[Unsaved] = (),
    failing: Iterable[Failing] = (),
) -> list[str]:
    """A line for each domain, the total, and a line for each domain and file that is left out or cannot be saved."""
    rows: list[tuple[str, ...]] = [_HEADER]
    for machine in machines:
        state = _STATES[machine.state, machine.running]
        rows.append((machine.name, machine.kind, *_amounts([machine]), state))
    rows.append(("total", "", *_amounts(machines), ""))
    lines = amounts.table(rows, _NUMBERS)
    lines += [f"left out: {one.domain.name} ({one.reason})" for one in left_out]
    lines += [f"left out: {one.path} ({one.reason})" for one in unsaved]
    return lines + [f"cannot be saved: {one.name}: {one.reason}" for one in failing]


def _amounts(machines: Sequence[Machine]) -> tuple[str, str, str]:
    """The columns of numbers for these machines together."""
    size, used = (amounts.amount(sum(values)) for values in ([m.size for m in machines], [m.used for m in machines]))
    return str(sum(len(machine.volumes) for machine in machines)), size, used


def left_out_document(left_out: Iterable[LeftOut], unsaved: Iterable[Unsaved]) -> list[dict[str, object]]:
    """Everything that is left out, for JSON: domains by name, files by path."""
    found: list[dict[str, object]] = [{"name": one.domain.name, "reason": one.reason} for one in left_out]
    found += [{"name": one.path, "domain": one.domain, "reason": one.reason} for one in unsaved]
    return found


def as_document(
    machines: Iterable[Machine],
    left_out: Iterable[LeftOut],
    unsaved: Iterable[Unsaved] = (),
    failing: Iterable[Failing] = (),
) -> dict[str, object]:
    """The same for JSON."""
    return {
        "domains": [
            {
                "name": machine.name,
                "class": machine.kind,
                "volumes": [volume.name for volume in machine.volumes],
                "files": [name for name, _size, _path in machine.files],
                "size": machine.size,
                "used": machine.used,
                "running": machine.running,
                "state": machine.state,
            }
            for machine in machines
        ],
        "left_out": left_out_document(left_out, unsaved),
        "failed": [{"name": one.name, "reason": one.reason} for one in failing],
    }
