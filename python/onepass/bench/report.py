"""The table of a measurement, from the JSON document alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from onepass.bench.contestants import FLOAT32, FLOOR, LIMIT, OURS
from onepass.bench.peers import PEERS

Document = dict[str, Any]
_FAILURES = ("raised", "differs", "no memory", "no time")
WIDE = 0.5
"""Interquartile range of a ratio in medians above which there are no means: half of the rounds are then further than
a quarter or so from the median, and another measurement would give another one."""
BUSY = 0.25
"""Load per processor before the start, or share of the processors that others take meanwhile, above which there are no
means. Threads of a step that wait for one that has no processor take as long as the scheduler likes, up to thousands of
times as long, in all rounds alike."""
TORCH = tuple(name for name, peer in PEERS.items() if peer.package == "torch")


def results(case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of a case by name."""
    return {result["name"]: result for result in case["results"]}


def best(case: dict[str, Any], names: Iterable[str]) -> dict[str, Any] | None:
    """Return the smallest ratio to ours, with its quartiles, among those of `names` that computed the right result."""
    found = [
        result["ratio"]
        for name, result in results(case).items()
        if name in names and result["status"] == "ok" and "ratio" in result
    ]
    return min(found, key=itemgetter("median"), default=None)


def is_wide(ratio: dict[str, float]) -> bool:
    """Return whether the rounds of a pair differ by too much for its median to say how the two compare."""
    return ratio["high"] - ratio["low"] > WIDE * ratio["median"]


def busy(document: Document) -> str | None:
    """Return what else the machine did before or while it was measured, or None if that was little enough."""
    load, processors = document["machine"]["load_before"], document["machine"]["processors"]
    of_all = f"{processors} processor{'s' if processors > 1 else ''}"
    if load is not None and load > BUSY * processors:
        return f"load {load} on {of_all} before the start"
    others = [case.get("others") or 0.0 for case in document["cases"]]
    disturbed = sum(used > BUSY * processors for used in others)
    if disturbed:
        return f"other programs took up to {max(others)} of {of_all} in {disturbed} of {len(others)} cases"
    return None


def selected(
    document: Document,
    *,
    models: Sequence[str] | None = None,
    optimizers: Sequence[str] | None = None,
    peers: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
) -> Document:
    """Return the document with these cases and peers only; None means all."""
    wanted = {"model": models, "optimizer": optimizers, "dtype": dtypes, "threads": threads}
    left_out = PEERS.keys() - set(PEERS if peers is None else peers)
    cases = [
        {**case, "results": [r for r in case["results"] if r["name"] not in left_out]}
        for case in document["cases"]
        if all(values is None or case[key] in values for key, values in wanted.items())
    ]
    return {**document, "cases": cases}


def peers_of(document: Document) -> list[str]:
    """Return the peers that were timed in any case, in the order of the list of peers."""
    timed = {r["name"] for case in document["cases"] for r in case["results"] if "ratio" in r}
    return [name for name in PEERS if name in timed]


def table(document: Document) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows; quartiles stand behind the ratios."""
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
            row.append(_inverse(found.get(FLOAT32, {})))
        row += [_cell(found.get(name, {})) for name in peers]
        smallest = best(case, PEERS)
        doubt = "?" if smallest and is_wide(smallest) else ""
        rows.append([*row, number(smallest["median"]) + doubt if smallest else ""])
    return [*headings, *(name.replace("-", " ") for name in peers), "best peer"], rows


def _cell(result: dict[str, Any]) -> str:
    if "ratio" not in result:
        status = str(result.get("status", ""))
        return status if status in _FAILURES else "-"
    ratio = result["ratio"]
    text = f"{number(ratio['median'])} ({number(ratio['low'])} to {number(ratio['high'])})"
    return text + (" differs" if result["status"] == "differs" else "")


def _inverse(result: dict[str, Any]) -> str:
    """Return our time in those of another: what is small is good."""
    if "ratio" not in result:
        return str(result.get("status", ""))
    turned = {"median": "median", "low": "high", "high": "low"}
    ratio = {name: 1 / result["ratio"][other] for name, other in turned.items()}
    return _cell({**result, "ratio": ratio})


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
    """Return the lines below the table: means or why there are none, what failed."""
    lines = _means(document)
    if any(FLOAT32 in results(case) for case in document["cases"]):
        lines.append(
            "x float32: our time in steps of plain float32 from the same numbers. How numbers are kept in fewer bits is "
            "every package's own: results have to be close, not the same."
        )
    failures: dict[str, list[str]] = {}
    for case in document["cases"]:
        for name, result in results(case).items():
            if result["status"] in _FAILURES:
                what = f"{name} {result['status']}: {result['detail']}"
                failures.setdefault(what, []).append(title(case))
    lines += [f"{what} ({', '.join(where)})" for what, where in failures.items()]
    lines += [f"Left out for lack of time: {name}." for name in document["left_out"]]
    if document.get("interrupted"):
        lines.append("The measurement was interrupted: these are the cases before that.")
    return lines


def _means(document: Document) -> list[str]:
    if state := busy(document):
        return [
            f"No means: the machine was busy ({state}), so that ratios may be those of threads that wait for a "
            "processor. Measure again when it is quiet."
        ]
    lines = []
    for whom, names in (("torch's best way", TORCH), ("the best peer", tuple(PEERS))):
        pairs = [(case, ratio) for case in document["cases"] if (ratio := best(case, names))]
        wide = [title(case) for case, ratio in pairs if is_wide(ratio)]
        if wide:
            lines.append(
                f"Against {whom}: no mean, since the quartiles of {len(wide)} of {len(pairs)} pairs are more than "
                f"{WIDE:g} of the median apart ({', '.join(wide)}). Measure again, on a quiet machine or with more "
                "--rounds."
            )
        elif pairs:
            low, mean, high = (
                statistics.geometric_mean(ratio[key] for _, ratio in pairs)
                for key in ("low", "median", "high")
            )
            slower = sum(ratio["median"] < 1 for _, ratio in pairs)
            lines.append(
                f"Against {whom}: {mean:.2f} times as fast (geometric mean of {len(pairs)} pairs; of their quartiles "
                f"{low:.2f} to {high:.2f}), slower in {slower}."
            )
    if any((ratio := best(case, PEERS)) and is_wide(ratio) for case in document["cases"]):
        lines.append(f"?: quartiles more than {WIDE:g} of the median apart.")
    return lines


def title(case: dict[str, Any]) -> str:
    """Return model and optimizer of a case."""
    return f"{case['title']} / {case['optimizer']}"


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
