"""Ids as clients send them."""

import hashlib
import re
from typing import Final
from uuid import UUID

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def known_id(text: str) -> UUID:
    """The id that a text stands for.

    An older shop's ids may be any text; the migration keeps such a session under the MD5 of its id, and so it is found
    here. A malformed id is thus as unknown as any other.
    """
    if _UUID.fullmatch(text):
        return UUID(text)
    return UUID(bytes=hashlib.md5(text.encode(errors="surrogatepass"), usedforsecurity=False).digest())
