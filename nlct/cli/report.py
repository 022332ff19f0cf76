"""The demo's report, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from nlct.cli.demo import OLD_EVERY, Figures, Report
from nlct.cli.draw import table
from nlct.cli.measure import Summary
from nlct.cli.output import duration, flows_word

HEADINGS = {
    "auto": "auto",
    "scan": "scan",
    "kernel": "kernel",
    "old": "scan, as on\nan old kernel",
    "mirror": "mirror",
}
ROWS = {
    "min": "min",
    "median": "median",
    "p90": "90 %ile",
    "p99": "99 %ile",
    "max": "max",
    "mean": "mean",
    "total": "total",
    "count": "count",
}


def show(report: Report, console: Console) -> None:
    """Print the report for people."""
    console.print(_machine(report), "")
    console.print(_times(f"A zone of {flows_word(report.zone.zone_flows)}", report.zone))
    console.print(_times("An empty zone", report.empty_zone))
    console.print(_others(report))
    console.print(_notes(report))


def _machine(report: Report) -> Table:
    answers = (
        f"{name} {'yes' if getattr(report.probe, name) else 'no'}" for name in report.probe.evidence
    )
    facts = Table.grid(padding=(0, 2))
    for fact, value in (
        ("kernel", f"Linux {report.kernel}, {report.cpus} CPUs"),
        ("hash table", "unknown" if report.buckets is None else f"{report.buckets:,} buckets"),
        ("flows", f"{report.flows:,} in {report.zones:,} zones"),
        ("probe", ", ".join(answers)),
    ):
        facts.add_row(f"[bold]{fact}[/]", value)
    return facts


def _times(title: str, figures: Figures) -> Table:
    rows = table(f"{title}: milliseconds to flush it")
    rows.add_column("")
    for name, heading in HEADINGS.items():
        refused = name not in figures.times
        rows.add_column(f"{heading}\n(cannot)" if refused else heading, justify="right")
    for field, label in ROWS.items():
        values = (_cell(figures.times.get(name), field) for name in HEADINGS)
        style = "bold" if field == "median" else None
        rows.add_row(label, *values, style=style)
    if figures.to_kernel:
        rows.add_section()
        ratios = (_ratio(figures.to_kernel.get(name)) for name in HEADINGS)
        rows.add_row("to kernel", *ratios, style="bold")
    return rows


def _cell(times: Summary | None, field: str) -> str:
    if times is None:
        return "-"
    value = getattr(times, field)
    return str(value) if field == "count" else f"{value:,.2f}"


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.2f}" if ratio > 0.1 else f"{ratio:.4f}"


def _others(report: Report) -> Table:
    many = report.many_zones
    rows = table("Larger work: milliseconds")
    rows.add_column("")
    rows.add_column("time", justify="right")
    rows.add_column("to kernel", justify="right")
    if many.kernel_one_by_one is not None:
        rows.add_row(
            f"{many.zones} zones, kernel, one by one", f"{many.kernel_one_by_one:,.0f}", "1.00"
        )
    rows.add_row(
        f"{many.zones} zones, one call: {' and '.join(many.one_pass_used)}",
        f"{many.one_pass:,.0f}",
        "-" if many.ratio is None else f"{many.ratio:.3f}",
    )
    rows.add_row("everything (flush_all)", f"{report.flush_all:,.0f}", "")
    return rows


def _notes(report: Report) -> str:
    used, used_empty = (" and ".join(case.auto_used) for case in (report.zone, report.empty_zone))
    if "kernel" in report.zone.times:
        kernel = "to kernel: median of the ratios of pairs measured side by side."
    else:
        kernel = f"Linux {report.kernel} has not been seen to flush one zone and nothing else."
    return "\n".join(
        (
            kernel,
            f"auto used {used} for the zone with flows, {used_empty} for the empty one.",
            f"An old kernel sends every flow; measured in one of {OLD_EVERY} rounds.",
            *_of_a_small_table(report),
            _of_the_mirror(report),
            "Exact: what was flushed is gone, and every other zone kept all its flows."
            if report.exact
            else "NOT EXACT: flows were left, or other zones lost some.",
            f"Measured in {duration(report.seconds)}; nothing is left behind.",
        )
    )


def _of_a_small_table(report: Report) -> list[str]:
    """Say why a scan is not faster than the kernel, where going over buckets is what takes time."""
    small = report.buckets is not None and report.flows < report.buckets
    looking, all_of_it = (case.times["scan"].median for case in (report.empty_zone, report.zone))
    if not small or report.zone.to_kernel.get("scan", 0) < 1 or looking < all_of_it / 2:
        return []
    return [
        f"This table is small: {flows_word(report.flows)} in {report.buckets:,} buckets.",
        "Whoever looks for a zone goes over every bucket, the kernel as well. That takes",
        "most of the time here, and a scan then deletes flow by flow. It does count",
        "them, and keeps nobody waiting.",
    ]


def _of_the_mirror(report: Report) -> str:
    cases = report.zone, report.empty_zone
    if not report.zone.mirror_used:
        return "A mirror needs the sysctl nf_conntrack_events, which is 0."
    said = "The mirror was measured after the others, which its listening slows down."
    if any(case.mirror_used != ["mirror"] for case in cases):
        used, used_empty = (" and ".join(case.mirror_used) for case in cases)
        said += f"\nIt used {used} for the zone with flows, {used_empty} for the empty one."
    return said
