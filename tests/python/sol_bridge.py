#!/usr/bin/env python3
"""IPMI 2.0 serial-over-LAN by pyghmi: standard input and output are the line. For imprint-host inject --line exec:…

usage: sol_bridge.py HOST PORT USER PASSWORD"""

import os
import select
import sys

from pyghmi.ipmi import console
from pyghmi.ipmi.private import session

host, port, user, password = sys.argv[1:5]


def received(data):
    # Anything but bytes is news about the session.
    if isinstance(data, bytes):
        os.write(1, data)


line = console.Console(bmc=host, userid=user, password=password, port=int(port), iohandler=received, force=True)
while True:
    ready, _, _ = select.select([0], [], [], 0.005)
    if ready:
        data = os.read(0, 512)
        if not data:
            break
        line.send_data(data)
    session.Session.wait_for_rsp(0.005)
