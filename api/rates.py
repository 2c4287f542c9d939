"""How often one may ask: decided at once in this process, counted together with the others' through Redis.

No request waits for Redis. Each process admits what its own count and the last it heard of the others allow, and tells
the others ten times a second, in one trip for all who are busy. So the processes together admit more than the limit
for a tenth of a second at most, and pay it back from the next second's. Without Redis each goes by its own count.

The memory storage of the library `limits`, which walks all keys a hundred times a second, cost as much as accepting a
request, and its Redis storage is a round trip for each: this costs a fifth of a microsecond for each count.
"""

import asyncio
import time
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

import redis.asyncio as redis
import structlog

from api.problems import Problem
from api.settings import ApiSettings

log = structlog.get_logger("rates")

SYNC_SECONDS: Final = 0.1
SHARE: Final = 8  # who is below this part of the limit is not told of: eight processes may be unaware of one another
TOLD_LIMIT: Final = 1_000  # keys in one trip; the others follow in the next
KEPT_SECONDS: Final = 3  # of a count in Redis: its own second, and time to tell of it


class Window:
    """What was admitted in one second.

    Args:
        second: of the epoch, which all processes share.
    """

    __slots__ = ("admitted", "busy", "foreign", "heard", "second", "told")

    def __init__(self, second: int) -> None:
        self.second = second
        self.admitted: dict[str, int] = {}  # here
        self.told: dict[str, int] = {}  # of it, to the others
        self.heard: dict[str, int] = {}  # admitted elsewhere
        self.foreign: dict[str, int] = {}  # the same, and what the second before had too many
        self.busy: set[str] = set()  # to be told of


class Rate:
    """One limit.

    Args:
        name: of its counts in Redis.
        per_second: 0 is off.
    """

    __slots__ = ("_limit", "_worth", "last", "name", "window")

    def __init__(self, name: str, per_second: int) -> None:
        self.name = name
        self._limit = per_second
        self._worth = per_second // SHARE
        self.window = Window(0)
        self.last = Window(0)

    def count(self, key: str) -> None:
        """Count one request.

        Raises:
            Problem: `rate_limited`.
        """
        if not self._limit:
            return
        second = int(time.time())
        window = self.window
        if second != window.second:
            window = self._turn(second)
        count = window.admitted.get(key, 0)
        if count + window.foreign.get(key, 0) >= self._limit:
            raise Problem("rate_limited")
        window.admitted[key] = count + 1
        if count >= self._worth:
            window.busy.add(key)

    def _turn(self, second: int) -> Window:
        """Begin another second; what the last one admitted too many, together with the others, counts for it."""
        self.last, self.window = self.window, Window(second)
        if second == self.last.second + 1:
            for key, foreign in self.last.foreign.items():
                if (over := self.last.admitted.get(key, 0) + foreign - self._limit) > 0:
                    self.window.foreign[key] = over
        return self.window

    def hear(self, window: Window, key: str, told: int, total: int) -> None:
        """Learn what all processes have admitted to one.

        Args:
            told: of what was admitted here, just now.
            total: in Redis, with that.
        """
        window.told[key] = window.told.get(key, 0) + told
        elsewhere = total - window.told[key]
        more = elsewhere - window.heard.get(key, 0)
        if more <= 0:
            return
        window.heard[key] = elsewhere
        window.foreign[key] = window.foreign.get(key, 0) + more
        if window is self.last and self.window.second == window.second + 1:  # too late to count for its own second
            over = window.admitted.get(key, 0) + window.foreign[key] - self._limit
            if over > 0:
                self.window.foreign[key] = self.window.foreign.get(key, 0) + min(over, more)


class Rates:
    """The limits of one process.

    Args:
        settings: the limits; a `RATE_LIMIT` of 0 turns all of them off.
    """

    def __init__(self, settings: ApiSettings) -> None:
        on = bool(settings.rate_limit)
        self.user = Rate("user", settings.rate_limit)
        self.strict = Rate("strict", settings.strict_rate_limit * on)
        self.address = Rate("address", settings.address_rate_limit * on)
        self._on = on
        self._redis = redis.Redis.from_url(str(settings.redis_url), socket_timeout=0.5, socket_connect_timeout=0.5)
        self.alone = False  # Redis does not answer

    async def share(self) -> None:
        """Tell and hear, for ever."""
        while self._on:
            await asyncio.sleep(SYNC_SECONDS)
            try:
                await self.tell()
                self.alone = False
            except (redis.RedisError, OSError, TimeoutError) as error:
                if not self.alone:
                    log.warning("rates are counted in this process alone", error=repr(error))
                self.alone = True

    async def tell(self) -> None:
        """Tell of all who are busy, in one trip, and hear what they were admitted in all."""
        due: list[tuple[Rate, Window, str, int]] = []
        for rate in (self.user, self.strict, self.address):
            for window in (rate.last, rate.window):
                while window.busy and len(due) < TOLD_LIMIT:
                    key = window.busy.pop()
                    due.append((rate, window, key, window.admitted[key] - window.told.get(key, 0)))
        if not due:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            names = {f"rates:{rate.name}:{window.second}" for rate, window, _, _ in due}
            for rate, window, key, told in due:
                pipe.hincrby(f"rates:{rate.name}:{window.second}", key, told)
            for name in names:
                pipe.expire(name, KEPT_SECONDS)
            totals = await pipe.execute()
        for (rate, window, key, told), total in zip(due, totals, strict=False):
            rate.hear(window, key, told, total)

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()


@lru_cache(maxsize=10_000)
def address_key(host: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, since a customer has all that begin with them."""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return host
