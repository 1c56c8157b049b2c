"""A strict 014 client in every form of HTTP: against one key manager, and across a chain of four relays."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.scenes.tools.client014 import tls_context
from tests.scenes.tools.network import Network, running
from tests.scenes.tools.strict014 import FORMS, Strict014

pytestmark = [pytest.mark.scene, pytest.mark.timeout(180)]

RELAYS = 4


def chain(relays: int) -> str:
    """Two sites at the ends, one of them with two applications, and relays between."""
    names = ["alpha", *(f"relay-{number}" for number in range(relays)), "omega"]
    text = 'format = "multiplane-scenario/1"\nname = "chain"\ndomain = "chain"\n'
    text += '[defaults]\nprofile = "constant-rate"\n'
    for name in names:
        saes = {"alpha": '["one", "two"]', "omega": '["three"]'}.get(name, "[]")
        text += f'[[site]]\nname = "{name}"\nsaes = {saes}\n'
    for a, b in pairwise(names):
        text += f'[[link]]\na = "{a}"\nb = "{b}"\nlength_km = 1.0\nloss_db = 0.2\nrate_bit_per_s = 4e6\n'
    return text


def client(network: Network, sae: str, version: ssl.TLSVersion) -> Strict014:
    found = network.saes[sae]
    context = tls_context(network.ca, found.cert, found.key)
    context.minimum_version = context.maximum_version = version
    url = urlsplit(network.url(found.kme))
    return Strict014((url.hostname or "", url.port or 0), context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(("master", "slave"), [("one", "two"), ("one", "three")], ids=["one KME", "4 relays"])
def test_keys_in_every_form(network: Network, master: str, slave: str, version: ssl.TLSVersion) -> None:
    saes = network.saes
    one, other = client(network, master, version), client(network, slave, version)
    for number, form in enumerate(FORMS):
        by_urn = number % 2 == 1
        to, of = (saes[slave].urn, saes[master].urn) if by_urn else (slave, master)
        for verb, count, size_bit in (("GET", 1, 256), ("POST", 3, 512)):
            keys = one.get_key(to, count, size_bit, verb=verb, form=form)
            found = other.get_key_with_ids(of, list(keys), size_bit, verb=verb, form=form)
            assert found == keys
        told = one.status(to, form=form)
        assert (told["master_SAE_ID"], told["slave_SAE_ID"]) in {
            (saes[master].urn, saes[slave].urn),
            (master, to),
        }
    used = next(iter(keys))
    base = f"/api/v1/keys/{master}/dec_keys"
    other.refuses("GET", f"{base}?key_ID={used}", b"", 400)
    other.refuses("POST", base, b'{"key_IDs":[{"key_ID":"%s"}]}' % used.encode(), 400)
    other.refuses("POST", base, b"", 400)
    other.refuses("PUT", base, b"{}", 405)
    other.refuses("GET", "/nowhere", b"", 404)
    one.refuses("POST", f"/api/v1/keys/{slave}/enc_keys", b'{"number":2147483648}', 400)
    one.refuses("POST", f"/api/v1/keys/{slave}/enc_keys", b'{"extension_mandatory":[{"x":1}]}', 400)
    for strict in (one, other):
        assert strict.versions == {"TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3"}
        strict.close()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("strict")
    scenario = Path(folder / "chain.toml")
    scenario.write_text(chain(RELAYS))
    with running(str(scenario), folder / "run") as found:
        yield found
