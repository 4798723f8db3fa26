"""The table of a measurement, from the JSON document alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from onepass.bench.contestants import FLOAT32, FLOOR, LIMIT, OURS
from onepass.bench.peers import PEERS

Document = dict[str, Any]
_FAILURES = ("raised", "differs", "no memory", "no time")
TORCH = tuple(name for name, peer in PEERS.items() if peer.package == "torch")


def results(case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of a case by name."""
    return {result["name"]: result for result in case["results"]}


def best(case: dict[str, Any], names: Iterable[str]) -> float | None:
    """Return the smallest ratio to ours among those of `names` that computed the right result."""
    found = [
        result["ratio"]["median"]
        for name, result in results(case).items()
        if name in names and result["status"] == "ok" and "ratio" in result
    ]
    return min(found, default=None)


def peers_of(document: Document) -> list[str]:
    """Return the peers that were timed in any case, in the order of the list of peers."""
    timed = {r["name"] for case in document["cases"] for r in case["results"] if "ratio" in r}
    return [name for name in PEERS if name in timed]


def table(document: Document, *, spread: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows; with `spread`, quartiles stand behind the ratios."""
    peers = peers_of(document)
    several = {
        key: len({case[key] for case in document["cases"]}) > 1 for key in ("dtype", "threads")
    }
    extra = [key for key, needed in several.items() if needed]
    headings = [
        "model",
        "optimizer",
        *extra,
        "onepass",
        "ns/param",
        "GB/s",
        "of limit",
        "x empty step",
    ]
    reduced = any(FLOAT32 in results(case) for case in document["cases"])
    if reduced:
        headings.append("x float32")
    rows = []
    for case in document["cases"]:
        found = results(case)
        own = found[OURS]
        row = [case["title"], case["optimizer"], *(str(case[key]) for key in extra)]
        if "seconds" not in own:
            rows.append([*row, own["status"], *[""] * (4 + reduced + len(peers) + 1)])
            continue
        row += [
            duration(own["seconds"]["median"]),
            f"{own['nanoseconds_per_parameter']:.3g}",
            f"{own['gigabytes_per_second']:.1f}",
            f"{found[LIMIT]['ratio']['median']:.2f}" if "ratio" in found[LIMIT] else "",
            number(1 / found[FLOOR]["ratio"]["median"]) if "ratio" in found[FLOOR] else "",
        ]
        if reduced:
            row.append(_inverse(found.get(FLOAT32, {}), spread))
        row += [_cell(found.get(name, {}), spread) for name in peers]
        smallest = best(case, PEERS)
        rows.append([*row, "" if smallest is None else number(smallest)])
    return [*headings, *(name.replace("-", " ") for name in peers), "best peer"], rows


def _cell(result: dict[str, Any], spread: bool) -> str:
    if "ratio" not in result:
        status = str(result.get("status", ""))
        return status if status in _FAILURES else "-"
    ratio = result["ratio"]
    text = number(ratio["median"])
    if spread:
        text += f" ({number(ratio['low'])} to {number(ratio['high'])})"
    return text + (" differs" if result["status"] == "differs" else "")


def _inverse(result: dict[str, Any], spread: bool) -> str:
    """Return our time in those of another: what is small is good."""
    if "ratio" not in result:
        return str(result.get("status", ""))
    turned = {"median": "median", "low": "high", "high": "low"}
    ratio = {name: 1 / result["ratio"][other] for name, other in turned.items()}
    return _cell({**result, "ratio": ratio}, spread)


def number(value: float) -> str:
    """Return a ratio with three digits, or all of them before the point."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Return a time as people write it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def notes(document: Document) -> list[str]:
    """Return the lines below the table: means, what failed, what disturbs."""
    lines = []
    for title, names in (("torch's best way", TORCH), ("the best peer", tuple(PEERS))):
        found = [ratio for case in document["cases"] if (ratio := best(case, names)) is not None]
        if found:
            slower = sum(ratio < 1 for ratio in found)
            mean = statistics.geometric_mean(found)
            lines.append(
                f"Against {title}: {mean:.2f} times as fast (geometric mean of {len(found)} pairs), slower in {slower}."
            )
    if any(FLOAT32 in results(case) for case in document["cases"]):
        lines.append(
            "x float32: our time in steps of plain float32 from the same numbers. How numbers are kept in fewer bits is "
            "every package's own: results have to be close, not the same."
        )
    failures: dict[str, list[str]] = {}
    for case in document["cases"]:
        for name, result in results(case).items():
            if result["status"] in _FAILURES:
                where = f"{case['title']} / {case['optimizer']}"
                failures.setdefault(f"{name} {result['status']}: {result['detail']}", []).append(
                    where
                )
    lines += [f"{what} ({', '.join(where)})" for what, where in failures.items()]
    lines += [f"Left out for lack of time: {name}." for name in document["left_out"]]
    before, processors = document["machine"]["load_before"], document["machine"]["processors"]
    if before is not None and before > 0.25 * processors:
        lines.append(
            f"The machine was busy (load {before} before the start): do not trust these figures."
        )
    return lines


def markdown(document: Document) -> str:
    """Return table, notes and origin as Markdown."""
    headings, rows = table(document)
    lines = [f"| {' | '.join(headings)} |", "|---|---|" + "---:|" * (len(headings) - 2)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    machine, method = document["machine"], document["method"]
    threads = ", ".join(str(n) for n in sorted({case["threads"] for case in document["cases"]}))
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines += [
        "",
        "Columns of peers: their time divided by that of onepass, median of paired rounds (quartiles).",
        "",
        *(f"* {note}" for note in notes(document)),
        "",
        f"{machine['processor']}, {machine['instruction_set']}, {threads} thread(s), {machine['system']}; {versions}; "
        f"{method['rounds']} rounds, turns of {method['turn'] * 1000:g} ms. Command: `{document['command']}`",
    ]
    return "\n".join(lines) + "\n"
