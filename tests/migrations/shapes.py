"""Older `checkout_sessions` tables as shops may have them, and what the takeover makes of their rows."""

from dataclasses import dataclass

A = "00000000-0000-4000-8000-00000000000a"
B = "00000000-0000-4000-8000-00000000000b"


def session(number: int) -> str:
    """An id."""
    return f"10000000-0000-4000-8000-{number:012}"


@dataclass(frozen=True)
class Shape:
    """The SQL that makes a table with its rows.

    `given` is what some columns of some rows become, by the new id; `said` are words that the migration says; `left` is
    what keeps its name beside the new columns; `no_way_back` is said by down once the new code has written.
    """

    sql: str
    given: dict[str, dict[str, str | None]]
    said: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    no_way_back: tuple[str, ...] = ()


SUPABASE = Shape(
    sql=f"""
    CREATE SCHEMA auth;
    CREATE TABLE auth.users (id uuid PRIMARY KEY);
    INSERT INTO auth.users VALUES ('{A}'), ('{B}');
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
        $$ SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
    CREATE TABLE checkout_sessions (
        id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
        user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
        package_id text NOT NULL,
        session_data jsonb DEFAULT '{{}}',
        status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'completed', 'expired')),
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL DEFAULT now() + interval '24 hours',
        completed_at timestamptz,
        payment_intent_id text
    );
    CREATE INDEX idx_checkout_sessions_user ON checkout_sessions (user_id);
    CREATE INDEX idx_checkout_sessions_status ON checkout_sessions (status) WHERE status = 'active';
    CREATE INDEX ix_checkout_sessions_created_at ON checkout_sessions (created_at DESC);
    ALTER TABLE checkout_sessions ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "Users see their own" ON checkout_sessions FOR SELECT USING (auth.uid() = user_id);
    CREATE POLICY "Users add their own" ON checkout_sessions FOR INSERT TO PUBLIC
        WITH CHECK (auth.uid() = user_id AND status <> '100%');
    CREATE POLICY "Users change their active" ON checkout_sessions AS RESTRICTIVE FOR UPDATE
        USING (auth.uid() = user_id AND status = 'active') WITH CHECK (auth.uid() = user_id);
    CREATE TABLE orders (id serial PRIMARY KEY, session uuid REFERENCES checkout_sessions (id));
    CREATE VIEW live AS SELECT id, user_id, session_data FROM checkout_sessions WHERE status = 'active';
    INSERT INTO checkout_sessions VALUES
        ('{session(1)}', '{A}', 'basic', '{{"cart": [1]}}', 'active', '2026-01-01 10:00Z', '2026-01-02 10:00Z', NULL,
            NULL),
        ('{session(2)}', '{A}', 'gold', '{{"cart": [2]}}', 'active', '2026-01-01 11:00Z', '2026-01-02 11:00Z', NULL,
            NULL),
        ('{session(3)}', '{A}', 'gold', NULL, 'expired', '2026-01-01 09:00Z', '2026-01-02 09:00Z', NULL, 'pi_tried'),
        ('{session(4)}', '{B}', 'gold', '[1]', 'completed', '2026-01-01 09:00Z', '2026-01-02 09:00Z',
            '2026-01-01 09:30Z', 'pi_4');
    INSERT INTO orders (session) VALUES ('{session(4)}');
    """,
    given={
        session(1): {"status": "invalidated", "user_id": A, "package": "basic", "data": '{"cart": [1]}'},
        session(2): {"status": "active", "line_id": session(2), "line_position": "0", "origin": "created"},
        session(3): {"status": "expired", "data": "{}", "payment_reference": None, "completed_at": None},
        session(4): {
            "status": "completed",
            "data": '{"data": [1]}',
            "payment_reference": "pi_4",
            "completed_at": "2026-01-01 09:30:00+00",
            "updated_at": "2026-01-01 09:30:00+00",
            "line_began_at": "2026-01-01 09:00:00+00",
            "previous_session_id": None,
        },
    },
    said=("orders_session_fkey of orders will forbid to delete old sessions",),
    left=("payment_intent_id", "session_data", "checkout_sessions_user_id_fkey"),
    no_way_back=('checkout_sessions_user_id_fkey" binds new rows only',),
)

