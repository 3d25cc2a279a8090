#!/usr/bin/env python3
"""How long a boot waits for its identity, in virtual machines:

- imprint beside a script with openssl and curl, in the same place of the same dracut image, with systemd and without, from the start of
  the hook to `ready`;
- a bare image beside one whose /init is that script, from /init to `ready`;
- what imprint adds to a boot without a payload, in an image of each builder, from /init to the root's init. Images of mkinitcpio
  cannot be built on Debian;
- what memory a root over the network takes beyond the image, all of the machine's included.

Machines are emulated, so seconds are longer than on hardware; all clients pay for it. Only boots without a payload have a clock that
counts instructions. It takes many minutes, so `make test` does not run it. Prints its rows and writes them to
those of bench.py; readme.py has them published.

usage: boot.py [--quick] [--only WORD]"""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import root
from bench import AGENT, HOST, MIB, free_port, host, output, wait_for_port
from results import ROOT, Results

# The guest sees the loopback of this machine there.
OUTSIDE = "10.0.2.2"
# And there the server of images: no node may have the address of the server that issues certificates.
IMAGES = "10.0.2.100"
RECORD = """name = "{name}"
subject = ["CN={name}.example.org"]
sans = ["dns:{name}.example.org"]
hostname = "{name}"
[[network]]
match = {{ driver = "virtio_net" }}
addresses = ["10.0.2.15/24"]
routes = [{{ to = "0.0.0.0/0", via = "10.0.2.2" }}]
"""
SCRIPT = """name='{name}'
made={made}
url='{url}'
credentials='{credentials}'
subject='/CN={name}.example.org'
san='DNS:{name}.example.org'
address=10.0.2.15/24
gateway=10.0.2.2
"""
# The kernel's note that its own part is over, and those of benches/boot.
INIT, BEGIN, READY, REAL = "Run /init", "bench: begin", "bench: ready", "bench: root"
FILES = ROOT / "benches/boot"
# What the files of benches/boot call.
APPLETS = "sh cat date dmesg find grep ip mkdir modprobe mount sleep sort xargs"
PEER = "openssl + curl script"


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
            (folder / "script/node").write_text(SCRIPT.format(name=name, made=int(time.time()), url=self.url, credentials=credentials))
            (folder / "script/ca.pem").write_bytes((self.state / "root.pem").read_bytes())
        drive = self.work / f"{name}.iso"
        subprocess.run(["genisoimage", "-quiet", "-R", "-V", "IMPRINT", "-o", str(drive), str(folder)], check=True)
        return drive

    def close(self):
        self.server.terminate()
        self.server.wait()


class Builds:
    """The images of this run, each built when it is first asked for."""

    def __init__(self, work):
        self.work = pathlib.Path(work)
        self.kernel = pathlib.Path(output(str(ROOT / "scripts/kernel"), "stable").strip())
        self.version = (self.kernel / "version").read_text().strip()
        self.busybox = pathlib.Path(shutil.which("busybox"))

    def dracut(self, flavour, module, without=False):
        """`module`: of benches/boot, besides imprint's; `without`: nothing starts imprint."""
        image = self.work / f"{flavour}-{module}-{without}"
        if not image.exists():
            subprocess.run([str(ROOT / "scripts/dracut-image"), flavour, str(self.kernel), str(image), str(FILES / module)],
                           check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment(without))
        return image

    def initramfs_tools(self, without):
        image = self.work / f"initramfs-tools-{without}"
        subprocess.run([str(ROOT / "scripts/initramfs-tools-image"), "list", str(self.kernel), str(image), str(FILES / "initramfs-tools")],
                       check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment(without))
        return image

    def shell(self, folder):
        """busybox, with what ends a boot."""
        (folder / "bin").mkdir(parents=True)
        folder.chmod(0o755)
        shutil.copy(self.busybox, folder / "bin/busybox")
        for applet in APPLETS.split():
            (folder / "bin" / applet).symlink_to("busybox")
        shutil.copy(FILES / "root-init", folder / "bin/bench-next")

    def bare(self):
        """A bare image, and one whose /init is the script: with the same modules and the same busybox."""
        agent, script, tree = self.work / "bare", self.work / "bare-script", self.work / "script-tree"
        if script.exists():
            return agent, script
        self.shell(self.work / "shell")
        subprocess.run([str(HOST), "image", "--kernel-modules", str(self.kernel / "lib/modules" / self.version), "--agent", str(AGENT),
                        "--compress", "none", "--add", f"{self.work / 'shell'}:/", "-o", str(agent)],
                       check=True, stdout=subprocess.DEVNULL)
        tree.mkdir()
        with open(agent, "rb") as archive:
            subprocess.run(["cpio", "-id", "--quiet"], stdin=archive, cwd=tree, check=True)
        shutil.rmtree(tree / "imprint")
        (tree / "init").unlink()
        for name in ("proc", "sys", "run", "sbin"):
            (tree / name).mkdir(exist_ok=True)
        # The kernel asks there for the drivers of file systems.
        (tree / "sbin/modprobe").symlink_to("/bin/busybox")
        shutil.copy(FILES / "init", tree / "init")
        shutil.copy(FILES / "script", tree / "bin/bench-script")
        shutil.copy(ROOT / "benches/baseline.sh", tree / "bin/baseline.sh")
        for file in needed("openssl", "curl"):
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"/{file}", tree / file)
        names = "\n".join(["."] + [str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))])
        with open(script, "wb") as archive:
            subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], input=names.encode(), stdout=archive, cwd=tree, check=True)
        return agent, script

    def disk(self):
        """A root whose init says that it runs."""
        disk, tree = self.work / "disk", self.work / "disk-tree"
        if not disk.exists():
            self.shell(tree)
            for name in ("sbin", "proc", "sys", "dev", "run", "etc"):
                (tree / name).mkdir()
            (tree / "sbin/init").symlink_to("/bin/bench-next")
            (tree / "etc/os-release").write_text("ID=bench\n")
            with open(disk, "wb") as file:
                file.truncate(16 * MIB)
            subprocess.run(["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-d", str(tree), "-F", str(disk)], check=True)
        return disk


