"""wrk's histogram of latencies, taken back to what it counted."""

from collections.abc import Mapping


def uncorrected(corrected: Mapping[int, int], interval: int) -> dict[int, int]:
    """What wrk counted, before it added samples for requests that a constant rate would have sent meanwhile.

    For each latency n of at least twice the mean interval, wrk adds n - interval, n - 2 * interval, ... down to the
    interval (stats_correct). From the largest downwards that can be taken back exactly.

    Args:
        corrected: how often each latency, in microseconds, stands in wrk's histogram.
        interval: microseconds between two requests of one client, as wrk computes it; 0 if it corrected nothing.
    """
    counts = dict(corrected)
    if not interval:
        return counts
    for value in sorted(counts, reverse=True):
        if value < 2 * interval:
            break
        added = value - interval
        while counts[value] and added > interval:
            counts[added] -= counts[value]
            added -= interval
    return {value: count for value, count in counts.items() if count}


def percentile(counts: Mapping[int, int], share: float) -> int:
    """The smallest value that at least `share` of all counted values do not exceed."""
    left = share * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    raise ValueError("nothing was counted")
