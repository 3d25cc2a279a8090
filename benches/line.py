"""Measures the serial line: native ends on pseudo terminals with a paced line in between, beside lrzsz's YMODEM on the
same line. bench.py imports it; the picture is target/bench/line.svg, and docs/line.svg is one of them."""

import pathlib
import statistics
import subprocess

BAUD = 115200
SIZES = ((1024, 1.6), (4096, 1.45), (16384, 1.4))
SLOW_SIZES = (600, 2600)
SLOW_BAUDS = (9600, 19200, 38400, 115200)
BAUDS = (9600, 19200, 38400, 57600, 115200)


def numbers(program, *words):
    text = subprocess.run([str(program), *map(str, words)], check=True, capture_output=True, text=True).stdout
    return [[float(word) for word in line.split()] for line in text.splitlines()]


def column(rows, index=0):
    return [row[index] for row in rows]


def measure(record, linebench, host, target, runs):
    """`runs(WHOLE, QUICK)`: how many, in a whole bench and in a quick one."""
    few, seeds, lines = runs(9, 1), runs(500, 20), runs(1000, 30)
    thrice = runs(3, 1)

    def ymodem(size, baud):
        return statistics.median(numbers(linebench, "ymodem", size, baud)[0][0] for _ in range(thrice))

    script = pathlib.Path(__file__).with_name("smartos.py")

    def smartos(size, baud):
        # Debian's own interpreter, because it finds Debian's cloud-init.
        return statistics.median(numbers("/usr/bin/python3", script, linebench, size, baud)[0][0] for _ in range(thrice))

    for size, limit in SIZES:
        ideal = size * 10 / BAUD * 1000
        ratio = statistics.median(column(numbers(linebench, "object", size, BAUD, 0, few))) / ideal
        record(f"line, {size // 1024} KiB sealed at {BAUD}, by bytes x 10 / baud", round(ratio, 3), "x", limit,
               "lrzsz YMODEM", round(ymodem(size, BAUD) * 1000 / ideal, 2), sample=f"median of {few}")
        record("  the same", round(ratio, 3), "x", limit, "cloud-init's SmartOS client",
               round(smartos(size, BAUD) * 1000 / ideal, 2), sample=f"median of {few}")
    ideal = 4096 * 10 / BAUD * 1000
    far = statistics.median(column(numbers(linebench, "object", 4096, BAUD, 50, few))) / ideal
    record("line, 4 KiB with 50 ms of round trip", round(far, 3), "x", 2, sample=f"median of {few}")
    faulty = sorted(column(numbers(linebench, "faulty", 4096, seeds)))
    # In virtual time: the machine's speed does not matter.
    record("line, 4 KiB, 1 % of frames damaged, p95", round(faulty[int(len(faulty) * 0.95)], 3), "x", 2,
           sample=f"{seeds} seeds", timed=False)
    record("line, 4 KiB, 1 % of frames damaged, the slowest", round(faulty[-1], 3), "x", 4, sample=f"{seeds} seeds",
           timed=False)
    for size in SLOW_SIZES:
        for baud in SLOW_BAUDS:
            rows = numbers(linebench, "slow", size, baud, 0, 2)
            record(f"line of unknown speed, {size} bytes at {baud}, by bytes x 10 / baud", round(max(column(rows)), 3), "x",
                   1.5, timed=False)
            record(f"line of unknown speed, {size} bytes at {baud}, sent again without need", int(sum(column(rows, 1))),
                   "times", 0)
    lossy_seeds = runs(1000, 20)
    lossy = numbers(linebench, "slow", SLOW_SIZES[0], SLOW_BAUDS[0], 100, lossy_seeds)
    record("line of unknown speed, 9600, 1 % of frames damaged, the slowest", round(max(column(lossy)), 3), "x", 4,
           sample=f"{lossy_seeds} seeds", timed=False)
    turns = runs(15, 2)
    whole = statistics.median(column(numbers(linebench, "whole", BAUD, turns))) / 1000
    record("line, HELLO to certificate at 115200", round(whole, 3), "s", 0.4, sample=f"median of {turns}")
    turns = runs(30, 3)
    rows = numbers(linebench, "clock", BAUD, turns)
    record("line, clock error", round(statistics.median(column(rows)), 2), "ms", 5, sample=f"median of {turns}")
    outside = sum(1 for error, bound in rows if error > bound)
    record("line, clock errors outside the stated bound", outside, "", 0, sample=f"of {turns}")
    alone = [numbers(linebench, "many", host, lines, 0)[0] for _ in range(thrice)]
    beside = [numbers(linebench, "many", host, lines, 1)[0] for _ in range(thrice)]
    record("line, many lines in one process, memory", round(max(column(alone, 1)) / 1024, 1), "MiB", 64,
           sample=f"{lines} lines")
    later = statistics.median(column(beside)) / statistics.median(column(alone))
    record("line, many lines in one process, p99 with one stalled line by that without", round(later, 3), "x", 1.2,
           sample=f"median of {thrice}")
    bauds = runs(BAUDS, BAUDS[-2:])
    curves = {"imprint, sealed": [statistics.median(column(numbers(linebench, "object", 4096, baud, 0, thrice))) / 1000
                                  for baud in bauds],
              "YMODEM (lrzsz)": [ymodem(4096, baud) for baud in bauds],
              "SmartOS (cloud-init)": [smartos(4096, baud) for baud in bauds],
              "bytes x 10 / baud": [4096 * 10 / baud for baud in bauds]}
    draw(curves, bauds, target / runs("line.svg", "quick.svg"))


def draw(curves, bauds, path):
    """4 KiB: seconds against baud, both logarithmic."""
    import math
    width, height, left, bottom = 640, 400, 70, 340
    x = lambda baud: left + (math.log(baud) - math.log(BAUDS[0])) / (math.log(BAUDS[-1]) - math.log(BAUDS[0])) * 400
    top, low = 10.0, 0.2
    y = lambda seconds: 40 + (math.log(top) - math.log(max(seconds, low))) / (math.log(top) - math.log(low)) * 300
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
             '<rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="22">4 KiB over a serial line: seconds by baud</text>']
    for seconds in (0.2, 0.5, 1, 2, 5, 10):
        parts.append(f'<path d="M{left} {y(seconds):.1f}H{left + 400}" stroke="#ccc"/>'
                     f'<text x="{left - 8}" y="{y(seconds) + 4:.1f}" text-anchor="end">{seconds}</text>')
    for baud in bauds:
        parts.append(f'<text x="{x(baud):.1f}" y="{bottom + 20}" text-anchor="middle">{baud}</text>')
    for (name, values), colour in zip(curves.items(), ("#087443", "#b52a2a", "#2b5cc4", "#666")):
        points = " ".join(f"{x(baud):.1f},{y(value):.1f}" for baud, value in zip(bauds, values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
                     f'<text x="{left + 408}" y="{y(values[-1]) + 4:.1f}" fill="{colour}">{name}</text>')
    parts.append("</svg>")
    pathlib.Path(path).write_text("\n".join(parts) + "\n")