def environment(without):
    """What builders read; BENCH_WITHOUT is a word of benches/boot."""
    return {**os.environ, "BENCH_WITHOUT": "yes" if without else "", "IMPRINT_SITE": ""}


def needed(*programs):
    """Programs, their libraries and openssl's configuration, by their paths without the first slash. By those that programs ask for:
    folders that are links here are folders there."""
    files = ["/usr/lib/ssl/openssl.cnf"]
    for program in programs:
        path = shutil.which(program)
        files += [path, *re.findall(r"(/\S+) \(0x", output("ldd", path))]
    return sorted({file.lstrip("/") for file in files})


# A clock that counts the guest's instructions, one nanosecond each: what else this machine does is not seen. It is slow, and no server
# beside the guest has such a clock.
COUNTED = ("tcg,thread=single", "-icount", "shift=0,sleep=on")


def console(builds, image, words, drive=None, disk=None, clock=("tcg,thread=multi",), images=None):
    """Boots the image until the machine switches itself off, and returns what its console showed. `images`: the port of a
    server that it finds at IMAGES."""
    forward = f",guestfwd=tcp:{IMAGES}:443-cmd:busybox nc 127.0.0.1 {images}" if images else ""
    # The processor of the tests: one with all that QEMU can emulate spends most of a boot on emulating it, for either side.
    command = ["qemu-system-x86_64", "-accel", *clock, "-cpu", "qemu64,-cx16,+rdrand", "-m", "512",
               "-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio",
               "-kernel", str(builds.kernel / "vmlinux"), "-initrd", str(image),
               "-append", f"console=ttyS0 quiet panic=-1 mitigations=off no_timer_check {words}",
               "-netdev", f"user,id=net{forward}", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-scsi-pci"]
    if drive:
        command += ["-drive", f"file={drive},if=none,id=drive,format=raw,readonly=on", "-device", "scsi-cd,drive=drive"]
    if disk:
        command += ["-drive", f"file={disk},if=none,id=disk,format=raw,readonly=on", "-device", "virtio-blk-pci,drive=disk"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=400)
    except subprocess.TimeoutExpired as late:
        sys.exit(f"bench: the machine did not end:\n{(late.stdout or b'').decode(errors='replace')[-3000:]}")
    return done.stdout.decode(errors="replace")


def said(text, pattern):
    """What the kernel's log says in words like these."""
    found = re.search(r"\[ *([0-9.]+)\] " + pattern, text)
    if not found:
        sys.exit(f"bench: no {pattern!r} on the console:\n{text[-3000:]}")
    return found


def between(text, first, last):
    """Seconds of the guest's clock between two notes."""
    return float(said(text, re.escape(last))[1]) - float(said(text, re.escape(first))[1])


def beside(results, name, limit, boots):
    """Agent and script take turns. `boots`: {client: a function that boots it and returns seconds}."""
    runs = results.runs(9, 1)
    figures = {client: [] for client in boots}
    for _ in range(runs):
        for client, boot in boots.items():
            figures[client].append(boot())
    mine, theirs = (statistics.median(figures[client]) for client in ("agent", "script"))
    results.record(name, round(mine, 2), "s", None, PEER, round(theirs, 2), sample=f"median of {runs}")
    results.record("  ratio to the script", round(mine / theirs, 3), "ratio", limit)


def dracut_with_payload(results, builds, site):
    def boot(client):
        text = console(builds, image, f"root=LABEL=none imprint=require bench={client}", site.drive(client))
        return between(text, BEGIN, READY)

    # With systemd the agent starts while udevd still brings the machine's devices up, and without it once udevd is done.
    for flavour, name in (("plain", "dracut without systemd"), ("systemd", "dracut with systemd")):
        image = builds.dracut(flavour, "92imprint-bench")
        beside(results, f"boot, image by {name}: hook to ready", 0.334, {"agent": lambda: boot("agent"), "script": lambda: boot("script")})


def bare_with_payload(results, builds, site):
    def boot(client, image):
        text = console(builds, image, "imprint=require imprint.next=/bin/bench-next imprint.rescue=poweroff", site.drive(client))
        return between(text, INIT, READY)

    agent, script = builds.bare()
    beside(results, "boot, bare image: /init to ready", 0.5,
           {"agent": lambda: boot("agent", agent), "script": lambda: boot("script", script)})


def without_payload(results, builds, _site):
    """What a machine pays that has no payload, where the image looks for one and goes on without. The other boot is of the same image,
    drivers included, in which nothing starts imprint. The bare image is nothing but imprint, so there it is told not to look."""
    bare = builds.bare()[0]
    auto, off = "imprint=auto imprint.rescue=poweroff", "imprint=off imprint.rescue=poweroff"
    pairs = {"dracut with systemd": [(auto, builds.dracut("systemd", "91bench-root", without)) for without in (False, True)],
             "dracut without systemd": [(auto, builds.dracut("plain", "91bench-root", without)) for without in (False, True)],
             "initramfs-tools": [(auto, builds.initramfs_tools(without)) for without in (False, True)],
             "imprint-host image (bare)": [(auto, bare), (off, bare)]}
    runs = results.runs(3, 1)
    for builder, pair in pairs.items():
        added, rest = [], []
        for _ in range(runs):
            took = [between(console(builds, image, f"root=/dev/vda {words}", disk=builds.disk(), clock=COUNTED), INIT, REAL)
                    for words, image in pair]
            added.append(took[0] - took[1])
            rest.append(took[1])
        peer = "the boot with imprint=off" if pair[0][1] == pair[1][1] else "the boot without imprint"
        results.record(f"boot, image by {builder}: no payload, added", round(statistics.median(added), 2), "s", 1.1, peer,
                       round(statistics.median(rest), 2), sample=f"median of {runs}")


def memory(results, builds, site):
    """A root over the network in a guest: what MemAvailable falls by while it is fetched, verified and mounted, less the image."""
    size, runs = 64 * MIB, results.runs(3, 1)
    work, port = builds.work / "netroot", free_port()
    (work / "images").mkdir(parents=True)
    image = root.image(work / "images", size)
    root.credentials(AGENT, HOST, site.state, "images", f"ip:{IMAGES}", work / "identity")
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    words = f"bench=root root=imprint:https://{IMAGES}/{image.name} imprint.root-sha256={digest} imprint=require rd.shell=0"
    server, beyond = root.serve(work, port, work / "identity", work / "images"), []
    try:
        for _ in range(runs):
            text = console(builds, builds.dracut("plain", "92imprint-bench"), words, site.drive("agent"), images=port)
            said(text, "bench: end 0")
            left = said(text, "bench: left ([0-9]+) then ([0-9]+)")
            beyond.append(((int(left[2]) - int(left[3])) * 1024 - image.stat().st_size) / MIB)
    finally:
        server.terminate()
        server.wait()
    # Nothing can hold the image in less than its size.
    if min(beyond) < 0:
        sys.exit(f"bench: a root took less memory than it has bytes: {beyond}")
    results.record("boot, root over the network: memory of the machine beyond the image", round(max(beyond), 1), "MiB", 8,
                   sample=f"most of {runs}, {size // MIB} MiB")


PARTS = {"dracut": dracut_with_payload, "bare": bare_with_payload, "absent": without_payload, "memory": memory}


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--quick", action="store_true")
    words.add_argument("--only", default="")
    words = words.parse_args()
    results = Results(words.quick)
    with tempfile.TemporaryDirectory() as work:
        builds, site = Builds(work), Site(work)
        try:
            for name, measure in PARTS.items():
                if words.only not in name:
                    continue
                began = time.monotonic()
                measure(results, builds, site)
                print(f"bench: {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        finally:
            site.close()
    results.write()
    results.show()
    for name in results.missed:
        print(f"bench: {name}: the bar does not hold", file=sys.stderr)
    return 1 if results.missed else 0


if __name__ == "__main__":
    sys.exit(main())
