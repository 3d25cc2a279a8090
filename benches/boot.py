#!/usr/bin/env python3
"""How long a boot waits for its identity: imprint beside a script with openssl and curl, in the same place of the same image, from the
start of the hook to `ready`; and what an image with imprint adds to a boot that has no payload. Machines are emulated, so seconds are
longer than on hardware; both clients pay for it. Prints its rows; docs/images.md has what they were.

usage: boot.py [--quick]"""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from bench import HOST, host, output, wait_for_port, free_port
from results import ROOT, Results

# The guest sees the loopback of this machine there.
OUTSIDE = "10.0.2.2"
RECORD = """name = "{name}"
subject = ["CN={name}.example.org"]
sans = ["dns:{name}.example.org"]
hostname = "{name}"
[[network]]
match = {{ driver = "virtio_net" }}
addresses = ["10.0.2.15/24"]
routes = [{{ to = "0.0.0.0/0", via = "10.0.2.2" }}]
"""
SCRIPT = """url='{url}'
credentials='{credentials}'
subject='/CN={name}.example.org'
san='DNS:{name}.example.org'
address=10.0.2.15/24
gateway=10.0.2.2
"""


class Site:
    """A server with many nodes, each with a drive for the agent or for the script."""

    def __init__(self, work):
        self.work, self.port, self.count = pathlib.Path(work), free_port(), 0
        self.state = self.work / "state"
        self.url = f"https://{OUTSIDE}:{self.port}/.well-known/est"
        host(self.state, "init", "--url", self.url)
        log = open(self.work / "log", "w")
        self.server = subprocess.Popen([str(HOST), "--dir", str(self.state), "serve", "--listen", f"127.0.0.1:{self.port}"],
                                       stdout=log, stderr=log)
        wait_for_port(self.port, self.server, self.work / "log")

    def drive(self, client):
        """The config drive of a node that has no certificate yet: its token is good once, and no second payload is made for it."""
        self.count += 1
        name = f"node{self.count:03}"
        (self.work / "node.toml").write_text(RECORD.format(name=name))
        host(self.state, "node", "add", str(self.work / "node.toml"))
        folder = self.work / name
        if client == "agent":
            (folder / "imprint").mkdir(parents=True)
            (folder / "imprint/payload").write_bytes(host(self.state, "payload", name, "--as", "cbor"))
        else:
            (folder / "script").mkdir(parents=True)
            credentials = host(self.state, "payload", name, "--as", "userpass").decode().strip()
            (folder / "script/node").write_text(SCRIPT.format(name=name, url=self.url, credentials=credentials))
            (folder / "script/ca.pem").write_bytes((self.state / "root.pem").read_bytes())
        drive = self.work / f"{name}.iso"
        subprocess.run(["genisoimage", "-quiet", "-R", "-V", "IMPRINT", "-o", str(drive), str(folder)], check=True)
        return drive

    def close(self):
        self.server.terminate()
        self.server.wait()


def console(kernel, initramfs, words, drive=None):
    """Boots the image until the machine switches itself off, and returns what its console showed."""
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max,-cx16", "-m", "512", "-display", "none",
               "-nodefaults", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel / "vmlinux"), "-initrd", str(initramfs),
               "-append", f"console=ttyS0 panic=-1 mitigations=off no_timer_check root=LABEL=none {words}",
               "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-scsi-pci"]
    if drive:
        command += ["-drive", f"file={drive},if=none,id=drive,format=raw,readonly=on", "-device", "scsi-cd,drive=drive"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=400)
    return done.stdout.decode(errors="replace")


def between(text, first, last):
    """Seconds of the guest's clock between two words of the kernel's log."""
    times = []
    for word in (first, last):
        found = re.search(r"\[ *([0-9.]+)\] " + re.escape(word), text)
        if not found:
            sys.exit(f"bench: no {word!r} on the console:\n{text[-3000:]}")
        times.append(float(found[1]))
    return times[1] - times[0]


def dracut(flavour, kernel, folder):
    image = folder / flavour
    subprocess.run([str(ROOT / "scripts/dracut-image"), flavour, str(kernel), str(image),
                    str(ROOT / "benches/boot/92imprint-bench")], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return image


def with_payload(results, kernel, site, image):
    """Agent and script take turns."""
    runs = results.runs(9, 1)
    figures = {"agent": [], "script": []}
    for _ in range(runs):
        for client, seen in figures.items():
            text = console(kernel, image, f"quiet imprint=require bench={client}", site.drive(client))
            seen.append(between(text, "bench: begin", "bench: ready"))
    mine, theirs = (statistics.median(figures[client]) for client in ("agent", "script"))
    results.record("boot, dracut image: hook to ready", round(mine, 2), "s", None, "openssl + curl script", round(theirs, 2),
                   sample=f"median of {runs}")
    results.record("  ratio to the script", round(mine / theirs, 3), "ratio", 0.334)


def without_payload(results, kernel, flavour, image):
    """What a machine pays that has no payload, where the image looks for one and goes on without."""
    runs = results.runs(9, 1)
    seen = [between(console(kernel, image, "quiet imprint=auto bench=agent"), "bench: begin", "bench: end 0") for _ in range(runs)]
    results.record(f"boot, dracut {flavour}: no payload, added", round(statistics.median(seen), 2), "s", 1.1,
                   sample=f"median of {runs}")


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--quick", action="store_true")
    words = words.parse_args()
    results = Results(words.quick)
    kernel = pathlib.Path(output(str(ROOT / "scripts/kernel"), "stable").strip())
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        images = {flavour: dracut(flavour, kernel, work) for flavour in ("systemd", "plain")}
        site = Site(work)
        try:
            with_payload(results, kernel, site, images["systemd"])
        finally:
            site.close()
        for flavour, image in images.items():
            without_payload(results, kernel, flavour, image)
    results.show()
    for name in results.missed:
        print(f"bench: {name}: the bar does not hold", file=sys.stderr)
    return 1 if results.missed else 0


if __name__ == "__main__":
    sys.exit(main())
