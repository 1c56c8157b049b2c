"""Points on the connection: TLS versions, who is let in, where the caller's name comes from."""

from __future__ import annotations

import ssl

from multiplane.sdk.conformance.exchange import NoAnswer, every_byte_quoted
from multiplane.sdk.conformance.probe import Probe, Untested
from multiplane.sdk.conformance.strangers import TLS_1_0, TLS_1_1, accepts_hello, context_of_a_stranger
from multiplane.sdk.conformance.verdicts import Finding, advises, deviates, not_tested, passed

# Headers in which proxies tell a server behind them who calls.
_TALES = (
    "X-SAE-ID",
    "SAE-ID",
    "X-SSL-Client-CN",
    "X-SSL-Client-S-DN",
    "X-SSL-Client-Subject",
    "X-Client-Cert-CN",
    "X-Client-DN",
    "X-Remote-User",
    "X-Forwarded-User",
)


async def old_tls(probe: Probe) -> Finding:
    """TLS 1.0 and 1.1 are refused."""
    master, subject = probe.master, probe.subject
    for version, name in ((TLS_1_1, "TLS 1.1"), (TLS_1_0, "TLS 1.0")):
        if await accepts_hello(master.host, master.port, version, subject.timeout_s):
            return deviates(f"{name} is accepted")
    return passed()


async def both_tls(probe: Probe) -> Finding:
    """TLS 1.2 and 1.3 are both spoken."""
    missing = []
    for version, name in ((ssl.TLSVersion.TLSv1_2, "1.2"), (ssl.TLSVersion.TLSv1_3, "1.3")):
        context = probe.subject.trust.context(probe.subject.master)
        context.minimum_version = context.maximum_version = version
        async with probe.party(context) as party:
            try:
                await probe.ask_status(party)
            except NoAnswer:
                missing.append(f"no TLS {name}")
    return advises(", ".join(missing)) if missing else passed()


async def no_certificate(probe: Probe) -> Finding:
    """Nobody gets in without a certificate."""
    return await _outsider(probe, probe.subject.trust.context(None))


async def foreign_certificate(probe: Probe) -> Finding:
    """Nobody gets in with the right names signed by the wrong authority."""
    return await _outsider(probe, context_of_a_stranger(probe.subject.trust, probe.subject.master.cert))


async def _outsider(probe: Probe, context: ssl.SSLContext) -> Finding:
    async with probe.party(context) as party:
        try:
            answer = await probe.ask_status(party)
        except NoAnswer as error:
            if error.late:
                return advises("the connection is left without an answer, not refused")
        else:
            if answer.status in (400, 401, 403):
                return advises(f"answered {answer.status}, but the connection itself should be refused")
            return deviates(f"let in, answered {answer.status}")
    try:
        await probe.ask_status()
    except NoAnswer:
        return not_tested("the master is not answered either")
    return passed("the connection is refused")


async def caller_from_certificate(probe: Probe) -> Finding:
    """No header makes somebody else of the caller."""
    before = (await probe.read_status()).get("master_SAE_ID")
    answer = await probe.ask_status(headers=dict.fromkeys(_TALES, probe.slave_id))
    if answer.status in (400, 401, 403):
        return passed("refused")
    found = answer.json
    if answer.status != 200 or not isinstance(found, dict):
        raise Untested(f"with such headers {probe.records.outline(answer)}")
    if found.get("master_SAE_ID") != before:
        return deviates("a request header changes master_SAE_ID")
    return passed()


async def encoded_ids(probe: Probe) -> Finding:
    """An SAE ID of a path is decoded, however much of it is encoded."""
    plain = await probe.read_status()
    answer = await probe.patiently(
        lambda: probe.ask(probe.master, "GET", probe.slave_id, "status", spelling=every_byte_quoted)
    )
    found = answer.json
    if answer.status != 200 or not isinstance(found, dict):
        return deviates(f"with each byte encoded {probe.records.outline(answer)}")
    if found.get("slave_SAE_ID") != plain.get("slave_SAE_ID"):
        return deviates("encoded and plain are two applications to it")
    return passed()


async def other_verbs(probe: Probe) -> Finding:
    """A verb that a method does not have changes nothing and is told so."""
    odd = []
    for verb, method in (
        ("DELETE", "enc_keys"),
        ("PUT", "enc_keys"),
        ("POST", "status"),
        ("PATCH", "dec_keys"),
    ):
        sae = probe.master_id if method == "dec_keys" else probe.slave_id
        body = None if verb == "DELETE" else b"{}"
        answer = await probe.ask(probe.master, verb, sae, method, body=body)
        if not 400 <= answer.status < 500:
            odd.append(f"{verb} {method} {answer.status}")
    return advises(", ".join(odd)) if odd else passed()


async def unknown_method(probe: Probe) -> Finding:
    """A path that is no method is 404, told as an Error."""
    answer = await probe.ask(probe.master, "GET", probe.slave_id, "no_such_method")
    if answer.status != 404:
        return advises(f"{answer.status} instead of 404")
    return passed() if answer.message is not None else advises("404 without an Error body")


async def long_body(probe: Probe) -> Finding:
    """A body that is far too long is refused at once."""
    body = b'{"number": 1, "x": "' + b" " * 1_000_000 + b'"}'
    try:
        answer = await probe.issue_raw(body)
    except NoAnswer as error:
        return advises("no answer to a body of 1 MB") if error.late else passed("the connection is closed")
    if answer.status == 200:
        probe.records.keys_of(answer)
        return advises("a body of 1 MB is read and answered with keys")
    return passed(str(answer.status)) if answer.status < 500 else advises(str(answer.status))
