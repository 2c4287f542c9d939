"""Beat's timetable: `celery -A beat_schedule beat`. Nobody imports it.

| what                         | every      | why then                                                             |
|------------------------------|------------|----------------------------------------------------------------------|
| maintenance.expire_sessions  | 60 s       | reads compute expiry themselves; this only writes it down            |
| maintenance.delete_sessions  | 1 h        | against a retention of 7 days, an hour is nothing                    |
| maintenance.redeliver_tasks  | 2 s        | how long a lost doorbell delays a shopper                            |
| maintenance.purge_records    | 24 h       | records of finished tasks pile up slowly; kept 7 days                |
| maintenance.check_invariants | 15 min     | a fault of ours should not hide for longer                           |

Each tick expires when the next is due, so ticks never pile up while no worker is there. Two beats, or none for a day,
do no harm: a run holds a lock, and catches up.
"""

from datetime import timedelta

from workers.celery_app import app, settings
from workers.messages import CHECK_INVARIANTS, DELETE_SESSIONS, EXPIRE_SESSIONS, PURGE_RECORDS, REDELIVER_TASKS

PERIODS = {
    EXPIRE_SESSIONS: settings.expire_interval_seconds,
    DELETE_SESSIONS: settings.delete_interval_seconds,
    REDELIVER_TASKS: settings.redeliver_interval_seconds,
    PURGE_RECORDS: settings.purge_interval_seconds,
    CHECK_INVARIANTS: settings.doctor_interval_seconds,
}

app.conf.beat_schedule = {
    name: {"task": name, "schedule": timedelta(seconds=period), "options": {"expires": period}}
    for name, period in PERIODS.items()
}
