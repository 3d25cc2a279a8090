#!/usr/bin/env python3
"""Measures every bar of the project beside its peer, prints the table, writes target/bench/results.json, and fails when
a bar does not hold. Needs root (a cgroup of its own) and what `scripts/install-needs bench` installs; python3 itself only.

usage: bench.py [--runs N] [--only WORD]"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import line

ROOT = pathlib.Path(__file__).resolve().parent.parent
AGENT = ROOT / "dist/x86_64/imprint"
HOST = ROOT / "dist/x86_64/imprint-host"
MIB = 1024 * 1024
RESULTS = []


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {model.group(1) if model else 'unknown processor'}, Linux {os.uname().release}"


def record(name, value, unit, limit=None, peer=None, peer_value=None, holds=None):
    if holds is None:
        holds = limit is None or value <= limit
    RESULTS.append(
        {"name": name, "value": value, "unit": unit, "limit": limit, "holds": holds, "peer": peer,
         "peer_value": peer_value, "machine": machine()}
    )


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def zstd_size(path):
    return len(subprocess.run(["zstd", "-19", "-c", "-q", str(path)], check=True, stdout=subprocess.PIPE).stdout)


def sizes():
    kind = output("file", "-b", str(AGENT))
    record("agent is static-pie and stripped", int("static-pie" in kind and "stripped" in kind.replace("not stripped", "")),
           "1 = yes", holds="static-pie" in kind and "not stripped" not in kind)
    # The closure of the shell script: every file that openssl, curl and a shell need at run time.
    files = {pathlib.Path(shutil.which(tool)).resolve() for tool in ("openssl", "curl", "busybox") if shutil.which(tool)}
    for tool in list(files):
        found = subprocess.run(["ldd", str(tool)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        files |= {pathlib.Path(path).resolve() for path in re.findall(r"(/\S+) \(0x", found)}
    with tempfile.NamedTemporaryFile() as bundle:
        for path in sorted(files):
            bundle.write(path.read_bytes())
        bundle.flush()
        closure, closure_zstd = sum(path.stat().st_size for path in files), zstd_size(bundle.name)
    peer = "openssl + curl + busybox"
    record("agent, stripped", round(AGENT.stat().st_size / MIB, 3), "MiB", 2.85, peer, round(closure / MIB, 1))
    record("agent, zstd -19", round(zstd_size(AGENT) / MIB, 3), "MiB", 1.2, peer, round(closure_zstd / MIB, 1))


class Cgroup:
    """A cgroup v2 of our own; `usage_usec` counts every process that ran in it, children included."""

    def __init__(self, name):
        root = next(p for p in (pathlib.Path("/sys/fs/cgroup/unified"), pathlib.Path("/sys/fs/cgroup"))
                    if (p / "cgroup.procs").exists() and (p / "cgroup.controllers").exists())
        self.path = root / f"imprint-bench-{name}-{os.getpid()}"
        self.path.mkdir()

    # A shell starts the command and reads both clocks, as it does for whoever uses these commands; Python's own fork of
    # a large process would be a good part of what is measured. The shell joins the group beforehand: joining waits for
    # an RCU grace period, which takes longer than a check-in. The first line of cpu.stat is usage_usec.
    TIMER = """echo $$ >"$0/cgroup.procs"
