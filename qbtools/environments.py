"""The environments of the programs that qbtools starts."""

from __future__ import annotations

from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


# Variables that change how bash, tar or a compressor works, and so the meaning of a CMD.
_UNWANTED = frozenset(
    (
        *("BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "CDPATH", "GLOBIGNORE", "POSIXLY_CORRECT", "BASH_COMPAT"),
        *("EXECIGNORE", "FUNCNEST", "BASH_XTRACEFD", "TMOUT"),  # TMOUT ends a `read` of bash after so many seconds
        *("TAR_OPTIONS", "TAPE", "GZIP", "PIGZ", "BZIP", "BZIP2", "XZ_OPT", "XZ_DEFAULTS"),
    )
)
_UNWANTED_BEGINNINGS = ("BASH_FUNC_", "ZSTD_")


def cmd_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a user's CMD: the user's own, without what changes how bash, tar or a compressor works."""
    return {
        name: text
        for name, text in environ.items()
        if name not in _UNWANTED and not name.startswith(_UNWANTED_BEGINNINGS)
    }


_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "TERM", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH"),
    *("XDG_RUNTIME_DIR", "SSH_AUTH_SOCK"),  # agents need these
)
_KEPT_PREFIXES = ("LC_", "GPG_")


def chosen_environment(environ: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """The environment for a program that qbtools chooses: nothing in it changes how the program works.

    prefixes: variables with these prefixes are kept too.
    """
    kept = (*_KEPT_PREFIXES, *prefixes)
    return {name: text for name, text in environ.items() if name in _KEPT or name.startswith(kept)}
