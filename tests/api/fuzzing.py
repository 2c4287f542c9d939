"""Hooks of schemathesis (SCHEMATHESIS_HOOKS): whose token it sends, and which doubts of it are not justified."""

import json
import os
from typing import Any

import schemathesis

# A valid request that repeats a key with another body is refused; what was accepted a moment ago is not there yet.
RIGHT = {"idempotency_key_reused", "session_pending"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Operators' paths get a service token, where a user's was about to be sent."""
    user, service = os.environ["FUZZ_USER"], os.environ["FUZZ_SERVICE"]
    headers = kwargs.get("headers") or {}
    if "cleanup" in case.operation.path and headers.get("Authorization") == user:
        kwargs["headers"] = {**headers, "Authorization": service}


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a failure counts."""
    try:
        return json.loads(response.content).get("code") not in RIGHT
    except (ValueError, AttributeError):
        return True
