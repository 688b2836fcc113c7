"""What a session used of its machine, as blocks of a page: figures, plots over its epochs, trends, energy, devices.

A pure function of the session's events; samples that no event tells of are in the session's folder, for programs.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from contracts.errors import count_of
from contracts.replies import ResourcesReply
from contracts.resource_monitor import GpuUsage, ResourcesMeasured, ResourcesSummarised
from contracts.session import SessionState
from runtime.views.blocks import Block, Content, Curves, PageColumn, PageTable, Phrase, Series, Text, key_figures
from runtime.views.formatting import duration, finite, in_words, size
from runtime.views.view import figure_in_words

FEWEST = 6
"""Summaries of epochs from which on a trend is told."""


class Trend(NamedTuple):
    """A figure at the beginning of a session and at its end, each the mean over a third of its epochs."""

    name: str
    first: float
    last: float
    per_hour: float
    """What the line that fits best rises in an hour."""


def resource_blocks(session: SessionState) -> list[Block]:
    """Everything that is known of what a session used; nothing before an event tells of it."""
    training = session.training
    measured, summed = list(training.measured), training.resources
    return [
        *_figures(measured, summed),
        *_plots(measured),
        *_trends(measured),
        *_devices(summed),
        *_profile(session),
        *_advice(session),
    ]


def resources_text(used: ResourcesReply) -> str:
    """What a session used, in a line."""
    memory = "" if used["session_memory_bytes"] is None else f", session up to {size(used['session_memory_bytes'])}"
    gpu = "" if used["gpu_percent"] is None else f", GPU {used['gpu_percent']:.0f} %"
    energy = f", {used['joules']:.0f} J" if used["joules"] else ""
    alerts = f", {count_of(used['alerts'], 'alert')}" if used["alerts"] else ""
    return f"CPU {used['cpu_percent']:.0f} %, memory up to {size(used['memory_bytes'])}{memory}{gpu}{energy}{alerts}"


def trend(name: str, hours: Sequence[float], figures: Sequence[float]) -> Trend | None:
    """The trend of a figure over time; None of too few, or where no time passed."""
    count = len(figures)
    if count < FEWEST:
        return None
    third, middle, mean = count // 3, sum(hours) / count, sum(figures) / count
    spread = sum((hour - middle) ** 2 for hour in hours)
    if not spread > 0:
        return None
    rise = sum((hour - middle) * (figure - mean) for hour, figure in zip(hours, figures, strict=True)) / spread
    return Trend(name, sum(figures[:third]) / third, sum(figures[-third:]) / third, rise)


def _figures(measured: Sequence[ResourcesMeasured], summed: ResourcesSummarised | None) -> Iterator[Block]:
    if summed is not None:
        joules = sum(finite(gpu.joules) for gpu in summed.gpus)
        steps = measured[-1].step if measured else 0
        energy = f"{joules:.0f} J ({joules / 3.6e6:.4f} kWh)" + (f", {joules / steps:.3g} J per step" if steps else "")
        rows: list[tuple[str, Content]] = [
            ("samples", f"{finite(summed.samples):.0f}, one per second of {duration(finite(summed.seconds))}"),
            (
                "CPU of the machine",
                f"{summed.cpu_percent_mean:.0f} % on average, {summed.cpu_percent_max:.0f} % at most",
            ),
            ("memory of the machine", f"up to {size(summed.memory_bytes_max)} of {size(summed.memory_total_bytes)}"),
            ("disk", f"{size(summed.disk_free_bytes)} free, {_moved(summed.read_bytes, summed.written_bytes)}"),
            ("network", f"{size(summed.received_bytes)} received, {size(summed.sent_bytes)} sent"),
            ("energy of the GPUs", energy if joules else ""),
        ]
        yield key_figures(*rows)
        yield from _processes(summed)
    elif measured:
        newest = measured[-1]
        yield key_figures(
            ("CPU of the machine", f"{newest.cpu_percent:.0f} % in epoch {newest.epoch}"),
            ("memory of the session", size(newest.session_memory_bytes)),
        )


def _processes(summed: ResourcesSummarised) -> Iterator[Block]:
    rows = tuple(
        (
            purpose,
            finite(used.processes),
            finite(used.cpu_seconds),
            finite(used.memory_bytes_max),
            _moved(used.read_bytes, used.written_bytes),
            finite(used.gpu_memory_bytes_max) or None,
        )
        for purpose, used in summed.children.items()
    )
    columns = (
        PageColumn("processes for"),
        PageColumn("how many", "count"),
        PageColumn("CPU time", "seconds"),
        PageColumn("most memory", "bytes"),
        PageColumn("disk"),
        PageColumn("GPU memory", "bytes"),
    )
    if rows:
        yield PageTable(columns, rows)


def _plots(measured: Sequence[ResourcesMeasured]) -> Iterator[Block]:
    if len(measured) < 2:
        return
    epochs = [finite(one.epoch) for one in measured]
    unknown = float("nan")

    def series(name: str, figures: Sequence[float | None]) -> tuple[Series, ...]:
        known = [unknown if figure is None else finite(figure) for figure in figures]
        return () if all(figure != figure for figure in known) else (Series(name, epochs, known),)  # noqa: PLR0124

    shares = (
        *series("CPU of the machine", [one.cpu_percent for one in measured]),
        *series("GPU", [one.gpu_percent for one in measured]),
        *series("time waiting for disks", [one.waiting_percent for one in measured]),
    )
    yield Curves("Use in percent", shares, x_name="epoch", y_scale="linear", file="resources_percent")
    memory = (
        *series("session", [finite(one.session_memory_bytes) / 1e6 for one in measured]),
        *series("machine", [finite(one.memory_bytes) / 1e6 for one in measured]),
        *series(
            "GPU", [None if one.gpu_memory_bytes is None else finite(one.gpu_memory_bytes) / 1e6 for one in measured]
        ),
    )
    yield Curves("Memory in MB", memory, x_name="epoch", y_scale="linear", file="resources_memory")
    power = series(
        "GPUs", [None if one.joules is None or not one.seconds > 0 else one.joules / one.seconds for one in measured]
    )
    if power:
        yield Curves("Power in W", power, x_name="epoch", y_scale="linear", file="resources_power")


def _trends(measured: Sequence[ResourcesMeasured]) -> Iterator[Block]:
    hours, passed = [], 0.0
    for one in measured:
        passed += finite(one.seconds) / 3600
        hours.append(passed)
    lasted = [finite(one.seconds) / finite(max(one.epochs, 1)) for one in measured]
    kinds: tuple[tuple[str, Sequence[float], str], ...] = (
        ("seconds per epoch", lasted, ""),
        ("memory of the session", [finite(one.session_memory_bytes) for one in measured], "bytes"),
        ("CPU of the session in % of a core", [finite(one.session_cpu_percent) for one in measured], ""),
    )
    rows: list[tuple[Content, ...]] = []
    for name, figures, unit in kinds:
        found = trend(name, hours, figures)
        if found is None:
            continue
        first, last = (size(each) if unit else f"{each:.4g}" for each in (found.first, found.last))
        changed = (found.last - found.first) / found.first if found.first else 0.0
        rise = size(abs(found.per_hour)) if unit else f"{abs(found.per_hour):.4g}"
        sign = "-" if found.per_hour < 0 else "+"
        rows.append((name, first, last, Phrase(f"{changed:+.0%}", "warn" if changed > 0.2 else ""), f"{sign}{rise}"))
    columns = tuple(map(PageColumn, ("trend of", "first third", "last third", "change", "in an hour")))
    if rows:
        yield PageTable(columns, tuple(rows))


def _devices(summed: ResourcesSummarised | None) -> Iterator[Block]:
    rows = tuple(
        (
            gpu.name,
            f"{gpu.percent_mean:.0f} %",
            f"{size(gpu.memory_bytes_max)} of {size(gpu.memory_total_bytes)}",
            f"{gpu.watts_mean:.0f} W, {gpu.celsius_max:.0f} °C, {gpu.mhz_mean:.0f} MHz",
            ", ".join(f"{reason} {seconds:.0f} s" for reason, seconds in gpu.throttled.items()),
            _errors(gpu),
        )
        for gpu in (summed.gpus if summed else ())
    )
    columns = tuple(map(PageColumn, ("GPU", "in use", "most memory", "power, heat, clock", "held down by", "errors")))
    if rows:
        yield PageTable(columns, rows)


def _profile(session: SessionState) -> Iterator[Block]:
    found = session.training.profile
    if found is None:
        return
    total = sum(finite(one.cpu_ms) for one in found.operators) + finite(found.others_ms)
    rows = tuple(
        (one.name, finite(one.calls), finite(one.cpu_ms), finite(one.cpu_ms) / total if total else None, one.device_ms)
        for one in found.operators
    )
    left = f"All others took {found.others_ms:.4g} ms." if found.others_ms else ""
    steps, first = finite(found.steps), finite(found.first)
    yield Text(f"Profile of {steps:.0f} steps behind step {first:.0f}, {found.seconds:.3g} s while it was taken:")
    columns = (
        PageColumn("operator", "code"),
        PageColumn("calls", "number"),
        PageColumn("own time", "number", "ms"),
        PageColumn("share", "share"),
        PageColumn("on the device", "number", "ms"),
    )
    yield PageTable(columns, rows, left)


def _advice(session: SessionState) -> Iterator[Block]:
    given, taken = session.training.advice, session.training.advice_taken
    if given:
        rows = tuple(
            (
                in_words(one.options),
                in_words(one.instead_of),
                one.reason,
                f"{one.factor:.4g} times the {figure_in_words(one)}",
                one.value,
            )
            for one in given
        )
        names = ("advice", "instead of", "because", "promises")
        yield PageTable((*map(PageColumn, names), PageColumn("was here", "number")), rows)
    if taken:
        judged = tuple(
            (
                in_words(one.options),
                Phrase(one.session, code=True),
                figure_in_words(one),
                one.before,
                one.after,
                Phrase("held" if one.held else "did not hold", "good" if one.held else "warn"),
            )
            for one in taken
        )
        columns = tuple(map(PageColumn, ("advice taken", "of session", "figure")))
        figures = PageColumn("before", "number"), PageColumn("after", "number"), PageColumn("promise")
        yield PageTable((*columns, *figures), judged)


def _errors(gpu: GpuUsage) -> Phrase:
    xids = ", ".join(f"{finite(xid):.0f}" for xid in gpu.xids[:16]) or "none"
    told = f"{finite(gpu.ecc_uncorrected):.0f} uncorrected, XID {xids}"
    return Phrase(told, "bad" if gpu.ecc_uncorrected or gpu.xids else "")


def _moved(read: float, written: float) -> str:
    return f"{size(read)} read, {size(written)} written"
