"""The hands of the probe: asks as master, slave, somebody else or nobody, and waits where it is told to."""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.sdk.conformance.exchange import (
    ROOT,
    Answer,
    Credentials,
    NoAnswer,
    Party,
    Trust,
    quoted,
)
from multiplane.sdk.conformance.records import Held, Records
from multiplane.sdk.conformance.strangers import names_in
from multiplane.sdk.conformance.verdicts import Finding, deviates, passed

LONGEST_PAUSE_S: Final = 5.0
DEFAULT_PAUSE_S: Final = 0.2
DEFAULT_SIZE_BIT: Final = 256


class Untested(Exception):
    """A point cannot be judged; the text says why."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is probed, and with whose certificates.

    Args:
        url: the server of the master.
        peer_url: the server of the slave, the same one when both are served by one.
        trust: how both servers are known.
        master, slave: certificates of two applications.
        slave_id: SAE ID of the slave, as it goes into a path.
        master_id: SAE ID of the master; empty = as the server calls it.
        other, other_id, other_url: a third application, for the points that need one.
        timeout_s: bound of one exchange, > 0.
        wait_s: how long in all a 503 is waited out, >= 0.
        limit_s: bound of the whole run, > 0; what was not asked by then is not tested.
    """

    url: str
    peer_url: str
    trust: Trust
    master: Credentials
    slave: Credentials
    slave_id: str
    master_id: str = ""
    other: Credentials | None = None
    other_id: str = ""
    other_url: str = ""
    timeout_s: float = 10.0
    wait_s: float = 60.0
    limit_s: float = 300.0


