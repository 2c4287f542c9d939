"""The key set (JWKS) that tokens are checked with, where there is no shared secret."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import jwt
import structlog
from jwt import PyJWK, PyJWKClient, PyJWKSet

from api.problems import Problem

log = structlog.get_logger("keys")

ALGORITHMS: Final = frozenset({"RS256", "ES256"})
LIFESPAN: Final = 300.0  # seconds after which the set is fetched again, while the known keys go on serving
COOLDOWN: Final = 2.0  # seconds between two fetches for keys that are not known: anyone can make up a key's name
FAILED_COOLDOWN: Final = 0.5
FETCH_SECONDS: Final = 2.0
KEYS_LIMIT: Final = 64


class Keys:
    """The keys by their ids. Whoever needs a fetch waits for the same one; known keys never wait.

    Args:
        url: of the set.
        changed: is called when the set is another one than before.
    """

    def __init__(self, url: str, changed: Callable[[], None]) -> None:
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._changed = changed
        self._keys: dict[str, PyJWK] = {}
        self._shown: list[Any] = []
        self._fetching: asyncio.Task[None] | None = None
        self._next_fetch = 0.0
        self._failed = True

    async def of(self, token: str) -> PyJWK:
        """The key that a token names.

        Raises:
            jwt.InvalidTokenError: the set has no such key.
            Problem: `keys_unavailable`, and the key may well be in the set.
        """
        name = jwt.get_unverified_header(token).get("kid")
        now = asyncio.get_running_loop().time()
        key = self._keys.get(str(name))
        if now >= self._next_fetch + (LIFESPAN if key else 0) and self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        if key is None and self._fetching:
            await asyncio.shield(self._fetching)
            key = self._keys.get(str(name))
        if key is not None:
            return key
        raise Problem("keys_unavailable") if self._failed else jwt.InvalidTokenError("no such key")

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS + 0.5):
                fetched = await asyncio.to_thread(self._client.fetch_data)
            if fetched.get("keys") != self._shown:
                self._keys = _usable(PyJWKSet.from_dict(fetched))
                self._shown = fetched["keys"]
                self._changed()
            self._failed = False
        except Exception as error:  # a key set can be wrong in any way
            log.warning("key set not fetched", error=repr(error))
            self._failed = True
        now = asyncio.get_running_loop().time()
        self._next_fetch = now + (FAILED_COOLDOWN if self._failed else COOLDOWN)
        self._fetching = None


def _usable(fetched: PyJWKSet) -> dict[str, PyJWK]:
    """Those that sign, by algorithms that we take. The first of a name counts."""
    usable = [
        key
        for key in fetched.keys
        if key.key_id and key.public_key_use in ("sig", None) and key.algorithm_name in ALGORITHMS
    ]
    return {str(key.key_id): key for key in reversed(usable[:KEYS_LIMIT])}
