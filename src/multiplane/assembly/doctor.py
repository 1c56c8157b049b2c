"""`multiplane doctor`: looks at everything a network stands on, changes nothing, needs no network to run."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from multiplane.assembly import certificate_audit, host, ledger_audit, settings
from multiplane.assembly.control import LOCAL_OPERATOR, SOCKET_NAME, control
from multiplane.assembly.feeds import audit as feeds_audit
from multiplane.assembly.findings import Finding, fail, ok, some, warn
from multiplane.assembly.kek import FILE_NAME as KEK_FILE
from multiplane.assembly.kek import kek_check, kek_of
from multiplane.assembly.layout import wall_ns
from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.state import (
    LAYOUT,
    LIVES_FOLDER,
    NETWORK,
    RESTORING_FILE,
    STORE_FILE,
    NetworkFile,
    read_network,
    stores_of,
)
from multiplane.assembly.up import load_world
from multiplane.assembly.world_digest import world_digest
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.runtime.store_copy import Snapshot, examine
from multiplane.runtime.store_life import is_strange
from multiplane.runtime.store_sqlite import held
from multiplane.twin.scenario import World, shipped


class Examination(msgspec.Struct, kw_only=True):
    """What is known of a network before its parts are looked at.

    Args:
        network: what the state directory says of itself; None = nothing.
        running: whether a process holds its store.
    """

    state: Path
    given: dict[str, Any]
    config: Path | None = None
    scenario: str | None = None
    network: NetworkFile | None = None
    running: bool = False
    findings: list[Finding] = msgspec.field(default_factory=list)


async def diagnose(
    state: Path, scenario: str | None, given: Mapping[str, Any], config: Path | None
) -> list[Finding]:
    """Everything the doctor finds, in the order in which it should be put right.

    Args:
        scenario: what is to run; None = what the settings or the directory say.
        given: other settings that were said (`assembly.settings.load`).
    """
    patient = Examination(state=state, given=dict(given), config=config, scenario=scenario)
    patient.findings += host.environment(state)
    loaded = _settings(patient)
    _directory(patient)
    world = _world(patient, loaded)
    network, spread = patient.network, _spread(patient, loaded)
    if world is not None:
        patient.findings.append(host.descriptor_limit(world, spread=spread))
        if loaded is not None:
            spans = [span.id for span in world.spans]
            try:
                settings.check_prefixes(loaded.prefixes, world)
            except Refused as error:
                patient.findings.append(fail("settings", error.reason, "correct that line"))
            patient.findings += await feeds_audit.audit(loaded.feeds, spans, loaded.rate)
    if not patient.running:
        patient.findings.append(host.free_ports(network.ports if network else {}))
    patient.findings += host.clocks(network.latest_ns if network else 0, wall_ns())
    patient.findings += certificate_audit.audit(state / "pki", world, wall_ns())
    if network is not None:
        _stores(patient, loaded)
    await _network(patient)
    return patient.findings


def _settings(patient: Examination) -> settings.UpSettings | None:
    """The settings, if they can be read."""
    where = patient.config or patient.state / settings.FILE_NAME
    try:
        loaded = settings.load(patient.state, {**patient.given, "scenario": patient.scenario}, patient.config)
    except Refused as error:
        patient.findings.append(fail("settings", error.reason, "correct that line"))
        return None
    found = f"{where.name} is good" if where.exists() else "no file: defaults"
    patient.findings.append(ok("settings", found))
    return loaded


def _directory(patient: Examination) -> None:
    """What the state directory says of itself, who may read it, who holds it."""
    state, findings = patient.state, patient.findings
    if not state.is_dir():
        findings.append(ok("state: directory", "not there yet: the first start makes it"))
        return
    if not os.access(state, os.W_OK | os.X_OK):
        findings.append(
            fail("state: directory", "cannot be written", "make it yours, or name another --state")
        )
    if (state / RESTORING_FILE).exists():
        findings.append(
            fail("state: directory", "a restore did not end", "run `multiplane state restore` again")
        )
    try:
        patient.network = read_network(state)
    except Refused as error:
        what, _, remedy = error.reason.rpartition(": ")
        findings.append(fail("state: network.json", what, remedy))
        return
    patient.running = held(state / STORE_FILE)
    findings.append(_permissions(state))


def _permissions(state: Path) -> Finding:
    secrets = [state / KEK_FILE, *state.glob("**/*.key"), *state.glob(f"**/{STORE_FILE}")]
    open_to_others = [
        path.relative_to(state).as_posix()
        for path in secrets
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_to_others:
        remedy = "chmod go= on them; make new ones if somebody may have read them"
        return fail("state: permissions", f"others may read: {some(open_to_others)}", remedy)
    return ok("state: permissions", "secrets are readable by you alone")


def _world(patient: Examination, loaded: settings.UpSettings | None) -> World | None:
    """The scenario, and whether the directory belongs to it."""
    network = patient.network
    name = (
        patient.scenario or (network.scenario if network else None) or (loaded.scenario if loaded else None)
    )
    said = patient.scenario is not None
    if name is None or (not said and network is not None and name not in shipped()):
        # A file of which the directory knows the name only; the settings may say where it lies.
        name = loaded.scenario if loaded and loaded.scenario not in shipped() else None
    if name is None:
        patient.findings.append(
            warn("scenario", "not known here", "name its file: multiplane doctor FILE --state DIR")
        )
        return None
    try:
        world = load_world(name, load_plugins(loaded.plugins if loaded else ()).policies)
    except Refused as error:
        patient.findings.append(fail("scenario", error.reason, "correct it, or name another"))
        return None
    if network is not None and network.digest != world_digest(world):
        found = f"the directory was made for {network.scenario!r} in another form"
        patient.findings.append(
            fail("scenario", found, "name the scenario it was made for, or another --state")
        )
        return None
    patient.findings.append(
        ok("scenario", f"{world.name}: {len(world.sites)} sites, {len(world.spans)} spans")
    )
    return world


def _spread(patient: Examination, loaded: settings.UpSettings | None) -> bool:
    if patient.network is not None:
        return patient.network.layout == LAYOUT[True]
    return loaded is not None and loaded.spread


def _stores(patient: Examination, loaded: settings.UpSettings | None) -> None:
    """Integrity, schema and rows of every store."""
    state, findings = patient.state, patient.findings
    sound: dict[str, Snapshot] = {}
    put_back: set[str] = set()
    for path in stores_of(state):
        name = path.relative_to(state).as_posix()
        if not path.exists():
            findings.append(ok(f"store: {name}", "not there yet"))
            continue
        finding, token = _store(path, name)
        findings.append(finding)
        if finding.verdict.value == "ok":
            sound[name] = Snapshot(path)
            whose = NETWORK if path.parent == state else path.parent.name
            try:  # the token of a store in use may change between two looks
                if not patient.running and is_strange(token, state / LIVES_FOLDER / whose):
                    put_back.add(name)
            except MultiplaneError as error:
                what, _, remedy = error.reason.rpartition(": ")
                findings.append(fail(f"store: {name}", what, remedy))
    try:
        kek = kek_of(state, loaded.kek_command if loaded else None, make=False)
    except Refused as error:
        what, _, remedy = error.reason.rpartition(": ")
        findings.append(fail("kek", what, remedy))
        return
    known = patient.network.kek_check if patient.network else ""
    if known not in ("", kek_check(kek)):
        findings.append(
            fail("kek", "is not the one of this directory", "give the one its stores were sealed with")
        )
        return
    findings.append(ok("kek", "is the one of this directory" if known else "is there"))
    findings += ledger_audit.audit(sound, kek, put_back, at_rest=not patient.running or len(sound) == 1)


def _store(path: Path, name: str) -> tuple[Finding, str | None]:
    """What a look at a store finds, and its token."""
    try:
        facts = examine(path)
    except MultiplaneError as error:
        return fail(f"store: {name}", error.reason, "restore a backup"), None
    if facts.schema > facts.known_schema:
        found = f"schema {facts.schema}, this version knows up to {facts.known_schema}"
        return fail(f"store: {name}", found, "use the newer multiplane that wrote it"), None
    if facts.damage:
        return fail(f"store: {name}", f"damaged: {facts.damage}", "restore a backup"), None
    return ok(f"store: {name}", f"sound, schema {facts.schema}"), facts.token


async def _network(patient: Examination) -> None:
    """What the running network says of itself."""
    if not patient.running:
        patient.findings.append(ok("network", "does not run"))
        return
    try:
        async with control(patient.state) as doors:
            report = await doors.operator.report(LOCAL_OPERATOR)
    except MultiplaneError:
        found = f"a process holds the store, nobody answers at {SOCKET_NAME}"
        patient.findings.append(
            fail("network", found, "wait if it just starts; else end that process (see store.sqlite.lock)")
        )
        return
    idle = [*(kme.name for kme in report.kmes if not kme.serving), *report.silent]
    if idle:
        patient.findings.append(warn("network", f"do not serve: {some(idle)}", "look at its output"))
    else:
        patient.findings.append(ok("network", f"runs, {len(report.kmes)} key managers serve"))
    wrong = [
        f"{one.owner} to {one.peer} ({one.side})"
        for kme in report.kmes
        for one in kme.ledgers
        if not one.closes
    ]
    if wrong:
        remedy = "report it with `multiplane status --json`"
        patient.findings.append(fail("network: ledgers", f"do not close: {some(wrong)}", remedy))
