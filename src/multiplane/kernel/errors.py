"""The error tree. Every door answers with one of four kinds; the kind says what the caller can do.

    MultiplaneError
    ├── Refused   it will not work however often it is tried: change the request
    ├── Busy      it will work later: try again after `retry_after_ns`
    ├── Faulty    something broke on this side: report it
    └── Unknown   the deadline passed and nobody knows whether it took effect: look before trying again

`code` belongs to the version of the door that raises it and is stable; `reason` is for people.
"""

from __future__ import annotations

from typing import ClassVar, Final


class MultiplaneError(Exception):
    """Root of the tree.

    Args:
        code: stable, lower-case, dotted (`key.not_found`).
        reason: one sentence that names the field, the value and what was expected; never key material.
        retry_after_ns: simulated nanoseconds after which another try makes sense; 0 = not said.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, code: str, reason: str, *, retry_after_ns: int = 0) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.retry_after_ns = retry_after_ns


class Refused(MultiplaneError):
    """The request can never be granted as it stands."""

    kind = "refused"


class Busy(MultiplaneError):
    """The request can be granted later."""

    kind = "busy"


class Faulty(MultiplaneError):
    """This side failed; nothing was granted."""

    kind = "faulty"


class Unknown(MultiplaneError):
    """The deadline passed; the effect is not known."""

    kind = "unknown"


KINDS: Final[dict[str, type[MultiplaneError]]] = {
    kind.kind: kind for kind in (Refused, Busy, Faulty, Unknown)
}
