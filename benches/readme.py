#!/usr/bin/env python3
"""Writes the table of docs/benchmarks.md, README's summary of it, what docs/images.md has of images and boots, and docs/line.svg from
what the last whole bench wrote: make bench, and make bench-boot. Nobody copies a figure by hand: each stands there with the commit that
it was measured on.

usage: readme.py [--drop]    --drop: the page loses the rows that this bench does not have"""

import json
import re
import shutil
import sys

from results import FOLDER, ROOT, bar, title

README = ROOT / "README.md"
PAGE = ROOT / "docs/benchmarks.md"
IMAGES = ROOT / "docs/images.md"
# Whose rows docs/images.md has: what imprint adds to an image, and what make bench-boot measures.
ADDED = "added to an image by "
BOOT = "boot, "
# What README says: how large it is, what a check-in costs, what it adds to a boot.
SUMMARY = ("agent, stripped", "typical payload", "check-in, CPU", "check-in, wall",
           "check-in with 50 ms of round trip", "no source, time beyond the configured wait")
BEGIN, END = "<!-- written by make bench-readme -->\n", "<!-- end of what make bench-readme writes -->\n"


def table(rows):
    """Markdown. Rows of one name are one row with several peers."""
    merged = {}
    for row in rows:
        merged.setdefault(row["name"], []).append(row)
    lines = ["| what | `imprint` | bar | peer |", "|---|---|---|---|"]
    for same in merged.values():
        first = same[0]
        unit = "" if first["unit"] in ("", "ratio") else f" {first['unit']}"
        peers = ", ".join(f"{row['peer_value']}{unit} ({row['peer']})" for row in same if row["peer"] is not None)
        missed = "" if first["holds"] else ": **does not hold**"
        lines.append(f"| {title(first)} | {first['value']}{unit}{missed} | {bar(first)} | {peers} |")
    return "\n".join(lines) + "\n"


def split(page):
    """The page before, in and behind the markers."""
    before, found, rest = page.read_text().partition(BEGIN)
    inside, closed, behind = rest.partition(END)
    if not found or not closed:
        sys.exit(f"readme.py: {page} has no {BEGIN.strip()} … {END.strip()}; put both lines back")
    return before + found, inside, closed + behind


def names(page):
    """The first column of its table."""
    return re.findall(r"^\| (?!what \|)([^|]+) \|", split(page)[1], re.MULTILINE)


def lacking(rows, boots=True):
    """Rows of the page that this bench did not make: something has been lost, or the page is of another bench. `boots`: also those that
    make bench-boot makes."""
    made = {row["name"] for row in rows}
    wanted = [name for name in names(PAGE) if boots or not name.startswith(BOOT)]
    return [name for name in wanted if not any(name == known or name.startswith(f"{known} (") for known in made)]


def summary(rows):
    """The rows of README; all of them, or the bench was not whole."""
    made = {row["name"] for row in rows}
    missing = [name for name in SUMMARY if name not in made]
    if missing:
        sys.exit("readme.py: the last bench did not measure " + "; ".join(missing) + "; run all of make bench")
    return [row for row in rows if row["name"] in SUMMARY]


def write(page, said, rows):
    before, _, behind = split(page)
    page.write_text(f"{before}\n{said}\n\n{table(rows)}\n{behind}")
    print(f"{page.relative_to(ROOT)}: {len(rows)} rows")


def main():
    path = FOLDER / "results.json"
    if not path.exists():
        sys.exit(f"readme.py: no {path}; run make bench first")
    rows = json.loads(path.read_text())
    commits = {row["commit"] for row in rows}
    if len(commits) != 1 or "+changes" in next(iter(commits)):
        sys.exit(f"readme.py: measured on {', '.join(sorted(commits))}; commit everything, then run make bench")
    lost = lacking(rows)
    if lost and "--drop" not in sys.argv[1:]:
        sys.exit("readme.py: docs/benchmarks.md has rows that the last bench did not measure: " + "; ".join(lost) +
                 "; run all of make bench and make bench-boot, or drop them with --drop")
    images = [[row for row in rows if row["name"].startswith(kind)] for kind in (ADDED, BOOT)]
    if not all(images):
        sys.exit("readme.py: there are no sizes of images, or no boots; run make bench and make bench-boot, both on this commit")
    first, short = rows[0], summary(rows)
    said = f"Measured on commit `{first['commit']}` on {first['date']}: {first['machine']}."
    write(PAGE, said, rows)
    write(README, f"{said} [All of it](docs/benchmarks.md).", short)
    write(IMAGES, said, sum(images, []))
    shutil.copy(FOLDER / "line.svg", ROOT / "docs/line.svg")


if __name__ == "__main__":
    main()
