"""The rows of a bench run: what each measured, beside its bar and its peer. They are printed, and written as JSON for
readme.py. A quick run judges no times: its few runs show that every row is there, and that counts and sizes hold."""

import datetime
import json
import math
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "target/bench"
# What depends on the machine, and on what else it does.
TIMES = ("ms", "s", "ratio", "x", "/s", "%")
# These say what was measured; a change to them does not change it.
WRITTEN_AFTERWARDS = ("README.md", "docs/benchmarks.md", "docs/line.svg")


class Results:
    def __init__(self, quick):
        self.quick = quick
        self.rows = []
        self.missed = []
        self.origin = {"machine": machine(), "commit": commit(), "date": datetime.date.today().isoformat()}
        self.parent = None

    def runs(self, whole, quick):
        """How many runs: as many as a whole bench does, or a quick one."""
        return quick if self.quick else whole

    def record(self, name, value, unit, limit=None, peer=None, peer_value=None, holds=None, at_least=None, sample=None,
               timed=None):
        """A row. `limit` is the most that is allowed, `at_least` the least. `sample` says of what the value is the
        median or the worst. A name that begins with two spaces belongs to the row before; "  the same" is that row with
        another peer."""
        if name.startswith("  "):
            name = self.parent if name.strip() == "the same" else f"{self.parent}: {name.strip()}"
        else:
            self.parent = name
        if holds is None:
            holds = (limit is None or value <= limit) and (at_least is None or value >= at_least)
        for number in (value, peer_value):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{name}: {number} is no figure")
        if any((row["name"], row["peer"]) == (name, peer) for row in self.rows):
            raise ValueError(f"{name}: there are two rows of that name and peer")
        timed = unit in TIMES if timed is None else timed
        if not holds and not (self.quick and timed):
            self.missed.append(name)
        self.rows.append({"name": name, "value": value, "unit": unit, "limit": limit if at_least is None else at_least,
                          "holds": holds, "peer": peer, "peer_value": peer_value, "at_least": at_least is not None,
                          "sample": sample, **self.origin})

    def write(self):
        """results.json. Rows of the same commit and machine that this run did not measure stay: a bench with --only
        replaces its own. A quick run has a file of its own."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / ("quick.json" if self.quick else "results.json")
        rows = list(self.rows)
        if not self.quick and path.exists():
            new = {(row["name"], row["peer"]): row for row in rows}
            kept = [row for row in json.loads(path.read_text())
                    if all(row.get(key) == self.origin[key] for key in ("machine", "commit"))]
            rows = [new.pop((row["name"], row["peer"]), row) for row in kept] + list(new.values())
        path.write_text(json.dumps(rows, indent=1) + "\n")

    def show(self):
        print(f"{self.origin['machine']}; commit {self.origin['commit']}")
        print(f"{'':66} {'value':>9} {'bar':>8} {'unit':7} peer")
        for row in self.rows:
            peer = "" if row["peer"] is None else f"{row['peer_value']} ({row['peer']})"
            verdict = "" if row["holds"] else "  DOES NOT HOLD" if row["name"] in self.missed else "  not judged"
            print(f"{title(row):66} {row['value']:>9} {bar(row):>8} {row['unit']:7} {peer}{verdict}")


def title(row):
    return row["name"] if row["sample"] is None else f"{row['name']} ({row['sample']})"


def bar(row):
    if row["limit"] is None:
        return ""
    return f"{'≥' if row['at_least'] else '≤'} {row['limit']}"


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {model.group(1) if model else 'unknown processor'}, Linux {os.uname().release}"


def git(*words):
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def commit():
    """The commit that is measured; with "+changes" where the tree is another one."""
    changed = {line[3:] for line in git("status", "--porcelain").splitlines()}
    return git("rev-parse", "--short=12", "HEAD").strip() + ("+changes" if changed - set(WRITTEN_AFTERWARDS) else "")
