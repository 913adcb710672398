"""Replacements for parts of Python's library that are slow to load.

A stage runs once for each file of a backup, so its start time matters: `typing`, `re`, `enum`, `contextlib` and
`signal`, with the modules that they load, take as long as the interpreter itself. Modules that every stage loads use
this module at run time, and import names for annotations only under `if TYPE_CHECKING`, which is true only for type
checkers.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    import re
    import signal as signal
    from contextlib import suppress as suppress
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
else:
    import _operator
    import _signal

    signal = _signal  # its constants are plain numbers, and it loads nothing

    class suppress:
        """The same as contextlib.suppress."""

        def __init__(self, *kinds: type[BaseException]) -> None:
            self._kinds = kinds

        def __enter__(self) -> None:
            """Nothing to do."""

        def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
            return kind is not None and issubclass(kind, self._kinds)

    def _field(at: int, name: str) -> property:
        return property(_operator.itemgetter(at), doc=f"The field {name}.")

    class NamedTuple(tuple):
        """The same as typing.NamedTuple, as far as qbtools uses it."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}

        def __init_subclass__(cls) -> None:
            fields = tuple(cls.__dict__.get("__annotations__", ()))
            cls._fields = fields
            cls._field_defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
            for at, name in enumerate(fields):
                setattr(cls, name, _field(at, name))

        def __new__(cls, *values: object, **named: object) -> NamedTuple:
            fields = cls._fields
            if len(values) == len(fields) and not named:
                return tuple.__new__(cls, values)
            if len(values) > len(fields) or not named.keys() <= set(fields[len(values) :]):
                raise TypeError(f"{cls.__name__} takes {', '.join(fields)}")
            given = {**cls._field_defaults, **named}
            try:
                return tuple.__new__(cls, (*values, *(given[name] for name in fields[len(values) :])))
            except KeyError as missing:
                raise TypeError(f"{cls.__name__} needs {missing}") from None

        def __repr__(self) -> str:
            fields = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({', '.join(fields)})"

        def __getnewargs__(self) -> tuple[object, ...]:
            return tuple(self)

        def _replace(self, **changes: object) -> NamedTuple:
            return type(self)(**{**self._asdict(), **changes})

        def _asdict(self) -> dict[str, object]:
            return dict(zip(self._fields, self, strict=True))

    class Protocol:
        """Says nothing at run time."""


class Pattern:
    """A regular expression that is compiled at its first use. `re` is loaded then too."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._compiled: re.Pattern[str] | None = None

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """The same as the method of re.Pattern, with DOTALL."""
        if self._compiled is None:
            import re

            self._compiled = re.compile(self._text, re.DOTALL)
        return self._compiled.fullmatch(text)


def number(digits: bytes, most: int = 19) -> int | None:
    """The value of at most so many ASCII decimal digits without a leading zero ("0" is allowed). Otherwise None."""
    if not digits.isdigit() or len(digits) > most or (digits[0] == 0x30 and len(digits) > 1):
        return None
    return int(digits)
