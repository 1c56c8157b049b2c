"""Raw targets to rows: escapes, precedence, absolute form."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.wire.web import Reply, Request, Route
from multiplane.runtime.http_routing import Router


async def nothing(request: Request) -> Reply:
    raise AssertionError


def route(path: str, *verbs: str) -> Route:
    return Route(verbs=verbs or ("GET",), path=path, handler=nothing)


ROUTER = Router(
    [route("/a/{one}/b/{two}", "GET", "POST"), route("/a/{three}/b/{four}", "PUT"), route("/a/x/b/c")]
)
TEXT = st.text(min_size=1).filter(lambda text: text != "x")


@given(one=TEXT, two=TEXT, pairs=st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_what_a_client_escapes_arrives_unchanged(one: str, two: str, pairs: list[tuple[str, str]]) -> None:
    target = f"/a/{quote(one, safe='')}/b/{quote(two, safe='')}"
    for prefix in ("", "https://kme:9443"):
        match = ROUTER.find(f"{prefix}{target}?{urlencode(pairs)}")
        assert match is not None
        assert match.params("POST") == {"one": one, "two": two}
        assert match.params("PUT") == {"three": one, "four": two}
        assert match.query() == tuple(pairs)
        assert match.verbs == ["GET", "POST", "PUT"]


@given(target=st.text(st.characters(codec="ascii", min_codepoint=33), max_size=40))
def test_no_target_breaks_it(target: str) -> None:
    try:
        match = ROUTER.find(target)
        if match is not None:
            match.query()
    except ValueError:
        assert "%" in target


@pytest.mark.parametrize(
    "target", ["", "/", "/a", "/a//b/c", "/a/1/b/", "/a/1/b/2/", "/A/1/b/2", "/%61/1/b/2", "*", "kme:443"]
)
def test_other_paths_are_not_found(target: str) -> None:
    assert ROUTER.find(target) is None


def test_literals_win_and_do_not_offer_the_verbs_of_parameters() -> None:
    match = ROUTER.find("/a/x/b/c")
    assert match is not None
    assert match.params("GET") == {}
    assert match.row("PUT") is None


@pytest.mark.parametrize("target", ["/a/%ff/b/c", "/a/1/b/%C3"])
def test_escapes_that_are_not_utf_8_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        ROUTER.find(target)


def test_two_rows_for_one_verb_and_path_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one row for GET /p/\{b\}"):
        Router([route("/p/{a}"), route("/p/{b}")])
