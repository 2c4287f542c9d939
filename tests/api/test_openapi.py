"""The OpenAPI says what is there; `contract.py` holds every answer of these tests against it."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from api.problems import KINDS
from tests.api.contract import Contract

# The HTTP table of the contract.
TABLE = {
    ("post", "/api/sessions"),
    ("get", "/api/sessions/{session_id}"),
    ("patch", "/api/sessions/{session_id}"),
    ("post", "/api/sessions/{session_id}/renew"),
    ("post", "/api/sessions/{session_id}/recover"),
    ("post", "/api/sessions/{session_id}/complete"),
    ("get", "/api/sessions/current"),
    ("get", "/api/sessions/{session_id}/history"),
    ("get", "/api/tasks/{task_id}"),
    ("post", "/api/maintenance/cleanup"),
    ("post", "/api/create-checkout-session"),
    ("post", "/api/validate-checkout-session"),
    ("post", "/api/recover-checkout-session"),
    ("post", "/api/complete-checkout-session"),
    ("post", "/api/cleanup-expired-sessions"),
    ("get", "/api/cleanup-expired-sessions"),
    ("get", "/api/ops"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}
OPERATIONS = sorted(TABLE)


@pytest.fixture
def described(contract: Contract) -> dict[str, Any]:
    """The document."""
    return contract.raw


def test_the_running_service_serves_it(shopper: httpx.Client, described: dict[str, Any]) -> None:
    assert httpx.get(shopper.base_url.join("/openapi.json")).json() == described
    assert "/openapi.json" in httpx.get(shopper.base_url.join("/docs")).text


def test_each_path_of_the_table_is_there_and_no_other(described: dict[str, Any]) -> None:
    there = {(method, path) for path, operations in described["paths"].items() for method in operations}
    assert there == TABLE


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_each_operation_is_described(described: dict[str, Any], method: str, path: str) -> None:
    operation = described["paths"][path][method]
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    for status, response in operation["responses"].items():
        assert response["description"], status
        assert response["content"], status
        for content in response["content"].values():
            assert content["schema"], status
    if path.startswith("/api/"):
        assert operation["security"] == [{"bearer": []}]
        assert operation["responses"].keys() >= {"401", "429", "500", "503"}
    else:
        assert "security" not in operation


def test_problems_are_described_as_what_they_are(described: dict[str, Any]) -> None:
    """In the old shape on the old paths; each code that a description names exists, and has that status."""
    for path, operations in described["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) < 400 or path == "/readyz":
                    continue
                old = path.endswith(("-checkout-session", "-expired-sessions"))
                media_type, model = (
                    ("application/json", "OldRefusal") if old else ("application/problem+json", "Problem")
                )
                reference = {"$ref": f"#/components/schemas/{model}"}
                assert response["content"] == {media_type: {"schema": reference}}
                for code in response["description"].replace("`", "").split(", "):
                    assert KINDS[code].status == int(status)


def test_the_way_in_is_described(described: dict[str, Any]) -> None:
    scheme = described["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")


def test_bodies_are_strict(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    for path, operations in described["paths"].items():
        for operation in operations.values():
            if "requestBody" not in operation:
                continue
            (media_type, content), *others = operation["requestBody"]["content"].items()
            assert (media_type, others) == ("application/json", [])
            references = [content["schema"], *content["schema"].get("anyOf", [])]
            name = next(one["$ref"] for one in references if "$ref" in one).rpartition("/")[2]
            if not path.endswith("-checkout-session"):
                assert schemas[name]["additionalProperties"] is False
                assert "user_id" in schemas[name]["properties"]


def references_in(value: Any) -> set[str]:
    """All that a document refers to."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references_in, value.values()))
    return set().union(*map(references_in, value)) if isinstance(value, list) else set()


def test_all_references_lead_somewhere_and_all_components_are_used(described: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references_in(described) == known


def test_each_problem_has_a_title_for_developers_a_sentence_for_shoppers_and_what_is_next() -> None:
    for code, kind in KINDS.items():
        assert kind.title, code
        assert kind.title[-1] not in ".!", code
        assert kind.message[0].isupper(), code
        assert kind.message.endswith("."), code
        assert not any(word in kind.message.lower() for word in ("session", "token", "task", "server", "json", "key"))
        assert 400 <= kind.status <= 599, code
        assert (kind.retry_after is not None) or kind.status not in (429, 503, 504), code


def test_the_contract_finds_what_is_not_described(contract: Contract) -> None:
    """Or all these tests would hold answers against nothing."""

    def answered(status: int, body: dict[str, Any], path: str = "/api/sessions/current") -> None:
        response = httpx.Response(
            status, json=body, headers={"X-Request-ID": "x"}, request=httpx.Request("GET", f"http://x{path}")
        )
        response.elapsed = timedelta()
        Contract(contract.raw).checked(response)

    good = {"status": "ok"}
    answered(200, good, "/healthz")
    for status, body, path in (
        (200, {"status": "fine"}, "/healthz"),
        (200, {}, "/api/sessions/current"),
        (201, good, "/healthz"),
        (200, good, "/nowhere"),
        (404, {"code": "no_active_session"}, "/api/sessions/current"),
    ):
        with pytest.raises(AssertionError):
            answered(status, body, path)