TEXT_IDS = Shape(
    sql=f"""
    CREATE TYPE checkout_status AS ENUM ('active', 'completed', 'expired');
    CREATE TABLE checkout_sessions (
        id text PRIMARY KEY DEFAULT 'cs_' || substr(md5(random()::text), 1, 8),
        user_id varchar(40) NOT NULL,
        package varchar(20),
        data json,
        status checkout_status NOT NULL DEFAULT 'active',
        current_step integer NOT NULL DEFAULT 1,
        created_at timestamp NOT NULL DEFAULT now(),
        completed_at timestamp(3)
    );
    COMMENT ON COLUMN checkout_sessions.id IS 'as the browser keeps it';
    CREATE TABLE payments (session text NOT NULL REFERENCES checkout_sessions ON DELETE CASCADE, amount integer);
    CREATE PUBLICATION realtime FOR TABLE checkout_sessions;
    CREATE UNIQUE INDEX one_active ON checkout_sessions (user_id) WHERE status = 'active';
    INSERT INTO checkout_sessions VALUES
        ('cs_1', 'ann', 'gold', '{{"a":  1, "a": 2}}', 'active', 2, '2026-01-01 10:00', NULL),
        ('{session(2).upper()}', 'bob', NULL, NULL, 'expired', 1, '2026-01-01 11:00', NULL),
        ('cs_3', 'ann', 'gold', '"{{\\"x\\": 1}}"', 'completed', 3, '2026-01-01 09:00', '2026-01-01 09:30:00.123');
    INSERT INTO payments VALUES ('cs_3', 5);
    """,
    given={
        "4af615f4-ccf7-cb96-0e93-9fd15905d598": {
            "older_id": "cs_1",
            "status": "active",
            "step": "2",
            "data": '{"a": 2}',
            "created_at": "2026-01-01 10:00:00+00",
            "expires_at": "2026-01-02 10:00:00+00",
        },
        "5a4c66ea-dc43-2b0e-e97c-438ceb59633e": {
            "older_id": "cs_3",
            "status": "completed",
            "data": '{"x": 1}',
            "payment_reference": None,
            "completed_at": "2026-01-01 09:30:00.123+00",
        },
        session(2): {"package": "", "data": "{}", "status": "expired", "expires_at": "2026-01-02 11:00:00+00"},
    },
    said=("payments_session_fkey of payments is dropped", "completed without a payment reference"),
    left=("current_step",),
)

