#!/usr/bin/env python3
"""Measures every bar of the project beside its peer, prints the table, writes target/bench/results.json, and fails when
a bar does not hold or a part of it cannot be measured. Needs root (a cgroup of its own) and what
`scripts/install-needs bench` installs; python3 itself only.

usage: bench.py [--quick] [--only WORD]

--quick: few runs, and no bar on times, for a machine that does other things besides: shows that every row can be
measured. It writes target/bench/quick.json."""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import image
import line
import readme
import root
from results import FOLDER, ROOT, Results
from way import Way

AGENT = ROOT / "dist/x86_64/imprint"
HOST = ROOT / "dist/x86_64/imprint-host"
TARGET = "x86_64-unknown-linux-musl"
MIB = 1024 * 1024


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def built(name, quick):
    """A program of the tests. For a whole bench it is built as what `make build` made, for the same target, so that most of
    it is there already. A quick run judges no times and takes the one that the tests use."""
    whole = ["--profile", "host", "--target", TARGET, "-p", "imprint-tests", "--bin", name]
    which = ["--workspace", "--bins", "--tests"] if quick else whole
    subprocess.run(["cargo", "build", "--locked", "--quiet", *which], check=True, cwd=ROOT)
    return ROOT / "target" / ("debug" if quick else f"{TARGET}/host") / name


def zstd_size(path, level="-19"):
    return len(subprocess.run(["zstd", level, "-c", "-q", str(path)], check=True, stdout=subprocess.PIPE).stdout)


