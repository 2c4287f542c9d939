"""`python -m benchmarks COMMAND`."""

import argparse

from benchmarks import compare, large, report, upkeep, waits
from benchmarks.load import need_wrk
from benchmarks.systems import CHOICES, LOADS


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("compare", help="direct, textbook and this service, side by side")
    one.add_argument("--quick", action="store_true", help="two rounds of a second at 1 and 32 clients, nothing chosen")
    one.add_argument("--loads", default=",".join(LOADS).replace(", ", "_"), help="%(default)s")
    one.add_argument("--clients", help="1,8,32,128")
    one.add_argument("--rounds", type=int, help="5")
    one.add_argument("--seconds", type=int, help="of one measurement, 5")
    one.add_argument("--as-chosen", action="store_true", help="do not measure which numbers of processes serve best")
    one.add_argument("--set", action="append", default=[], metavar="SYSTEM.KEY=VALUE", help="e.g. ours.api=2")
    one.add_argument("--out", help="folder for the results; without it they are only printed")
    two = commands.add_parser("large", help="tables of millions of sessions against an empty one")
    two.add_argument("--rows", default="0,1000000", help="%(default)s; the first is what the others are compared with")
    two.add_argument("--rounds", type=int, default=5)
    two.add_argument("--seconds", type=int, default=3)
    two.add_argument("--out")
    three = commands.add_parser("upkeep", help="the sweeps against one raw statement, and what shoppers notice")
    three.add_argument("--rows", type=int, default=1_000_000, help="%(default)s to expire, and as many to delete")
    three.add_argument("--rounds", type=int, default=5)
    three.add_argument("--seconds", type=int, default=10, help="of one measurement of completes")
    three.add_argument("--out")
    four = commands.add_parser("waits", help="thousands of clients that long-poll one API process")
    four.add_argument("--clients", type=int, default=5_000)
    four.add_argument("--arrive", type=float, default=30, help="seconds over which they come; 0 is all at once")
    four.add_argument("--seconds", type=int, default=60, help="that all of them only wait")
    four.add_argument("--tell", type=int, default=1_000, help="how many results are told then")
    four.add_argument("--rate", type=float, default=20, help="of those, a second")
    four.add_argument("--out")
    options = parser.parse_args()
    need_wrk()
    if options.command == "compare":
        _compare(options)
    elif options.command == "large":
        found = large.large([int(n) for n in options.rows.split(",")], options.rounds, options.seconds)
        large.report(found, options.out)
    elif options.command == "upkeep":
        upkeep.report(upkeep.upkeep(options.rows, options.rounds, options.seconds), options.out)
    elif options.command == "waits":
        waits.report(
            waits.waits(options.clients, options.arrive, options.seconds, options.tell, options.rate), options.out
        )


def _compare(options: argparse.Namespace) -> None:
    clients = options.clients or ("1,32" if options.quick else "1,8,32,128")
    choices = dict(CHOICES)
    for setting in options.set:
        system, _, rest = setting.partition(".")
        key, _, value = rest.partition("=")
        kind = type(getattr(choices[system], key))
        choices[system] = compare.Choice(**{**choices[system].differences(), key: kind(value)})
    result = compare.compare(
        [load.replace("_", ", ") for load in options.loads.split(",")],
        [int(n) for n in clients.split(",")],
        options.rounds or (2 if options.quick else 5),
        options.seconds or (1 if options.quick else 5),
        choices if options.quick or options.as_chosen or options.set else None,
    )
    report.report(result, options.out)


if __name__ == "__main__":
    main()
