"""Signatures of digests that contracts can check: EIP-712 typed data, secp256k1. Needs `eth-account`."""

from __future__ import annotations

from typing import Any

from ree.errors import PlatformError

ADDRESS_BYTES, SIGNATURE_BYTES = 20, 65
DOMAIN = {"name": "REE", "version": "1"}
TYPES = {"Receipt": [{"name": "digest", "type": "bytes32"}]}
# half the order of the group: of two signatures that are valid, the one with the lesser s counts (EIP-2)
MOST_S = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def typed(digest: bytes) -> Any:
    """What an account signs: Receipt(bytes32 digest) in the domain of REE, of any chain. PlatformError."""
    try:
        from eth_account.messages import encode_typed_data
    except ImportError as e:
        raise PlatformError(
            f"an eip712 signature needs '{e.name}'", "pip install 'ree-ml[settlement]'"
        ) from e
    return encode_typed_data(DOMAIN, TYPES, {"digest": digest})


def is_signed_by(address: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether an account, 20 bytes, has signed a digest; 65 bytes r, s, v. PlatformError."""
    message = typed(digest)
    from eth_account import Account

    if signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > MOST_S:
        return False
    try:
        found = str(Account.recover_message(message, signature=signature))
    except Exception:  # of the library and its backends, each its own
        return False
    return bytes.fromhex(found.removeprefix("0x")) == address
