"""Runs gofer, its peers and Go side by side and writes RESULTS.md and results.json.

    python bench/run.py                      everything; about a quarter of an hour
    python bench/run.py --quick              fewer rounds, no million; about three minutes
    python bench/run.py --only chan_0,yield_2 --contenders gofer,go --rounds 9

Every measurement is a process of its own. The rounds are interleaved: all contenders do an
operation once, then the next operation, and when all are through, the next round begins; so
whatever else the machine does hits all alike. A measurement that fails stands in the results with
its last words.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import machine
import report
import serving
from environments import BENCH, Environment, Go, last_line, say
from operations import NOT_MEASURED, SETTINGS, Operation, Setting


class Failed(Exception):
    """A measurement that gave no number, and why."""


def resident(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0  # it has just ended
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def run_limited(words: list[str], env: dict[str, str], seconds: float, memory: int) -> str:
    """Runs a process and returns its output; ends it when it takes too long or too much memory."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        deadline = time.monotonic() + seconds
        while True:
            try:
                output, errors = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                late = time.monotonic() > deadline
                if late or resident(process.pid) > memory:
                    process.kill()
                    process.communicate()
                    limit = f"{seconds:g} s" if late else f"{memory / 2**30:.1f} GiB"
                    raise Failed(f"more than {limit}") from None
    if process.returncode < 0:
        raise Failed(f"ended by signal {-process.returncode}; {last_line(errors)}")
    if process.returncode:
        raise Failed(last_line(errors))
    return output


class Runner:
    """Knows how to start each contender, and under what limits."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.seconds = 0.05 if arguments.quick else 0.15
        self.serving_seconds = 0.5 if arguments.quick else 1.5
        self.timeout = arguments.timeout
        self.memory = machine.memory() // 2
        self.environments = {name: Environment(name) for name in ("3.13", "3.13t")}
        self.go = Go(self.environments["3.13"])

    def prepare(self) -> None:
        for environment in self.environments.values():
            environment.prepare()
        self.go.prepare()

    def missing(self, contender: str, setting: Setting) -> str:
        if contender == "go":
            return self.go.missing
        package = contender.partition("-")[0]
        return self.environments[setting.interpreter].missing.get(package, "")

    def measure(self, contender: str, operation: Operation, setting: Setting) -> dict[str, object]:
        if reason := self.missing(contender, setting):
            return {"failed": f"not installed: {reason}"}
        if operation.load:
            return self.measure_server(contender, operation, setting)
        what = [operation.name, operation.kind, str(operation.n), str(self.seconds)]
        if contender == "go":
            words = [str(self.go.program), *what]
        else:
            python = self.environments[setting.interpreter].python
            words = [str(python), str(BENCH / "harness.py"), contender, *what]
        env = self.env(operation)
        try:
            seconds = self.timeout * (3 if operation.kind == "million" else 1)
            if not operation.client:
                return json.loads(run_limited(words, env, seconds, self.memory).splitlines()[-1])
            with serving.running([str(self.go.program), "serve", "http"], env) as server:
                env["BENCH_PORT"] = server.port
                return json.loads(run_limited(words, env, seconds, self.memory).splitlines()[-1])
        except (Failed, OSError, ValueError, IndexError) as error:
            return {"failed": str(error)}

    def env(self, operation: Operation) -> dict[str, str]:
        workers = str(operation.workers)
        return os.environ | {"BENCH_WORKERS": workers, "GOMAXPROCS": workers}

    def measure_server(self, contender: str, operation: Operation, setting: Setting):
        if self.go.missing:
            return {"failed": f"no load without Go: {self.go.missing}"}
        go, python = self.go.program, self.environments[setting.interpreter].python
        words = serving.server_words(contender, python, go, serving.served_kind(operation))
        env = self.env(operation)
        try:
            with serving.running(words, env) as server:
                words = serving.load_words(go, operation, server.port, self.serving_seconds)
                if operation.load == "idle":
                    return serving.idle_connections(words, server, operation, self.timeout)
                env["GOMAXPROCS"] = str(os.cpu_count())
                return json.loads(run_limited(words, env, self.timeout, self.memory))
        except subprocess.TimeoutExpired:
            return {"failed": f"more than {self.timeout:g} s"}
        except (Failed, OSError, ValueError) as error:
            return {"failed": str(error)}

    def versions(self) -> dict[str, object]:
        found: dict[str, object] = {"go": self.go.version()}
        for name, environment in self.environments.items():
            found[name] = {
                "python": environment.python_version(),
                "packages": environment.versions(),
                "missing": environment.missing,
            }
        return found


def measure_all(runner: Runner, arguments: argparse.Namespace) -> list[dict[str, object]]:
    measurements = []
    given_up = set()  # what failed or is left out in one round is not tried in the next
    for turn in range(arguments.rounds):
        for setting in SETTINGS:
            for operation in setting.operations:
                if not wanted(operation, turn, arguments):
                    continue
                say(f"round {turn + 1} of {arguments.rounds}, {setting.name}: {operation.title}")
                for contender in setting.contenders:
                    key = (setting.name, operation.name, contender)
                    if key in given_up or not chosen(contender, arguments.contenders):
                        continue
                    result = runner.measure(contender, operation, setting)
                    if "value" not in result:
                        given_up.add(key)
                    where = dict(zip(("setting", "operation", "contender"), key, strict=True))
                    measurements.append({**where, "round": turn, **result})
    return measurements


def wanted(operation: Operation, turn: int, arguments: argparse.Namespace) -> bool:
    rounds = operation.rounds or arguments.rounds
    if arguments.quick and operation.kind != "rate":
        rounds = 0 if operation.kind == "million" and not arguments.only else 1
    return turn < rounds and chosen(operation.name, arguments.only)


def chosen(name: str, names: list[str] | None) -> bool:
    return names is None or name in names


def arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="2 short rounds, 1 for what is slow, and no million"
    )
    parser.add_argument("--rounds", type=int, help="how often everything is repeated (5)")
    parser.add_argument("--only", type=names, metavar="OP,OP", help="only these operations")
    parser.add_argument("--contenders", type=names, metavar="A,B", help="only these contenders")
    parser.add_argument(
        "--timeout", type=float, default=20, help="seconds for a measurement (20; a million: 3 x)"
    )
    parser.add_argument("--output", type=Path, default=BENCH, help="the folder for the results")
    parsed = parser.parse_args()
    parsed.rounds = parsed.rounds or (2 if parsed.quick else 5)
    for name in parsed.only or ():
        if not any(name == known.name for setting in SETTINGS for known in setting.operations):
            parser.error(f"no operation {name!r}")
    for name in parsed.contenders or ():
        if not any(name in setting.contenders for setting in SETTINGS):
            parser.error(f"no contender {name!r}")
    return parsed


def main() -> None:
    given = arguments()
    serving.allow_many_descriptors()
    runner = Runner(given)
    runner.prepare()
    started = datetime.datetime.now().astimezone()
    load = os.getloadavg()[0]
    clock = time.monotonic()
    measurements = measure_all(runner, given)
    results = {
        "date": started.isoformat(timespec="seconds"),
        "command": " ".join(["bench/run.py", *sys.argv[1:]]),
        "minutes": round((time.monotonic() - clock) / 60, 1),
        "rounds": given.rounds,
        "load": [load, os.getloadavg()[0]],
        "machine": machine.describe(),
        "gofer": machine.commit(),
        "versions": runner.versions(),
        "not_measured": NOT_MEASURED,
        "measurements": measurements,
    }
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (given.output / "RESULTS.md").write_text(report.write(results))
    say(f"wrote RESULTS.md and results.json to {given.output}")
    print(report.targets_table(report.Numbers(measurements)))


if __name__ == "__main__":
    main()
