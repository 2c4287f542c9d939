"""The app that `celery -A workers.celery_app worker` and Flower run."""

from typing import Any

from celery.signals import heartbeat_sent, setup_logging, worker_shutdown

from db import logs
from workers.configuration import WORKER_TRANSPORT, create_app
from workers.consumer import Watchdog
from workers.heartbeats import Hearts
from workers.inbound import guard
from workers.settings import WorkerSettings

settings = WorkerSettings.load()
app = create_app(settings, WORKER_TRANSPORT)
app.conf.include = ["workers.tasks"]
app.steps["worker"].add(Watchdog)
app.set_current()
guard()

hearts = Hearts(app)
heartbeat_sent.connect(hearts.sent)
worker_shutdown.connect(hearts.stopped)


@setup_logging.connect
def _configure_logs(loglevel: int | str | None = None, **_: Any) -> None:
    logs.configure()
