"""A key manager (KME): composition of the Service Stratum's planes at one site.

Applications come through `North`; other key managers through `KmePeer`; parcels through the fabric's door.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from multiplane.api.north import Key, KeyRequest, KeyStatus
from multiplane.api.operator import KmeReport, PoolLedger, StockFlight, UnitRecord
from multiplane.api.service_fabric import Parcel
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import PUT_BACK_KIND, PUT_BACK_STOCK, Delete
from multiplane.service import control, telemetry
from multiplane.service.kme import copies
from multiplane.service.kme.far import FarStock, not_found
from multiplane.service.kme.multicast import Multicast
from multiplane.service.kme.near import NearStock
from multiplane.service.kme.ports import KmePorts
from multiplane.service.planes import (
    Application,
    GroupAccepted,
    HeadReport,
    HoldCopies,
    KmeEntry,
    OpenGroup,
    OpenUnit,
    PairState,
    Register,
    StockAnswer,
    StockHello,
    StockListener,
    UnitAccepted,
    UnitCommitted,
    VoidCopies,
)
from multiplane.service.resource import inbound, metering, outbound
from multiplane.service.resource.blocks import BLOCK_WORD, parse_label, words_of

TICK_NS: Final = 1_000_000_000


class Kme:
    """One key manager.

    Args:
        entry: how it stands in the register.
        pid: process it runs in, for the operator.
    """

    def __init__(self, ports: KmePorts, entry: KmeEntry, pid: int = 0) -> None:
        self.ports, self.entry, self.pid = ports, entry, pid
        self._near: dict[str, NearStock] = {}
        self._far: dict[str, FarStock] = {}
        self._multicast = Multicast(ports, self.near)
        self._news = telemetry.News()
        self._closed = False
        self._ticking = False
        self._sound = False

    async def start(self) -> None:
        """Read what is stored, enter the register, take this site's parcels."""
        store, owner = self.ports.store, self.ports.owner
        for peer, _ in store.scan(owner, outbound.POOL_KIND):
            self._near[peer] = NearStock(self.ports, peer, self._carry)
        for peer, _ in store.scan(owner, inbound.POOL_KIND):
            self._far[peer] = FarStock(self.ports, peer)
        self.ports.meter.load(store.scan(owner, metering.METER_KIND))
        await self._make_amends()
        self._sound = True
        store.watch(owner, self._store_failed)
        await self.ports.fabric.subscribe(self.ports.caller, self)
        await self.join()
        for near in self._near.values():
            near.wake()
        self._tick_soon()

    async def _make_amends(self) -> None:
        """Rows that were put back from a backup: whatever they hold was used since. All or nothing."""
        store, owner = self.ports.store, self.ports.owner
        if PUT_BACK_STOCK not in dict(store.scan(owner, PUT_BACK_KIND)):
            return
        stocks: list[NearStock | FarStock] = [*self._near.values(), *self._far.values()]
        changes = [change for stock in stocks for change in stock.forget()]
        await store.commit(owner, [*changes, Delete(PUT_BACK_KIND, PUT_BACK_STOCK)])
        self.ports.counters.add("stock.put_back", len(stocks))

    def _store_failed(self) -> None:
        """No stock may go on from what it holds in memory: rows of one may have failed with another's."""
        for stock in self._stocks():
            stock.poison()

    def _stocks(self) -> list[NearStock | FarStock | Multicast]:
        return [*self._near.values(), *self._far.values(), self._multicast]

    async def join(self) -> None:
        """Enter the register; again whenever the way to the controller was lost."""
        self.register_changed(await self.ports.control.join(self.ports.caller, self.entry, self))

    async def close(self) -> None:
        """Stop serving and leave exact accounts behind."""
        self._closed = True
        for near in self._near.values():
            with suppress(MultiplaneError):
                await near.close()

    def near(self, peer: str) -> NearStock:
        """The stock to a peer, begun when it is first needed."""
        if peer not in self._near:
            self._near[peer] = NearStock(self.ports, peer, self._carry)
            self._tick_soon()
        return self._near[peer]

    def _far_stock(self, peer: str) -> FarStock:
        if peer not in self._far:
            self._far[peer] = FarStock(self.ports, peer)
            self._tick_soon()
        return self._far[peer]

    def _tick_soon(self) -> None:
        """One timer for all stocks, as soon as there is one."""
        if (self._near or self._far) and not self._ticking:
            self._ticking = True
            self.ports.timeline.at_ns(self.ports.timeline.now_ns() + TICK_NS, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self._closed:
            return
        now_ns = self.ports.timeline.now_ns()
        for stock in self._stocks():
            with suppress(MultiplaneError):
                stock.tick(now_ns)
        self._sample(now_ns)
        self._tick_soon()

    def _sample(self, now_ns: int) -> None:
        """Publish what has changed, and now and then all of it: telemetry may be lost."""
        subject = f"{self.ports.caller.domain}.service.telemetry.{self.ports.site}.stock"
        for sample in self._news.of(telemetry.stock_samples(self.ledgers(), now_ns), now_ns):
            with suppress(MultiplaneError):  # telemetry may be lost; all is said again after a while
                self.ports.bus.publish(subject, sample)

    # --- North ---------------------------------------------------------------------------------------------

    def _application(self, caller: Caller) -> Application:
        """The caller as the register knows it; applications speak to the key manager of their own site."""
        try:
            target = self.ports.directory.application(caller.principal)
        except Refused:  # a certificate of this authority that names nobody of this network
            reason = f"client certificate: {caller.principal[:200]} is no application: use an application's"
            raise Refused("north.not_allowed", reason) from None
        if target.kme.urn != self.ports.owner:
            raise Refused(
                "north.not_allowed",
                f"application {target.application.alias}: expected at {target.kme.site}, not here",
            )
        return target.application

    async def key_status(self, caller: Caller, peer: str) -> KeyStatus:
        """What the caller could be issued for `peer` now."""
        master = self._application(caller)
        target = self.ports.directory.application(peer)
        rules = self.ports.rules
        near = self._near.get(target.kme.site)
        ends = master.urn, target.application.urn
        stored = near.stored_keys(*ends, rules.default_size_bit) if near else 0
        # A full stock, and the block that is being cut.
        most = (rules.high_block + 1) * (BLOCK_WORD // words_of(rules.default_size_bit))
        return KeyStatus(
            source_kme=self.ports.owner,
            target_kme=target.kme.urn,
            master=master.urn,
            slave=target.application.urn,
            key_size_bit=rules.default_size_bit,
            stored_key_count=min(stored, most),
            max_key_count=most,
            max_key_per_request=rules.max_number,
            max_key_size_bit=rules.max_size_bit,
            min_key_size_bit=rules.min_size_bit,
            max_additional=rules.max_additional,
        )

    async def issue_keys(self, caller: Caller, request: KeyRequest) -> tuple[Key, ...]:
        """Issue fresh keys of the unit between the caller and its peer."""
        try:
            master = self._application(caller).urn
            admitted = control.admit(
                self.ports.rules, self.ports.policy, self.ports.directory, master, request
            )
            slaves = tuple(slave.application.urn for slave in (admitted.target, *admitted.others))
            wanted_bit = admitted.size_bit * admitted.number
            charge = self.ports.meter.charge(master, slaves, wanted_bit, self.ports.timeline.now_ns())
            try:
                keys = await self._issue(master, admitted, request.valid_s)
            except BaseException:  # whatever ended it, nothing was issued
                self.ports.meter.give_back(charge)
                raise
        except MultiplaneError as error:
            self.ports.counters.add(f"issue.{error.code}")
            raise
        self.ports.counters.add("key.issued", len(keys))
        unit = self._unit_of(admitted, keys[0][0]) if request.tell_unit else ()
        return tuple(Key(key_id=key_id, key=key, unit=unit) for key_id, key in keys)

    async def _issue(self, master: str, admitted: control.Admitted, valid_s: int) -> list[tuple[str, bytes]]:
        target, size_bit, number, others = admitted
        if others:
            return await self._multicast.issue(master, (target, *others), size_bit, number, valid_s)
        near = self.near(target.kme.site)
        return await near.issue(master, target.application.urn, size_bit, number, valid_s)

    def _unit_of(self, admitted: control.Admitted, key_id: str) -> tuple[str, ...]:
        issuer = self._multicast if admitted.others else self.near(admitted.target.kme.site)
        return issuer.find(key_id)[0].urns

    async def collect_keys(self, caller: Caller, master: str, key_ids: tuple[str, ...]) -> tuple[Key, ...]:
        """Hand out the keys under `key_ids`, each exactly once, all or none."""
        try:
            keys = await self._collect(caller, master, key_ids)
        except MultiplaneError as error:
            self.ports.counters.add(f"collect.{error.code}")
            raise
        self.ports.counters.add("key.collected", len(keys))
        return tuple(Key(key_id=key_id, key=key) for key_id, key in zip(key_ids, keys, strict=True))

    async def _collect(self, caller: Caller, master: str, key_ids: tuple[str, ...]) -> list[bytes]:
        slave = self._application(caller)
        if not key_ids or len(set(key_ids)) != len(key_ids):
            raise Refused("key.ids", "key_IDs: expected one or more different ids")
        target = self.ports.directory.application(master)
        if target.application.urn == slave.urn and not self.ports.policy.allow_self:
            raise Refused("key.not_yours", "key_ID: the master of a key does not collect it")
        far = self._far.get(target.kme.site)
        if far is None:
            raise not_found()
        return await far.collect(target.application.urn, slave.urn, key_ids)

    # --- KmePeer -------------------------------------------------------------------------------------------

    async def hello(self, caller: Caller, hello: StockHello, listener: StockListener) -> StockAnswer:
        """The near side of the stock from the caller's site introduces itself."""
        if not self._sound:
            raise Busy("kme.starting", f"{self.ports.site}: reads its state", retry_after_ns=TICK_NS)
        return await self._far_stock(site_of(caller.principal)).hello(hello, listener)

    async def open_unit(self, caller: Caller, proposal: OpenUnit) -> UnitAccepted:
        """The near side proposes a unit."""
        return await self._far_stock(site_of(caller.principal)).open_unit(proposal)

    def unit_committed(self, caller: Caller, committed: UnitCommitted) -> None:
        """The near side holds the digest too."""
        self._far_stock(site_of(caller.principal)).unit_committed(committed)

    def head(self, caller: Caller, report: HeadReport) -> None:
        """The near side reports from where on it issues."""
        self._far_stock(site_of(caller.principal)).head(report)

    async def open_group(self, caller: Caller, proposal: OpenGroup) -> GroupAccepted:
        """The near side proposes a unit of more than two ends."""
        return await copies.open_group(self._far_stock(site_of(caller.principal)), proposal)

    async def hold_copies(self, caller: Caller, message: HoldCopies) -> None:
        """The near side brings keys that applications here share with others elsewhere."""
        await copies.hold(self._far_stock(site_of(caller.principal)), message)

    async def void_copies(self, caller: Caller, message: VoidCopies) -> None:
        """The near side has answered these keys to nobody."""
        await copies.void(self._far_stock(site_of(caller.principal)), message)

    # --- parcels -------------------------------------------------------------------------------------------

    async def _carry(self, parcel: Parcel) -> None:
        """Bring a parcel on its way: what two applications of this site share never leaves it."""
        if parcel.target == self.ports.site:
            self.parcel(parcel)
        else:
            await self.ports.fabric.carry(self.ports.caller, parcel)

    # --- ParcelListener, KmeListener -----------------------------------------------------------------------

    def parcel(self, parcel: Parcel) -> None:
        """A parcel for this site has come through the fabric."""
        label = parse_label(parcel.label)
        far = self._far.get(parcel.source)
        if label is None or far is None:
            self.ports.counters.add("parcel.unexpected")
            return
        self.ports.spawn(far.parcel(*label, parcel.payload))

    def register_changed(self, register: Register) -> None:
        """The controller's register has a new version."""
        if register.version >= self.ports.directory.register.version:
            self.ports.directory = control.Directory(register)

    def pair_changed(self, state: PairState) -> None:
        """The way to a peer has changed."""
        near = self._near.get(state.peer_site)
        if near is not None:
            near.pair_changed(state)

    # --- KmeControl ----------------------------------------------------------------------------------------

    def ledgers(self) -> list[PoolLedger]:
        """The accounts of all stocks, near sides first."""
        near = [stock.ledger() for _, stock in sorted(self._near.items()) if stock.pool.epoch]
        return [*near, *(ledger for _, stock in sorted(self._far.items()) for ledger in stock.ledgers())]

    async def report(self, caller: Caller) -> KmeReport:
        """State of this key manager; never key material."""
        del caller
        return KmeReport(
            name=self.ports.site,
            urn=self.ports.owner,
            pid=self.pid,
            serving=not self._closed,
            store_ok=not any(stock.poisoned for stock in self._stocks()),
            ledgers=tuple(self.ledgers()),
            counters=self.ports.counters.values(),
        )

    async def flights(self, caller: Caller) -> tuple[StockFlight, ...]:
        """How each stock that issues keys is being filled."""
        del caller
        stocks = [stock for _, stock in sorted(self._near.items()) if stock.pool.epoch]
        return tuple(stock.filling.told(stock.pool) for stock in stocks)

    async def find_unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        """Units under a key id, a digest or an endpoint URN."""
        del caller
        return tuple(record for stock in self._stocks() for record in stock.find(name))
