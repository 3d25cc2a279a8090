#!/usr/bin/env python3
"""Runs a program that believes that it has set the clock of the machine, and has not: seccomp answers for the kernel.

usage: clock_stays.py PROGRAM ARGUMENT…
"""
import ctypes
import os
import platform
import struct
import sys

# <asm/unistd.h>: clock_settime, settimeofday.
SYSCALLS = {"x86_64": (227, 164), "aarch64": (112, 170)}[platform.machine()]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # <linux/bpf_common.h>
ERRNO, ALLOW = 0x00050000, 0x7FFF0000  # <linux/seccomp.h>
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2

rules = [(LOAD, 0, 0, 0)]
for left, number in zip(range(len(SYSCALLS), 0, -1), SYSCALLS):
    rules.append((EQUAL, left, 0, number))
# Error 0 is none.
rules += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
arguments = [(PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))]
for option, first, second in arguments:
    if libc.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        sys.exit(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
