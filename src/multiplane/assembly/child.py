"""What processes that `--spread per-node` starts have in common: orders, a life, an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from multiplane.assembly.layout import trust_of
from multiplane.assembly.site import HOST, identify
from multiplane.assembly.state import other_kek
from multiplane.assembly.tasks import Tasks
from multiplane.assembly.uplink import REFUSED, ChildOrders, Refusal
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import controller_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Faults
from multiplane.runtime.channel_tls import TlsChannels
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.logs import set_up_logs
from multiplane.runtime.pki import Credentials
from multiplane.runtime.session import Session
from multiplane.runtime.trust import Trust, keep_looking

LOST: Final = 3
C = TypeVar("C", bound=ChildOrders)


@dataclass(frozen=True, kw_only=True)
class Life:
    """A process while it runs. Args: ended: the exit code, once it is told to stop or lost its parent."""

    caller: Caller
    timeline: Dispatcher
    tasks: Tasks
    trust: Trust
    channels: TlsChannels
    ended: asyncio.Future[int]

    async def call_parent(self, service: str) -> Session:
        """The session with the parent, without which this process ends."""
        parent = controller_urn(self.caller.domain)
        session = Session(await self.channels.open(self.caller, parent, service, 0))
        session.on_closed(lambda _: end(self.ended, LOST))
        return session


def end(ended: asyncio.Future[int], code: int) -> None:
    """The first reason counts."""
    if not ended.done():
        ended.set_result(code)


@contextlib.asynccontextmanager
async def living(
    orders: ChildOrders, principal: str, faults: Faults, ports: dict[str, int]
) -> AsyncIterator[Life]:
    """The network's time, and channels that show and trust what lies in the files now, and what comes later.

    Args: principal: who this process is; ports: where the others listen, by principal.
    """
    book = {controller_urn(orders.domain): orders.parent_port} | ports
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    tasks = Tasks()
    _heed_signals(ended)
    timeline = Dispatcher(
        PacedClock(orders.epoch_ns, orders.rate, orders.started_ns), lambda _: end(ended, 1)
    )
    ticking = asyncio.ensure_future(timeline.run())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(tasks.close)
        stack.callback(ticking.cancel)
        mine = Credentials(principal=principal, certificate=Path(orders.certificate), key=Path(orders.key))
        trust = trust_of(Path(orders.authority), mine)
        who = identify(orders.domain, trust)
        channels = TlsChannels(
            timeline,
            trust.server,
            trust.client,
            identify=lambda der: who(der)[0],
            resolve=lambda urn: (HOST, book[urn]),
            faults=faults,
        )
        trust.on_change.append(lambda: channels.renew(trust.server, trust.client))
        stack.push_async_callback(channels.close)
        tasks.spawn(keep_looking([trust]))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, trust.look)
        caller = Caller(principal=principal, domain=orders.domain)
        yield Life(caller=caller, timeline=timeline, tasks=tasks, trust=trust, channels=channels, ended=ended)


def _heed_signals(ended: asyncio.Future[int]) -> None:
    """SIGTERM stops with grace for requests under way, again without; SIGINT is the parent's to handle."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None

    def told_to_stop() -> None:
        if ended.done():
            me.cancel()
        end(ended, 0)

    loop.add_signal_handler(signal.SIGTERM, told_to_stop)
    loop.add_signal_handler(signal.SIGINT, lambda: None)


def main(kind: type[C], run: Callable[[C], Awaitable[int]]) -> int:
    """Read orders from standard input and run; what it refuses is said on standard output."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=kind)
    set_up_logs(style=orders.log, level=orders.log_level)

    async def all_of_it() -> int:
        return await run(orders)

    try:
        return asyncio.run(all_of_it())
    except asyncio.CancelledError:  # told twice to stop
        return 0
    except MultiplaneError as error:
        told = other_kek(Path(orders.state)) if error.code == "seal.broken" else error
        sys.stdout.buffer.write(msgspec.json.encode(Refusal(code=told.code, reason=told.reason)))
        return REFUSED
