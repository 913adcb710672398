"""The domains that a restore has not finished: libvirt does not know them yet.

PLACE/qubes.xml has their metadata, like that of a host in a directory. When a domain is finished, its record gets the
UUID that libvirt will know it by; then libvirt defines it, and the record is removed. So a record whose UUID libvirt
knows is of a finished domain.
"""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import Callable, Set
from contextlib import suppress
from functools import cached_property

from qbtools.domains import names, safexml
from qbtools.domains.qubesxml import LIBVIRT, Domain, Metadata
from qbtools.errors import Damaged, Failed, QbError, Refused
from qbtools.hosts import store
from qbtools.hosts.libvirt import definition, facts, naming, tpm
from qbtools.hosts.libvirt.devices import NewDisk
from qbtools.hosts.libvirt.facts import Facts
from qbtools.hosts.libvirt.images import DEVICE, QCOW2, RAW, SUFFIXES, Images
from qbtools.hosts.libvirt.machine import NVRAM
from qbtools.hosts.libvirt.poolvolumes import PoolVolumes
from qbtools.hosts.libvirt.records import has_tpm, marked, uuid_of
from qbtools.hosts.libvirt.tpm import States
from qbtools.hosts.libvirt.virsh import Named, Virsh
from qbtools.hosts.local import LocalHost
from qbtools.hosts.store import Store
from qbtools.hosts.verbtext import line, several, sole
from qbtools.volumes import kind
from qbtools.volumes.marks import Mark

_KINDS = ("StandaloneVM", "TemplateVM")


