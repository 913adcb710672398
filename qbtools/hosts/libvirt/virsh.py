"""Runs virsh.

virsh is a program of every machine with libvirt, and it works for every Python. The Python binding of libvirt does not:
Debian's is invisible in a virtual environment, and the one on PyPI must be compiled against libvirt. Domains are always
named by UUID, because their names may look like options or numbers.
"""

from __future__ import annotations

import os
import re
import subprocess

from qbtools.domains import names
from qbtools.environments import chosen_environment
from qbtools.errors import Failed
from qbtools.lean import NamedTuple

PATIENCE = 60.0
"""Seconds to wait for an answer of libvirt."""

PROBING = 600.0
"""The same while libvirt may ask its emulators what they can do. On a busy machine that takes minutes."""

AGENT = 5
"""Seconds to wait for an answer of a guest agent."""

UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A UUID as libvirt writes it."""

_UUID_LENGTH = 36
_INPUT = "/dev/stdin"
_MISSING = "virsh is not installed"
_HINT = "Debian has it in the package libvirt-clients, Fedora in libvirt-client"


class Named(NamedTuple):
    """A domain of libvirt. name: without blanks at its end."""

    uuid: str
    name: str


class Usage(NamedTuple):
    """The bytes of a disk, and an estimate of its data."""

    size: int
    used: int


class Virsh:
    """virsh for one URI. All methods: Failed if libvirt fails, does not answer, or prints something unexpected."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def domains(self) -> list[Named]:
        """All domains, running or not."""
        found = []
        for line in self._lines("list", "--all", "--uuid", "--name"):
            found.append(Named(_uuid(line[:_UUID_LENGTH]), line[_UUID_LENGTH + 1 :]))
        return found

    def uuids(self, *which: str) -> frozenset[str]:
        """The UUIDs of the domains that `virsh list` lists with these options."""
        return frozenset(map(_uuid, self._lines("list", "--uuid", *which)))

    def running(self) -> frozenset[str]:
        """The UUIDs of domains that run, or are paused."""
        return self.uuids()

    def xml(self, uuid: str) -> bytes | None:
        """The persistent XML of a domain, with its secrets; None if the domain does not exist any more."""
        try:
            return self._run("dumpxml", "--inactive", "--security-info", uuid)
        except Failed:
            if uuid in self.uuids("--all"):
                raise
            return None

    def volume_path(self, pool: str, volume: str) -> str:
        """The path of a volume in a storage pool. It may have any character."""
        return self._of_volume("vol-path", pool, volume)

    def volume_key(self, pool: str, volume: str) -> str:
        """What libvirt tells a volume by: for a logical volume its UUID, for a volume of zfs its name."""
        return self._of_volume("vol-key", pool, volume)

    def volume_names(self, pool: str) -> list[str]:
        """The names of the volumes in a storage pool, up to the first blank in them."""
        return [line.split()[0] for line in self._lines("vol-list", f"--pool={pool}")]

    def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Creates a volume of at least so many bytes."""
        words = f"--pool={pool}", f"--name={volume}", f"--capacity={size}"
        self._run("vol-create-as", *words, patience=PROBING)

    def delete_volume(self, pool: str, volume: str) -> None:
        """Deletes a volume."""
        self._run("vol-delete", f"--pool={pool}", f"--vol={volume}", patience=PROBING)

    def capabilities(self) -> bytes:
        """XML: what the host can run."""
        return self._run("capabilities", patience=PROBING)

    def domain_capabilities(self, arch: str, kind: str) -> bytes:
        """XML: what a domain of this kind, such as kvm, can have."""
        return self._run("domcapabilities", "--arch", arch, "--virttype", kind, patience=PROBING)

    def networks(self) -> list[str]:
        """The names of all networks."""
        return self._lines("net-list", "--all", "--name")

    def pools(self) -> list[str]:
        """The names of the active storage pools."""
        return self._lines("pool-list", "--name")

    def pool_xml(self, name: str) -> bytes:
        """The XML of a storage pool."""
        return self._run("pool-dumpxml", f"--pool={name}")

    def refresh(self, pool: str) -> None:
        """Makes libvirt look for new volumes in a storage pool."""
        self._run("pool-refresh", f"--pool={pool}")

    def check(self, xml: bytes) -> None:
        """Failed if libvirt cannot make a machine of this XML of a domain. Defines nothing."""
        self._run("domxml-to-native", "--format", "qemu-argv", "--xml", _INPUT, data=xml)

    def define(self, xml: bytes) -> None:
        """Defines a domain."""
        self._run("define", _INPUT, data=xml)

    def usage(self, uuid: str) -> dict[str, Usage]:
        """Size and use of the disks of a domain, by target; disks without a medium are missing."""
        found = {}
        for line in self._lines("domblkinfo", uuid, "--all"):
            fields = line.split()
            numbers = [names.number(text) for text in fields[1:3]]
            if len(fields) == 4 and numbers[0] is not None and numbers[1] is not None:
                found[fields[0]] = Usage(numbers[0], numbers[1])
        return found

    def targets(self, uuid: str) -> list[str]:
        """The targets of the disks that a running domain has now."""
        return [fields[2] for line in self._lines("domblklist", uuid, "--details") if len(fields := line.split()) > 2]

    def state(self, uuid: str) -> str:
        """The state of a domain and its reason, such as `running (booted)`."""
        return " ".join(self._lines("domstate", uuid, "--reason"))

    def job(self, uuid: str) -> str:
        """The operation of the job that runs for a domain; empty if there is none."""
        pairs = (line.partition(":") for line in self._lines("domjobinfo", uuid))
        facts = {key.strip(): value.strip() for key, _colon, value in pairs}
        kind = facts.get("Job type", "")
        if not kind:
            raise Failed("virsh domjobinfo prints no type of a job")
        return "" if kind == "None" else facts.get("Operation", kind)

    def begin_backup(self, uuid: str, path: str, checkpoint: str | None = None) -> None:
        """Begins the backup job that a file describes, and makes a checkpoint that another file describes."""
        self._run("backup-begin", uuid, path, *(() if checkpoint is None else (checkpoint,)))

    def backup_has(self, uuid: str, text: str) -> bool:
        """Whether a backup job runs for a domain, with this text in its description."""
        return bool(self.job(uuid)) and text.encode() in self._run("backup-dumpxml", uuid)

    def abort(self, uuid: str) -> None:
        """Ends the job of a domain."""
        self._run("domjobabort", uuid)

    def live_xml(self, uuid: str) -> bytes:
        """The XML of a domain as it runs now, which tells the backing files of its disks."""
        return self._run("dumpxml", uuid)

    def checkpoints(self, uuid: str) -> list[str]:
        """The names of the checkpoints of a domain."""
        return self._lines("checkpoint-list", uuid, "--name")

    def checkpoint(self, uuid: str, name: str) -> bytes | None:
        """The XML of a checkpoint; None if there is none with this name."""
        if name not in self.checkpoints(uuid):
            return None
        return self._run("checkpoint-dumpxml", uuid, name, "--security-info")

    def delete_checkpoint(self, uuid: str, name: str) -> None:
        """Deletes a checkpoint and its bitmaps, and no other one."""
        self._run("checkpoint-delete", uuid, name)

    def redefine_checkpoint(self, uuid: str, xml: bytes) -> None:
        """Changes what libvirt knows of a checkpoint."""
        self._run("checkpoint-create", uuid, _INPUT, "--redefine", data=xml)

    def agent_answers(self, uuid: str) -> bool:
        """Whether the guest agent of a domain answers within AGENT seconds."""
        try:
            self._run("qemu-agent-command", uuid, '{"execute":"guest-ping"}', "--timeout", str(AGENT))
        except Failed:
            return False
        return True

    def argv(self, *words: str) -> list[str]:
        """The words of a command line that runs virsh."""
        return ["virsh", "-q", "-c", self.uri, *words]

    def _of_volume(self, verb: str, pool: str, volume: str) -> str:
        text = self._run(verb, f"--pool={pool}", f"--vol={volume}").decode("utf-8", "surrogateescape")
        return text.rstrip("\n")

    def _lines(self, *words: str) -> list[str]:
        text = self._run(*words).decode("utf-8", "surrogateescape")
        return [line.rstrip() for line in text.split("\n") if line.strip()]

    def _run(self, *words: str, data: bytes = b"", patience: float = PATIENCE) -> bytes:
        environment = {**chosen_environment(os.environ, "XDG_", "LIBVIRT_"), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                self.argv(*words),
                input=data,
                capture_output=True,
                env=environment,
                timeout=patience,
                check=False,
            )
        except FileNotFoundError:
            raise Failed(_MISSING, _HINT) from None
        except OSError as error:
            raise Failed(f"cannot run virsh: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            raise Failed(f"libvirt at {self.uri} has not answered for {patience:.0f} seconds") from None
        if done.returncode:
            raise Failed(f"virsh {words[0]}: {_reason(done.stderr, done.returncode)}")
        return done.stdout


def _uuid(text: str) -> str:
    if not UUID.fullmatch(text):
        raise Failed(f"virsh list prints {names.quoted(text)} where a UUID should be")
    return text


def _reason(said: bytes, code: int) -> str:
    """The last line of an error of virsh, or how it ended."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines:
        return lines[-1].removeprefix("error: ")
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