GUESTS = Shape(
    sql=f"""
    CREATE TABLE users (id text PRIMARY KEY);
    INSERT INTO users VALUES ('{A}');
    CREATE DOMAIN money_amount AS numeric(12, 2) CHECK (VALUE >= 0);
    CREATE TABLE checkout_sessions (
        tenant text NOT NULL,
        currency char(3) NOT NULL CHECK (currency = upper(currency)),
        amount money_amount NOT NULL,
        flags text[] NOT NULL,
        seen_at timestamp NOT NULL,
        agreed boolean NOT NULL,
        cart json NOT NULL,
        cart_id uuid NOT NULL,
        retries integer NOT NULL DEFAULT 0,
        number bigint GENERATED ALWAYS AS IDENTITY,
        doubled numeric GENERATED ALWAYS AS (amount * 2) STORED NOT NULL,
        id uuid NOT NULL,
        user_id text REFERENCES users (id),
        status varchar(10),
        package_data jsonb NOT NULL,
        metadata text,
        created_at timestamptz,
        expires_at timestamptz,
        CONSTRAINT sessions_key PRIMARY KEY (id),
        CONSTRAINT ck_checkout_sessions_status CHECK (status IS NULL OR status <> 'nonsense'),
        CONSTRAINT one_number UNIQUE (number)
    );
    CREATE INDEX by_tenant ON checkout_sessions (tenant);
    CREATE INDEX by_package ON checkout_sessions ((package_data ->> 'id'));
    INSERT INTO checkout_sessions (tenant, currency, amount, flags, seen_at, agreed, cart, cart_id, id, user_id, status,
        package_data, metadata, created_at, expires_at)
    SELECT 't', 'EUR', n, '{{x}}', '2026-01-01', true, '{{"b":1,  "a": 2}}', '{A}', ('10000000-0000-4000-8000-' ||
        lpad(n::text, 12, '0'))::uuid, u, s, p::jsonb, m, c::timestamptz, e::timestamptz
    FROM (VALUES
        (1, NULL, 'active', '{{"id": "gold", "price": 5}}', '{{"step": 2}}', '2026-01-01 10:00Z', NULL),
        (2, NULL, 'active', '"silver"', 'not json', '2026-01-01 11:00Z', '2026-01-01 10:00Z'),
        (3, '{A}', 'completed', '{{"price": 5}}', '"{{\\"double\\": true}}"', '2026-01-01 10:00Z', NULL),
        (4, '{A}', NULL, '[]', NULL, NULL, '2026-01-03 10:00Z'),
        (5, '{A}', 'active', '{{}}', '[1]', '2026-01-01 10:00Z', 'infinity'),
        (6, '{A}', 'active', '{{}}', 'null', '2026-01-01 10:00Z', NULL)
    ) AS rows (n, u, s, p, m, c, e);
    """,
    given={
        session(1): {
            "user_id": "",
            "status": "invalidated",
            "package": "gold",
            "data": '{"step": 2}',
            "expires_at": "2026-01-02 10:00:00+00",
            "older_status": "active",
        },
        session(2): {
            "package": "silver",
            "data": '{"data": "not json"}',
            "expires_at": "2026-01-01 11:00:00.000001+00",
        },
        session(3): {
            "package": '{"price": 5}',
            "data": '{"double": true}',
            "status": "completed",
            "completed_at": "2026-01-01 10:00:00+00",
            "payment_reference": None,
        },
        session(4): {"status": "invalidated", "created_at": "2026-01-02 10:00:00+00", "data": "{}"},
        session(5): {"status": "invalidated", "expires_at": "2026-01-02 10:00:00+00", "data": '{"data": [1]}'},
        session(6): {"status": "active", "data": "{}"},
    },
    said=("completed without a payment reference",),
    left=(
        *(
            "tenant",
            "currency",
            "amount",
            "flags",
            "seen_at",
            "agreed",
            "cart",
            "cart_id",
            "retries",
            "number",
            "doubled",
        ),
        *("package_data", "metadata", "checkout_sessions_user_id_fkey", "by_tenant"),
    ),
    no_way_back=('checkout_sessions_user_id_fkey" binds new rows only',),
)

