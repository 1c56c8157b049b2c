"""Messages of ETSI GS QKD 014 V1.1.1, clause 6. Unknown members are ignored, as the clause allows."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, UnsetType

from multiplane.kernel.nouns import Noun, Secret

NOT_FOUND: Final = "one or more keys specified are not found on KME"
SIZE_MULTIPLE: Final = "size shall be a multiple of 8"
EXTENSION_MANDATORY: Final = "not all extension_mandatory parameters are supported"
MANDATORY_UNMET: Final = "not all extension_mandatory request options could be met"
OPTIONAL_UNHANDLED: Final = "not all extension_optional request options handled"

Positive = Annotated[int, Meta(ge=1)]

_STATUS_NAMES: Final = {
    "source_kme": "source_KME_ID",
    "target_kme": "target_KME_ID",
    "master_sae": "master_SAE_ID",
    "slave_sae": "slave_SAE_ID",
    "max_sae_id_count": "max_SAE_ID_count",
}


class Status(Noun, frozen=True, kw_only=True, rename=_STATUS_NAMES):
    """Table 9. Sizes in bits, counts in keys of `key_size`."""

    source_kme: str
    target_kme: str
    master_sae: str
    slave_sae: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_sae_id_count: int = 0


class KeyRequest(
    Noun,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"additional_slaves": "additional_slave_SAE_IDs"},
):
    """Table 10; every member is optional. `size` in bits."""

    number: Positive = 1
    size: Positive | UnsetType = UNSET
    additional_slaves: tuple[str, ...] = ()
    extension_mandatory: tuple[dict[str, Any], ...] = ()
    extension_optional: tuple[dict[str, Any], ...] = ()


class WireKey(Secret, frozen=True, kw_only=True, rename={"key_id": "key_ID"}):
    """One key of a container; `key` travels as padded base64."""

    key_id: str
    key: bytes


class KeyContainer(Secret, frozen=True, kw_only=True):
    """Table 11, with the member name of the standard's examples."""

    keys: list[WireKey]
    key_container_extension: dict[str, Any] | UnsetType = UNSET


class KeyId(Noun, frozen=True, kw_only=True, rename={"key_id": "key_ID"}):
    """One id of Table 12."""

    key_id: str


class KeyIds(Noun, frozen=True, kw_only=True, rename={"key_ids": "key_IDs"}):
    """Table 12."""

    key_ids: Annotated[list[KeyId], Meta(min_length=1)]
