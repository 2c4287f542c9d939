"""What the clients asked and what they were told, answer by answer: the campaign's truth beside the database's."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(slots=True)
class Ask:
    """One thing that a client wanted done once: one request, repeated after a lost answer if it has a key.

    `told` is each outcome that some answer named: state, session and refusal. It must never change.
    """

    number: int
    user: str
    kind: str
    key: str | None
    body: dict[str, Any]
    addressed: str | None
    task_id: str | None = None
    told: tuple[str, str, str | None] | None = None
    began_line: bool | None = None


@dataclass(slots=True)
class Record:
    """Everything that was answered."""

    asks: list[Ask] = field(default_factory=list)
    by_request: dict[str, Ask] = field(default_factory=dict)
    completed: dict[str, tuple[str, float]] = field(default_factory=dict)  # session -> payment reference, told when
    answers: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of answered requests that did not ask to wait

    def ask(
        self, user: str, kind: str, body: dict[str, Any], addressed: str | None = None, key: str | None = None
    ) -> Ask:
        """Begin one."""
        asked = Ask(len(self.asks), user, kind, key, body, addressed)
        self.asks.append(asked)
        return asked

    def request(self, asked: Ask, attempt: int) -> str:
        """The id of one attempt; the API keeps it with the task."""
        request_id = f"chaos-{asked.number}-{attempt}"
        self.by_request[request_id] = asked
        return request_id

    def answered(self, asked: Ask, response: httpx.Response, began: float) -> None:
        """Keep what the answer to a request that was sent at `began` says about the task."""
        body = response.json()
        if response.status_code >= 500 and body.get("code") not in EXPECTED:
            self.breaches.append(f"ask {asked.number}: answered {response.status_code} {body.get('code')}")
        task_id = body.get("task_id") or (body.get("id") if "kind" in body else None)
        if not task_id:
            return
        if asked.task_id not in (None, task_id):
            self.breaches.append(f"ask {asked.number}: two tasks under one key, {asked.task_id} and {task_id}")
        asked.task_id = task_id
        if "kind" in body and body["state"] != "PENDING":
            error = body["error"] and body["error"]["code"]
            self._tell(asked, body["state"], body["session_id"], error)
            self.read(body["result"], began)
            if asked.kind == "renew" and body["result"]:
                asked.began_line = body["result"]["origin"] == "created"
        elif "code" in body:
            self._tell(asked, "FAILURE", body["session_id"], body["code"])

    def read(self, session: dict[str, Any] | None, began: float) -> None:
        """A session as it was shown: who asks after it was told as completed, sees it so."""
        if not session:
            return
        reference, told = self.completed.get(session["id"], (None, time.monotonic()))
        if session["status"] == "completed":
            self.completed.setdefault(session["id"], (session["payment_reference"], told))
        if reference is not None and began > told and reference != session["payment_reference"]:
            self.breaches.append(f"session {session['id']}: was completed with {reference}, is {session['status']}")

    def _tell(self, asked: Ask, state: str, session_id: str, code: str | None) -> None:
        told = (state, session_id, code)
        if asked.told not in (None, told):
            self.breaches.append(f"task {asked.task_id}: told {asked.told}, then {told}")
        asked.told = told


EXPECTED = {"database_unavailable", "backlog_full", "gave_up", "still_pending"}
