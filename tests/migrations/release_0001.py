"""What the release of revision 0001 says to the tables: each table, column and clause that it relies on, shortened.

Frozen: a later migration must let all of it go on, since processes of that release run while the schema is newer.
"""

ACCEPT = """
WITH addressed AS MATERIALIZED (
    SELECT id FROM checkout_sessions WHERE id = ANY(%(addressed)s::uuid[]) ORDER BY id FOR KEY SHARE
)
INSERT INTO session_tasks (
    id, kind, user_id, session_id, payload, idempotency_key, request_hash, request_id, due_at
)
SELECT %(id)s, %(kind)s, 'ann', %(session_id)s, %(payload)s, %(id)s, 'hash', 'request', now() + interval '2 s'
WHERE (SELECT count(*) FROM addressed) >= 0
ON CONFLICT DO NOTHING
RETURNING id, accepted_at
"""

TAKE = """
SELECT id, seq, kind, user_id, session_id, payload, accepted_at, rings, attempts, request_id, now()
FROM session_tasks
WHERE state = 'PENDING' AND user_id = ANY(ARRAY(SELECT user_id FROM session_tasks WHERE id = %(id)s))
ORDER BY user_id, seq LIMIT 10 FOR NO KEY UPDATE
"""

LOAD = """
SELECT id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
    created_at, expires_at, completed_at, payment_reference
FROM checkout_sessions WHERE user_id = 'ann' AND status = 'active' ORDER BY id FOR NO KEY UPDATE
"""

CHANGE = """
UPDATE checkout_sessions SET status = %(status)s, completed_at = CASE WHEN %(paid)s::text IS NOT NULL THEN now() END,
    payment_reference = %(paid)s
WHERE id = %(session_id)s AND status IS NOT DISTINCT FROM 'active' RETURNING id
"""

ADD = """
INSERT INTO checkout_sessions (
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
    created_at, updated_at, expires_at, completed_at, payment_reference
)
VALUES (%(id)s, 'ann', 'active', 'silver', 'add', '{"seats": 2}', 'created', %(id)s, 0, now(), NULL,
    now(), now(), now() + interval '1 day', NULL, NULL)
RETURNING id
"""

FINISH = """
UPDATE session_tasks SET state = 'SUCCESS', result_session_id = %(session_id)s, refusal = NULL, reason = 'why',
    addressed_status = 'active', finished_at = now(), worker = 'old:1', celery_task_id = 'celery'
WHERE id = %(id)s AND state IS NOT DISTINCT FROM 'PENDING' RETURNING id
"""

NAVIGATE = "UPDATE checkout_sessions SET step = 'packages', data = '{}' WHERE id = %(session_id)s RETURNING id"

COUNT_ATTEMPT = "UPDATE session_tasks SET attempts = attempts + 1 WHERE id = %(id)s RETURNING id"

RING_AGAIN = """
UPDATE session_tasks SET rings = rings + 1, due_at = now() + interval '4 s' WHERE id = %(id)s RETURNING id, kind
"""

EXPIRE = """
UPDATE checkout_sessions SET status = 'expired' WHERE status = 'active' AND expires_at <= now() + interval '2 days'
RETURNING id
"""

DELETE = """
WITH gone AS (
    DELETE FROM checkout_sessions WHERE status <> 'completed' RETURNING line_position, line_began_at
), counted AS (
    INSERT INTO daily_counts AS d (day, lines_begun, recoveries_finished, recoveries_succeeded)
    SELECT (line_began_at AT TIME ZONE 'UTC')::date, count(*), 0, 0 FROM gone WHERE line_position = 0 GROUP BY 1
    ON CONFLICT (day) DO UPDATE SET lines_begun = d.lines_begun + excluded.lines_begun
)
SELECT count(*) FROM gone
"""

BEGIN_RUN = """
INSERT INTO maintenance_runs AS r (id, task, trigger, cleanup_id, began_at)
VALUES (%(id)s, 'maintenance.expire_sessions', 'beat', NULL, now())
ON CONFLICT (id) DO UPDATE SET began_at = now() WHERE r.finished_at IS NULL
RETURNING id
"""

END_RUN = "UPDATE maintenance_runs SET finished_at = now(), rows = 1, error = NULL WHERE id = %(id)s RETURNING id"

PURGE = "DELETE FROM session_tasks WHERE id = %(id)s RETURNING kind, state, addressed_status, finished_at"
