"""The bodies of the old paths, in camelCase."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from api.problems import Next
from api.schemas import Data, Session, Text
from db.lifecycle import Status


class OldBody(BaseModel):
    """The old paths ignore what they do not know, as the old shop did. `userId` counts for a service token only."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", strict=True, frozen=True)

    user_id: Text | None = None


class OldCreate(OldBody):
    """Create, or with `existingSessionId` renew."""

    package_id: Text
    existing_session_id: Text | None = None
    data: Data | None = None


class OldSession(OldBody):
    """Validate or recover a session."""

    session_id: Text


class OldComplete(OldBody):
    """The payment went through."""

    session_id: Text
    payment_reference: Text


class OldAnswer(BaseModel):
    """An answer in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class OldSessionView(Session):
    """A session as the old frontend reads it; what the shop keeps in `data` stays as it is."""

    model_config = ConfigDict(alias_generator=to_camel)


class OldCreated(OldAnswer):
    """The session that is to be used from now on."""

    session_id: str
    status: Status
    expires_at: datetime
    renewed: bool


class OldValidated(OldAnswer):
    """Whether the shopper can go on, and with which session if not with this one."""

    valid: bool
    status: Status
    session: OldSessionView
    successor_id: str | None


class OldRecovered(OldAnswer):
    """The session that came back."""

    recovered: bool
    session_id: str
    message: str


class OldCompleted(OldAnswer):
    """The session that is complete."""

    success: bool
    session: OldSessionView


class OldRefusal(BaseModel):
    """Every problem of an old path."""

    error: str
    code: str
    message: str
    next: Next