class Unfinished:
    """The verbs of qb-host(7) for these domains. They return and raise what those of LocalHost do."""

    def __init__(
        self,
        virsh: Virsh,
        states: States,
        place: str,
        wanted: str,
        keep_macs: bool,
        note: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        """place: the directory of the records; it need not exist. wanted: the pool or the directory of new volumes; if
        it is empty, each domain decides. keep_macs: also machines with a new UUID keep their MAC addresses."""
        self._virsh = virsh
        self._states = states
        self._place = os.path.realpath(place)
        self._store = Store(os.path.join(self._place, "qubes.xml"))
        self._wanted = wanted
        self._keep_macs = keep_macs
        self._facts = Facts(virsh)
        self._note = note
        self._warn = warn
        self._paths: dict[tuple[str, str], str] = {}
        self._images = Images(self._place, self._paths, PoolVolumes(virsh, self._facts))
        self._local = LocalHost(self._store, self._images, note)

    def domains(self) -> list[Domain]:
        """Those that are not finished, without those whose name a domain of libvirt has."""
        if not os.path.isdir(self._place):
            return []
        found = [one for one in self._read().domains if one.name != names.ADMIN]
        return [one for one in found if one.name not in self._known and uuid_of(one) not in self._known.values()]

    def has(self, name: str) -> bool:
        """Whether there is an unfinished domain with that name."""
        return any(one.name == name for one in self.domains())

    def volumes(self, name: str) -> list[str]:
        self._read()
        return self._local.volumes(name)

    def files(self, name: str) -> list[str]:
        """A line for the state of its TPM: where it must be before set() finishes the domain."""
        return [line(tpm.FILE, self._state(name))] if has_tpm(self._read().by_name[name]) else []

    def pools(self) -> list[str]:
        """The pools that new volumes can be in, the default first; none if it is a directory."""
        if self._wanted.startswith("/"):
            return []
        return [self._wanted] if self._wanted else list(self._facts.pools)

    def check(self, document: bytes) -> None:
        self._refuse_tests()
        domains = several(document)
        for change in [change for domain in domains for change in self._prepare(domain).changes]:
            self._warn(change)
        if os.path.isdir(self._place):
            self._local.check(document)
            return
        for domain in domains:
            self._images.check(domain.name, [volume.name for volume in domain.volumes() if volume.save_on_stop])

    def create(self, document: bytes) -> list[str]:
        domain = sole(document)
        self._begin(domain.name)
        for change in self._prepare(domain).changes:
            self._warn(change)
        return self._local.create(marked(document, None))

    def set(self, name: str, document: bytes) -> None:
        domain = sole(document)
        self._begin(name)
        old = self._read().by_name.get(name)
        if names.UNFINISHED in domain.features or old is None or domain.name != name:
            self._local.set(name, marked(document, None))
            return
        self._images.complete(name, [volume.name for volume in old.volumes() if volume.save_on_stop])
        self._remove_state(old)  # that of an earlier call that failed
        made = self._define(domain, old)
        uuid, keep_macs = self._identity(made)
        if has_tpm(domain):
            self._states.check_free(name, uuid)
        self._local.set(name, marked(document, uuid, old.features.get(names.UNFINISHED, "")))
        if made.has_tpm:
            self._states.put(name, self._state(name), uuid, self._warn)
        self._virsh.define(made.to_xml(uuid, keep_macs))
        self._forget({uuid})
        self._refresh(old)

    def remove(self, name: str, mark: str | None) -> None:
        self._begin(name)
        if name not in self._read().by_name and name in self._known:
            raise Refused(f"{name} is not a domain that a restore left unfinished")
        self._remove(name, mark)

    def _remove(self, name: str, mark: str | None) -> None:
        found = self._read().by_name.get(name)
        if found is not None and mark in (None, found.features.get(names.UNFINISHED)):
            self._remove_state(found)
        self._local.remove(name, mark)

    def _remove_state(self, domain: Domain) -> None:
        """Removes the state of the TPM of a domain that set() has not finished."""
        uuid = uuid_of(domain)
        if uuid is not None and has_tpm(domain) and uuid not in self._virsh.uuids("--all"):
            self._states.remove(uuid)

    def _state(self, name: str) -> str:
        """The path of the state of a TPM that came out of an archive."""
        return os.path.join(self._images.folder(name), tpm.FILE)

    def _refuse_tests(self) -> None:
        if self._virsh.uri.startswith("test:"):
            raise Refused("the driver of libvirt for tests keeps no domains, so nothing can be restored to it")

    def _begin(self, name: str) -> None:
        """Before a change of the domain name: makes the directory, forgets what is finished, and removes what ended
        runs have left of others."""
        self._refuse_tests()
        with kind.naming(f"create {self._place}"):
            os.makedirs(os.path.dirname(self._place), 0o711, exist_ok=True)
            os.makedirs(self._place, 0o700, exist_ok=True)
        found = self._read().domains
        self._forget({uuid for one in found if (uuid := uuid_of(one)) is not None and uuid in self._known.values()})
        for one in self._read().domains:
            mark = Mark.parse(one.features.get(names.UNFINISHED, ""))
            if mark is None or not mark.dead() or (one.name == name and name not in self._known):
                continue
            if uuid_of(one) in self._virsh.uuids("--all"):  # its run has finished it after we have looked
                continue
            self._note(f"removing {one.name}, which a run that has ended left unfinished")
            with suppress(QbError):  # the next run can do it
                self._remove(one.name, str(mark))

    @cached_property
    def _known(self) -> dict[str, str]:
        """The UUIDs of the domains that libvirt had at the beginning, by their names."""
        return naming.assigned(self._domains)

    @cached_property
    def _domains(self) -> list[Named]:
        return self._virsh.domains()

    @cached_property
    def _users(self) -> dict[str, str]:
        """The names of the domains of libvirt by their MAC addresses."""
        found = {}
        for one in self._domains:
            untrusted_xml = self._virsh.xml(one.uuid)
            with suppress(Damaged):
                root = safexml.parse(untrusted_xml or b"<domain/>")
                found.update(dict.fromkeys(definition.macs(root), one.name))
        return found

    def _forget(self, finished: Set[str]) -> None:
        """Removes the records of domains that are finished."""
        if not finished:
            return
        with self._store.locked():
            for one in (inventory := self._read()).domains:
                if uuid_of(one) in finished:
                    self._images.finish(one.name)
                    inventory = Metadata(store.without(inventory, one.name))
            self._store.replace(inventory.root)

    def _refresh(self, domain: Domain) -> None:
        """Tells libvirt of the new volumes in its pools. If it cannot look now, it finds them later."""
        places = {os.path.dirname(self._paths[domain.name, volume.name]) for volume in domain.volumes()}
        for pool in self._facts.pools.values():
            if pool.path in places:
                with suppress(Failed):
                    self._virsh.refresh(pool.uuid)

    def _read(self) -> Metadata:
        """The records. Notes the paths of their images."""
        found = self._store.read()
        for domain in found.domains:
            for volume in domain.element.findall("volume-config/volume"):
                self._paths[domain.name, volume.get("name", "")] = volume.get("vid", "")
        return found

    def _prepare(self, domain: Domain) -> definition.Definition:
        """What create() finds out before it makes volumes. Chooses their paths."""
        if domain.kind not in _KINDS:
            raise Refused(
                f"{domain.name} is of class {domain.kind}: libvirt has no machines whose volumes are partly those of "
                "another one",
                f"--exclude {domain.name} leaves it out",
            )
        if domain.name in self._known:
            raise Refused(f"the domain {domain.name} already exists")
        forms = {
            target.get("dev", ""): driver.get("type", "")
            for disk in domain.element.findall(f"{LIBVIRT}/domain/devices/disk")
            if (target := disk.find("target")) is not None and (driver := disk.find("driver")) is not None
        }
        for volume in domain.element.findall("volume-config/volume"):
            name = volume.get("name", "")
            form = QCOW2 if forms.get(name) == QCOW2 else RAW
            place, devices = self._directory(volume.get("pool", ""), name == NVRAM)
            suffix = SUFFIXES[DEVICE if devices else form]
            self._paths[domain.name, name] = os.path.join(place, f"{domain.name}-{name}{suffix}")
        found = self._define(domain, domain)
        uuid, keep_macs = self._identity(found)
        if has_tpm(domain):
            self._states.check_free(domain.name, uuid)
        try:
            self._virsh.check(found.to_xml(uuid, keep_macs))
        except Failed as error:
            raise Failed(f"libvirt does not accept {domain.name}: {error.message}") from error
        # These are left after to_xml().
        users = [(mac, self._users[mac]) for mac in definition.macs(found.root) if mac in self._users]
        texts = [f"its MAC address {mac} is also that of the domain {names.quoted(user)}" for mac, user in users]
        found.changes.extend(f"{domain.name}: {text}" for text in texts)
        return found

    def _identity(self, made: definition.Definition) -> tuple[str, bool]:
        """The UUID that a machine gets, and whether it keeps its MAC addresses."""
        if made.uuid is not None and made.uuid not in self._known.values():
            return made.uuid, True
        return str(uuids.uuid4()), self._keep_macs

    def _define(self, domain: Domain, volumes: Domain) -> definition.Definition:
        disks = []
        for volume in volumes.volumes():
            if volume.save_on_stop:
                path = self._paths[domain.name, volume.name]
                form = Images.form(path)
                device = form == DEVICE
                disks.append(NewDisk(volume.name, path, RAW if device else form, device))
        return definition.made(domain, disks, self._facts, {one.name for one in self._domains})

    def _directory(self, pool: str, file: bool) -> tuple[str, bool]:
        """Where new volumes go whose pool in the document is this one, and whether they are devices there.

        file: it must be a file.
        """
        pools = self._facts.pools
        if self._wanted.startswith("/"):
            return os.path.realpath(self._wanted), False
        if self._wanted and self._wanted not in pools:
            raise Failed(f"libvirt has no active pool {self._wanted} in which qbtools can create volumes")
        wanted = [one for one in (pools.get(self._wanted or pool), *pools.values()) if one is not None]
        found = next((one for one in wanted if not (file and one.devices)), None)
        return (found.path, found.devices) if found is not None else (facts.IMAGES, False)
