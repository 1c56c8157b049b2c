"""The judges judged: a book that never objects and a scanner that never finds prove nothing."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.canary import Canary
from tests.scenes.tools.client014 import NOT_FOUND, Answer, Key, Said, Violation, read_keys
from tests.scenes.tools.ledgers import faults
from tests.scenes.tools.network import Failed
from tests.scenes.tools.wire import parse_head

ID = "5f0c9a3e-7d41-4b6f-9c1e-0123456789ab"
OTHER = "6f0c9a3e-7d41-4b6f-9c1e-0123456789ab"


def said(status: int, message: str, **headers: str) -> Said:
    body = json.dumps({"message": message}).encode()
    return Said(Answer(status, {"content-type": "application/json", **headers}, body))


def book_with(*keys: Key) -> Book:
    book = Book()
    book.issued("a", "b", keys)
    return book


def test_a_key_collected_once_is_well() -> None:
    book = book_with(Key(ID, b"k" * 32))
    book.collecting([ID])
    book.collected([Key(ID, b"k" * 32)])
    book.verify(at_least=1)
    book.verify_settled()
    assert book.delivered_bit("a", "b") == (256, 256)


def deliver_twice(book: Book) -> None:
    book.collected([Key(ID, b"k" * 32)])
    book.collected([Key(ID, b"k" * 32)])


def deliver_wrong_bytes(book: Book) -> None:
    book.collected([Key(ID, b"x" * 32)])


def issue_the_id_again(book: Book) -> None:
    book.issued("a", "b", [Key(ID, b"n" * 32)])


def issue_the_bytes_again(book: Book) -> None:
    book.issued("a", "b", [Key(OTHER, b"k" * 32)])


def lose_it(book: Book) -> None:
    book.collecting([ID])
    book.collect_refused([ID], said(400, NOT_FOUND))


def refuse_its_owner(book: Book) -> None:
    book.collect_refused([ID], said(401, "not yours"))


def use_another_text(book: Book) -> None:
    book.collect_lost([ID])
    book.collect_refused([ID], said(400, "no such key"))


def revive_it(book: Book) -> None:
    book.collect_lost([ID])
    book.collect_refused([ID], said(400, NOT_FOUND))
    book.collected([Key(ID, b"k" * 32)])


@pytest.mark.parametrize(
    "crime",
    [
        deliver_twice,
        deliver_wrong_bytes,
        issue_the_id_again,
        issue_the_bytes_again,
        lose_it,
        refuse_its_owner,
        use_another_text,
        revive_it,
    ],
)
def test_each_broken_promise_is_written_down(crime: Callable[[Book], None]) -> None:
    book = book_with(Key(ID, b"k" * 32))
    crime(book)
    assert len(book.problems) == 1
    with pytest.raises(AssertionError, match="broken promises"):
        book.verify(at_least=0)


def test_a_request_open_at_the_kill_may_have_happened_or_not() -> None:
    for happened in (True, False):
        book = book_with(Key(ID, b"k" * 32))
        book.collecting([ID])
        book.collect_lost([ID])
        assert book.in_doubt() == list(book.entries.values())
        assert book.delivered_bit("a", "b") == (0, 256)
        if happened:
            book.collect_refused([ID], said(400, NOT_FOUND))
        else:
            book.collected([Key(ID, b"k" * 32)])
        book.verify(at_least=0)
        book.verify_settled()


def test_a_key_left_alone_is_outstanding_and_503_changes_nothing() -> None:
    book = book_with(Key(ID, b"k" * 32))
    book.collecting([ID])
    book.collect_refused([ID], said(503, "later", **{"retry-after": "1"}))
    assert [entry.key_id for entry in book.outstanding()] == [ID]
    with pytest.raises(AssertionError, match="never collected"):
        book.verify_settled()


@pytest.mark.parametrize("doubtful", [True, False])
def test_a_fault_of_the_server_consumes_nothing_or_leaves_a_doubt(doubtful: bool) -> None:
    book = Book(faults_are_doubtful=doubtful)
    book.issued("a", "b", [Key(ID, b"k" * 32)])
    body = {"message": "disk", "details": [{"kind": "faulty"}]}
    fault = Said(Answer(503, {"content-type": "application/json"}, json.dumps(body).encode()))
    book.collect_refused([ID], fault)
    assert len(book.outstanding()) == 1
    book.collect_refused([ID], said(400, NOT_FOUND))
    assert len(book.problems) == (0 if doubtful else 1)


def test_a_scene_in_which_nothing_happened_proves_nothing() -> None:
    with pytest.raises(AssertionError, match="only 0 keys"):
        Book().verify(at_least=1)


@pytest.mark.parametrize("headers", [{}, {"retry-after": "0"}, {"retry-after": "soon"}])
def test_503_needs_a_retry_after(headers: dict[str, str]) -> None:
    with pytest.raises(Violation, match="Retry-After"):
        said(503, "later", **headers)


@pytest.mark.parametrize(
    "entry",
    [
        {"key_ID": ID},
        {"key_ID": ID.upper(), "key": "AAAA"},
        {"key_ID": "5f0c9a3e7d414b6f9c1e0123456789ab", "key": "AAAA"},
        {"key_ID": ID, "key": "AAA"},
        {"key_ID": ID, "key": "AA-_"},
        {"key_ID": ID, "key": "AAB="},
        {"key_ID": ID, "key": 4},
        [ID, "AAAA"],
    ],
)
def test_the_client_takes_nothing_but_uuids_and_canonical_base64(entry: Any) -> None:
    body = json.dumps({"keys": [entry]}).encode()
    with pytest.raises(Violation):
        read_keys(Answer(200, {"content-type": "application/json"}, body))


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK", b"HTTP/1.1 20 OK", b"hello", b"HTTP/1.1 200 OK\r\nx"])
def test_the_client_takes_nothing_but_http_1_1(head: bytes) -> None:
    with pytest.raises(Violation):
        parse_head(head)


SPELLINGS: list[Callable[[bytes], bytes]] = [
    bytes,
    lambda key: key.hex().encode(),
    lambda key: key.hex().upper().encode(),
    base64.b64encode,
    base64.urlsafe_b64encode,
    lambda key: repr(key).encode(),
    lambda key: repr(bytearray(key)).encode(),
    lambda key: repr(list(key)).encode(),
    lambda key: json.dumps(list(key), separators=(",", ":")).encode(),
]


@pytest.mark.parametrize("spelling", range(len(SPELLINGS)))
@pytest.mark.parametrize("shift", range(6))
def test_the_canary_is_found_in_every_spelling(spelling: int, shift: int, tmp_path: Path) -> None:
    chance = random.Random(spelling * 100 + shift)
    mark = bytes.fromhex("f3b50d9ae12fc847")
    canary = Canary(mark)
    key = chance.randbytes(shift) + mark + chance.randbytes(18)
    leak = b"log line " + SPELLINGS[spelling](key) + b" end\n"
    assert canary.find(leak)
    assert not canary.find(b"log line " + SPELLINGS[spelling](chance.randbytes(40)) + b" end\n")
    (tmp_path / "clean.log").write_bytes(chance.randbytes(5_000))
    (tmp_path / "leaky.log").write_bytes(leak)
    leaks, searched_byte = canary.find_in_tree(tmp_path)
    assert list(leaks) == ["leaky.log"]
    assert searched_byte == 5_000 + len(leak)


def ledger(**changes: Any) -> dict[str, Any]:
    whole = {"owner": "a", "peer": "b", "side": "near", "epoch": 1, "made_bit": 1000, "stock_bit": 300}
    whole |= {"delivered_bit": 600, "burnt_bit": 90, "expired_bit": 10, "phase": "open"}
    return whole | changes


def report(*ledgers: dict[str, Any]) -> dict[str, Any]:
    return {"kmes": [{"name": "a", "serving": True, "ledgers": list(ledgers)}]}


FAR = {"owner": "b", "peer": "a", "side": "far"}


def test_ledgers_that_close_are_well() -> None:
    assert faults(report(ledger(), ledger(**FAR))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        report(ledger(made_bit=1001), ledger(**FAR)),
        report(ledger(burnt_bit=-10, delivered_bit=700), ledger(**FAR)),
        report(ledger()),
        report(ledger(), ledger(**FAR, epoch=2)),
        report(ledger(), ledger(**FAR, stock_bit=200, delivered_bit=700)),
        {"kmes": [{"name": "a", "serving": False, "ledgers": []}]},
    ],
    ids=["open", "negative", "one-sided", "epochs differ", "far holds less", "down"],
)
def test_ledgers_that_do_not_close_are_named(wrong: dict[str, Any]) -> None:
    assert len(faults(wrong)) == 1


def test_two_ledgers_for_one_side_are_an_error() -> None:
    with pytest.raises(Failed, match="two ledgers"):
        faults(report(ledger(), ledger()))
