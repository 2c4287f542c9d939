"""The app that `celery -A workers.celery_app worker` and Flower run."""

from typing import Any

from celery.signals import setup_logging

from db import logs
from workers.configuration import WORKER_TRANSPORT, create_app
from workers.consumer import Watchdog
from workers.settings import WorkerSettings

settings = WorkerSettings.load()
app = create_app(settings, WORKER_TRANSPORT)
app.conf.include = ["workers.tasks"]
app.steps["worker"].add(Watchdog)
app.set_current()


@setup_logging.connect
def _configure_logs(loglevel: int | str | None = None, **_: Any) -> None:
    logs.configure()
