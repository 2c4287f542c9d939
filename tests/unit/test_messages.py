"""What API, beat and workers call each other."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from workers.messages import SESSION_TASKS, pack_ids, unpack_ids


@given(st.lists(st.uuids(), max_size=20))
def test_ids_come_out_of_a_word_as_they_went_in(ids: list[UUID]) -> None:
    assert unpack_ids(pack_ids(ids)) == [task_id.bytes for task_id in ids]


@given(st.lists(st.uuids(), max_size=5), st.binary(max_size=15))
def test_what_is_left_over_in_a_word_is_dropped(ids: list[UUID], left_over: bytes) -> None:
    assert unpack_ids(pack_ids(ids) + left_over) == [task_id.bytes for task_id in ids]


@given(st.binary(max_size=100))
def test_no_word_is_too_strange_to_be_read(word: bytes) -> None:
    assert b"".join(unpack_ids(word)) == word[: len(word) // 16 * 16]


def test_the_tasks_have_the_names_of_the_contract() -> None:
    assert sorted(SESSION_TASKS.values()) == [
        "sessions.complete",
        "sessions.create",
        "sessions.recover",
        "sessions.renew",
    ]
