"""The textbook baseline's API: one `send_task` for each request, then a wait for Celery's result in Redis.

TEXTBOOK_WAIT=get blocks a thread in `AsyncResult.get`, which Redis wakes; a number polls `AsyncResult.ready` with that
many milliseconds between two looks.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from celery import Celery
from fastapi import FastAPI, Response
from starlette.concurrency import run_in_threadpool

from api import schemas
from api.auth import Authenticated
from api.responses import json
from api.settings import ApiSettings
from api.tasks import user_of
from benchmarks import baseline

TIMEOUT = 30  # seconds
THREADS = 128  # one for each client that waits


def create_app(settings: ApiSettings, celery: Celery, wait: str) -> FastAPI:
    """One path."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    def send(user_id: str, body: schemas.Create) -> Any:
        arguments = [user_id, body.package, body.step, body.data or {}]
        return celery.send_task("textbook.create_session", args=arguments)

    def blocking(user_id: str, body: schemas.Create) -> Any:
        return send(user_id, body).get(timeout=TIMEOUT)

    async def polling(user_id: str, body: schemas.Create) -> Any:
        result = await run_in_threadpool(send, user_id, body)
        async with asyncio.timeout(TIMEOUT):
            while not await run_in_threadpool(result.ready):  # noqa: ASYNC110 - that is what is measured
                await asyncio.sleep(int(wait) / 1000)
        return result.result

    async def create_session(body: schemas.Create, principal: Authenticated) -> Response:
        user_id = user_of(principal, body.user_id)
        if wait == "get":
            return json(await run_in_threadpool(blocking, user_id, body), 201)
        return json(await polling(user_id, body), 201)

    return baseline.create_app(settings, lifespan, create_session)


if __name__ == "__main__":
    from benchmarks.textbook_worker import app as celery_app

    loaded = ApiSettings.load()
    baseline.serve(create_app(loaded, celery_app, os.environ.get("TEXTBOOK_WAIT", "get")), loaded)