PAYMENTS = Shape(
    sql=f"""
    CREATE TABLE checkout_sessions (
        id varchar(64) NOT NULL UNIQUE,
        user_id uuid,
        status text,
        package text NOT NULL,
        package_id integer NOT NULL,
        step text NOT NULL DEFAULT 'add',
        data jsonb NOT NULL DEFAULT '{{}}'::jsonb,
        payment_intent_id text,
        stripe_session_id text NOT NULL,
        created_at date NOT NULL,
        expires_at timestamptz(3),
        completed_at timestamptz,
        origin text NOT NULL CHECK (origin <> 'robot'),
        older_origin text
    );
    CREATE POLICY paid ON checkout_sessions USING (stripe_session_id LIKE 'cs_%');
    INSERT INTO checkout_sessions VALUES
        ('{session(1)}', '{A}', 'completed', 'gold', 1, 'pay', '{{}}', 'pi_1', 'cs_1', '2026-01-01', NULL,
            '2026-01-01 10:00Z', 'web', NULL),
        ('{session(2)}', '{A}', 'COMPLETED ', 'gold', 1, 'pay', '{{}}', 'pi_1', 'cs_2', '2026-01-01', NULL,
            '2026-01-01 11:00Z', 'web', NULL),
        ('{session(3)}', '{B}', 'completed', 'gold', 1, 'pay', '{{}}', '', 'cs_3', '2026-01-01', NULL, NULL, 'app',
            NULL),
        ('{session(4)}', '{B}', 'Active', 'gold', 1, 'add', '{{}}', NULL, 'cs_4', '2026-01-01', NULL, NULL, 'app',
            NULL),
        ('{session(5)}', '{B}', 'cancelled', 'gold', 1, 'add', '{{}}', NULL, 'cs_5', '2026-01-01', NULL, NULL, 'app',
            NULL),
        ('{session(6)}', '{B}', 'paid', 'gold', 1, 'add', '{{}}', 'pi_6', 'cs_6', '2026-01-01', NULL,
            '2026-01-01 11:00Z', 'app',
            NULL),
        ('{session(7)}', NULL, 'completed', 'gold', 1, 'add', '{{}}', NULL, 'cs_6', '2026-01-01', NULL,
            '2026-01-01 12:00Z', 'app', 'x');
    """,
    given={
        session(1): {"payment_reference": None, "payment_intent_id": "pi_1", "step": "pay", "origin": "created"},
        session(2): {"payment_reference": "pi_1", "status": "completed", "older_origin_": "web"},
        session(3): {"payment_reference": "cs_3", "completed_at": "2026-01-01 00:00:00+00"},
        session(4): {"payment_reference": None, "status": "active", "expires_at": "2026-01-02 00:00:00+00"},
        session(5): {"status": "invalidated", "user_id": B},
        session(6): {"status": "completed", "payment_reference": "pi_6"},
        session(7): {"status": "completed", "user_id": "", "payment_reference": "cs_6"},
    },
    said=("policy paid is dropped", "Unknown words", "['cancelled', 'paid']", "completed without a payment reference"),
    left=("package_id", "payment_intent_id", "stripe_session_id"),
)

GUARDED = Shape(
    sql=f"""
    CREATE TABLE users (id text PRIMARY KEY);
    INSERT INTO users VALUES ('{A}'), ('{B}');
    CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.updated_at = now();
        RETURN NEW;
    END;
    $$;
    CREATE TABLE users_notes (note text, updated_at timestamptz);
    CREATE TRIGGER notes BEFORE UPDATE ON users_notes FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.package_type = '' THEN RAISE 'no package'; END IF;
        RETURN NEW;
    END $$;
    CREATE TABLE checkout_sessions (
        id uuid DEFAULT gen_random_uuid(),
        user_id text NOT NULL REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED,
        status text NOT NULL CHECK (status IN ('active', 'completed', 'expired')),
        package_type text NOT NULL,
        data jsonb NOT NULL,
        step text,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz GENERATED ALWAYS AS ('2030-01-01 00:00Z'::timestamptz) STORED,
        renewed_from uuid,
        coupon text COLLATE "C" UNIQUE,
        CONSTRAINT pk_sessions PRIMARY KEY (id),
        CONSTRAINT fork FOREIGN KEY (renewed_from) REFERENCES checkout_sessions (id),
        CONSTRAINT one_each UNIQUE (user_id, status, created_at),
        CONSTRAINT no_overlap EXCLUDE USING btree (user_id WITH =) WHERE (status = 'active')
    );
    CREATE TRIGGER checkout_sessions_updated_at BEFORE INSERT OR UPDATE ON checkout_sessions
        FOR EACH ROW EXECUTE FUNCTION audit();
    CREATE TRIGGER audit_always AFTER INSERT ON checkout_sessions FOR EACH ROW EXECUTE FUNCTION audit();
    ALTER TABLE checkout_sessions ENABLE ALWAYS TRIGGER audit_always;
    ALTER TABLE checkout_sessions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY owner ON checkout_sessions USING (true);
    CREATE POLICY step_of_mine ON checkout_sessions FOR DELETE USING (step = 'add' AND package_type LIKE 'g%');
    INSERT INTO checkout_sessions (id, user_id, status, package_type, data, created_at, coupon) VALUES
        ('{session(1)}', '{A}', 'active', 'gold', '{{"n": 1.10}}', '2026-01-01 10:00Z', 'x'),
        ('{session(2)}', '{A}', 'expired', 'gold', '{{}}', '2026-01-01 11:00Z', NULL);
    """,
    given={
        session(1): {"user_id": A, "package": "gold", "data": '{"n": 1.10}', "expires_at": "2030-01-01 00:00:00+00"},
        session(2): {"status": "expired"},
    },
    said=("trigger audit_always is disabled", "trigger checkout_sessions_updated_at is disabled"),
    left=("coupon", "renewed_from", "audit_always"),
    no_way_back=('checkout_sessions_user_id_fkey" binds new rows only',),
)

