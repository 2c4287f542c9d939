"""The statements of the hot path: set-wise, however many tasks a batch holds. All on one page, all by an index.

Rows travel as one JSON text, which costs the client a fifth of what an array for each column does; ids as an array.
`ARRAY(SELECT ...)` is computed once and then looked up by index.

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
SELECT t.id, t.kind, t.user_id, t.session_id, t.payload, t.idempotency_key, t.request_hash, t.request_id,
    now() + make_interval(secs => %(patience)s)
FROM json_to_recordset(%(tasks)s::json) AS t(
    id uuid, kind text, user_id text, session_id uuid, payload jsonb, idempotency_key text, request_hash text,
    request_id text, n int
)
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
# Sent along with TAKE, but a statement of its own: whoever had to wait for the lock sees what was done meanwhile.
LOAD = """
WITH pending AS MATERIALIZED (
    SELECT user_id, session_id, kind FROM session_tasks
    WHERE state = 'PENDING' AND user_id = ANY(ARRAY(
        SELECT user_id FROM session_tasks WHERE id = ANY(%(id)s::uuid[])
    ))
)
SELECT id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
    created_at, expires_at, completed_at, payment_reference
FROM checkout_sessions
WHERE id = ANY(ARRAY(
    SELECT id FROM checkout_sessions
    WHERE user_id = ANY(ARRAY(SELECT DISTINCT user_id FROM pending)) AND status = 'active'
    UNION
    SELECT member.id
    FROM (
        SELECT DISTINCT owned.line_id
        FROM pending AS p
        CROSS JOIN LATERAL (
            SELECT line_id FROM checkout_sessions WHERE id = p.session_id AND (user_id = p.user_id) IS TRUE LIMIT 1
        ) AS owned
        WHERE p.kind <> 'create'
    ) AS line
    CROSS JOIN LATERAL (
        (SELECT id FROM checkout_sessions WHERE line_id = line.line_id ORDER BY line_position DESC LIMIT 1)
        UNION ALL
        (SELECT id FROM checkout_sessions WHERE line_id = line.line_id AND status = 'completed')
        UNION ALL
        (SELECT id FROM checkout_sessions
            WHERE line_id = line.line_id AND id = ANY(ARRAY(SELECT session_id FROM pending)))
    ) AS member
))
ORDER BY id
FOR NO KEY UPDATE
"""

PAYMENTS = """
SELECT payment_reference, id FROM checkout_sessions WHERE payment_reference = ANY(%(payment_reference)s::text[])
"""

# Everything that a batch writes. First what ends, then what begins: a user has at most one active session at every
# instant. The rows are locked, so their places stay, and are found one by one whatever the statistics say of a join.
# Guarded by the statuses that the decisions were made on: fewer rows than asked for are a fault, and divide by
# zero. The transaction ends there, so that its COMMIT can be sent along without waiting for the count.
STORE = """
WITH changed AS (
    UPDATE checkout_sessions AS s
    SET status = c.status, completed_at = c.completed_at, payment_reference = c.payment_reference
    FROM json_to_recordset(%(changes)s::json) AS c(
        id uuid, was text, status text, completed_at timestamptz, payment_reference text
    )
    CROSS JOIN LATERAL (SELECT ctid FROM checkout_sessions WHERE id = c.id LIMIT 1) AS found
    WHERE s.ctid = found.ctid AND s.status = c.was
    RETURNING s.id
), added AS (
    INSERT INTO checkout_sessions (
        id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at, previous_session_id,
        created_at, updated_at, expires_at, completed_at, payment_reference
    )
    SELECT id, user_id, status, package, step, data, origin, line_id, line_position, line_began_at,
        previous_session_id, created_at, created_at, expires_at, completed_at, payment_reference
    FROM json_to_recordset(%(sessions)s::json) AS n(
        id uuid, user_id text, status text, package text, step text, data jsonb, origin text, line_id uuid,
        line_position int, line_began_at timestamptz, previous_session_id uuid, created_at timestamptz,
        expires_at timestamptz, completed_at timestamptz, payment_reference text
    )
    WHERE (SELECT count(*) FROM changed) >= 0
), finished AS (
    UPDATE session_tasks AS t
    SET state = c.state, result_session_id = c.session_id, refusal = c.refusal, reason = c.reason,
        addressed_status = c.addressed_status, finished_at = now(), worker = %(worker)s,
        celery_task_id = %(celery_task_id)s
    FROM json_to_recordset(%(outcomes)s::json) AS c(
        id uuid, state text, session_id uuid, refusal text, reason text, addressed_status text
    )
    CROSS JOIN LATERAL (SELECT ctid FROM session_tasks WHERE id = c.id LIMIT 1) AS found
    WHERE t.ctid = found.ctid AND t.state = 'PENDING'
    RETURNING t.id
)
SELECT 1 / (
    (SELECT count(*) FROM changed) = json_array_length(%(changes)s::json)
    AND (SELECT count(*) FROM finished) = json_array_length(%(outcomes)s::json)
)::int
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
