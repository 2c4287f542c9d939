"""Shoppers with several tabs each, at two API processes: mixed requests, keys, repeats after lost answers."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx

from tests.chaos.record import Ask, Record
from tests.stack import headers

USERS = 50
TABS = 3
PAUSE = (0.2, 2.2)  # seconds between two clicks in a tab
PASSERS_BY = 4.0  # a second: shoppers who ask for one thing and never come back, so that no later task wakes theirs
PATIENCE = 60.0  # seconds for which a client repeats


class Shop:
    """All clients of a campaign.

    Args:
        urls: of the API processes.
        seed: of everything that clients choose.
    """

    def __init__(self, urls: Sequence[str], record: Record, seed: int) -> None:
        self.record = record
        self.random = random.Random(seed)
        # One pool for each API: a request looks through all connections of its pool.
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        self.pools = [
            httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(8.0, pool=60), limits=limits) for url in urls
        ]
        self.closing = asyncio.Event()
        self._headers: dict[str, dict[str, str]] = {}
        self._numbers = iter(range(10**9))

    async def run(self) -> None:
        """Shop until `closing` is set."""
        users = [Shopper(self, f"shopper-{n}") for n in range(USERS)]
        async with asyncio.TaskGroup() as group:
            for user in users:
                for _ in range(TABS):
                    group.create_task(user.tab())
            group.create_task(self._passers_by(group))

    async def _passers_by(self, group: asyncio.TaskGroup) -> None:
        while not self.closing.is_set():
            await asyncio.sleep(self.random.expovariate(PASSERS_BY))
            user = f"passer-by-{next(self._numbers)}"
            group.create_task(self.ask(user, "create", {"package": "silver"}, wait=0))

    async def close(self) -> None:
        """Hang up."""
        for pool in self.pools:
            await pool.aclose()

    def number(self) -> int:
        """One that nobody else has."""
        return next(self._numbers)

    async def ask(
        self,
        user: str,
        kind: str,
        body: dict[str, Any],
        addressed: str | None = None,
        wait: int | None = None,
        keyed: bool | None = None,
    ) -> Ask:
        """Ask for one thing. With a key, repeat until an answer says that it is accepted; without, ask once."""
        choice = self.random
        keyed = choice.random() < 0.8 if keyed is None else keyed
        wait = choice.choice((0, 0, 2, 5)) if wait is None else wait
        asked = self.record.ask(user, kind, body, addressed, f"key-{self.number()}" if keyed else None)
        path = "/api/sessions" if kind == "create" else f"/api/sessions/{addressed}/{kind}"
        until = time.monotonic() + PATIENCE
        attempt = 0
        while time.monotonic() < until:
            more = {"X-Request-Id": self.record.request(asked, attempt)}
            if wait:
                more["Prefer"] = f"wait={wait}"
            if asked.key:
                more["Idempotency-Key"] = asked.key
            began = time.monotonic()
            response = await self.send(user, "POST", path, body, more, timed=not wait)
            if response is not None:
                self.record.answered(asked, response, began)
            if asked.task_id or not asked.key or (response is not None and response.status_code < 500):
                break
            attempt += 1
            await asyncio.sleep(choice.uniform(0.05, 0.5))
        return asked

    async def send(
        self, user: str, method: str, path: str, body: Any = None, more: Any = None, timed: bool = False
    ) -> httpx.Response | None:
        """One request to one of the APIs; None if its answer was lost."""
        if user not in self._headers:
            self._headers[user] = headers(user)
        http = self.random.choice(self.pools)
        began = time.monotonic()
        try:
            response = await http.request(method, path, json=body, headers={**self._headers[user], **(more or {})})
        except (httpx.HTTPError, OSError):
            self.record.answers["lost"] += 1
            return None
        if timed:
            self.record.seconds.append(time.monotonic() - began)
        self.record.answers[str(response.status_code)] += 1
        return response

    async def poll(self, asked: Ask, seconds: float) -> None:
        """Poll a task, as long as the client cares."""
        until = time.monotonic() + seconds
        while asked.task_id and asked.told is None and time.monotonic() < until:
            began = time.monotonic()
            response = await self.send(asked.user, "GET", f"/api/tasks/{asked.task_id}?wait=2")
            if response is not None and response.status_code == 200:
                self.record.answered(asked, response, began)
            elif response is not None and response.status_code == 404:
                self.record.breaches.append(f"ask {asked.number}: task {asked.task_id} was accepted and is unknown")
                return
            else:
                await asyncio.sleep(0.3)


class Shopper:
    """One user, whose tabs share what they know and nothing else."""

    def __init__(self, shop: Shop, user: str) -> None:
        self.shop = shop
        self.user = user
        self.sessions: deque[str] = deque(maxlen=12)

    async def tab(self) -> None:
        """Click until the shop closes."""
        choice = self.shop.random
        await asyncio.sleep(choice.uniform(0, 2))
        while not self.shop.closing.is_set():
            act = choice.choices(
                [self.create, self.renew, self.recover, self.pay, self.pay_late, self.click, self.look],
                [20, 20, 20, 14, 6, 12, 8],
            )[0]
            await act()
            with suppress(TimeoutError):
                async with asyncio.timeout(choice.uniform(*PAUSE)):
                    await self.shop.closing.wait()

    def any_session(self) -> str | None:
        """One that some tab has seen: live, old, or long deleted."""
        return self.shop.random.choice(self.sessions) if self.sessions else None

    async def asked(self, kind: str, body: dict[str, Any], addressed: str | None = None) -> Ask:
        """Ask, and mostly care about the result."""
        asked = await self.shop.ask(self.user, kind, body, addressed)
        if self.shop.random.random() < 0.7:
            await self.shop.poll(asked, 15)
        if asked.told and asked.told[0] == "SUCCESS":
            self.sessions.append(asked.told[1])
        return asked

    async def create(self) -> None:
        """Begin a session; sometimes a double click."""
        body = {"package": self.shop.random.choice(("silver", "gold")), "data": {"n": self.shop.number()}}
        clicks = 2 if self.shop.random.random() < 0.2 else 1
        await asyncio.gather(*(self.asked("create", body) for _ in range(clicks)))

    async def renew(self) -> None:
        """Change the package; sometimes in two tabs at once."""
        session = self.any_session()
        if session:
            clicks = 2 if self.shop.random.random() < 0.3 else 1
            await asyncio.gather(*(self.asked("renew", {"package": "gold"}, session) for _ in range(clicks)))

    async def recover(self) -> None:
        """Bring a session back; sometimes by many clicks."""
        session = self.any_session()
        if session:
            clicks = self.shop.random.choice((1, 1, 1, 3))
            await asyncio.gather(*(self.asked("recover", {}, session) for _ in range(clicks)))

    async def pay(self, session: str | None = None) -> None:
        """Complete; what came too late is recovered and completed with the same reference."""
        session = session or self.any_session()
        reference = f"payment-{self.shop.number()}"
        for _ in range(3):
            if not session:
                return
            asked = await self.asked("complete", {"payment_reference": reference}, session)
            if not asked.told or asked.told[2] != "session_expired":
                return
            again = await self.asked("recover", {}, session)
            session = again.told[1] if again.told and again.told[0] == "SUCCESS" else None

    async def pay_late(self) -> None:
        """Complete at the last moment before expiry."""
        response = await self.shop.send(self.user, "GET", "/api/sessions/current")
        if response is None or response.status_code != 200:
            return
        session = response.json()
        left = datetime.fromisoformat(session["expires_at"]).timestamp() - time.time()
        await asyncio.sleep(max(0, left - self.shop.random.uniform(0, 0.15)))
        await self.pay(session["id"])

    async def click(self) -> None:
        """Navigate: the synchronous write."""
        session = self.any_session()
        if session:
            body = {"step": self.shop.random.choice(("seats", "payment")), "data": {"clicked": self.shop.number()}}
            await self.shop.send(self.user, "PATCH", f"/api/sessions/{session}", body)

    async def look(self) -> None:
        """Validate a session, as each page load does."""
        session = self.any_session()
        if session:
            began = time.monotonic()
            response = await self.shop.send(self.user, "GET", f"/api/sessions/{session}")
            if response is not None and response.status_code == 200:
                self.shop.record.read(response.json(), began)
