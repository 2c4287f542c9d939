"""wrk's histogram, taken back to what it counted."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latencies import percentile, uncorrected


def corrected(counts: dict[int, int], interval: int) -> dict[int, int]:
    """As wrk's stats_correct does it."""
    found = Counter(counts)
    for value in range(2 * interval, max(counts) + 1):
        added = value - interval
        while found[value] and added > interval:
            found[added] += found[value]
            added -= interval
    return dict(found)


@given(st.dictionaries(st.integers(1, 2_000), st.integers(1, 50), min_size=1), st.integers(1, 500))
def test_the_correction_can_be_taken_back(counts: dict[int, int], interval: int) -> None:
    assert uncorrected(corrected(counts, interval), interval) == counts


def test_nothing_was_corrected() -> None:
    assert uncorrected({5: 1, 100: 2}, 0) == {5: 1, 100: 2}


def test_percentiles_are_values_that_were_counted() -> None:
    counts = {10: 98, 20: 1, 30: 1}
    assert [percentile(counts, share) for share in (0.5, 0.98, 0.99, 1.0)] == [10, 10, 20, 30]
