"""The bodies of the HTTP contract. Strict: unknown fields are refused, nothing is coerced."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from api.sizes import SIZES
from db.lifecycle import Kind, Next, Origin, Refusal, Status, TaskState

EXACT: Final = 2**53  # beyond it JavaScript's numbers, and so the shop's frontend, are not exact
NO_NUL: Final = r"^[^\x00]*$"  # Postgres cannot keep one; the JSON parser lets no lone surrogates through

# What `data` may hold, for the OpenAPI; there it is the component `Json`.
JSON_REFERENCE: Final = {"$ref": "#/components/schemas/Json"}
JSON_SCHEMA: Final[dict[str, Any]] = {
    "description": "Any JSON, of bounded depth and number of names and values.",
    "anyOf": [
        {"type": ["null", "boolean"]},
        {"type": "number", "minimum": -EXACT, "maximum": EXACT},
        {"type": "string", "pattern": NO_NUL},
        {"type": "array", "items": JSON_REFERENCE},
        {"type": "object", "propertyNames": {"pattern": NO_NUL}, "additionalProperties": JSON_REFERENCE},
    ],
}


def _data(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that Postgres can keep and JavaScript can read, of bounded depth and size. Iterative: depth is untrusted."""
    todo: list[tuple[Any, int]] = [(value, 1)]
    nodes = 0
    while todo:
        item, depth = todo.pop()
        nodes += 1
        if depth > SIZES.data_depth or nodes > SIZES.data_values:
            raise ValueError(f"must not be deeper than {SIZES.data_depth} or hold more than {SIZES.data_values} values")
        match item:
            case str() if "\0" in item:
                raise ValueError("must not contain NUL")
            case int() | float() if not abs(item) <= EXACT:  # true of NaN, too
                raise ValueError("must not hold numbers beyond 2^53")
            case dict():
                todo += [(name, depth) for name in item] + [(member, depth + 1) for member in item.values()]
            case list():
                todo += [(member, depth + 1) for member in item]
    return value


Text = Annotated[str, Field(min_length=1, max_length=255, pattern=NO_NUL)]
Data = Annotated[
    dict[str, Any],
    AfterValidator(_data),
    WithJsonSchema({"type": "object", "propertyNames": {"pattern": NO_NUL}, "additionalProperties": JSON_REFERENCE}),
]


class Body(BaseModel):
    """A request's body. `user_id` counts for a service token only, which acts for that user."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    user_id: Text | None = None


class Create(Body):
    """Begin a session."""

    package: Text
    step: Text | None = None
    data: Data | None = None


class Renew(Body):
    """Change the package: a new session with everything else of the old one."""

    package: Text
    data: Data | None = None


class Recover(Body):
    """Bring an expired or lost session back."""


class Complete(Body):
    """The payment went through."""

    payment_reference: Text


class Navigate(Body):
    """Move to another step, change data: top-level keys are merged, null removes one."""

    step: Text | None = None
    data: Data | None = None


class Session(BaseModel):
    """A session with its effective status."""

    id: UUID
    user_id: str
    status: Status
    valid: bool
    next: Next
    package: str
    step: str | None
    data: dict[str, Any]
    origin: Origin
    previous_session_id: UUID | None
    successor_id: UUID | None
    payment_reference: str | None
    seconds_left: int = Field(ge=0)
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    completed_at: datetime | None


class Problem(BaseModel):
    """RFC 9457 problem details, with a stable code, a sentence for the shopper, and what to do next."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    message: str
    next: Literal["continue", "done", "fix", "recover", "restart", "retry", "sign_in", "wait"]


class Accepted(BaseModel):
    """A task that is accepted: from now on it cannot be lost."""

    task_id: UUID
    session_id: UUID | None = Field(description="null for a cleanup only")
    state: TaskState


class CleanupResult(BaseModel):
    """How many rows a cleanup marked and deleted."""

    expired: int
    deleted: int


class Task(BaseModel):
    """A task; `state`, `session_id` and `error` never change once told."""

    id: UUID
    kind: Kind | Literal["cleanup"]
    state: TaskState
    session_id: UUID | None
    result: Session | CleanupResult | None
    error: Problem | None
    accepted_at: datetime
    finished_at: datetime | None
    worker: str | None = Field(None, description="who executed it; told to a service only")
    celery_task_id: str | None = Field(None, description="Flower's task; told to a service only")


class Asked(BaseModel):
    """What was asked of a session, and what became of it."""

    id: UUID
    seq: int = Field(description="the order of acceptance")
    kind: Kind
    user_id: str
    state: TaskState
    session_id: UUID
    result_session_id: UUID | None
    accepted_at: datetime
    finished_at: datetime | None
    refusal: Refusal | None
    reason: str | None
    request_id: str | None
    rings: int = Field(description="deliveries")
    attempts: int = Field(description="executions that were counted, because they were suspect")
    worker: str | None = Field(description="host and process; for the service role only")
    celery_task_id: str | None = Field(description="as Flower shows it; for the service role only")


class Moment(BaseModel):
    """One event in the life of a line, with the session and the task that it is of."""

    at: datetime
    event: Literal["accepted", "done", "refused", "given up", "expired", "marked", "invalidated", "began", "completed"]
    session_id: UUID
    task_id: UUID | None
    detail: str


class History(BaseModel):
    """A session's line, what was asked of it, and what happened when; each oldest first."""

    sessions: list[Session]
    tasks: list[Asked]
    timeline: list[Moment]
