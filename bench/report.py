"""RESULTS.md from what was measured: targets, tables, and every measurement with its spread."""

import statistics
from collections import defaultdict

from operations import OURS, PEERS, SETTINGS, Operation, Setting
from targets import Bound, Target, targets


class Numbers:
    """The measurements, by setting, operation and contender."""

    def __init__(self, measurements):
        self.rounds = defaultdict(list)
        for one in measurements:
            self.rounds[one["setting"], one["operation"], one["contender"]].append(one)

    def of(self, setting: Setting, operation: str, contender: str) -> list[dict]:
        return self.rounds.get((setting.name, operation, contender), [])

    def values(self, setting, operation, contender) -> list[float]:
        rounds = self.of(setting, operation, contender)
        return [one["value"] for one in rounds if "value" in one]

    def least(self, setting, operation, contender) -> float | None:
        return min(self.values(setting, operation, contender), default=None)

    def best_peer(self, setting, operation, peers=PEERS) -> tuple[str, float] | None:
        known = [(peer, self.least(setting, operation, peer)) for peer in peers]
        return min((p for p in known if p[1] is not None), key=lambda p: p[1], default=None)


def write(results) -> str:
    numbers = Numbers(results["measurements"])
    parts = [
        "# Results\n\nWritten by `bench/run.py`; not to be edited.\n",
        circumstances(results),
        "## Targets\n\n" + targets_table(numbers),
    ]
    measured = {setting for setting, _, _ in numbers.rounds}
    parts += [setting_table(numbers, setting) for setting in SETTINGS if setting.name in measured]
    parts += [left_out(results, numbers), details(numbers)]
    return "\n".join(parts)


def circumstances(results) -> str:
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"- Date: {results['date']}, `{results['command']}`, {results['minutes']} minutes",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory']}; "
        f"{machine['system']}, {machine['kernel']}",
        "- Load average of the last minute: {:.1f} before, {:.1f} after".format(*results["load"]),
        f"- gofer {results['gofer']}; {versions['go']}",
    ]
    for name in ("3.13", "3.13t"):
        found = versions[name]
        packages = found["packages"]
        peers = ", ".join(
            f"{peer} {packages[peer]}"
            for peer in ("gofer", "uvloop", "gevent", "greenlet", "runloom", "tonio", "trio")
            if peer in packages
        )
        lines.append(f"- Python {found['python']}: {peers}")
    lines.append(
        f"- {results['rounds']} rounds (fewer for what is slow), interleaved, every measurement in "
        "a process of its own; numbers are minima of the rounds, ratios are ratios of minima"
    )
    return "\n".join(lines) + "\n"


# --- targets ------------------------------------------------------------------------------------


def targets_table(numbers: Numbers) -> str:
    rows = [row for target in targets() for row in target_rows(numbers, target)]
    head = "| target | gofer | against | limit | ratio | |\n|---|---:|---|---:|---:|---|\n"
    return head + "\n".join(rows) + "\n"


def target_rows(numbers: Numbers, target: Target) -> list[str]:
    ours = numbers.least(target.setting, target.operation, "gofer")
    compared = [compare(numbers, target, ours, bound) for bound in target.bounds]
    enough = target.one_will_do and any(met for _, met in compared)
    return [
        f"| {target.title} | {amount(ours, target.unit)} | {cells} | {verdict(met, enough)} |"
        for cells, met in compared
    ]


def compare(numbers: Numbers, target: Target, ours, bound: Bound) -> tuple[str, bool | None]:
    """The cells for what it is held against, the limit, and the ratio; and whether that is met."""
    if bound.setting is None:
        met = None if ours is None else ours <= bound.limit
        return f"itself | {bound.limit:g} {target.unit} | ", met
    best = numbers.best_peer(bound.setting, bound.operation, bound.contenders)
    if best is None:
        who = bound.contenders[0] if len(bound.contenders) == 1 else "the best peer"
        return f"{who} | {bound.limit:g} x | ", None
    contender, theirs = best
    against = f"{bound.title or contender}: {amount(theirs, target.unit)}"
    if ours is None:
        return f"{against} | {bound.limit:g} x | ", None
    # As a speed: how many times as fast as they; else as a cost.
    ratio = theirs / ours if bound.at_least else ours / theirs
    met = ratio >= bound.limit if bound.at_least else ratio <= bound.limit
    sign = "≥" if bound.at_least else "≤"
    return f"{against} | {sign} {bound.limit:.3g} x | {ratio:.2f} x", met


