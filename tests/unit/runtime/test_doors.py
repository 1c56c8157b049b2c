"""Every door works the same through `strict` and through `remote`, and lets nothing but values through."""

from __future__ import annotations

import asyncio
import enum
import types
import typing
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec
import pytest

from multiplane.api.device import DeviceListener, LinkState, LinkStatus, QkdDevice
from multiplane.api.fabric_connectivity import FabricConnectivity, PathDemand
from multiplane.api.north import Key, KeyRequest, North
from multiplane.api.scenario import Scenario
from multiplane.api.service_fabric import FabricControl, FabricNode, Order, Parcel
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller, Ends, Noun, ends
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import JumpClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.door_reflection import describe, is_protocol
from multiplane.runtime.door_schemas import door_modules, protocols
from multiplane.runtime.doors import DoorEvent, MessageRing, remote, serve, strict
from multiplane.runtime.session import Session

T = TypeVar("T")
A, B = element_urn("d", "a"), element_urn("d", "b")
CALLER = Caller(principal=A, domain="d")
MALLORY = Caller(principal=element_urn("d", "mallory"), domain="d")
Pair = tuple[Session, Session]


def sessions(main: Callable[[Session, Session], Awaitable[T]]) -> T:
    """Two sessions of A (first) and B over a local channel, in virtual time."""

    async def body(clock: JumpClock) -> T:
        dispatcher = Dispatcher(clock)
        task = asyncio.create_task(dispatcher.run())
        channels = LocalChannels(dispatcher)
        accepted: list[Session] = []
        channels.accept(B, "door", lambda channel: accepted.append(Session(channel)))
        near = Session(await channels.open(CALLER, B, "door", 1_000))
        await asyncio.sleep(1e-5)
        try:
            return await main(near, accepted[0])
        finally:
            task.cancel()

    return run_virtual(body, 0)


