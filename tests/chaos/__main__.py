"""`make chaos`: kill everything while shoppers shop, and judge what is left. Fails if a promise was broken."""

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import Campaign
from tests.chaos.faults import KINDS


def main() -> None:
    """Run one campaign and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of traffic (10 to 3600)")
    parser.add_argument("--seed", type=int, help="repeats the plan of faults; printed if not given")
    parser.add_argument("--gap", type=float, default=5, help="seconds between two faults, on average")
    parser.add_argument("--kinds", help=f"comma-separated, of: {', '.join(KINDS)}")
    parser.add_argument("--mutation", help="plant a bug, see tests/chaos/mutations.py")
    parser.add_argument("--folder", type=Path, help="keep data and logs there")
    options = parser.parse_args()
    kinds = options.kinds.split(",") if options.kinds else list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kinds: {', '.join(sorted(unknown))}")
    if not 10 <= options.seconds <= 3600:
        parser.error("--seconds must be from 10 to 3600")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # and leave no process behind
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(folder, options.seconds, seed, options.gap, kinds, options.mutation)
        campaign.run()
    sys.stdout.write(campaign.summary() + "\n")
    sys.exit(1 if campaign.breaches else 0)


if __name__ == "__main__":
    main()
