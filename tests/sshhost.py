"""Another host: an sshd on the loopback, with keys and a directory of its own."""

from __future__ import annotations

import fcntl
import getpass
import os
import shlex
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import pytest
from support import environment, need


@contextmanager
def privilege_separation() -> Iterator[None]:
    """The directory that root's sshd needs. On Debian a service makes it, which may not run.

    The first test that needs it makes it, with a mode that tells that, and the last one removes it.
    """
    place, mode = Path("/run/sshd"), 0o711
    if os.geteuid() != 0:
        yield
        return
    while True:
        with suppress(FileExistsError):
            place.mkdir(mode)
        with suppress(FileNotFoundError):
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.path.exists(place) and os.path.samestat(os.fstat(fd), os.stat(place)):
                break
            os.close(fd)
    try:
        yield
    finally:
        with suppress(OSError):  # others still use it, or it is not empty
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_IMODE(os.fstat(fd).st_mode) == mode:
                place.rmdir()
        os.close(fd)


class SshHost:
    """Started by `with`. `programs` holds an `ssh` that knows it as `store`; what is sent there runs in `home`."""

    def __init__(self, place: Path, key: str | None = None, **variables: str) -> None:
        """key: what authorized_keys says of the one key, such as restrict,command="..."; without it every command runs.

        variables: what the environment there has beyond PATH.
        """
        need("sshd", "ssh", "ssh-keygen")
        self.place = place
        self._key = key
        self._variables = {"PATH": environment()["PATH"], **variables}
        self.home = place / "home"
        self.programs = place / "programs"
        self.home.mkdir()
        self.programs.mkdir()

    def __enter__(self) -> SshHost:
        for key in ("host_key", "user_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.place / key)], check=True, timeout=60
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self._variables.items())
        words = " ".join(f"{name}={value}" for name, value in self._variables.items())
        public = (self.place / "user_key.pub").read_text()
        self._write("authorized_keys", f"{self._key} {public}" if self._key is not None else public)
        inside = f'export {variables} && cd {self.home} && eval "$SSH_ORIGINAL_COMMAND"'
        self._write(
            "sshd_config",
            f"ListenAddress 127.0.0.1:{port}",
            f"HostKey {self.place}/host_key",
            f"AuthorizedKeysFile {self.place}/authorized_keys",
            "PasswordAuthentication no",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            f"SetEnv {words}" if self._key is not None else f"ForceCommand {inside}",
        )
        self._write(
            "ssh_config",
            "Host store",
            "HostName 127.0.0.1",
            f"Port {port}",
            f"User {getpass.getuser()}",
            f"IdentityFile {self.place}/user_key",
            "IdentitiesOnly yes",
            "BatchMode yes",
            f"UserKnownHostsFile {self.place}/known_hosts",
            "StrictHostKeyChecking accept-new",
            "LogLevel ERROR",
        )
        (self.programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.place}/ssh_config "$@"\n')
        (self.programs / "ssh").chmod(0o755)
        self._separation = privilege_separation()
        self._separation.__enter__()
        self._log = (self.place / "log").open("wb")
        self._sshd = subprocess.Popen(
            [shutil.which("sshd") or "", "-D", "-e", "-f", str(self.place / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._wait()
        return self

    def _write(self, name: str, *lines: str) -> None:
        (self.place / name).write_text("".join(f"{line}\n" for line in lines))

    def _wait(self) -> None:
        until = time.monotonic() + 60
        while self._ask() == 255:
            if time.monotonic() > until or self._sshd.poll() is not None:
                pytest.fail("sshd does not answer: " + (self.place / "log").read_text())
            time.sleep(0.05)

    def _ask(self) -> int:
        """The status of a harmless command; 255 if ssh could not run it."""
        command = [self.programs / "ssh", "store", "true"]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sshd.terminate()
        self._sshd.wait()
        self._log.close()
        self._separation.__exit__(None, None, None)
