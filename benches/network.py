#!/usr/bin/env python3
"""Measures the network part of a boot beside its peers, in a network namespace against a real dnsmasq. Prints JSON.
bench.py starts it in namespaces of its own: it mounts, and it changes every link that it sees.

usage: unshare --net --mount network.py NETBOOT IMPRINT-HOST RUNS"""

import json
import os
import pathlib
import pwd
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

NETBOOT, HOST, RUNS = sys.argv[1], sys.argv[2], int(sys.argv[3])
SO_TIMESTAMPNS = 35
GROUPS = 1 | 0x10  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR
NEWLINK, NEWADDR = 16, 20
LOWER_UP_AND_RUNNING = 0x10000 | 0x40
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def dnsmasq(link):
    return (f"dnsmasq --conf-file=/dev/null --pid-file --user=root --port=0 --leasefile-ro --no-ping --dhcp-authoritative "
            f"--log-facility=- --interface={link} --bind-interfaces --dhcp-range=192.0.2.100,192.0.2.200,255.255.255.0,1h "
            f">/dev/null 2>&1")


class Peer:
    """The other end: a namespace of its own with these links, and what the script starts there."""

    def __init__(self, links, script):
        self.process = subprocess.Popen(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
             f"set -e; read go; ip link set lo up; {script}\necho ready; read end"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == own:
            pass
        for link in links:
            ip("link", "set", link, "netns", str(self.process.pid))
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line == "ready\n", line

    def close(self):
        self.process.kill()
        self.process.wait()


class Watch:
    """Packets of eth0 with the kernel's timestamps, and what netlink says of links and addresses."""

    def __init__(self):
        self.packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.packets.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.packets.bind(("eth0", 3))
        self.news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.news.bind((0, GROUPS))
        self.index = socket.if_nametoindex("eth0")

    def drain(self):
        for source in (self.packets, self.news):
            source.setblocking(False)
            try:
                while True:
                    source.recv(65536)
            except OSError:
                pass

    def until_usable(self):
        """[(what, second)] until there is an address after an ACK."""
        seen, end = [], time.monotonic() + 20
        while time.monotonic() < end:
            ready, _, _ = select.select([self.packets, self.news], [], [], 1)
            if self.news in ready:
                now, message = time.clock_gettime(time.CLOCK_REALTIME), self.news.recv(65536)
                kind, (index, flags) = struct.unpack_from("H", message, 4)[0], struct.unpack_from("iI", message, 20)
                if kind == NEWLINK and index == self.index and flags & LOWER_UP_AND_RUNNING == LOWER_UP_AND_RUNNING:
                    seen.append(("up", now))
                if kind == NEWADDR and index == self.index:
                    seen.append(("address", now))
            if self.packets in ready:
                packet, ancillary, _, _ = self.packets.recvmsg(65536, 256)
                kind = dhcp(packet)
                if kind:
                    seconds, nanoseconds = struct.unpack("ll", ancillary[0][2])
                    seen.append((kind, seconds + nanoseconds / 1e9))
            # This program may read a packet after the netlink message about its effect.
            if {ACK, "address"} <= {what for what, _ in seen}:
                return seen
        sys.exit(f"network.py: no address; seen {seen}")


def dhcp(frame):
    """The message type of a DHCP packet, else None."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 17 or len(frame) < 282:
        return None
    ports = struct.unpack_from("!HH", frame, 34)
    if ports not in ((68, 67), (67, 68)):
        return None
    options, at = frame[282:], 0
    while at + 2 < len(options) and options[at] != 255:
        if options[at] == 53:
            return options[at + 2]
        at += 1 if options[at] == 0 else 2 + options[at + 1]
    return None


def own_time(seen):
    """Milliseconds that were the client's own: up to DISCOVER, OFFER to REQUEST, ACK to address."""
    seen = sorted(seen, key=lambda event: event[1])
    first = lambda what, after=0: next(at for kind, at in seen if kind == what and at >= after)
    up = first("up")
    discover = first(DISCOVER)
    offer = first(OFFER, discover)
    request = first(REQUEST, offer)
    ack = first(ACK, request)
    address = first("address", ack)
    # Netlink messages are stamped when this program reads them, so a packet of the same moment has the earlier timestamp.
    return (max(0, discover - up) + (request - offer) + (address - ack)) * 1000


UDHCPC = """#!/bin/sh
[ "$1" = bound ] || exit 0
exec ip addr add $ip/$mask dev $interface
"""
DHCLIENT = """#!/bin/sh
[ "$reason" = BOUND ] || exit 0
exec ip addr add $new_ip_address/24 dev $interface
"""


def script(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def next_stage_folders():
    # networkd waits for udevd, unless /sys is read-only: then networkd assumes that it runs in a container.
    subprocess.run(["mount", "-t", "sysfs", "-o", "ro", "sysfs", "/sys"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    user = pwd.getpwnam("systemd-network")
    for folder in ("", "/links", "/leases", "/lldp"):
        os.makedirs(f"/run/systemd/netif{folder}")
        os.chown(f"/run/systemd/netif{folder}", user.pw_uid, user.pw_gid)
    os.makedirs("/run/systemd/network")
    pathlib.Path("/run/systemd/network/70-eth0.network").write_text(
        "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n[DHCPv4]\nClientIdentifier=mac\n")


RECORD = """name = "NAME"
subject = ["CN=NAME.example.org"]
sans = ["dns:NAME.example.org"]
"""


def payload(folder, state, name, links):
    """A node's payload. Each check-in needs one of its own: a token is used once."""
    record = RECORD.replace("NAME", name)
    record += "".join(f'[[network]]\nmatch = {{ name = "{link}" }}\ndhcp4 = true\n' for link in links)
    record_file, path = folder / f"{name}.toml", folder / f"{name}.cbor"
    record_file.write_text(record)
    host = [HOST, "--dir", str(state)]
    subprocess.run([*host, "node", "add", str(record_file)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*host, "payload", name, "--as", "cbor", "-o", str(path)], check=True, stdout=subprocess.DEVNULL)
    return str(path)


def netboot_root(folder):
    root = folder / "root"
    root.mkdir()
    (root / "proc").symlink_to("/proc")
    return str(root)


def leases(folder, state, root):
    """Own time of each client, median of RUNS."""
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "p0")
    peer = Peer(["p0"], f"ip addr add 192.0.2.1/24 dev p0; ip link set p0 up; {dnsmasq('p0')}")
    lease_file = folder / "dhclient.leases"
    up = "ip link set eth0 up; exec "
    clients = {
        "imprint": [NETBOOT, payload(folder, state, "lease", ["eth0"]), root, "lease"],
        "udhcpc": ["sh", "-c", f"{up} busybox udhcpc -i eth0 -f -q -n -s {script(folder, 'udhcpc.sh', UDHCPC)}"],
        "dhclient": ["sh", "-c", f"{up} dhclient -1 -d -lf {lease_file} -pf {folder}/dhclient.pid "
                                 f"-sf {script(folder, 'dhclient.sh', DHCLIENT)} eth0"],
        "systemd-networkd": ["/lib/systemd/systemd-networkd"],
    }
    figures = {name: [] for name in clients}
    watch = Watch()
    for turn in range(RUNS + 1):
        for name, command in clients.items():
            ip("link", "set", "eth0", "down")
            ip("addr", "flush", "dev", "eth0")
            lease_file.unlink(missing_ok=True)
            for old in pathlib.Path("/run/systemd/netif/leases").iterdir():
                old.unlink()
            watch.drain()
            client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            own = own_time(watch.until_usable())
            client.terminate()
            client.wait()
            if turn > 0:
                figures[name].append(own)
    peer.close()
    ip("link", "del", "eth0")
    return {name: statistics.median(values) for name, values in figures.items()}


def dead_links(folder, state, root):
    """How much later a check-in is with three dead links beside the live one: median of paired runs, and the median of
    the live one alone."""
    for number in range(4):
        ip("link", "add", f"eth{number}", "type", "veth", "peer", "name", f"p{number}")
    serve = f"{HOST} --dir {state} serve --listen 192.0.2.1:18443 >/dev/null 2>&1 &"
    # p0 stays down, so eth0 has no carrier. Nothing answers behind p1 and p2.
    peer = Peer([f"p{number}" for number in range(4)],
                f"ip link set p1 up; ip link set p2 up; ip addr add 192.0.2.1/24 dev p3; ip link set p3 up; "
                f"{dnsmasq('p3')}; {serve}")
    turns = [[[NETBOOT, payload(folder, state, f"{name}{turn}", links), root, "enrol"]
              for name, links in (("alone", ["eth3"]), ("four", ["eth0", "eth1", "eth2", "eth3"]))]
             for turn in range(RUNS + 1)]
    later, alone = [], []
    for turn, commands in enumerate(turns):
        took = []
        # The two take turns in going first, because the second one finds warm caches.
        for command in commands if turn % 2 else reversed(commands):
            for number in range(4):
                ip("link", "set", f"eth{number}", "down")
                ip("addr", "flush", "dev", f"eth{number}")
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            begun, _, end = map(int, done.stdout.split())
            took.append((end - begun) / 1000)
        if not turn % 2:
            took.reverse()
        if turn > 0:
            alone.append(took[0])
            later.append(took[1] - took[0])
    peer.close()
    return {"later": statistics.median(later), "alone": statistics.median(alone)}


def main():
    # Netlink messages have no timestamp, so this program has to read them at once.
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    next_stage_folders()
    ip("link", "set", "lo", "up")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        state, root = folder / "state", netboot_root(folder)
        subprocess.run([HOST, "--dir", str(state), "init", "--url", "https://192.0.2.1:18443/.well-known/est"],
                       check=True, stdout=subprocess.DEVNULL)
        print(json.dumps({"leases": leases(folder, state, root), "dead links": dead_links(folder, state, root)}))


if __name__ == "__main__":
    main()
