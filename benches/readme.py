#!/usr/bin/env python3
"""Writes the table of README's section "Measured", and docs/line.svg, from what the last whole bench wrote. Nobody
copies a figure by hand: each stands there with the commit that it was measured on.

usage: readme.py [--drop]    --drop: README loses the rows that this bench does not have"""

import json
import re
import shutil
import sys

from results import FOLDER, ROOT, bar, title

README = ROOT / "README.md"
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


def split(text):
    """README before, in and behind the markers."""
    before, found, rest = text.partition(BEGIN)
    inside, closed, behind = rest.partition(END)
    if not found or not closed:
        sys.exit(f"readme.py: README.md has no {BEGIN.strip()} … {END.strip()}; put both lines back")
    return before + found, inside, closed + behind


def names(text):
    """The first column of README's table."""
    return re.findall(r"^\| (?!what \|)([^|]+) \|", split(text)[1], re.MULTILINE)


def lacking(rows):
    """Rows of README that this bench did not make: something has been lost, or README is of another bench."""
    made = {row["name"] for row in rows}
    return [name for name in names(README.read_text()) if not any(name == known or name.startswith(f"{known} (") for known in made)]


def main():
    path = FOLDER / "results.json"
    if not path.exists():
        sys.exit(f"readme.py: no {path}; run make bench first")
    rows = json.loads(path.read_text())
    commits = {row["commit"] for row in rows}
    if len(commits) != 1 or "+changes" in next(iter(commits)):
        sys.exit(f"readme.py: measured on {', '.join(sorted(commits))}; commit everything, then run make bench")
    text = README.read_text()
    lost = lacking(rows)
    if lost and "--drop" not in sys.argv[1:]:
        sys.exit("readme.py: README has rows that the last bench did not measure: " + "; ".join(lost) +
                 "; run all of make bench, or drop them with --drop")
    before, _, behind = split(text)
    first = rows[0]
    said = f"Measured on commit `{first['commit']}` on {first['date']}: {first['machine']}.\n\n"
    README.write_text(f"{before}\n{said}{table(rows)}\n{behind}")
    shutil.copy(FOLDER / "line.svg", ROOT / "docs/line.svg")
    print(f"README.md: {len(rows)} rows of commit {first['commit']}")


if __name__ == "__main__":
    main()
