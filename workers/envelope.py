"""A Celery message as Redis keeps it, for a sender that cannot wait for Celery's blocking client."""

import base64
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from celery import Celery


def envelope(app: Celery, name: str, args: Sequence[Any], queue: str) -> bytes:
    """What `app.send_task(name, args)` would push on the list `queue`.

    Headers and body are Celery's own (protocol 2); around them lies what kombu's Redis transport adds
    (kombu.transport.virtual). A test holds this against a message that Celery sent.

    Args:
        app: configured, not necessarily connected.
        name: of the Celery task.
        args: its arguments.
        queue: the Redis list, whose name is the queue's.
    """
    # Flower shows `argsrepr`, all ids of it. Celery's own way to it takes longer than all the rest.
    message = app.amqp.create_task_message(
        str(uuid4()), name, args=args, ignore_result=True, argsrepr=repr(args), kwargsrepr="{}"
    )
    return orjson.dumps(
        {
            "body": base64.b64encode(orjson.dumps(message.body)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": message.headers,
            "properties": {
                **message.properties,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )
