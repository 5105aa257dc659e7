"""The pictures: one panel each, so that they stay readable on a phone."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import stats

from pipeline.report.collect import MODELS
from pipeline.report.statistics import Spread
from pipeline.tables import printable

_STYLE = {  # the colours of Okabe and Ito, which colour-blind readers can tell apart
    "teacher": {"color": "#000000", "marker": "s"},
    "baseline": {"color": "#D55E00", "marker": "^"},
    "student": {"color": "#0072B2", "marker": "o"},
}
_SIZE_INCHES = (5.2, 3.8)
_DPI = 160


def by_cutoff(
    cutoffs: Sequence[str], values: Mapping[str, Sequence[Spread | None]], *, y_label: str
) -> bytes:
    """PNG of each model's mean at each cut-off, its standard deviation over the seeds as a bar."""
    figure, axes = _figure()
    for shift, (model, spreads) in enumerate(values.items()):
        known = [(x + 0.24 * (shift - 1), spread) for x, spread in enumerate(spreads) if spread]
        axes.errorbar(
            [x for x, _ in known],
            [spread.mean for _, spread in known],
            yerr=[np.nan if spread.sd is None else spread.sd for _, spread in known],
            label=model,
            capsize=4,
            linestyle="none",
            markersize=8,
            **_STYLE[model],
        )
        for x, spread in known:
            axes.annotate(
                f"{spread.mean:.3f}", (x, spread.mean + (spread.sd or 0.0)), xytext=(0, 7),
                textcoords="offset points", ha="center", fontsize=9, color=_STYLE[model]["color"],
            )  # fmt: skip
    axes.set_xticks(range(len(cutoffs)), list(cutoffs))
    axes.set_xlim(-0.5, len(cutoffs) - 0.5)
    axes.margins(y=0.15)
    axes.set(ylabel=y_label)
    return _with_legend(figure, axes, grid="y")


def heat_map(
    cells: Mapping[tuple[float, float], float],
    *,
    x_label: str,
    y_label: str,
    value_label: str,
    title: str,
    limits: tuple[float, float],
) -> bytes:
    """PNG of values over two options, `cells[x, y]`, inf for null; a combination that was not run stays empty."""
    xs, ys = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    grid = np.full((len(ys), len(xs)), np.nan)
    for (x, y), value in cells.items():
        grid[ys.index(y), xs.index(x)] = value
    figure, axes = _figure()
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=limits[0], vmax=limits[1])
    for row, column in itertools.product(range(len(ys)), range(len(xs))):
        value = grid[row, column]
        if not np.isnan(value):
            dark = image.norm(value) < 0.6
            axes.text(
                column, row, f"{value:.4f}", ha="center", va="center",
                color="white" if dark else "black", fontsize=10 if len(xs) <= 6 else 6,
            )  # fmt: skip
    axes.set_xticks(range(len(xs)), [_tick(x) for x in xs])
    axes.set_yticks(range(len(ys)), [_tick(y) for y in ys])
    axes.set(xlabel=_plain(x_label), ylabel=_plain(y_label))
    axes.set_title(_plain(title), fontsize=10)
    figure.colorbar(image, label=_plain(value_label))
    return _png(figure)


def cost_quality(
    points: Sequence[tuple[str, float, float, bool]], *, cost_label: str, quality_label: str
) -> bytes:
    """PNG of points (model, cost, quality, whether on the Pareto front)."""
    figure, axes = _figure()
    front = sorted((cost, quality) for _, cost, quality, on_front in points if on_front)
    axes.step(*zip(*front, strict=True), where="post", color="#999999", linestyle="--", zorder=1)
    for model in MODELS:
        own = [(cost, quality) for name, cost, quality, _ in points if name == model]
        if own:
            axes.scatter(*zip(*own, strict=True), s=45, label=model, alpha=0.85, zorder=2, **_STYLE[model])
    axes.scatter(
        *zip(*front, strict=True),
        s=170,
        facecolors="none",
        edgecolors="#CC0000",
        label="Pareto front",
        zorder=3,
    )
    costs = [cost for _, cost, _, _ in points]
    if min(costs) > 0:
        axes.set_xscale("log")
        span = max(costs) / min(costs)
        ticks = (1,) if span > 100 else (1, 3) if span > 10 else (1, 2, 3, 5, 7)
        axes.xaxis.set_major_locator(LogLocator(subs=ticks))
        axes.xaxis.set_major_formatter("{x:,g}" if max(costs) < 1e6 else "{x:.0e}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(costs) / 1.5, max(costs) * 1.5)
    axes.margins(y=0.15)
    axes.set(xlabel=cost_label, ylabel=quality_label)
    return _with_legend(figure, axes)


def by_bin(
    bins: Sequence[str], values: Mapping[str, Sequence[np.ndarray]], *, x_label: str, y_label: str
) -> bytes:
    """PNG of each model's mean and its standard error over the queries of each bin."""
    figure, axes = _figure()
    for shift, (model, of_bin) in enumerate(values.items()):
        axes.errorbar(
            np.arange(len(bins)) + 0.08 * (shift - 1),
            [float(np.mean(v)) for v in of_bin],
            yerr=[float(stats.sem(v)) if len(v) > 1 else 0.0 for v in of_bin],
            label=model,
            capsize=3,
            linewidth=1.2,
            **_STYLE[model],
        )
    axes.set_xticks(range(len(bins)), list(bins))
    axes.set(xlabel=x_label, ylabel=y_label)
    return _with_legend(figure, axes)


def _tick(value: float) -> str:
    return "null" if value == np.inf else f"{value:g}"


def _figure() -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    return figure, figure.add_subplot()


def _with_legend(figure: Figure, axes: Any, *, grid: str = "both") -> bytes:
    axes.grid(axis=grid, alpha=0.3)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9, columnspacing=1.0,
                  handletextpad=0.4)  # fmt: skip
    return _png(figure)


def _plain(text: str) -> str:
    """At most two lines, with $ escaped for matplotlib."""
    lines = textwrap.wrap(printable(text), 52, max_lines=2, placeholder=" ...")
    return "\n".join(lines).replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
