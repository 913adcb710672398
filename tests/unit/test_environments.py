"""Which of the user's variables are passed to the programs that we start."""

from __future__ import annotations

import pytest

from qbtools.environments import chosen_environment, cmd_environment

HARMFUL = (
    *("BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "CDPATH", "GLOBIGNORE", "POSIXLY_CORRECT", "BASH_FUNC_cat%%"),
    *("BASH_COMPAT", "EXECIGNORE", "FUNCNEST", "BASH_XTRACEFD", "TMOUT", "TAPE"),
    *("TAR_OPTIONS", "GZIP", "PIGZ", "BZIP", "BZIP2", "XZ_OPT", "XZ_DEFAULTS", "ZSTD_CLEVEL", "ZSTD_NBTHREADS"),
)
OF_THE_USER = ("AWS_SECRET_ACCESS_KEY", "RCLONE_CONFIG", "VAULT_TOKEN", "https_proxy", "QB_NAME", "ENVIRONMENT")
OF_ALL = (
    *("PATH", "HOME", "USER", "LOGNAME", "TERM", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_TIME", "LD_LIBRARY_PATH"),
    *("SSH_AUTH_SOCK", "GPG_TTY", "XDG_RUNTIME_DIR"),
)
GIVEN = {name: f"of {name}" for name in (*HARMFUL, *OF_THE_USER, *OF_ALL)}


def test_a_cmd_of_the_user() -> None:
    assert cmd_environment(GIVEN) == {name: GIVEN[name] for name in (*OF_THE_USER, *OF_ALL)}


def test_a_program_that_we_choose() -> None:
    assert chosen_environment(GIVEN) == {name: GIVEN[name] for name in OF_ALL}


def test_a_program_that_we_choose_may_have_variables_of_its_own() -> None:
    given = {"LVM_SYSTEM_DIR": "/x", "LVM": "/y", **GIVEN}
    assert chosen_environment(given, "LVM_") == {"LVM_SYSTEM_DIR": "/x", **{name: GIVEN[name] for name in OF_ALL}}


@pytest.mark.parametrize("build", [cmd_environment, chosen_environment])
def test_what_is_given_stays_as_it_was(build: object) -> None:
    before = dict(GIVEN)
    assert callable(build)
    assert build(GIVEN) is not GIVEN
    assert before == GIVEN
