"""The packages that tests/run installs: it prints them before, and no service starts. Scripts play package managers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import ROOT, environment, need

# What debhelper puts into the scripts of a package with a service, for systemd and for the older way.
POSTINST = """
set -e
deb-systemd-helper unmask ssh.service >/dev/null || true
if deb-systemd-helper --quiet was-enabled ssh.service; then
    deb-systemd-helper enable ssh.service >/dev/null || true
else
    deb-systemd-helper update-state ssh.service >/dev/null || true
fi
systemctl --system daemon-reload >/dev/null || true
deb-systemd-invoke start ssh.service >/dev/null || true
update-rc.d ssh defaults >/dev/null
invoke-rc.d --skip-systemd-native ssh start || exit 1
systemctl enable --now ssh.service
deb-systemd-helper enable ssh.socket
service ssh start
"""


class Machine:
    """A machine with almost no programs. Its programs write their arguments to `log`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.programs = place / "programs"
        self.presets = place / "run/presets"
        self.log = place / "log"
        self.programs.mkdir()
        self.log.touch()
        need("bash", "id", "mkdir", "python3", "rm", "rmdir", "uname")
        for name in ["bash", "dirname", "mkdir", "python3", "rm", "rmdir", "uname"]:
            self.program(name, f'PATH={environment()["PATH"]}\nexec {name} "$@"')
        self.program("id", "echo 0")

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def install(self, **changes: str) -> subprocess.CompletedProcess[str]:
        """Calls install_packages of tests/packages."""
        text = f". {ROOT}/tests/setup; PATH={self.programs}; . {ROOT}/tests/packages; install_packages"
        return subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", text],
            env={"HOME": "/", "QB_PRESETS": str(self.presets), "LOG": str(self.log), **changes},
            capture_output=True,
            text=True,
            check=False,
        )

    def logged(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_each_package_is_told_with_its_reason_before_it_is_installed(machine: Machine) -> None:
    machine.program("apt-get", 'echo "RUN $*" >&2')
    done = machine.install()
    before, _, after = done.stderr.partition("RUN ")
    lines = before.splitlines()
    assert done.returncode == 0
    assert lines[0] == "setup: apt-get installs these packages; no service of theirs is enabled or started:"
    told = [line.split(": ", 1) for line in lines[1:]]
    names = [name.strip() for name, _reason in told]
    assert len(set(names)) == len(names) > 20
    assert all(" for " in reason for _name, reason in told)
    assert "    openssh-server: sshd for tests over ssh, which start it on a port of the loopback" in lines
    assert "    mount: losetup for tests of block devices; swapon for tests of volumes in use" in lines
    update, install = after.splitlines()
    assert update == "-qq update"
    assert install.split()[-len(names) :] == names, "what was told, and nothing else"


def test_what_only_root_can_install_is_named_and_nothing_is_called(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    machine.program("apt-get", 'echo "$*" >>"$LOG"')
    done = machine.install()
    assert done.stderr.startswith("setup: these packages are missing, and only root can install them:\n    ")
    assert (done.returncode, machine.logged()) == (0, [])


def test_an_unavailable_package_does_not_prevent_the_others(machine: Machine) -> None:
    machine.program("apt-get", 'echo "${*: -1}" >>"$LOG"; [[ "$*" != *isal* ]]')
    done = machine.install()
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "cannot" in line] == ["setup: cannot install isal"]
    assert {"openssh-server", "lvm2", "zstd"} <= set(machine.logged())


def test_apt_get_enables_and_starts_no_service(machine: Machine, tmp_path: Path) -> None:
    """A package's script runs in the PATH that apt-get was given; behind it are programs that log what reaches them."""
    below = tmp_path / "below"
    below.mkdir()
    for name in ["systemctl", "deb-systemd-helper", "deb-systemd-invoke", "update-rc.d", "invoke-rc.d", "service"]:
        (below / name).write_text(f'#!/bin/bash\necho "{name} $*" >>"$LOG"\n')
        (below / name).chmod(0o755)
    (tmp_path / "postinst").write_text(POSTINST)
    machine.program(
        "apt-get",
        '[ "$1" = -o ] || exit 0\n'
        'path=${2#DPkg::Path=}; [ "$path" != "$2" ] || exit 1\n'
        '[ "${path#*:}" = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ] || exit 1\n'
        f"PATH=${{path%%:*}}:{below}:/usr/bin:/bin exec bash {tmp_path}/postinst",
    )
    done = machine.install()
    assert done.returncode == 0 and "cannot install" not in done.stderr
    assert machine.logged() == [
        "deb-systemd-helper unmask ssh.service",
        "deb-systemd-helper update-state ssh.service",
        "systemctl --system daemon-reload",
        "update-rc.d ssh defaults-disabled",
        "deb-systemd-helper update-state ssh.socket",
    ]


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "kill -TERM $PPID", "kill -INT $PPID"])
def test_dnf_enables_no_service(machine: Machine, end: str) -> None:
    """systemd's presets say so as long as it runs, and not a moment longer, however it ends."""
    machine.program(
        "dnf", f'[ ! -e "$QB_PRESETS" ] || echo "$(<"$QB_PRESETS/00-qbtools-tests.preset")" >>"$LOG"\n{end}'
    )
    done = machine.install()
    assert "setup: dnf installs these packages; no service of theirs is enabled or started:" in done.stderr
    assert set(machine.logged()) == {"disable *"}
    assert not machine.presets.exists()


def test_a_preset_of_somebody_else_stays(machine: Machine) -> None:
    machine.presets.mkdir(parents=True)
    (machine.presets / "10-mine.preset").write_text("enable mine.service\n")
    machine.program("dnf", "exit 0")
    machine.install()
    assert [path.read_text() for path in machine.presets.iterdir()] == ["enable mine.service\n"]


def test_nothing_is_installed_if_everything_is_available(machine: Machine) -> None:
    machine.program("apt-get", 'echo "$*" >>"$LOG"')
    done = machine.install(QB_READY="1")
    assert (done.returncode, done.stderr, machine.logged()) == (0, "", [])
