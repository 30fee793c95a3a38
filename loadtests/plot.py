"""One picture per scenario from report.json: rates above, latencies below, and marks where a node was killed or joined.

python loadtests/plot.py FOLDER     (in the environment that has matplotlib)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import orjson
from matplotlib import pyplot as plt
from matplotlib import ticker

KILLED: Final = "#c0392b"
JOINED: Final = "#27855a"


def draw(one: dict[str, Any], folder: Path) -> None:
    series = one["series"]
    seconds = [
        second + 0.5 for second in range(len(series["requests"]))
    ]  # each value is that of a whole second
    figure, (rates, latencies) = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
    rates.set_title(f"{one['title']}: {one['users']} callers")
    rates.plot(seconds, series["accepted"], label="tasks answered", color="#2c6fbb")
    rates.plot(seconds, series["finished"], label="tasks done", color="#e08a1e")
    rates.plot(seconds, series["not_accepted"], label="requests not accepted", color=KILLED, linestyle=":")
    rates.set_ylabel("per second")
    latencies.plot(seconds, _gaps(series["p99_ms"]), label="answer p99", color="#7d3c98")
    latencies.plot(seconds, _gaps(series["p50_ms"]), label="answer p50", color="#2c6fbb")
    latencies.set_yscale("log")
    latencies.set_ylabel("milliseconds")
    latencies.set_xlabel("seconds")
    for axes in (rates, latencies):
        axes.grid(visible=True, alpha=0.3)
        for at_s, text in one["marks"]:
            axes.axvline(at_s, color=KILLED if "killed" in text else JOINED, linestyle="--")
    for at_s, text in one["marks"]:
        rates.annotate(
            text,
            (at_s, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="bottom",
            ha="right",
            fontsize=8,
        )
    rates.axvline(one["load_s"], color="grey", linestyle=":", label="end of the load")
    latencies.axvline(one["load_s"], color="grey", linestyle=":")
    latencies.yaxis.set_major_formatter("{x:g}")
    latencies.yaxis.set_minor_formatter(ticker.LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    rates.yaxis.set_major_formatter("{x:,g}")
    rates.set_ylim(bottom=0)
    for axes in (rates, latencies):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.savefig(folder / f"{one['user']}.png", dpi=110)
    plt.close(figure)


def _gaps(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def main(folder: Path) -> None:
    for one in orjson.loads((folder / "report.json").read_bytes())["scenarios"]:
        draw(one, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
