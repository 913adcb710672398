"""Runs the programs of lvm2 and thin-provisioning-tools.

They inherit only descriptors 0 to 2, use the C locale, and their stdin is empty. A signal that ends us never interrupts
lvm at a bad moment: lvm handles an interrupt only where it is safe, and we continue the cleanup when it has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from qbtools.environments import chosen_environment
from qbtools.errors import Failed
from qbtools.latesignals import signals_later

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_LONGEST = 1 << 16  # bytes of stderr that are read


def installed(program: str) -> bool:
    """Whether a program is installed."""
    return any(os.access(os.path.join(place, program), os.X_OK) for place in _path().split(":") if place)


def lvm(program: str, *arguments: str) -> str:
    """The output of a program of lvm2. Failed, with its reason, if it fails or is not installed.

    It gets variables that begin with LVM_ or DM_, such as LVM_SYSTEM_DIR.
    """
    with _started([program, *arguments]) as running:
        _load()
        output = running.stdout.read()
    return output.decode("utf-8", "surrogateescape")


def _load() -> None:
    """Loads modules that are needed soon, while a program of lvm runs."""
    import hashlib  # noqa: F401
    import json  # noqa: F401
    from xml.parsers import expat  # noqa: F401


def report(program: str, fields: str, *arguments: str) -> list[dict[str, str]]:
    """The report of `lvs`, `vgs` or `pvs`: a dict of fields for each row, with sizes in bytes. Failed as lvm().

    fields: as for -o. All values are text. With a field of segments there is one row for each segment.
    """
    how = "--reportformat", "json", "--units", "b", "--nosuffix"
    text = lvm(program, *how, "-o", fields, *arguments)
    import json

    try:
        (rows,) = json.loads(text)["report"][0].values()
        return [{str(name): str(value) for name, value in row.items()} for row in rows]
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise Failed(f"{program} printed a report that cannot be parsed") from error


@contextmanager
def output(*argv: str) -> Iterator[IO[bytes]]:
    """The standard output of a program, to be read while it runs. Failed if the program fails.

    When the body fails, the program is stopped.
    """
    with _started(list(argv), prints=True) as running:
        yield running.stdout


class _Running:
    """A program, its standard output and its messages on standard error.

    prints: it only prints, and more than a pipe holds, so it may be interrupted.
    """

    def __init__(self, argv: list[str], prints: bool) -> None:
        self._program = argv[0]
        self._prints = prints
        self._errors = os.memfd_create("stderr")  # it cannot block if nobody reads it
        process = None
        try:
            with signals_later():
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env={**chosen_environment(os.environ, "LVM_", "DM_"), "PATH": _path(), "LC_ALL": "C"},
                    bufsize=0,
                )
        except OSError as error:
            os.close(self._errors)
            raise Failed(f"cannot run {self._program}: {error.strerror}") from error
        except BaseException:
            if process is not None:  # a signal arrived while it started
                self._stop(process)
            os.close(self._errors)
            raise
        if process.stdout is None:
            raise Failed(f"cannot run {self._program}")
        self._process = process
        self.stdout: IO[bytes] = process.stdout

    def stop(self) -> None:
        """Ends it if it still runs, and waits for its end."""
        if self._process.returncode is None:
            self._stop(self._process)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        if self._prints and process.stdout is not None:
            process.stdout.close()  # stops it even if SIGINT is ignored
        process.send_signal(signal.SIGINT)
        process.wait()

    def finish(self) -> None:
        """Waits for its end. Failed if its status is not 0."""
        if self._prints:
            self.stdout.close()
        status = self._process.wait()
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise Failed(f"{self._program}: {self._reason() or how}")

    def _reason(self) -> str:
        """The last lines of stderr that are not empty, as one line."""
        text = os.pread(self._errors, _LONGEST, max(os.fstat(self._errors).st_size - _LONGEST, 0))
        lines = [line.strip() for line in text.decode("utf-8", "surrogateescape").splitlines()]
        said = [line.rstrip(".") for line in lines if line and not line.startswith("WARNING:")]
        return "; ".join(said[-2:])

    def close(self) -> None:
        self.stdout.close()
        os.close(self._errors)


def _path() -> str:
    """The directories to search for programs: PATH, and those for programs of root, which PATH may lack."""
    return ":".join((os.environ.get("PATH", os.defpath), *_SBIN))


@contextmanager
def _started(argv: list[str], prints: bool = False) -> Iterator[_Running]:
    """Runs a program while the body reads its output. Waits for its end in every case."""
    running = _Running(argv, prints)
    try:
        yield running
        running.finish()
    except BaseException:
        running.stop()
        raise
    finally:
        running.close()
