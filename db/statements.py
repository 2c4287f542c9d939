"""The statements of the hot path: set-wise, however many tasks a batch holds. All on one page, all by an index.

They take arrays, one element a row. `ARRAY(SELECT ...)` is computed once and then looked up by index.

A connection plans each once, perhaps while the tables are young and every index looks as good as the next. So a guard
beside a look-up by id is written `IS NOT DISTINCT FROM` or `IS TRUE`, which no index serves, and a join that must be a
loop by index is a LATERAL with a LIMIT.
"""

# The accept. One statement, so one transaction: rows it returns are accepted. A row it does not return was there
# already, by its id (a repeat after a lost answer of Postgres) or by its idempotency key.
# The lock keeps the deletion sweep off a session that is being addressed: it either sees the task or waits for it.
ACCEPT = """
WITH addressed AS MATERIALIZED (
    SELECT id FROM checkout_sessions WHERE id = ANY(%(addressed)s::uuid[]) ORDER BY id FOR KEY SHARE
)
INSERT INTO session_tasks (
    id, kind, user_id, session_id, payload, idempotency_key, request_hash, request_id, due_at
)
SELECT t.id, t.kind, t.user_id, t.session_id, t.payload::jsonb, t.idempotency_key, t.request_hash, t.request_id,
    now() + make_interval(secs => %(patience)s)
FROM unnest(
    %(id)s::uuid[], %(kind)s::text[], %(user_id)s::text[], %(session_id)s::uuid[], %(payload)s::text[],
    %(idempotency_key)s::text[], %(request_hash)s::text[], %(request_id)s::text[]
) WITH ORDINALITY AS t(id, kind, user_id, session_id, payload, idempotency_key, request_hash, request_id, n)
WHERE (SELECT count(*) FROM addressed) >= 0
ORDER BY t.n
ON CONFLICT DO NOTHING
RETURNING id, accepted_at
"""

ACCEPTED_BEFORE = """
SELECT id, accepted_at, coalesce(result_session_id, session_id), state, user_id, idempotency_key, request_hash
FROM session_tasks WHERE id = ANY(%(id)s::uuid[])
UNION ALL
SELECT keyed.*
FROM unnest(%(user_id)s::text[], %(idempotency_key)s::text[]) AS k(user_id, idempotency_key)
CROSS JOIN LATERAL (
    SELECT id, accepted_at, coalesce(result_session_id, session_id), state, user_id, idempotency_key, request_hash
    FROM session_tasks WHERE user_id = k.user_id AND idempotency_key = k.idempotency_key LIMIT 1
) AS keyed
"""

# The lock of the users: their pending rows, in one order for all workers. Whoever comes second waits here and then
# finds nothing pending.
TAKE = """
SELECT id, seq, kind, user_id, session_id, payload, accepted_at, rings, attempts, request_id, now()
FROM session_tasks
WHERE state = 'PENDING' AND user_id = ANY(ARRAY(
    SELECT user_id FROM session_tasks WHERE id = ANY(%(id)s::uuid[])
))
ORDER BY user_id, seq
LIMIT %(limit)s
FOR NO KEY UPDATE
"""

# What the tasks touch: each session addressed, the newest and the completed member of its line, the user's active one.
LOAD = """
SELECT id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
    created_at, expires_at, completed_at, payment_reference
FROM checkout_sessions
WHERE id = ANY(ARRAY(
    SELECT id FROM checkout_sessions WHERE user_id = ANY(%(user_id)s::text[]) AND status = 'active'
    UNION
    SELECT member.id
    FROM (
        SELECT DISTINCT line_id FROM checkout_sessions
        WHERE id = ANY(%(session_id)s::uuid[]) AND (user_id = ANY(%(user_id)s::text[])) IS TRUE
    ) AS line
    CROSS JOIN LATERAL (
        (SELECT id FROM checkout_sessions WHERE line_id = line.line_id ORDER BY line_position DESC LIMIT 1)
        UNION ALL
        (SELECT id FROM checkout_sessions WHERE line_id = line.line_id AND status = 'completed')
        UNION ALL
        (SELECT id FROM checkout_sessions WHERE line_id = line.line_id AND id = ANY(%(session_id)s::uuid[]))
    ) AS member
))
ORDER BY id
FOR NO KEY UPDATE
"""

PAYMENTS = """
SELECT payment_reference, id FROM checkout_sessions WHERE payment_reference = ANY(%(payment_reference)s::text[])
"""

# Guarded by the status that the decision was made on. Fewer rows than asked for are a fault, and divide by zero: the
# transaction ends there, so that its COMMIT can be sent along without waiting for the count.
CHANGE_SESSIONS = """
WITH changed AS (
    UPDATE checkout_sessions AS s
    SET status = c.status, completed_at = c.completed_at, payment_reference = c.payment_reference
    FROM unnest(
        %(id)s::uuid[], %(was)s::text[], %(status)s::text[], %(completed_at)s::timestamptz[],
        %(payment_reference)s::text[]
    ) AS c(id, was, status, completed_at, payment_reference)
    WHERE s.id = c.id AND s.status IS NOT DISTINCT FROM c.was
    RETURNING s.id
)
SELECT 1 / (count(*) = cardinality(%(id)s::uuid[]))::int FROM changed
"""

ADD_SESSIONS = """
INSERT INTO checkout_sessions (
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
    created_at, updated_at, expires_at, completed_at, payment_reference
)
SELECT id, user_id, status, package, step, data::jsonb, origin, line_id, line_position, line_began_at,
    previous_session_id, created_at, created_at, expires_at, completed_at, payment_reference
FROM unnest(
    %(id)s::uuid[], %(user_id)s::text[], %(status)s::text[], %(package)s::text[], %(step)s::text[], %(data)s::text[],
    %(origin)s::text[], %(line_id)s::uuid[], %(line_position)s::int[], %(line_began_at)s::timestamptz[],
    %(previous_session_id)s::uuid[], %(created_at)s::timestamptz[], %(expires_at)s::timestamptz[],
    %(completed_at)s::timestamptz[], %(payment_reference)s::text[]
) AS s(
    id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
    created_at, expires_at, completed_at, payment_reference
)
"""

FINISH_TASKS = """
WITH finished AS (
    UPDATE session_tasks AS t
    SET state = c.state, result_session_id = c.session_id, refusal = c.refusal, reason = c.reason,
        addressed_status = c.addressed_status, finished_at = now(), worker = %(worker)s,
        celery_task_id = %(celery_task_id)s
    FROM unnest(
        %(id)s::uuid[], %(state)s::text[], %(session_id)s::uuid[], %(refusal)s::text[], %(reason)s::text[],
        %(addressed_status)s::text[]
    ) AS c(id, state, session_id, refusal, reason, addressed_status)
    WHERE t.id = c.id AND t.state IS NOT DISTINCT FROM 'PENDING'
    RETURNING t.id
)
SELECT 1 / (count(*) = cardinality(%(id)s::uuid[]))::int FROM finished
"""

# An execution is counted before it begins only where it is suspect: delivered again, or alone after its batch failed.
COUNT_ATTEMPT = """
UPDATE session_tasks SET attempts = attempts + 1
WHERE id = ANY(%(id)s::uuid[]) AND state IS NOT DISTINCT FROM 'PENDING'
"""

# Whom to try alone after a batch failed: each user once, those first whose tasks have failed least.
ONE_OF_EACH_USER = """
SELECT id FROM (
    SELECT DISTINCT ON (user_id) id, attempts FROM session_tasks WHERE id = ANY(%(id)s::uuid[])
    ORDER BY user_id, attempts DESC
) AS each ORDER BY attempts
"""
