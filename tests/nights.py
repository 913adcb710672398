"""Nights of a host on which machines come and go, for tests: its series, and the archives 0.qb, 1.qb, … of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from chains import header_of
from hostdirs import Machine, images, make_host, noise
from support import bash, run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo nights"}
CREATE = "qb-backup create -q --logn=10 --series=series --host=A"


def ids_of(archive: Path) -> dict[str, str | None]:
    """The backup ID of an archive, and that of its base; None if it has none."""
    found = header_of(archive)
    assert found.version == (104 if found.base else 4)
    return {"base": found.base.backup_id if found.base else None, "id": found.backup_id}


class Nights:
    """A host A whose machines change. states: the images of each night."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machines = {
            "mail": Machine("mail", data={"root": noise("mail-root", 400_000), "private": noise("mail-private")}),
            "web": Machine("web", data={"root": noise("web-root", 300_000), "private": b"web"}),
        }
        self.states: list[dict[str, bytes]] = []

    def host(self, *names: str) -> None:
        """The host has these machines, in this order."""
        shutil.rmtree(self.path / "A", ignore_errors=True)
        make_host(self.path / "A", [self.machines[name] for name in names])

    def change(self, name: str, volume: str, at: int, data: bytes) -> None:
        """The machine writes."""
        old = self.machines[name].data[volume].ljust(at, b"\0")
        self.machines[name].data = {**self.machines[name].data, volume: old[:at] + data + old[at + len(data) :]}

    def add(self, name: str) -> None:
        self.machines[name] = Machine(name, data={"root": noise(f"{name}-root", 200_000), "private": noise(name)})

    def night(self, *names: str) -> str | None:
        """Saves the host with these machines to the next file. Returns the ID of its base."""
        self.host(*names)
        done = self.create()
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), done.stderr.decode()
        return self.header(self.last)["base"]

    def create(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        self.states.append(images(self.path / "A"))
        return bash(f"cd {self.path} && exec {CREATE} -o {self.last} {' '.join(words)}", **SECRET)

    @property
    def last(self) -> str:
        return f"{len(self.states) - 1}.qb"

    def header(self, file: str) -> dict[str, str | None]:
        return ids_of(self.path / file)

    def files(self) -> list[str]:
        return [f"{number}.qb" for number in range(len(self.states))]

    def names(self, file: str) -> list[str]:
        """The files of an archive, in their order."""
        done = bash(f"cd {self.path} && tar -tf {file}", **SECRET)
        found = [line.rpartition(".")[0].rpartition(".")[0] for line in done.stdout.decode().splitlines()]
        return list(dict.fromkeys(name for name in found if name.startswith(("vm", "dom0-home"))))

    def increments(self, file: str) -> list[str]:
        """The volumes of which an archive has increments: the first member of such an inner archive is NAME.d/size."""
        command = "tar -tz | sed -n 's,[.]d/size$,,p'"
        done = bash(f'cd {self.path} && qb-unseal --to-command "{command}" <{file}', **SECRET)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode().splitlines()

    def restored(self, files: Sequence[str], *said: str) -> dict[str, bytes]:
        """The images that a restore to a directory makes. said: the lines of its warnings."""
        shutil.rmtree(self.path / "to", ignore_errors=True)
        done = bash(f"cd {self.path} && qb-backup restore -q --to to {' '.join(files)}", **SECRET)
        assert (done.returncode, {*done.stderr.splitlines()} - {line.encode() for line in said}) == (0, set()), (
            done.stderr.decode()
        )
        return images(self.path / "to")

    def listed(self) -> list[list[str]]:
        done = run("qb-series", "list", self.path / "series")
        assert (done.returncode, done.stderr) == (0, b"")
        return [line.split("\t") for line in done.stdout.decode().splitlines()]