def sizes(results):
    kind = output("file", "-b", str(AGENT))
    small = "static-pie" in kind and "not stripped" not in kind
    results.record("agent is static-pie and stripped: 1 is yes", int(small), "", at_least=1)
    # The closure of the shell script: every file that openssl, curl and a shell need at run time.
    files = {pathlib.Path(shutil.which(tool)).resolve() for tool in ("openssl", "curl", "busybox") if shutil.which(tool)}
    for tool in list(files):
        found = subprocess.run(["ldd", str(tool)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        files |= {pathlib.Path(path).resolve() for path in re.findall(r"(/\S+) \(0x", found)}
    with tempfile.NamedTemporaryFile() as bundle:
        for path in sorted(files):
            bundle.write(path.read_bytes())
        bundle.flush()
        closure, closure_zstd = sum(path.stat().st_size for path in files), zstd_size(bundle.name, results.runs("-19", "-1"))
    peer = "openssl + curl + busybox"
    results.record("agent, stripped", round(AGENT.stat().st_size / MIB, 3), "MiB", 3.5, peer, round(closure / MIB, 1))
    results.record("agent, zstd -19", round(zstd_size(AGENT) / MIB, 3), "MiB", 1.45, peer, round(closure_zstd / MIB, 1))


class Cgroup:
    """A cgroup v2 of our own; `usage_usec` counts every process that ran in it, children included."""

    def __init__(self, name):
        root = next(p for p in (pathlib.Path("/sys/fs/cgroup/unified"), pathlib.Path("/sys/fs/cgroup"))
                    if (p / "cgroup.procs").exists() and (p / "cgroup.controllers").exists())
        self.path = root / f"imprint-bench-{name}-{os.getpid()}"
        self.path.mkdir()

    # A shell starts the command and reads both clocks, as it does for users: Python's own fork of a large process would
    # be a good part of the measurement. The shell joins the group beforehand: joining waits for an RCU grace period,
    # which takes longer than a check-in. The first line of cpu.stat is usage_usec.
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
[[network]]
match = { any = true }
addresses = ["192.0.2.10/24"]
routes = [{ to = "0.0.0.0/0", via = "192.0.2.1" }]
"""
BIND = 'bind = { uuid = "4c4c4544-0042-3510-8054-b4c04f564433" }\n'


def host(state, *words):
    return subprocess.run([str(HOST), "--dir", str(state), *words], check=True, stdout=subprocess.PIPE).stdout


def image_size(results):
    """benches/image.py"""
    image.measure(results.record, results.runs)


def payload_size(results):
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        host(work / "state", "init", "--url", "https://192.0.2.1:8443/.well-known/est")
        (work / "node.toml").write_text(NODE)
        host(work / "state", "node", "add", str(work / "node.toml"))
        size = len(host(work / "state", "payload", "node1", "--as", "cbor", "--unsigned"))
        # Images that name signers take only a payload that names its machine.
        (work / "bound.toml").write_text(NODE.replace("[[network]]", BIND + "[[network]]"))
        host(work / "state", "node", "add", "--replace", str(work / "bound.toml"))
        signed = len(host(work / "state", "payload", "node1", "--as", "cbor"))
    results.record("typical payload", size, "bytes", 640)
    results.record("typical payload, signed, with bind", signed, "bytes", 700)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def checkin(results):
    """Each run is a node of its own, with a payload that was made beforehand: the server limits what one node may ask
    for, and a node's first certificate is what a boot is about."""
    runs, warm, rss_runs = results.runs(200, 5), 2, results.runs(10, 2)
    nodes = [f"node{number:04}" for number in range(2 * (warm + runs + rss_runs))]
    # The clients write into memory, as into /run. The server's state is in the folder for temporary files.
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        work, memory = pathlib.Path(work), pathlib.Path(memory)
        state, port = work / "state", free_port()
        url = f"https://127.0.0.1:{port}/.well-known/est"
        host(state, "init", "--url", url)
        table = ["name,hostname,subject,sans"]
        table += [f"{name},{name},CN={name}.example.org,dns:{name}.example.org" for name in nodes]
        (work / "nodes.csv").write_text("\n".join(table) + "\n")
        (work / "common.toml").write_text(NODE[NODE.index("[[network]]"):])
        host(state, "node", "add", "--csv", str(work / "nodes.csv"), "--template", str(work / "common.toml"))

        def agent(name):
            payload = memory / f"{name}.cbor"
            payload.write_bytes(host(state, "payload", name, "--as", "cbor"))
            return [str(AGENT), "enroll", "--payload", str(payload), "--out", str(memory / name)]

        def script(name):
            credentials = host(state, "payload", name, "--as", "userpass").decode().strip()
            return [str(ROOT / "benches/baseline.sh"), str(state / "root.pem"), url, credentials,
                    f"/CN={name}.example.org", f"DNS:{name}.example.org", str(memory / name)]

        # The nodes alternate between the two clients.
        commands = {"agent": [agent(name) for name in nodes[::2]], "script": [script(name) for name in nodes[1::2]]}
        log = open(work / "serve.log", "w")
        server = subprocess.Popen([str(HOST), "--dir", str(state), "serve", "--listen", f"127.0.0.1:{port}"],
                                  stdout=log, stderr=log)
        groups = {}
        try:
            wait_for_port(port, server, work / "serve.log")
            groups = {name: Cgroup(name) for name in commands}
            figures = {name: [] for name in commands}
            for turn in range(warm + runs):
                for name in commands:
                    figure = groups[name].run(commands[name].pop())
                    if turn >= warm:
                        figures[name].append(figure)
            rss = {name: max(peak_memory(commands[name].pop()) for _ in range(rss_runs)) for name in commands}
        finally:
            server.terminate()
            server.wait()
            for group in groups.values():
                group.close()
    peer = "openssl + curl script"
    for index, what, limit in ((0, "CPU", 0.075), (1, "wall", 0.12)):
        mine, theirs = (statistics.median(run[index] for run in figures[name]) for name in ("agent", "script"))
        results.record(f"check-in, {what}", round(mine, 2), "ms", None, peer, round(theirs, 2), sample=f"median of {runs}")
        results.record("  ratio to the script", round(mine / theirs, 3), "ratio", limit)
    results.record("check-in, peak memory", round(rss["agent"] / 1024, 2), "MiB", 6, peer,
                   round(rss["script"] / 1024, 2), sample=f"most of {rss_runs}")


def far_checkin(results):
    """A check-in over a way that takes 25 ms in each direction. What counts is how often it was gone."""
    runs, round_trip = results.runs(20, 2), 0.05
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        state, memory, port = pathlib.Path(work) / "state", pathlib.Path(memory), free_port()
        way = Way(("127.0.0.1", port), round_trip)
        host(state, "init", "--url", f"https://127.0.0.1:{way.port}/.well-known/est")
        table = ["name,subject"] + [f"node{number},CN=node{number}" for number in range(runs)]
        (pathlib.Path(work) / "nodes.csv").write_text("\n".join(table) + "\n")
        host(state, "node", "add", "--csv", str(pathlib.Path(work) / "nodes.csv"))
        for number in range(runs):
            (memory / f"node{number}.cbor").write_bytes(host(state, "payload", f"node{number}", "--as", "cbor"))
        log = open(pathlib.Path(work) / "serve.log", "w")
        server = subprocess.Popen([str(HOST), "--dir", str(state), "serve", "--listen", f"127.0.0.1:{port}"],
                                  stdout=log, stderr=log)
        try:
            wait_for_port(port, server, pathlib.Path(work) / "serve.log")
            times = []
            for number in range(runs):
                start = time.perf_counter()
                subprocess.run([str(AGENT), "enroll", "--payload", str(memory / f"node{number}.cbor"), "--out",
                                str(memory / f"node{number}")], check=True, stdout=subprocess.DEVNULL)
                times.append((time.perf_counter() - start) * 1000)
        finally:
            server.terminate()
            server.wait()
            way.close()
    sample = f"most of {runs}"
    results.record("check-in, handshakes at the server", len(way.round_trips) / runs, "", 1, sample=f"mean of {runs}")
    results.record("check-in, round trips from connect to certificate", max(way.round_trips), "", 5, sample=sample)
    results.record("check-in with 50 ms of round trip", round(statistics.median(times), 1), "ms", 5 * 50 + 50,
                   sample=f"median of {runs}")


def peak_memory(command):
    """KiB."""
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *command], check=True, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True)
    return int(done.stderr.split()[-1])