CAMEL = Shape(
    sql="""
    CREATE TYPE "CheckoutStatus" AS ENUM ('ACTIVE', 'COMPLETED', 'EXPIRED');
    CREATE TABLE checkout_sessions (
        id text NOT NULL,
        "userId" text NOT NULL,
        "packageId" text NOT NULL,
        "sessionData" jsonb,
        status "CheckoutStatus" NOT NULL DEFAULT 'ACTIVE',
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updatedAt" timestamp(3) NOT NULL,
        "expiresAt" timestamp(3) NOT NULL,
        CONSTRAINT "CheckoutSession_pkey" PRIMARY KEY (id)
    );
    CREATE INDEX "CheckoutSession_userId_idx" ON checkout_sessions ("userId");
    INSERT INTO checkout_sessions VALUES
        ('clx1', 'u1', 'gold', '{"a": 1}', 'ACTIVE', '2026-01-01 10:00', '2026-01-01 10:05', '2026-01-02 10:00'),
        ('clx2', 'u1', 'gold', NULL, 'ACTIVE', '2026-01-01 10:00', '2026-01-01 10:05', '2026-01-02 10:00');
    """,
    given={
        "9607ce1b-37cc-853e-519b-416fffc2035c": {
            "older_id": "clx1",
            "status": "active",
            "package": "gold",
            "updated_at": "2026-01-01 10:05:00+00",
        },
        "1aff95e9-ec44-1c8a-b1c7-9cab24f904c8": {"status": "invalidated", "data": "{}"},
    },
    left=("createdAt", "updatedAt", "expiresAt", "sessionData"),
)

BARE = Shape(
    sql="CREATE TABLE checkout_sessions (id uuid, user_id uuid, status text)",
    given={},
)

UNUSUAL = Shape(
    sql=f"""
    CREATE TABLE checkout_sessions (
        id uuid PRIMARY KEY,
        user_id varchar(8) NOT NULL UNIQUE,
        status text NOT NULL DEFAULT 'active',
        package_type integer NOT NULL,
        current_step integer NOT NULL,
        created_at text NOT NULL,
        reference inet NOT NULL
    );
    INSERT INTO checkout_sessions VALUES
        ('{session(1)}', 'ann', 'active', 7, 1, '2026-01-01T10:00:00+02:00', '10.0.0.1'),
        ('{session(2)}', 'bob', 'completed', 7, 1, 'yesterday evening', '10.0.0.1');
    """,
    given={session(1): {"created_at": "2026-01-01 08:00:00+00", "package": "7", "step": "1"}},
    said=("completed without a payment reference",),
    left=("package_type", "current_step", "reference"),
    no_way_back=('checkout_sessions_user_id_key" cannot be put back', "reference may be null"),
)

SHAPES = {
    "supabase": SUPABASE,
    "text ids": TEXT_IDS,
    "guests": GUESTS,
    "payments": PAYMENTS,
    "guarded": GUARDED,
    "camel": CAMEL,
    "bare": BARE,
    "unusual": UNUSUAL,
}