def sample(hint: Any, listener: Callable[[type], object], salt: int = 0) -> Any:
    """Some value of a type that a door uses."""
    plain: dict[Any, Any] = {str: f"text{salt}", int: 7 + salt, float: 0.25, bool: True, bytes: b"\x00key"}
    if hint in plain:
        return plain[hint]
    if hint is None or hint is type(None):
        return None
    if hint is Ends:
        return ends("alpha", "beta")
    if is_protocol(hint):
        return listener(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return list(hint)[-1]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        fields = typing.get_type_hints(hint)
        names = enumerate(hint.__struct_fields__)
        return hint(**{name: sample(fields[name], listener, index) for index, name in names})
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return sample(parts[0], listener, salt)
    if origin is tuple:
        each = parts[:1] * 2 if parts[-1] is Ellipsis else parts
        return tuple(sample(part, listener, index) for index, part in enumerate(each))
    if origin is dict:
        return {sample(parts[0], listener): sample(parts[1], listener)}
    raise AssertionError(f"no sample for {hint}")


def arguments(proto: Any, method: str, listener: Callable[[type], object]) -> list[Any]:
    """Sample arguments of a method, without its caller."""
    hints = typing.get_type_hints(getattr(proto, method))
    hints.pop("return")
    return [sample(hint, listener, i) for i, hint in enumerate(hints.values()) if hint is not Caller]


def fake(proto: type, record: list[Any]) -> Any:
    """An implementation that records what it is given, tells listeners everything, and answers samples."""
    namespace = types.SimpleNamespace()

    def no_listener(_: type) -> object:
        raise AssertionError("answers and notices carry no listeners")

    def tell(given: tuple[Any, ...], hints: dict[str, Any]) -> None:
        record.append([value for value in given if isinstance(value, Noun | str | int | tuple)])
        for value, hint in zip(given, hints.values(), strict=True):
            if is_protocol(hint):
                for method in describe(hint).methods:
                    getattr(value, method.name)(*arguments(hint, method.name, no_listener))

    def method_of(name: str) -> Callable[..., Any]:
        hints = typing.get_type_hints(getattr(proto, name))
        answer = hints.pop("return")

        async def call(*given: Any) -> Any:
            record.append(name)
            tell(given, hints)
            return sample(answer, no_listener)

        def notify(*given: Any) -> None:
            record.append(name)
            tell(given, hints)

        return call if asyncio.iscoroutinefunction(getattr(proto, name)) else notify

    for method in describe(proto).methods:
        setattr(namespace, method.name, method_of(method.name))
    return namespace


async def exercise(door: Any, proto: type, heard: list[Any]) -> list[Any]:
    """Call every method of a door and collect the answers."""
    answers = []
    for method in describe(proto).methods:
        caller = (CALLER,) if method.has_caller else ()
        given = arguments(proto, method.name, lambda hint: fake(hint, heard))
        answer = getattr(door, method.name)(*caller, *given)
        answers.append(await answer if method.is_call else answer)
        await asyncio.sleep(1e-3)
    return answers


ALL_DOORS = [proto for module in door_modules().values() for proto in protocols(module)]


@pytest.mark.parametrize("proto", ALL_DOORS, ids=lambda proto: proto.__name__)
def test_every_door_is_the_same_through_strict_and_remote(proto: type) -> None:
    async def plain(_: Session, __: Session) -> tuple[list[Any], list[Any], list[Any]]:
        record: list[Any] = []
        heard: list[Any] = []
        return await exercise(fake(proto, record), proto, heard), record, heard

    async def through_strict(_: Session, __: Session) -> tuple[list[Any], list[Any], list[Any]]:
        record: list[Any] = []
        heard: list[Any] = []
        return await exercise(strict(proto, fake(proto, record)), proto, heard), record, heard

    async def through_remote(near: Session, far: Session) -> tuple[list[Any], list[Any], list[Any]]:
        record: list[Any] = []
        heard: list[Any] = []
        serve(far, "it", proto, fake(proto, record))
        return await exercise(remote(proto, near, "it"), proto, heard), record, heard

    expected = sessions(plain)
    assert expected[1], "the fake was called"
    assert sessions(through_strict) == expected
    assert sessions(through_remote) == expected


class Base:
    """Collects what a door was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []


class Control(Base):
    async def subscribe(self, caller: Caller, listener: object) -> None:
        self.told.append((caller, listener))

    async def place(self, caller: Caller, order: Order) -> object:
        self.told.append((caller, order))
        raise Busy("order.later", "no room", retry_after_ns=3)

    async def withdraw(self, caller: Caller, order_id: str) -> None:
        raise ValueError(f"secret of {order_id}")


ORDER = Order(order_id="o1", ends=ends("alpha", "beta"))


def both(main: Callable[[FabricControl, Control], Awaitable[None]]) -> None:
    """Run a check through `strict` and again through `remote`."""

    async def in_process(_: Session, __: Session) -> None:
        impl = Control()
        await main(strict(FabricControl, impl), impl)

    async def over_session(near: Session, far: Session) -> None:
        impl = Control()
        serve(far, "control", FabricControl, impl)
        await main(remote(FabricControl, near, "control"), impl)

    sessions(in_process)
    sessions(over_session)


def test_kernel_errors_come_back_as_themselves() -> None:
    async def main(door: FabricControl, _: Control) -> None:
        with pytest.raises(Busy) as caught:
            await door.place(CALLER, ORDER)
        assert (caught.value.code, caught.value.retry_after_ns) == ("order.later", 3)

    both(main)


def test_defects_become_faults_without_their_text() -> None:
    async def main(door: FabricControl, _: Control) -> None:
        with pytest.raises(Faulty) as caught:
            await door.withdraw(CALLER, "o1")
        assert caught.value.code == "door.fault"
        assert "secret" not in str(caught.value)

    both(main)


def test_values_only() -> None:
    async def main(door: FabricControl, impl: Control) -> None:
        with pytest.raises(Busy):
            await door.place(CALLER, order=ORDER)
        assert impl.told[0][1] == ORDER
        assert impl.told[0][1] is not ORDER

    both(main)


@pytest.mark.parametrize(
    "given",
    [
        (Order(order_id=5, ends=ends("a", "b")),),  # type: ignore[arg-type]
        ("not an order",),
        (msgspec.structs.replace(ORDER, qos=object()),),
        (),
        (ORDER, "one too many"),
    ],
)
def test_wrong_types_are_refused(given: tuple[Any, ...]) -> None:
    async def main(door: FabricControl, impl: Control) -> None:
        with pytest.raises(Refused, match=r"door\.invalid"):
            await door.place(CALLER, *given)
        assert impl.told == []

    both(main)


def test_the_caller_comes_first() -> None:
    async def main(door: FabricControl, impl: Control) -> None:
        with pytest.raises(Refused, match=r"door\.invalid"):
            await door.place(ORDER, CALLER)  # type: ignore[arg-type]
        assert impl.told == []

    both(main)


class Younger(Noun, frozen=True, kw_only=True):
    order_id: str
    ends: Ends
    colour: str = "green"


class YoungerControl(Protocol):
    """A later minor version of the door: one more field, one more argument."""

    async def place(self, caller: Caller, order: Younger, hurry: bool = False) -> LinkState: ...


def test_unknown_fields_and_arguments_are_ignored() -> None:
    class Impl:
        async def place(self, caller: Caller, order: Order) -> LinkState:
            assert order == ORDER
            return LinkState.UP

    class Older(Protocol):
        async def place(self, caller: Caller, order: Order) -> LinkState: ...

    async def main(near: Session, far: Session) -> None:
        serve(far, "control", Older, Impl())
        younger = remote(YoungerControl, near, "control")
        order = Younger(order_id="o1", ends=ORDER.ends)
        assert await younger.place(CALLER, order, hurry=True) is LinkState.UP
        assert await younger.place(CALLER, order) is LinkState.UP

    sessions(main)


def test_the_server_trusts_the_channel_not_the_claim() -> None:
    async def main(near: Session, far: Session) -> None:
        impl = Control()
        serve(far, "control", FabricControl, impl)
        with pytest.raises(Busy):
            await remote(FabricControl, near, "control").place(MALLORY, ORDER)
        assert impl.told == [(CALLER, ORDER)]

    sessions(main)


class Hears:
    def __init__(self) -> None:
        self.heard: list[int] = []

    def key_block(self, block: object) -> None:
        raise AssertionError("not in this test")

    def link_status(self, status: LinkStatus) -> None:
        self.heard.append(status.epoch)
        if status.epoch == 1:
            raise ValueError("a listener's own trouble")


def status(epoch: int) -> LinkStatus:
    return LinkStatus(
        link="a--b", state=LinkState.UP, epoch=epoch, rate_bit_per_s=1.0, qber=0.0, discarded_bit=0, at_ns=0
    )


class Device:
    """Notifies before, within and after its answer."""

    def __init__(self) -> None:
        self.listener: DeviceListener | None = None
        self.windows: list[tuple[str, int]] = []

    async def attach(self, caller: Caller, link: str, listener: DeviceListener) -> LinkStatus:
        self.listener = listener
        for epoch in range(3):
            listener.link_status(status(epoch))
        return status(99)

    async def start(self, caller: Caller, link: str) -> None:
        assert self.listener is not None
        self.listener.link_status(status(3))

    async def stop(self, caller: Caller, link: str) -> None: ...

    def window(self, caller: Caller, link: str, epoch: int, limit_byte: int) -> None:
        self.windows.append((caller.principal, limit_byte))


@pytest.mark.parametrize("far_away", [False, True])
def test_listeners_hear_in_order_and_their_trouble_stays_theirs(far_away: bool) -> None:
    async def main(near: Session, far: Session) -> None:
        impl, hears = Device(), Hears()
        serve(far, "device", QkdDevice, impl)
        door = remote(QkdDevice, near, "device") if far_away else strict(QkdDevice, impl)
        assert (await door.attach(CALLER, "a--b", hears)).epoch == 99
        assert hears.heard == [0, 1, 2]
        await door.start(CALLER, link="a--b")
        assert hears.heard == [0, 1, 2, 3]
        door.window(CALLER, "a--b", 1, 4096)
        await asyncio.sleep(0.1)
        assert impl.windows == [(A, 4096)]

    sessions(main)


def test_the_same_listener_keeps_its_number() -> None:
    async def main(near: Session, far: Session) -> None:
        impl, hears = Device(), Hears()
        serve(far, "device", QkdDevice, impl)
        door = remote(QkdDevice, near, "device")
        for _ in range(3):
            await door.attach(CALLER, "a--b", hears)
        assert near.new_reference() == 2

    sessions(main)


def test_taps_tell_door_method_caller_subject_outcome() -> None:
    events: list[DoorEvent] = []

    class Paths:
        async def subscribe(self, caller: Caller, listener: object) -> tuple[object, ...]:
            listener.path_lost("p9", "cut")  # type: ignore[attr-defined]
            return ()

        async def provide(self, caller: Caller, demand: PathDemand) -> object:
            raise Busy("path.none_now", "all dark")

        async def release(self, caller: Caller, path_id: str) -> None: ...

    class Listener:
        def path_lost(self, path_id: str, reason: str) -> None: ...

        def potential(self, links: object) -> None: ...

    async def main(near: Session, far: Session) -> None:
        serve(far, "far", FabricConnectivity, Paths(), events.append)
        for door in (
            strict(FabricConnectivity, Paths(), events.append),
            remote(FabricConnectivity, near, "far"),
        ):
            await door.release(CALLER, "p1")
            with pytest.raises(Busy):
                await door.provide(CALLER, PathDemand(demand_id="d1", ends=ends("a", "b"), max_loss_db=3.0))
        await strict(FabricConnectivity, Paths(), events.append).subscribe(CALLER, Listener())

    sessions(main)
    shown = [(event.method, event.caller, event.subject, event.outcome) for event in events]
    once = [("release", A, "p1", "ok"), ("provide", A, "d1", "path.none_now")]
    assert shown[:4] == once + once
    assert shown[4:] == [("path_lost", "", "p9", "ok"), ("subscribe", A, "", "ok")]
    assert {event.door for event in events} == {"FabricConnectivity", "PathListener"}


def test_subject_of_ends_and_names() -> None:
    seen: list[str] = []

    class World:
        async def links(self, caller: Caller) -> tuple[object, ...]:
            return ()

        async def act(self, caller: Caller, *arguments: object) -> None: ...

        cut = restore = set_loss = set_error = fail_device = repair_device = lose_site = return_site = act

    async def main() -> None:
        door = strict(Scenario, World(), lambda event: seen.append(event.subject))
        await door.links(CALLER)
        await door.cut(CALLER, ends("quito", "lima"))

    asyncio.run(main())
    assert seen == ["", "lima--quito"]


def test_taps_never_see_key_material() -> None:
    events: list[DoorEvent] = []

    class Node:
        async def subscribe(self, caller: Caller, listener: object) -> None: ...

        async def carry(self, caller: Caller, parcel: Parcel) -> None: ...

    parcel = Parcel(source="a", target="b", label="pool:1:7", payload=b"KEYKEYKEY")
    asyncio.run(strict(FabricNode, Node(), events.append).carry(CALLER, parcel))
    assert events[0].subject == "pool:1:7"
    assert "KEYKEY" not in repr(events)


def test_a_wrong_answer_is_a_fault() -> None:
    class Wrong:
        async def key_status(self, caller: Caller, peer: str) -> object:
            return "not a status"

        async def issue_keys(self, caller: Caller, request: KeyRequest) -> object:
            return (Key(key_id="k", key="text"),)  # type: ignore[arg-type]

        async def collect_keys(self, caller: Caller, master: str, key_ids: object) -> object:
            return object()

    async def main(near: Session, far: Session) -> None:
        serve(far, "north", North, Wrong())
        for door in (strict(North, Wrong()), remote(North, near, "north")):
            for call in (
                door.key_status(CALLER, "b"),
                door.issue_keys(CALLER, KeyRequest(peer="b")),
                door.collect_keys(CALLER, "a", ("k",)),
            ):
                with pytest.raises(Faulty, match=r"door\.fault"):
                    await call

    sessions(main)


def test_an_implementation_that_lacks_a_method_is_noticed_at_once() -> None:
    with pytest.raises(TypeError, match=r"FabricControl\.subscribe"):
        strict(FabricControl, object())


def test_only_protocols_of_calls_and_notices_are_doors() -> None:
    class Odd(Protocol):
        def size(self) -> int: ...

    with pytest.raises(TypeError, match="answers None"):
        describe(Odd)
    with pytest.raises(TypeError, match="expected a Protocol"):
        describe(Device)


def test_ring_numbers_and_forgets() -> None:
    ring = MessageRing(lambda: 42, size=3)
    for index in range(5):
        ring(DoorEvent(door="D", method="m", caller=A, subject=str(index), outcome="ok"))
    assert [(message.seq, message.subject) for message in ring.after(0)] == [(3, "2"), (4, "3"), (5, "4")]
    assert [message.seq for message in ring.after(4)] == [5]
    assert ring.after(5) == ()
    assert ring.after(0)[0].at_ns == 42