read -r _ cpu <"$0/cpu.stat"; start=$EPOCHREALTIME
"$@" >/dev/null
code=$?; end=$EPOCHREALTIME; read -r name cpu_end <"$0/cpu.stat"
echo "$name $cpu $cpu_end $start $end"
exit $code"""

    def run(self, command):
        """(CPU, wall) in milliseconds."""
        wrapped = ["/bin/bash", "-c", self.TIMER, str(self.path), *command]
        done = subprocess.run(wrapped, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"bench: {' '.join(map(str, command))} failed with {done.returncode}: {done.stderr}")
        name, cpu, cpu_end, start, end = done.stdout.split()
        assert name == "usage_usec", name
        return (int(cpu_end) - int(cpu)) / 1000, (float(end) - float(start)) * 1000

    def close(self):
        self.path.rmdir()


NODE = """name = "node1"
subject = ["CN=node1.example.org"]
sans = ["dns:node1.example.org"]
hostname = "node1"
enrol = "{enrol}"
[[network]]
match = {{ any = true }}
addresses = ["192.0.2.10/24"]
routes = [{{ to = "0.0.0.0/0", via = "192.0.2.1" }}]
"""


def host(state, *words):
    return subprocess.run([str(HOST), "--dir", str(state), *words], check=True, stdout=subprocess.PIPE).stdout


def make_record(work, state, enrol):
    record_file = work / "node.toml"
    record_file.write_text(NODE.format(enrol=enrol))
    host(state, "node", "add", str(record_file))
    payload = work / f"{enrol}.cbor"
    host(state, "payload", "node1", "--as", "cbor", "-o", str(payload))
    return payload


def payload_size():
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        host(work / "state", "init", "--url", "https://192.0.2.1:8443/.well-known/est")
        size = make_record(work, work / "state", "once").stat().st_size
    record("typical payload", size, "bytes", 640)


def checkin(runs):
    # What the clients write lies in memory, as /run does; the server's state lies where the temporary files are.
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        work, memory = pathlib.Path(work), pathlib.Path(memory)
        state, port = work / "state", 18443
        url = f"https://127.0.0.1:{port}/.well-known/est"
        host(state, "init", "--url", url)
        payload = make_record(work, state, "each-boot")
        sys.path.insert(0, str(ROOT / "benches"))
        ca, token = read_payload(payload.read_bytes())
        (work / "ca.der").write_bytes(ca)
        (work / "ca.pem").write_text(output("openssl", "x509", "-inform", "DER", "-in", str(work / "ca.der")))
        log = open(work / "serve.log", "w")
        server = subprocess.Popen([str(HOST), "--dir", str(state), "serve", "--listen", f"127.0.0.1:{port}"],
                                  stdout=log, stderr=log)
        groups = {}
        try:
            wait_for_port(port, server, work / "serve.log")
            ours = [str(AGENT), "enroll", "--payload", str(payload), "--out", str(memory / "agent")]
            script = [str(ROOT / "benches/baseline.sh"), str(work / "ca.pem"), url, f"node1:{token}",
                      "/CN=node1.example.org", "DNS:node1.example.org", str(memory / "script")]
            groups = {"agent": Cgroup("agent"), "script": Cgroup("script")}
            figures = {"agent": [], "script": []}
            for turn in range(runs + 2):
                for name, command in (("agent", ours), ("script", script)):
                    figure = groups[name].run(command)
                    if turn >= 2:
                        figures[name].append(figure)
            rss = max(int(subprocess.run(["/usr/bin/time", "-f", "%M", *ours], check=True, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.PIPE, text=True).stderr.split()[-1]) for _ in range(10))
            script_rss = int(subprocess.run(["/usr/bin/time", "-f", "%M", *script], check=True,
                                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                            text=True).stderr.split()[-1])
        finally:
            server.terminate()
            server.wait()
            for group in groups.values():
                group.close()
    peer = "openssl + curl script"
    for index, what, limit in ((0, "CPU", 1 / 5), (1, "wall", 1 / 3)):
        mine, theirs = (statistics.median(run[index] for run in figures[name]) for name in ("agent", "script"))
        record(f"check-in, {what}, median of {runs}", round(mine, 2), "ms", None, peer, round(theirs, 2))
        record(f"check-in, {what}, ratio to the script", round(mine / theirs, 3), "ratio", round(limit, 3))
    record("check-in, peak RSS", round(rss / 1024, 2), "MiB", 6, peer, round(script_rss / 1024, 2))


def read_payload(raw):
    """(CA, token): just enough CBOR for the script to be given what the agent reads for itself."""

    def item(at):
        major, info = raw[at] >> 5, raw[at] & 31
        at += 1
        if info >= 24:
            width = 1 << (info - 24)
            info, at = int.from_bytes(raw[at:at + width], "big"), at + width
        if major == 0:
            return info, at
        if major == 1:
            return -1 - info, at
        if major in (2, 3):
            return raw[at:at + info], at + info
        if major == 4:
            values = []
            for _ in range(info):
                value, at = item(at)
                values.append(value)
            return values, at
        if major == 5:
            pairs = {}
            for _ in range(info):
                key, at = item(at)
                pairs[key], at = item(at)
            return pairs, at
        return info, at

    payload, _ = item(0)
    return payload[8], payload[12][0].decode()


def wait_for_port(port, server, log):
    import socket

    for _ in range(200):
        if server.poll() is not None:
            sys.exit(f"bench: imprint-host serve ended with {server.returncode}: {log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("bench: imprint-host serve does not listen")


# How long `imprint=auto` waits for devices that may still appear (src/source/uevent.rs, QUIET_WITHOUT_UDEV).
AUTO_WAIT = 1.0


def no_source():
    """The boot itself, in a temp root without candidate devices: what it takes beyond the configured wait."""
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        for folder in ("proc", "sys/block", "dev", "run", "bin"):
            (root / folder).mkdir(parents=True)
        (root / "proc/cmdline").write_text("imprint=auto\n")
        shutil.copy(AGENT, root / "bin/imprint")
        values = []
        for _ in range(20):
            start = time.perf_counter()
            subprocess.run(["chroot", str(root), "/bin/imprint", "run"], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            values.append((time.perf_counter() - start - AUTO_WAIT) * 1000)
        outcome = json.loads((root / "run/imprint/status.json").read_text())["outcome"]
        if outcome != "absent":
            sys.exit(f"bench: a boot without a payload ended as {outcome}")
    value = round(statistics.median(values), 2)
    # Less than nothing would mean that nobody waited.
    record("no source, time beyond the configured wait, median of 20", value, "ms", 50, holds=0 <= value <= 50)


def network(runs):
    """benches/network.py, in namespaces of its own."""
    # For the same target as what `make build` made, so that most of it is there already.
    target = "x86_64-unknown-linux-musl"
    built = ["cargo", "build", "--locked", "--quiet", "--profile", "host", "--target", target]
    subprocess.run([*built, "-p", "imprint-tests", "--bin", "netboot"], check=True, cwd=ROOT)
    script = ["unshare", "--net", "--mount", sys.executable, str(ROOT / "benches/network.py")]
    figures = json.loads(output(*script, str(ROOT / "target" / target / "host/netboot"), str(HOST), str(runs)))
    leases, dead = figures["leases"], figures["dead links"]
    own = round(leases.pop("imprint"), 2)
    for index, (peer, value) in enumerate(leases.items()):
        record(f"DHCPv4, own time from link to address, median of {runs}" if index == 0 else "  the same", own, "ms", 5, peer,
               round(value, 2))
    record(f"check-in later with three dead links, median of {runs}", round(dead["later"], 2), "ms", 20,
           "the live link alone: link to certificate", round(dead["alone"], 1))


def serial_line():
    """benches/line.py"""
    target = "x86_64-unknown-linux-musl"
    built = ["cargo", "build", "--locked", "--quiet", "--profile", "host", "--target", target]
    subprocess.run([*built, "-p", "imprint-tests", "--bin", "linebench"], check=True, cwd=ROOT)
    folder = ROOT / "target/bench"
    folder.mkdir(parents=True, exist_ok=True)
    line.measure(record, ROOT / "target" / target / "host/linebench", HOST, folder)


def server():
    """`serve` beside what bounds it, in the same run, and a storm of nodes that check in at once."""
    target = "x86_64-unknown-linux-musl"
    built = ["cargo", "build", "--locked", "--quiet", "--profile", "host", "--target", target]
    subprocess.run([*built, "-p", "imprint-tests", "--bin", "enrolbench"], check=True, cwd=ROOT)
    program = ROOT / "target" / target / "host/enrolbench"
    rounds, half, polled = [], None, []
    for row in output(str(program), str(HOST), "5", "4").splitlines():
        kind, *values = row.split()
        values = [float(value) for value in values]
        if kind == "rates":
            rounds.append(values)
        elif kind == "lists":
            polled.append(values)
        else:
            half = values
    # Of each round by itself: what the machine does besides changes from one to the next.
    shares = [100 * check_in / min(tls, commit) for tls, commit, check_in in rounds]
    tls, commit, check_in = (round(statistics.median(column)) for column in zip(*rounds))
    share = round(statistics.median(shares))
    record("check-ins a second, one server, median of 5", check_in, "/s", None, "bare TLS handshakes", tls)
    record("  the same", check_in, "/s", None, "commits of SQLite", commit)
    record("  by the smaller of the two in its own round, at least 60", share, "%", holds=share >= 60)
    record(f"check-in at half load ({half[0]:.0f}/s), p99", half[2], "ms", 100)
    # Each pair was measured one after the other, the same server, 10,000 certificates revoked.
    without, with_pollers, lists = (statistics.median(column) for column in zip(*polled))
    share = round(statistics.median(100 * beside / alone for alone, beside, _ in polled))
    record("  with 10,000 revoked and four who ask for that list", round(with_pollers), "/s", None, "without them", round(without))
    record("    share of it, at least 90", share, "%", holds=share >= 90)
    record("    lists that those four got in 4 s", round(lists), "")
    storm = json.loads(output(str(HOST), "--json", "load", "--nodes", "10000"))
    record("storm of 10,000 nodes, the agent's own check-in, the last one", round(storm["last_ms"] / 1000, 1), "s")
    record("  nodes without a certificate, or with two", 10000 - storm["enrolled"] + storm["doubled"], "", 0)
    record("  retries", storm["retries"], "")
    record("  answers 503 with Retry-After", storm["busy"], "")
    record("  memory of serve", round(storm["memory"] / MIB, 1), "MiB", 256)


def demo():
    """`make demo` with a warm build and cached kernel; its own last line says how long it took."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(["make", "-s", "-C", str(ROOT), "demo"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    record("make demo, warm, median of 3", round(statistics.median(times), 1), "s", 60)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--runs", type=int, default=200)
    words.add_argument("--only", default="")
    words = words.parse_args()
    for name, measure in (("size", sizes), ("payload", payload_size), ("checkin", lambda: checkin(words.runs)),
                          ("source", no_source), ("network", lambda: network(30)), ("line", serial_line), ("server", server), ("demo", demo)):
        if words.only in name:
            measure()
    target = ROOT / "target/bench"
    target.mkdir(parents=True, exist_ok=True)
    (target / "results.json").write_text(json.dumps(RESULTS, indent=1) + "\n")
    print(machine())
    print(f"{'':54} {'value':>9} {'limit':>8} {'unit':7} peer")
    for row in RESULTS:
        limit = "" if row["limit"] is None else row["limit"]
        peer = "" if row["peer"] is None else f"{row['peer_value']} ({row['peer']})"
        print(f"{row['name']:54} {row['value']:>9} {limit:>8} {row['unit']:7} {peer}{'' if row['holds'] else '  DOES NOT HOLD'}")
    return 0 if all(row["holds"] for row in RESULTS) else 1


if __name__ == "__main__":
    sys.exit(main())