def verdict(met: bool | None, enough: bool) -> str:
    if met is None:
        return "not measured"
    if met:
        return "met"
    return "one of the two will do" if enough else "**missed**"


def amount(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


# --- tables -------------------------------------------------------------------------------------


def setting_table(numbers: Numbers, setting: Setting) -> str:
    contenders = [
        c for c in setting.contenders if any(k[::2] == (setting.name, c) for k in numbers.rounds)
    ]
    peers = [c for c in contenders if c not in (*OURS, "go")]
    head = ["an item", *contenders]
    compared = ["go"] * ("go" in contenders) + ["best peer"] * bool(peers)
    head += [f"gofer / {name}" for name in compared]
    lines = [f"## {setting.name}\n", row(head), row(["---"] + ["---:"] * (len(head) - 1))]
    for operation in setting.operations:
        if not any(numbers.of(setting, operation.name, c) for c in contenders):
            continue
        cells = [f"{operation.title}, {operation.unit}"]
        cells += [cell(numbers, setting, operation, c) for c in contenders]
        ours = numbers.least(setting, operation.name, "gofer")
        for name in compared:
            who = ("go",) if name == "go" else peers
            best = numbers.best_peer(setting, operation.name, who)
            cells.append(f"{ours / best[1]:.2f}" if ours and best else "")
        lines.append(row(cells))
    return "\n".join(lines) + "\n"


def cell(numbers: Numbers, setting: Setting, operation: Operation, contender: str) -> str:
    rounds = numbers.of(setting, operation.name, contender)
    least = numbers.least(setting, operation.name, contender)
    if least is None:
        return "failed" if any("failed" in one for one in rounds) else ""
    text = amount(least, "").strip()
    if any("failed" in one for one in rounds):
        text += " (and failed once)"
    if operation.kind == "million":
        text += f" ({rounds[0]['memory'] / 2**20:,.0f} MiB)"
    if operation.kind in ("once", "bytes", "million") and rounds[0]["n"] != operation.n:
        text += f" (n = {rounds[0]['n']:,})"
    return text


def row(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def left_out(results, numbers: Numbers) -> str:
    lines = ["## What was not measured, and why\n"]
    lines += [f"- {name}: {reason}" for name, reason in results["not_measured"].items()]
    for name in ("3.13", "3.13t"):
        for package, reason in results["versions"][name]["missing"].items():
            lines.append(f"- {package} on {name}: could not be installed: {reason}")
    reasons = defaultdict(list)
    for (setting, operation, contender), rounds in numbers.rounds.items():
        for one in rounds:
            for kind in ("left_out", "failed"):
                if kind in one:
                    reasons[contender, setting, kind, one[kind]].append(operation)
    for (contender, setting, kind, reason), operations in reasons.items():
        kind = {"left_out": "left out", "failed": "**failed**"}[kind]
        lines.append(f"- {contender} ({setting}), {', '.join(operations)}: {kind}: {reason}")
    return "\n".join(lines) + "\n"


def details(numbers: Numbers) -> str:
    head = [
        "operation",
        "contender",
        "unit",
        "min",
        "median",
        "spread",
        "rounds",
        "n",
        "what was used",
    ]
    lines = ["## Every measurement\n", "Spread is (max - min) / min.\n"]
    for setting in SETTINGS:
        table = [
            detail(numbers, setting, operation, contender)
            for operation in setting.operations
            for contender in setting.contenders
            if numbers.values(setting, operation.name, contender)
        ]
        if table:
            lines += [f"### {setting.name}\n", row(head), row(["---"] * 3 + ["---:"] * 5 + ["---"])]
            lines += [*table, ""]
    return "\n".join(lines)


def detail(numbers: Numbers, setting: Setting, operation: Operation, contender: str) -> str:
    values = numbers.values(setting, operation.name, contender)
    done = [one for one in numbers.of(setting, operation.name, contender) if "value" in one]
    least = min(values)
    spread = f"{(max(values) - least) / least:.0%}" if len(values) > 1 else ""
    return row(
        [operation.name, contender, operation.unit]
        + [amount(value, "").strip() for value in (least, statistics.median(values))]
        + [spread, str(len(values)), f"{done[-1]['n']:,}", done[-1]["uses"]]
    )
