"""The comparison as a picture, if matplotlib is there (the dependency group `bench`)."""

from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.compare import Comparison

COLOURS: Final = {"direct": "#8d99ae", "textbook": "#e07a5f", "ours": "#2a6f97", "ours, accept alone": "#9ecae1"}
PANELS: Final = (("rate", "sessions per second", "linear"), ("p50", "p50, ms", "log"), ("p99", "p99, ms", "log"))


def draw(result: Comparison, file: Path) -> None:
    """Bars of the medians, lines from the least to the greatest round."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("No picture: matplotlib is missing (`uv sync --group bench`).")
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures, the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(12, 3.6), layout="constrained")
    for axis, (name, title, scale) in zip(axes, PANELS, strict=True):
        for number, load in enumerate(result.loads):
            _bars(axis, result, load, name, number)
        axis.set_title(title, fontsize=10)
        axis.set_yscale(scale)
        axis.set_xticks(range(len(result.clients)), [str(clients) for clients in result.clients])
        axis.set_xlabel("clients")
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(result.loads), frameon=False
    )
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def _bars(axis: Any, result: Comparison, load: str, name: str, number: int) -> None:
    values = [[getattr(one, name) for one in result.measured[load, clients]] for clients in result.clients]
    middle = [median(some) for some in values]
    spread = [[m - min(some) for m, some in zip(middle, values, strict=True)],
              [max(some) - m for m, some in zip(middle, values, strict=True)]]  # fmt: skip
    width = 0.8 / len(result.loads)
    places = [x + (number - (len(result.loads) - 1) / 2) * width for x in range(len(values))]
    axis.bar(places, middle, width, yerr=spread, label=load, color=COLOURS[load], error_kw={"elinewidth": 0.8})
