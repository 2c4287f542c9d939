"""The textbook baseline's worker: one task, one SQLAlchemy session, one commit; the result goes to Redis."""

import os
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy import case, func, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker
from uuid_utils.compat import uuid7

from db.engine import sync_engine
from db.lifecycle import Origin, Status
from db.models import CheckoutSession
from db.queries import SessionView
from workers.settings import WorkerSettings

settings = WorkerSettings.load()
app = Celery("textbook", broker=str(settings.redis_url), backend=os.environ["RESULT_URL"])
app.conf.update(
    task_acks_late=True,  # as durable as Redis lets it be
    worker_prefetch_multiplier=4,
    result_expires=600,
    task_default_queue="textbook",
    broker_pool_limit=32,  # connections that the API's threads publish on
    broker_connection_retry_on_startup=True,
)
sessions: sessionmaker[Session]


@worker_process_init.connect
def _begin(**_: Any) -> None:
    global sessions
    sessions = sessionmaker(sync_engine(settings, "textbook"), expire_on_commit=False)


@app.task(name="textbook.create_session", autoretry_for=(IntegrityError,), max_retries=5, default_retry_delay=0)
def create_session(user_id: str, package: str, step: str | None, data: dict[str, Any]) -> dict[str, Any]:
    """End the user's older session and insert the new one."""
    session_id = uuid7()
    with sessions.begin() as session:
        now = session.scalars(func.now().select()).one()
        session.execute(
            update(CheckoutSession)
            .where(CheckoutSession.user_id == user_id, CheckoutSession.status == Status.ACTIVE)
            .values(status=case((CheckoutSession.expires_at <= now, Status.EXPIRED), else_=Status.INVALIDATED))
            .execution_options(synchronize_session=False)
        )
        row = CheckoutSession(
            id=session_id, user_id=user_id, status=Status.ACTIVE, package=package, step=step, data=data,
            origin=Origin.CREATED, line_id=session_id, line_position=0, line_began_at=now, previous_session_id=None,
            payment_reference=None, created_at=now, updated_at=now,
            expires_at=now + timedelta(seconds=settings.session_ttl_seconds), completed_at=None,
        )  # fmt: skip
        session.add(row)
    view = SessionView(
        row.id, user_id, Status.ACTIVE, package, step, data, row.origin, None, None, now, now, row.expires_at, None,
        None, now,
    )  # fmt: skip
    return {key: value if isinstance(value, (int, dict, type(None))) else str(value)
            for key, value in view.as_json().items()}  # fmt: skip
