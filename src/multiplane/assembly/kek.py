"""The key-encryption key (KEK), under which keys at rest are sealed: from environment, command or file.

A KEK in a file beside the data protects nothing: whoever copies the directory has both. A command that asks a
key service or a hardware module at start is the form that survives a stolen disk.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
from pathlib import Path
from typing import Final

from multiplane.kernel.errors import Refused
from multiplane.runtime.durable import put_durably
from multiplane.security.sealing import KEK_BYTE, derive

KEK_ENVIRONMENT: Final = "MULTIPLANE_KEK"
COMMAND_ENVIRONMENT: Final = "MULTIPLANE_KEK_COMMAND"
FILE_NAME: Final = "kek"
COMMAND_TIMEOUT_S: Final = 30.0
_CHECK_DIGITS: Final = 32


def kek_of(state: Path, command: str | None = None, *, make: bool = True) -> bytes:
    """The key-encryption key, 32 bytes: from MULTIPLANE_KEK, else from the command, else from DIR/kek.

    Args:
        command: prints 64 hexadecimal digits; None = the one in MULTIPLANE_KEK_COMMAND, if any.
        make: whether a missing DIR/kek is made.

    Raises: Refused(`state.kek`).
    """
    command = command or os.environ.get(COMMAND_ENVIRONMENT)
    given = os.environ.get(KEK_ENVIRONMENT)
    if given is not None:
        return parse_kek(given, KEK_ENVIRONMENT)
    if command:
        return parse_kek(_printed(command), f"the output of the KEK command {shlex.split(command)[0]!r}")
    path = state / FILE_NAME
    try:
        if make and not path.exists():
            write_kek(path, secrets.token_bytes(KEK_BYTE))
        return parse_kek(path.read_text(encoding="ascii"), str(path))
    except FileNotFoundError as error:
        reason = f"{path}: is not there: put the key of these stores back, or set {KEK_ENVIRONMENT}"
        raise Refused("state.kek", reason) from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise Refused("state.kek", f"{path}: cannot be read or made ({why}): check owner and mode") from error


def kek_check(kek: bytes) -> str:
    """A short name for a key-encryption key that tells nothing of it."""
    return derive(kek, "name of the key-encryption key").hex()[:_CHECK_DIGITS]


def parse_kek(text: str, source: str) -> bytes:
    """The 32 bytes that 64 hexadecimal digits from `source` stand for. Raises Refused(`state.kek`)."""
    try:
        kek = bytes.fromhex(text.strip())
    except ValueError:
        kek = b""
    if len(kek) != KEK_BYTE:
        # What was there may be most of a key: say nothing of it.
        raise Refused("state.kek", f"{source}: expected {2 * KEK_BYTE} hexadecimal digits")
    return kek


def write_kek(path: Path, kek: bytes) -> None:
    """Put the file in place, durably: rows sealed under a key that did not last are lost. Raises OSError."""
    put_durably(path, kek.hex() + "\n")


def _printed(command: str) -> str:
    try:
        words = shlex.split(command)
        done = subprocess.run(  # noqa: S603 - the operator's own command, no shell
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S, check=True
        )
        return done.stdout.decode("ascii")
    except (ValueError, IndexError) as error:
        raise Refused("state.kek", f"kek_command: expected a command line: {type(error).__name__}") from None
    except OSError as error:
        raise Refused("state.kek", f"kek_command: {words[0]!r} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        reason = f"kek_command: {words[0]!r} did not answer within {COMMAND_TIMEOUT_S:g} s"
        raise Refused("state.kek", reason) from None
    except subprocess.CalledProcessError as error:
        reason = f"kek_command: {words[0]!r} ended with {error.returncode}, expected 0"
        raise Refused("state.kek", reason) from None
