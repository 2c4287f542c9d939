"""The garbage collector of a process that runs for long."""

import gc
from typing import Final

ALLOCATIONS: Final = 50_000  # between collections, of objects that may hold others: a few megabytes


def settle() -> None:
    """Look no more at what the start has made, and less often at the rest.

    As it is set, Python looks at all modules, classes and functions again and again while requests come and go: a
    tenth to a fourth of the API's CPU time, and its longest pauses.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 50)
