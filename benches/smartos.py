#!/usr/bin/python3
"""How long cloud-init's SmartOS client takes for one value over a paced line, in seconds. For
Debian's python3, which has what cloud-init needs.

usage: smartos.py LINEBENCH BYTES BAUD"""

import base64
import os
import subprocess
import sys
import threading
import time
import zlib

cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
sys.path.insert(0, os.path.join(cache, "imprint/cloud-init/usr/lib/python3/dist-packages"))

from cloudinit.sources.DataSourceSmartOS import JoyentMetadataSerialClient

line = subprocess.Popen([sys.argv[1], "line", sys.argv[3]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
node, host = (line.stdout.readline().strip() for _ in range(2))
value = os.urandom(int(sys.argv[2]))
end = os.open(host, os.O_RDWR | os.O_NOCTTY)


def serve():
    """The other half of the protocol: https://eng.tritondatacenter.com/mdata/protocol.html"""
    held = b""
    while True:
        held += os.read(end, 4096)
        while b"\n" in held:
            words, held = held.split(b"\n", 1)
            words = words.split()
            if words == [b"NEGOTIATE", b"V2"]:
                answer = b"V2_OK"
            elif words[:1] == [b"V2"]:
                body = words[3] + b" SUCCESS " + base64.b64encode(value)
                answer = b"V2 %d %08x %s" % (len(body), zlib.crc32(body), body)
            else:
                answer = b"invalid command"
            os.write(end, answer + b"\n")


threading.Thread(target=serve, daemon=True).start()
client = JoyentMetadataSerialClient(device=node, timeout=60)
began = time.monotonic()
client.open_transport()
got = client.get("imprint:payload")
print(round(time.monotonic() - began, 3))
assert got in (value, value.decode("latin-1")), "another value"
line.stdin.close()
os._exit(0)