def wait_for_port(port, server, log):
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"bench: imprint-host serve ended with {server.returncode}: {log.read_text()}")


# How long `imprint=auto` waits for devices that may still appear (src/source/uevent.rs, QUIET_WITHOUT_UDEV).
AUTO_WAIT = 1.0


def no_source(results):
    """The boot itself, in a temp root without candidate devices: what it takes beyond the configured wait."""
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        for folder in ("proc", "sys/block", "dev", "run", "bin"):
            (root / folder).mkdir(parents=True)
        (root / "proc/cmdline").write_text("imprint=auto\n")
        shutil.copy(AGENT, root / "bin/imprint")
        runs, values = results.runs(20, 2), []
        for _ in range(runs):
            start = time.perf_counter()
            subprocess.run(["chroot", str(root), "/bin/imprint", "run"], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            values.append((time.perf_counter() - start - AUTO_WAIT) * 1000)
        outcome = json.loads((root / "run/imprint/status.json").read_text())["outcome"]
        if outcome != "absent":
            sys.exit(f"bench: a boot without a payload ended as {outcome}")
    value = round(statistics.median(values), 2)
    # A negative value would mean that the agent did not wait.
    results.record("no source, time beyond the configured wait", value, "ms", 50, holds=0 <= value <= 50,
                   sample=f"median of {runs}")


def firmware(results):
    """What the search takes beyond the configured wait where firmware and hypervisor have much that is for somebody else: 200
    strings of SMBIOS, and 64 KiB in fw_cfg. Files stand in for the kernel's. Our own credential of 64 KiB in fw_cfg takes
    longer in a real guest; tests/vm/credentials.rs prints how long."""
    structure = b"\x0b\x05\0\0\xc8" + b"".join(b"io.systemd.credential:other.%d=%s\0" % (n, b"x" * 100) for n in range(200))
    foreign = "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/other"
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        for folder in ("proc", "sys/block", "sys/firmware/dmi/tables", "dev", "run", "bin", foreign):
            (root / folder).mkdir(parents=True)
        (root / "proc/cmdline").write_text("imprint=auto\n")
        (root / "sys/firmware/dmi/tables/DMI").write_bytes(structure + b"\0\x7f\x04\0\0\0\0")
        (root / foreign / "raw").write_bytes(bytes(65536))
        (root / foreign / "size").write_text("65536\n")
        shutil.copy(AGENT, root / "bin/imprint")
        runs, values = results.runs(20, 2), []
        for _ in range(runs):
            subprocess.run(["chroot", str(root), "/bin/imprint", "run"], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            status = json.loads((root / "run/imprint/status.json").read_text())
            found = [step["duration_us"] / 1000 for step in status["steps"] if step["name"] == "source"]
            if status["outcome"] != "absent" or len(found) != 1:
                sys.exit(f"bench: a boot with credentials of somebody else ended as {status}")
            values.append(found[0] - AUTO_WAIT * 1000)
    value = round(statistics.median(values), 2)
    # A negative value would mean that the agent did not wait.
    results.record("200 foreign strings of SMBIOS and 64 KiB in fw_cfg, time beyond the configured wait", value, "ms", 50,
                   holds=0 <= value <= 50, sample=f"median of {runs}")


def network(results):
    """benches/network.py, in namespaces of its own."""
    runs = results.runs(30, 2)
    script = ["unshare", "--net", "--mount", sys.executable, str(ROOT / "benches/network.py")]
    figures = json.loads(output(*script, str(built("netboot", results.quick)), str(HOST), str(runs)))
    leases, dead = figures["leases"], figures["dead links"]
    own = round(leases.pop("imprint"), 2)
    for index, (peer, value) in enumerate(leases.items()):
        results.record("DHCPv4, own time from link to address" if index == 0 else "  the same", own, "ms", 5, peer,
                       round(value, 2), sample=f"median of {runs}")
    results.record("check-in later with three dead links", round(dead["later"], 2), "ms", 20,
                   "the live link alone: link to certificate", round(dead["alone"], 1), sample=f"median of {runs}")


def serial_line(results):
    """benches/line.py"""
    FOLDER.mkdir(parents=True, exist_ok=True)
    line.measure(results.record, built("linebench", results.quick), HOST, FOLDER, results.runs)


def netroot(results):
    """benches/root.py"""
    root.measure(results.record, AGENT, HOST, results.runs)


def server(results):
    """`serve` beside what bounds it, in the same run, and a storm of nodes that check in at once."""
    turns, seconds, nodes = results.runs(5, 1), results.runs(4, 1), results.runs(10000, 300)
    rounds, half, polled = [], None, []
    for row in output(str(built("enrolbench", results.quick)), str(HOST), str(turns), str(seconds)).splitlines():
        kind, *values = row.split()
        values = [float(value) for value in values]
        if kind == "rates":
            rounds.append(values)
        elif kind == "half":
            half = values
        elif kind == "lists":
            polled.append(values)
    # A ratio for each round: the machine's other load changes from round to round.
    shares = [100 * check_in / min(tls, commit) for tls, commit, check_in in rounds]
    tls, commit, check_in = (round(statistics.median(column)) for column in zip(*rounds))
    sample = f"median of {turns}"
    results.record("check-ins a second, one server", check_in, "/s", None, "bare TLS handshakes", tls, sample=sample)
    results.record("  the same", check_in, "/s", None, "commits of SQLite", commit, sample=sample)
    results.record("  by the smaller of the two in its own round", round(statistics.median(shares)), "%", at_least=65,
                   sample=sample)
    results.record("check-in at half load, p99", half[2], "ms", 100, sample=f"{half[0]:.0f} a second")
    # The two of a pair are measured one after the other, on the same server with 10,000 revoked certificates.
    without, beside, lists = (statistics.median(column) for column in zip(*polled))
    share = round(statistics.median(100 * with_them / alone for alone, with_them, _ in polled))
    sample = f"median of {len(polled)}"
    results.record("check-ins a second with 10,000 revoked and four who ask for that list", round(beside), "/s", None,
                   "without them", round(without), sample=sample)
    results.record("  share of the rate without", share, "%", at_least=90, sample=sample)
    results.record("  lists that those four got", round(lists), "", sample=sample)
    storm = json.loads(output(str(HOST), "--json", "load", "--nodes", str(nodes)))
    results.record("storm of nodes, the last check-in by the agent's own code", round(storm["last_ms"] / 1000, 1), "s",
                   sample=f"{nodes} nodes")
    results.record("storm of nodes, without a certificate or with two", nodes - storm["enrolled"] + storm["doubled"], "", 0)
    results.record("storm of nodes, retries", storm["retries"], "")
    results.record("storm of nodes, answers 503 with Retry-After", storm["busy"], "")
    results.record("storm of nodes, memory of serve", round(storm["memory"] / MIB, 1), "MiB", 256)


def door(results):
    """A node that calls at a door of `serve`, and many that call at once."""
    nodes = results.runs(10000, 300)
    for row in output(str(built("doorbench", results.quick)), str(HOST), str(nodes)).splitlines():
        kind, *values = row.split()
        if kind == "one":
            results.record("a node at a door, HELLO to certificate, CPU of both ends", float(values[0]), "ms", 12,
                           sample="mean of 50, TCP loopback")
        elif kind == "storm":
            called, served, seconds, half_time, p99, memory = (float(value) for value in values)
            results.record("nodes call at a door at once: served", int(served), "", at_least=int(called), sample=f"of {called:.0f}")
            results.record("  until the last one", seconds, "s", sample=f"half {half_time:.1f} s, p99 {p99:.1f} s")
            results.record("  memory of serve", memory, "MiB", 256)


def bundle(results):
    """The second boot of a stateless node, from check-in to its report: the node's own processor time."""
    runs = results.runs(50, 5)
    rows = [[float(value) for value in row.split()[1:]]
            for row in output(str(built("bundlebench", results.quick)), str(HOST), str(runs)).splitlines() if row.startswith("boot ")]
    check_in, fetch, report = (statistics.median(column) for column in zip(*rows))
    results.record("bundle fetched, verified and staged, CPU of the node", round(fetch, 2), "ms", sample=f"median of {runs}")
    results.record("  check-in, fetch and report, to a plain check-in",
                   round((check_in + fetch + report) / check_in, 2), "ratio", 3)
    nodes = results.runs(10000, 300)
    storm = json.loads(output(str(HOST), "--json", "load", "--nodes", str(nodes), "--bundle"))
    results.record("stateless nodes boot at once: available", storm["available"], "", at_least=nodes, sample=f"of {nodes}")
    results.record("  until the last one", round(storm["last_ms"] / 1000, 1), "s",
                   sample=f"half {storm['half_ms'] / 1000:.1f} s, p99 {storm['p99_ms'] / 1000:.1f} s")
    results.record("  memory of serve", round(storm["memory"] / MIB, 1), "MiB", 300)


def demo(results):
    """`make demo` with a warm build and cached kernel."""
    runs, times = results.runs(3, 1), []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(["make", "-s", "-C", str(ROOT), "demo"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    results.record("make demo, warm", round(statistics.median(times), 1), "s", 60, sample=f"median of {runs}")


PARTS = {"size": sizes, "image": image_size, "payload": payload_size, "checkin": checkin, "far checkin": far_checkin, "source": no_source,
         "firmware": firmware, "network": network, "line": serial_line, "server": server, "door": door, "bundle": bundle, "root": netroot,
         "demo": demo}


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--quick", action="store_true")
    words.add_argument("--only", default="")
    words = words.parse_args()
    results, failed = Results(words.quick), []
    for name, measure in PARTS.items():
        if words.only not in name:
            continue
        began = time.monotonic()
        try:
            measure(results)
        # Go on with the other rows.
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            failed.append(f"{name}: {error}")
        print(f"bench: {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    results.write()
    results.show()
    if not words.only:
        failed += [f"docs/benchmarks.md has a row that no bench makes: {name}" for name in readme.lacking(results.rows, boots=False)]
    failed += [f"{name}: the bar does not hold" for name in results.missed]
    for what in failed:
        print(f"bench: {what}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
