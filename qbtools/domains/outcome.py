"""Makes the lines of a plan from its rows, and says what will change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from qbtools.domains import names, roles, selection
from qbtools.domains.hostside import HostSide
from qbtools.domains.planlines import CREATE, SKIP, PlanLine, Written
from qbtools.domains.qubesxml import Domain
from qbtools.domains.rows import Row, reference, shown, wants_of

KERNEL_VOLUME = "kernel"
"""A volume that Qubes OS creates from the files of a kernel, which a property names."""


class Outcome:
    """Makes the lines once all rows have been verified."""

    def __init__(self, rows: Sequence[Row], side: HostSide, skip_broken: bool) -> None:
        self._side = side
        self._skip_broken = skip_broken
        self._made = {row.domain.name: row.name for row in rows if row.good}

    def line(self, row: Row) -> PlanLine:
        """The line of one row."""
        domain = row.domain
        created = row.chosen and (row.good or not self._skip_broken)
        kernel = row.kernel
        if kernel not in (None, names.DEFAULT) and not self._side.has_kernel(kernel):
            kernel = names.DEFAULT
        written = Written(
            CREATE if created else SKIP,
            domain.name,
            row.name,
            row.has[roles.TEMPLATE],
            row.has[roles.NETVM],
            row.has[roles.DISPVM],
            kernel,
        )
        label = self._side.label(domain.label)
        pools = self._pools(domain)
        further, lost = self._further(domain)
        leftover = created and row.name in self._side.leftovers
        notes: list[str] = []
        if created:
            notes += self._differences(row, kernel)
            if label != domain.label:
                notes.append(f"label: {shown(domain.label)} → {shown(label)}")
            notes += [f"pool: {shown(old)} → {shown(new or names.DEFAULT)}" for old, new in pools.items()]
            notes += lost
            if leftover:
                notes.append("left by an interrupted run: created again")
        return PlanLine(
            written,
            domain.kind,
            size_of(domain),
            "; ".join(row.refusals.values()) or None,
            tuple(notes),
            label,
            pools,
            further,
            leftover,
        )

    def _differences(self, row: Row, kernel: str | None) -> Iterator[str]:
        """The columns that differ from the archive, except those with a problem."""
        if row.name != row.domain.name:
            yield f"name: {row.domain.name} → {row.name}"
        side = self._side
        now = {**row.has, "kernel": kernel}
        real: dict[str, Callable[[], str | None]] = {
            roles.NETVM: side.default_netvm,
            roles.DISPVM: side.default_dispvm,
            "kernel": lambda: next(iter(side.defaults.kernels), None),
        }
        for column, old in {**wants_of(row.domain), "kernel": reference(row.domain, "kernel")}.items():
            new = now[column]
            if new == old or column in row.refusals:
                continue
            default = real[column]() if new == names.DEFAULT and column in real else None
            yield f"{column}: {shown(old)} → {shown(new)}" + (f" ({shown(default)})" if default else "")

    def _pools(self, domain: Domain) -> dict[str, str | None]:
        """The replacement of each pool that the host does not have."""
        found = {}
        for volume in domain.element.findall("volume-config/volume"):
            pool = volume.get("pool")
            if pool is not None and volume.get("name") != KERNEL_VOLUME and not self._side.has_pool(pool):
                found[pool] = self._side.default_pool
        return found

    def _further(self, domain: Domain) -> tuple[dict[str, str], list[str]]:
        """The new names of the domains in its other properties and its devices, by old name; and what is lost."""
        uses = [
            (f"{shown(name)}:", text)
            for name, text in domain.properties.items()
            if text and names.is_reference(name) and name not in roles.ROLES
        ]
        for device in domain.element.findall("devices/device"):
            uses += [("a device of", name) for name in names.backends(device.attrib).values()]
        found: dict[str, str] = {}
        lost: dict[str, None] = {}
        for what, old in uses:
            there = self._side.find(old)
            new = self._made.get(old) or (there.name if there else None)
            if new is None:
                lost[f"{what} {shown(old)}, which does not exist, is left out"] = None
            else:
                found[old] = new
        return found, list(lost)


def size_of(domain: Domain) -> int | None:
    """Bytes of its saved volumes, None if qubes.xml does not have all sizes."""
    sizes = [volume.size for volume in selection.saved_volumes(domain)]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
