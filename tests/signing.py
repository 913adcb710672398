"""Keys of SSH, real signatures and lists of signers, for tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from support import environment


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Makes a private key, with the public one beside it."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


def public(key: Path) -> str:
    """The public key in the form of a list: kind and base64."""
    return key.with_name(f"{key.name}.pub").read_text().strip()


def fingerprint(key: Path) -> str:
    """As ssh-keygen shows it."""
    return subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout.split()[1]


def signed(key: Path, text: bytes, namespace: str = "qbtools") -> bytes:
    """The text that ssh-keygen itself signs."""
    words = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(key)]
    return subprocess.run(words, input=text, check=True, capture_output=True).stdout


class Agent:
    """A context manager: a real ssh-agent that holds a key; `socket` is the value of SSH_AUTH_SOCK."""

    def __init__(self, key: Path) -> None:
        self._place = tempfile.mkdtemp()  # the path of a socket must be short
        self.socket = f"{self._place}/agent"
        self._key = key

    def __enter__(self) -> Agent:
        self._agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self.socket], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not self._listens():
            assert self._agent.poll() is None
            time.sleep(0.01)
        subprocess.run(["ssh-add", "-q", self._key], check=True, env=environment(SSH_AUTH_SOCK=self.socket))
        return self

    def _listens(self) -> bool:
        """Its socket exists a moment before it can be connected."""
        with socket.socket(socket.AF_UNIX) as client:
            return not client.connect_ex(self.socket)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._agent.kill()
        self._agent.wait()
        shutil.rmtree(self._place)
