"""How Celery is set up on Redis, each setting with its reason."""

from typing import Any

from celery import Celery
from kombu import Queue

from workers.messages import MAINTENANCE_QUEUE, SESSIONS_QUEUE
from workers.settings import WorkerSettings

ARGUMENTS_LENGTH = 16_384  # characters that Flower is told of a message's arguments: `BATCH_LIMIT` ids

# A worker waits for Redis as long as it takes.
WORKER_TRANSPORT: dict[str, Any] = {
    "visibility_timeout": 60,  # a killed worker's doorbells return after that; the redelivery sweep is faster
    "unacked_restore_interval": 2,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "priority_steps": [0],
}


def create_app(settings: WorkerSettings, transport: dict[str, Any]) -> Celery:
    """A Celery app over the settings' Redis.

    Args:
        settings: names Redis.
        transport: `WORKER_TRANSPORT`, or nothing for an app that only makes messages.
    """
    app = Celery("checkout-sessions", broker=str(settings.redis_url), set_as_current=False)
    app.conf.update(
        broker_transport_options=transport,
        # The truth and the results are in Postgres. A result backend would cost a third of the throughput.
        result_backend=None,
        task_ignore_result=True,
        # A killed child's message is delivered again; everything else that fails is rung again by the sweep, which
        # counts, so that a poisonous message never circles in Redis.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure=True,
        task_acks_on_timeout=True,
        # Seconds, of a pool's processes; a solo worker has Postgres' limits and its watchdog. No soft limit: it would
        # raise in the middle of a commit.
        task_time_limit=20,
        worker_prefetch_multiplier=2,
        worker_soft_shutdown_timeout=8,
        worker_enable_soft_shutdown_on_idle=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a duplicate is harmless, a torn commit is not
        worker_send_task_events=True,  # Flower
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_retry=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_pool_limit=32,  # Flower asks nine things at once and needs two connections for each; fewer lock it up
        broker_pool_acquire_timeout=1,
        task_publish_retry=False,
        worker_consumer="workers.consumer:Consumer",
        watchdog_seconds=settings.watchdog_seconds,
        # JSON only: a message is untrusted.
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        # Direct queues; a publish is one LPUSH.
        task_queues=[Queue(SESSIONS_QUEUE), Queue(MAINTENANCE_QUEUE)],
        task_default_queue=SESSIONS_QUEUE,
        task_routes={"maintenance.*": {"queue": MAINTENANCE_QUEUE}},
        task_create_missing_queues=False,
        timezone="UTC",
        enable_utc=True,
        beat_max_loop_interval=1,
        beat_scheduler="workers.heartbeats:Scheduler",
    )
    app.amqp.argsrepr_maxsize = ARGUMENTS_LENGTH
    return app
