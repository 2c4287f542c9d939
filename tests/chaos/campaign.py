"""A campaign: traffic, faults, healing, judgement."""

import asyncio
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from pydantic_settings import SettingsConfigDict

from tests.chaos.clients import Shop
from tests.chaos.faults import KINDS, LAST, Fault, exclusively, plan
from tests.chaos.fleet import Fleet
from tests.chaos.oracle import judge
from tests.chaos.record import Record
from workers.settings import WorkerSettings

HEAL_SECONDS = 60.0
SAMPLE_SECONDS = 0.25
TWO_ACTIVE = "SELECT user_id FROM checkout_sessions WHERE status = 'active' GROUP BY user_id HAVING count(*) > 1"
OLDER_PENDING = "SELECT count(*) FROM session_tasks WHERE state = 'PENDING' AND accepted_at <= to_timestamp(%s)"


@dataclass(slots=True)
class Campaign:
    """One run.

    Args:
        folder: for data and logs.
        seconds: of traffic.
        seed: of the plan and of the clients.
        gap: seconds between two faults, on average.
        kinds: of faults.
        mutation: a planted bug.
    """

    folder: Path
    seconds: float
    seed: int
    gap: float = 5.0
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    mutation: str | None = None
    record: Record = field(init=False, default_factory=Record)
    faults: list[Fault] = field(init=False, default_factory=list)
    breaches: list[str] = field(init=False, default_factory=list)
    accepted: int = field(init=False, default=0)
    samples: int = field(init=False, default=0)
    ended: Counter[str] = field(init=False, default_factory=Counter)
    last_heal: float | None = field(init=False, default=None)

    def run(self) -> None:
        """Run it; `breaches` is empty if all went well."""
        self.faults = plan(self.seed, self.seconds, self.gap, self.kinds)
        with Fleet(self.folder, self.mutation) as fleet:
            fleet.wait()
            asyncio.run(self._run(fleet))
            settings = _settings(fleet)
            found, self.accepted = judge(self.record, settings)
            self.breaches += found
            self.ended = fleet.ended
        for fault in self.faults:
            self.breaches += [f"{fault.kind}: {note}" for note in fault.notes]

    async def _run(self, fleet: Fleet) -> None:
        shop = Shop(fleet.urls, self.record, self.seed)
        began = time.monotonic()
        background = [asyncio.create_task(shop.run()), asyncio.create_task(self._sample(fleet))]
        healing: list[asyncio.Task[None]] = []
        for fault in self.faults:
            await asyncio.sleep(max(0.0, fault.at - (time.monotonic() - began)))
            healing.append(asyncio.create_task(self._strike(fleet, shop, fault)))
        if self.faults[-1].kind != LAST:
            await asyncio.sleep(max(0.0, self.seconds - (time.monotonic() - began)))
            shop.closing.set()
        await asyncio.gather(*healing)
        await background[0]
        self.last_heal = await self._healed(fleet, time.time())
        if self.last_heal is None:
            self.breaches.append(f"pending: tasks were not finished within {HEAL_SECONDS:.0f} s of the last fault")
        await asyncio.sleep(3)  # the sweeps' next run, before the doctor asks whether they are late
        background[1].cancel()
        await shop.close()

    async def _strike(self, fleet: Fleet, shop: Shop, fault: Fault) -> None:
        def strike() -> None:
            with exclusively(fleet, fault.kind):
                fault.began = time.time()
                KINDS[fault.kind][0](fleet, fault)
                fault.ended = time.time()

        try:
            await asyncio.to_thread(strike)
        except Exception as error:
            fault.ended = time.time()
            fault.missed = repr(error)
        if fault is self.faults[-1] and fault.kind == LAST:
            shop.closing.set()
        began = time.monotonic()
        probe = asyncio.create_task(shop.ask(f"probe-{shop.number()}", "create", {"package": "gold"}, 5, keyed=True))
        fault.healed = await self._healed(fleet, fault.ended)
        await probe
        fault.answered = time.monotonic() - began
        if fault.healed is None:
            fault.notes.append(f"tasks accepted before its end were not finished within {HEAL_SECONDS:.0f} s")

    async def _healed(self, fleet: Fleet, since: float) -> float | None:
        """Seconds until nothing that was accepted before `since` is pending."""
        began = time.monotonic()
        while time.monotonic() - began < HEAL_SECONDS:
            try:
                async with asyncio.timeout(5):
                    connection = await psycopg.AsyncConnection.connect(fleet.postgres.libpq_url, autocommit=True)
                    async with connection:
                        cursor = await connection.execute(OLDER_PENDING, [since])
                        row = await cursor.fetchone()
                if row and row[0] == 0:
                    return time.time() - since
            except (psycopg.Error, OSError, TimeoutError):
                pass
            await asyncio.sleep(0.2)
        return None

    async def _sample(self, fleet: Fleet) -> None:
        """Look for users with two active sessions, for ever."""
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(fleet.postgres.libpq_url, autocommit=True)
                async with connection:
                    while True:
                        async with asyncio.timeout(10):
                            found = await (await connection.execute(TWO_ACTIVE)).fetchall()
                        self.samples += 1
                        self.breaches += [f"two active sessions of {user}" for (user,) in found]
                        await asyncio.sleep(SAMPLE_SECONDS)
            except (psycopg.Error, OSError, TimeoutError):
                await asyncio.sleep(SAMPLE_SECONDS)

    @property
    def kills(self) -> int:
        """Processes killed."""
        return sum(KINDS[fault.kind][1] for fault in self.faults if not fault.missed)

    def table(self) -> str:
        """What was struck how often, and how long it took to heal."""
        by_kind: dict[str, list[Fault]] = defaultdict(list)
        for fault in self.faults:
            if not fault.missed:
                by_kind[fault.kind].append(fault)
        lines = [
            "| fault | times | processes killed | away, median s | healed after, median s | healed after, worst s |",
            "|---|---|---|---|---|---|",
        ]
        for kind in KINDS:
            faults = by_kind.get(kind, [])
            healed = [fault.healed for fault in faults if fault.healed is not None]
            if not faults:
                continue
            away = statistics.median(fault.ended - fault.began for fault in faults)
            heal = f"{statistics.median(healed):.1f} | {max(healed):.1f}" if healed else "never | never"
            lines.append(f"| {kind} | {len(faults)} | {KINDS[kind][1] * len(faults)} | {away:.1f} | {heal} |")
        return "\n".join(lines)

    def summary(self) -> str:
        """What happened, and the verdict."""
        seconds = sorted(self.record.seconds)
        missed = Counter(f"{fault.kind} ({fault.missed[:60]})" for fault in self.faults if fault.missed)
        ended = ", ".join(f"{name} {count}x" for name, count in sorted(self.ended.items())) or "none"
        lines = [
            self.table(),
            "",
            f"seed {self.seed}: {self.accepted} tasks accepted, {len(self.record.asks)} asked for, "
            f"{len(self.faults)} faults, {self.kills} processes killed in {self.seconds:.0f} s",
            f"answers: {dict(sorted(self.record.answers.items()))}",
            f"faults that could not be struck: {dict(missed) or 'none'}",
            f"processes that ended by themselves: {ended}",
            f"one active session per user: {self.samples} samples",
            f"all finished {self.last_heal or -1:.1f} s after the last fault",
        ]
        if seconds:
            p99 = seconds[int(len(seconds) * 0.99)]
            lines.append(f"answered (not waiting): p50 {seconds[len(seconds) // 2]:.3f} s, p99 {p99:.3f} s")
        if self.breaches:
            shown = self.breaches[:40]
            lines += [f"{len(self.breaches)} BREACHES", *shown]
        else:
            lines.append("0 lost, 0 doubled, 0 breaches")
        return "\n".join(lines)


class _Settings(WorkerSettings):
    model_config = SettingsConfigDict(extra="ignore")


def _settings(fleet: Fleet) -> WorkerSettings:
    return _Settings(**{name.lower(): value for name, value in fleet.env.items()})
