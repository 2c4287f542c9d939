"""`python -m benchmarks COMMAND`: compare | large | upkeep | bloat | waits | scale. `--help` tells more of each."""

import argparse
from collections.abc import Callable

from benchmarks import bloat, compare, large, report, scale, upkeep, waits
from benchmarks.load import need_wrk
from benchmarks.systems import CHOICES, LOADS, Choice

Options = argparse.Namespace


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, about: str, run: Callable[[Options], None]) -> Callable[..., argparse.Action]:
        one = commands.add_parser(name, help=about, description=about)
        one.add_argument("--out", metavar="FOLDER", help="keep the results there, as Markdown and JSON")
        one.set_defaults(run=run)
        return one.add_argument

    add = command("compare", "direct, textbook and this service, side by side", _compare)
    add("--quick", action="store_true", help="two rounds of a second at 1 and 32 clients, nothing chosen")
    add("--loads", default=";".join(LOADS), help="%(default)s")
    add("--clients", help="1,8,32,128")
    add("--rounds", type=int, help="5")
    add("--seconds", type=int, help="of one measurement; 5")
    add("--as-chosen", action="store_true", help="do not measure first which numbers of processes serve best")
    add("--set", action="append", default=[], metavar="SYSTEM.KEY=VALUE", help="a number of processes, e.g. ours.api=2")

    add = command("large", "tables of millions of sessions against an empty one", _large)
    add("--rows", type=_numbers, default="0,1000000", help="%(default)s; the others are compared with the first")
    add("--rounds", type=int, default=5)
    add("--seconds", type=int, default=3, help="of one measurement")

    add = command("upkeep", "the sweeps against one raw statement, and what shoppers notice of them", _upkeep)
    add("--rows", type=int, default=1_000_000, help="%(default)s to expire, and as many to delete")
    add("--rounds", type=int, default=5)
    add("--seconds", type=int, default=10, help="of one measurement of completes")

    add = command("bloat", "the table's size after rounds of sessions that came and went", _bloat)
    add("--rows", type=int, default=100_000, help="%(default)s a round, and as many that stay")
    add("--rounds", type=int, default=10)

    add = command("waits", "thousands of clients that long-poll one API process", _waits)
    add("--clients", type=int, default=5_000)
    add("--arrive", type=float, default=30, help="seconds over which they come; 0 is all at once")
    add("--seconds", type=int, default=60, help="that all of them only wait")
    add("--tell", type=int, default=1_000, help="how many results are told then")
    add("--rate", type=float, default=20, help="of those, a second")

    add = command("scale", "numbers of workers and API processes", _scale)
    add("--api", type=_numbers, default="1,2")
    add("--workers", type=_numbers, default="1,2,4")
    add("--clients", type=int, default=128)
    add("--rounds", type=int, default=3)
    add("--seconds", type=int, default=5, help="of one measurement")

    options = parser.parse_args()
    need_wrk()
    options.run(options)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _compare(options: Options) -> None:
    result = compare.compare(
        options.loads.split(";"),
        _numbers(options.clients or ("1,32" if options.quick else "1,8,32,128")),
        options.rounds or (2 if options.quick else 5),
        options.seconds or (1 if options.quick else 5),
        _choices(options.set) if options.quick or options.as_chosen or options.set else None,
    )
    report.report(result, options.out)


def _choices(settings: list[str]) -> dict[str, Choice]:
    choices = dict(CHOICES)
    for setting in settings:
        system, _, rest = setting.partition(".")
        key, _, value = rest.partition("=")
        kind = type(getattr(choices[system], key))
        choices[system] = Choice(**{**choices[system].differences(), key: kind(value)})
    return choices


def _large(options: Options) -> None:
    large.report(large.large(options.rows, options.rounds, options.seconds), options.out)


def _upkeep(options: Options) -> None:
    upkeep.report(upkeep.upkeep(options.rows, options.rounds, options.seconds), options.out)


def _bloat(options: Options) -> None:
    bloat.report(bloat.bloat(options.rows, options.rounds), options.out)


def _waits(options: Options) -> None:
    result = waits.waits(options.clients, options.arrive, options.seconds, options.tell, options.rate)
    waits.report(result, options.out)


def _scale(options: Options) -> None:
    result = scale.scale(options.api, options.workers, options.clients, options.rounds, options.seconds)
    scale.report(result, options.out)


if __name__ == "__main__":
    main()
