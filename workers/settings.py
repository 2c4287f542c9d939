"""What the workers, beat and Flower need beside the database."""

from typing import Annotated

from pydantic import Field, RedisDsn

from db.settings import DatabaseSettings, Seconds


class WorkerSettings(DatabaseSettings):
    """Redis carries doorbells only; the intervals are beat's."""

    redis_url: RedisDsn
    expire_interval_seconds: Seconds = 60  # a read computes expiry itself, so marking may lag a minute
    delete_interval_seconds: Seconds = 3_600  # against 7 days of retention, an hour is nothing
    redeliver_interval_seconds: Seconds = 2  # how long a lost doorbell delays a shopper
    purge_interval_seconds: Seconds = 86_400  # records pile up slowly
    doctor_interval_seconds: Seconds = 900  # a fault of ours should not hide for longer
    # Without progress on a backlog for that long, a worker ends itself: twice the time limit of a task, and some more.
    watchdog_seconds: Seconds = 45
    task_retention_seconds: Annotated[float, Field(ge=86_400)] = 604_800  # idempotency keys promise 24 h
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5  # executions of one task before it is given up
    flower_port: Annotated[int, Field(ge=1, le=65_535)] = 5_555
    flower_basic_auth: str | None = None  # user:password
