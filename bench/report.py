"""The table on screen, JSON for programs, and `docs/performance.md` with its chart."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import log10
from pathlib import Path

from bench.stage import Row


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")), "?"
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    version = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout
    return {
        "processor": f"{os.cpu_count()} × {model}",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "git": version.split()[-1],
    }


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = ["| work | Modelyard | peer | | ratio | bar | |", "|---|--:|---|--:|--:|--:|---|"]
    for one in rows:
        peer = figure(one.peer, one.unit) if one.peer is not None else ""
        ratio = f"{one.ratio:.2f}" if one.ratio is not None else ""
        sign = "≥ " if one.more_is_better else "≤ "
        bar = (
            "" if one.bar is None else sign + (f"{one.bar:g}" if one.peer_name else figure(one.bar, one.unit))
        )
        verdict = {True: "met", False: "**missed**", None: ""}[one.met]
        lines.append(
            f"| {one.work} | {figure(one.ours, one.unit)} | {one.peer_name} | {peer} "
            f"| {ratio} | {bar} | {verdict} |"
        )
    return "\n".join(lines)


def figure(value: float, unit: str) -> str:
    """A number with its unit, in milliseconds where seconds would be too small."""
    if unit == "s" and value < 0.1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def as_json(rows: Sequence[Row], about: Mapping[str, str]) -> str:
    """Everything, with every sample."""
    return json.dumps(
        {"machine": about, "rows": [{**asdict(one), "ratio": one.ratio} for one in rows]}, indent=1
    )


def chart(rows: Sequence[Row]) -> str:
    """An SVG: one bar for each ratio, on a logarithmic axis around 1; shorter is better."""
    shown = [one for one in rows if one.ratio]
    width, left, line = 760, 330, 24
    height = line * len(shown) + 50

    def place(ratio: float) -> float:
        return left + (min(max(log10(ratio), -2), 1) + 2) / 3 * (width - left - 60)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for value in (0.01, 0.1, 1, 10):
        x = place(value)
        parts.append(f'<line x1="{x:.0f}" y1="20" x2="{x:.0f}" y2="{height - 24}" stroke="#d0d7de"/>')
        parts.append(
            f'<text x="{x:.0f}" y="{height - 8}" text-anchor="middle" fill="#57606a">{value:g}</text>'
        )
    for number, one in enumerate(shown):
        assert one.ratio is not None
        ratio = 1 / one.ratio if one.more_is_better else one.ratio
        y = 24 + number * line
        a, b = sorted((place(1), place(ratio)))
        colour = "#cf222e" if one.met is False else "#1a7f37" if ratio <= 1 else "#bf8700"
        parts.append(f'<text x="{left - 10}" y="{y + 12}" text-anchor="end" fill="#24292f">{one.work}</text>')
        parts.append(f'<rect x="{a:.0f}" y="{y}" width="{max(b - a, 1):.0f}" height="16" fill="{colour}"/>')
        parts.append(f'<text x="{b + 5:.0f}" y="{y + 12}" fill="#57606a">{ratio:.2f}</text>')
    return "\n".join([*parts, "</svg>", ""])


def document(rows: Sequence[Row], about: Mapping[str, str]) -> str:
    """`docs/performance.md`."""
    facts = "\n".join(f"- {name}: {value}" for name, value in about.items())
    return f"""# Performance

<!-- Made by `make bench`; do not edit. -->

Every figure is a median of paired runs, Modelyard and its peer in turn on one machine, in one run of
`make bench` (`bench/run --list` names the parts). Server CPU is the processor time of the whole process
tree. "Raw" is the same request by a client that throws the answer away. Between the parts, and between large
pushes, Modelyard repacks what was pushed, and that is waited for. Ratios travel between machines; seconds do
not.

![Modelyard's time as a share of its peer's](images/performance.svg)

{table(rows)}

Measured on:

{facts}
"""
