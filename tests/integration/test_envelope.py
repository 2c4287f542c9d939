"""The message that the API makes is the one that Celery would have sent."""

import base64
import json
from typing import Any

import redis

from workers.configuration import WORKER_TRANSPORT, create_app
from workers.envelope import envelope
from workers.messages import SESSIONS_QUEUE
from workers.settings import WorkerSettings


def _readable(message: bytes) -> dict[str, Any]:
    """A message without what differs from one to the next."""
    found: dict[str, Any] = json.loads(message)
    found["properties"].pop("reply_to")  # where results would go; there are none
    found["body"] = json.loads(base64.b64decode(found["body"]))
    for name in ("id", "root_id"):
        assert len(found["headers"].pop(name)) == 36
    for name in ("correlation_id", "delivery_tag"):
        assert len(found["properties"].pop(name)) == 36
    return found


def test_an_envelope_is_what_celery_pushes(redis_url: str) -> None:
    settings = WorkerSettings(database_url="postgresql://nobody@localhost/none", redis_url=redis_url)  # type: ignore[arg-type]
    args = [["01a20cdb-1c89-7615-a891-9bf56c52b562"]]
    app = create_app(settings, WORKER_TRANSPORT)
    with redis.Redis.from_url(redis_url) as client, app:
        client.delete(SESSIONS_QUEUE)
        app.send_task("sessions.create", args=args, ignore_result=True)
        sent = client.rpop(SESSIONS_QUEUE)
        assert isinstance(sent, bytes)
        assert _readable(envelope(app, "sessions.create", args, SESSIONS_QUEUE)) == _readable(sent)