class Probe:
    """One run against one server. Make it with the parties inside their `async with`."""

    def __init__(self, subject: Subject, master: Party, slave: Party, other: Party | None) -> None:
        self.subject = subject
        self.master = master
        self.slave = slave
        self.other = other
        self.slave_id = subject.slave_id
        self.master_id = subject.master_id
        self.records = Records()
        self.status: dict[str, Any] = {}
        self._started_s = time.monotonic()
        self._waited_s = 0.0
        self._issue_verb = self._collect_verb = "POST"

    # --- one exchange -------------------------------------------------------------------------

    async def ask(
        self,
        party: Party,
        verb: str,
        sae: str,
        method: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        spelling: Callable[[str], str] = quoted,
    ) -> Answer:
        """One request, whatever the answer. `method` may carry a query. Raises: NoAnswer, Untested."""
        if self.elapsed_s > self.subject.limit_s:
            raise Untested(f"the time of {self.subject.limit_s:g} s is up")
        answer = await party.ask(verb, f"{ROOT}/{spelling(sae)}/{method}", body, headers)
        self.records.note(answer)
        return answer

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s

    def party(self, context: ssl.SSLContext) -> Party:
        """Somebody else at the master's server, to be entered by the caller."""
        return Party(self.subject.url, context, self.subject.timeout_s)

    # --- the three methods, patiently ---------------------------------------------------------

    async def ask_status(self, party: Party | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Get status of the slave, asked by the master."""
        return await self.ask(party or self.master, "GET", self.slave_id, "status", headers=headers)

    async def read_status(self) -> dict[str, Any]:
        """A fresh status. Raises: Untested when there is none."""
        answer = await self.patiently(self.ask_status)
        found = answer.json
        if answer.status != 200 or not isinstance(found, dict):
            raise Untested(f"there is no status, {self.records.outline(answer)}")
        return found

    async def read_stored(self) -> int:
        """A fresh stored_key_count. Raises: Untested when there is none."""
        stored = (await self.read_status()).get("stored_key_count")
        if not isinstance(stored, int) or isinstance(stored, bool):
            raise Untested("status does not say stored_key_count")
        return stored

    def number(self, name: str) -> int:
        """A number of the first status. Raises: Untested when it is not there."""
        value = self.status.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Untested(f"status does not say {name}")
        return value

    @property
    def size_bit(self) -> int | None:
        """The default size, None when status does not say."""
        value = self.status.get("key_size")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    async def issue(self, wish: dict[str, Any], verb: str = "", slave_id: str = "") -> Answer:
        """Get key as the master. 503 is returned, not waited for."""
        verb = verb or self._issue_verb
        query = "&".join(f"{name}={value}" for name, value in wish.items()) if verb == "GET" else ""
        body = None if verb == "GET" else msgspec.json.encode(wish)
        method = f"enc_keys?{query}" if query else "enc_keys"
        return await self.ask(self.master, verb, slave_id or self.slave_id, method, body=body)

    async def issue_raw(self, body: bytes) -> Answer:
        """Get key with a body of any bytes."""
        return await self.ask(self.master, "POST", self.slave_id, "enc_keys", body=body)

    async def collect(
        self, key_ids: Sequence[str], party: Party | None = None, *, verb: str = "", master_id: str = ""
    ) -> Answer:
        """Get key with key IDs, as the slave unless `party` says otherwise. 503 is waited out."""
        verb = verb or (self._collect_verb if len(key_ids) == 1 else "POST")
        method, body = "dec_keys", None
        if verb == "GET":
            method += "?" + "&".join(f"key_ID={quoted(key_id)}" for key_id in key_ids)
        else:
            body = msgspec.json.encode({"key_IDs": [{"key_ID": key_id} for key_id in key_ids]})
        asked = party or self.slave
        return await self.patiently(
            lambda: self.ask(asked, verb, master_id or self.master_id, method, body=body)
        )

    async def patiently(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask again after each 503, as long as there is patience left; the last answer."""
        while True:
            answer = await request()
            if answer.status != 503 or self._waited_s >= self.subject.wait_s:
                return answer
            await self._pause(answer)

    async def _pause(self, answer: Answer) -> None:
        told = answer.headers.get("retry-after", "")
        pause_s = min(float(told) if told.isdecimal() else DEFAULT_PAUSE_S, LONGEST_PAUSE_S)
        self._waited_s += pause_s
        await asyncio.sleep(pause_s)

    # --- what most checks do ------------------------------------------------------------------

    async def take(self, number: int = 1, slave_id: str = "") -> list[Held]:
        """Keys to test with, by the verb that works. Raises: Untested when there are none."""
        wish = {"number": number} if number != 1 else {}
        answer = await self.patiently(lambda: self.issue(wish, slave_id=slave_id))
        keys = self.records.keys_of(answer, self.size_bit)
        if len(keys) != number:
            raise Untested(f"no {number} key(s) to test with, {self.records.outline(answer)}")
        return keys

    async def refusal(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to a request that must be refused.

        503 comes before any judgement of the request, so it is waited out. When it stays although a plain
        request is served, it is the judgement.
        """
        answer = await request()
        for _ in range(2):
            if answer.status != 503:
                break
            await self._pause(answer)
            answer = await request()
        if answer.status == 503:
            await self.take()
            answer = await request()
        if answer.status == 200 and answer.method in ("enc_keys", "dec_keys"):
            self.records.keys_of(answer)
        return answer

    def expect_400(self, answer: Answer, message: str = "") -> Finding:
        """Passed on 400, with exactly this message if there is one."""
        shown = self.records.outline(answer)
        if answer.status != 400:
            return deviates(f"{shown} instead of 400")
        if message and answer.message != message:
            return deviates(f"{shown} instead of {message!r}")
        return passed(shown)

    # --- the start ----------------------------------------------------------------------------

    async def greet(self) -> None:
        """Meet both servers, read the limits, find out which verbs work.

        Raises: Refused(`input.unreachable`) when a server cannot be asked at all.
        """
        answer = await self._first_contact(self.master, self.slave_id, "the server")
        found = answer.json
        self.status = found if answer.status == 200 and isinstance(found, dict) else {}
        if not self.master_id:
            self.master_id = self._name_of_the_master(self.status.get("master_SAE_ID"))
        await self._first_contact(self.slave, self.master_id, "the server of the slave")
        try:
            await self._find_verbs()
        except (NoAnswer, Untested):
            return  # each check will say so itself

    def _name_of_the_master(self, told: object) -> str:
        """As the server calls it, unless that is plainly wrong; then the first name of its certificate."""
        if isinstance(told, str) and told and not self.is_somebody_else(told):
            return told
        return names_in(self.subject.master.cert)[0]

    def is_somebody_else(self, name: object) -> bool:
        """Whether a name is the slave's or the third application's, and so not the master's."""
        return name in (self.slave_id, self.subject.other_id, *names_in(self.subject.slave.cert))

    async def _first_contact(self, party: Party, sae: str, who: str) -> Answer:
        try:
            return await self.ask(party, "GET", sae, "status")
        except NoAnswer as error:
            reason = f"{who} at {party.url}: {error}; expected an ETSI 014 server that takes this certificate"
            raise Refused("input.unreachable", reason) from None

    async def _find_verbs(self) -> None:
        answer = await self.patiently(lambda: self.issue({}))
        keys = self.records.keys_of(answer, self.size_bit)
        if not keys and answer.status != 503:
            self._issue_verb = "GET"
            keys = await self.take()
        if keys and not self.records.keys_of(await self.collect([keys[0].key_id]), self.size_bit):
            self._collect_verb = "GET"


def unknown_id() -> str:
    """An id that no server has given."""
    return str(uuid.uuid4())


def unknown_name(number: int = 0) -> str:
    """An SAE ID that no server knows."""
    return f"nobody-{uuid.uuid4().hex[:12]}-{number}"
