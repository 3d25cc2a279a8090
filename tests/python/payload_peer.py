#!/usr/bin/env python3
"""An independent writer of payloads: makes the frozen payloads from docs/payload.cddl with cbor2's canonical mode and
OpenSSL's signatures, compares them byte for byte with tests/data, and has pycddl check them (and refuse broken ones).
Imports nothing of ours; cose.py knows RFC 9052.
Exit code 0 only when all of it holds; prints one line a check."""

import pathlib
import sys

import cbor2
import pycddl
from cryptography.hazmat.primitives import serialization

import cose

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
CA = (DATA / "ca.der").read_bytes()

TYPICAL = {
    0: 1,
    1: bytes(range(16)),
    2: 1_795_400_000_000,
    3: 1_795_486_400_000,
    6: [{0: {4: True}, 2: [bytes([192, 0, 2, 10, 24])], 6: [{0: bytes(5), 1: bytes([192, 0, 2, 1])}], 7: [bytes([192, 0, 2, 1])]}],
    7: {0: [{0: 0, 1: "node1.example.org"}], 1: ["node1.example.org"]},
    8: CA,
    10: ["https://192.0.2.1:8443/.well-known/est"],
    11: "node1",
    12: {0: "AAECAwQFBgcICQoLDA0ODw"},
    14: "node1",
}

MAC = bytes.fromhex("525400123456")
FULL = {
    0: 1,
    1: bytes(range(0xF0, 0x100)),
    2: 0,
    3: 253402300799999,
    4: {0: bytes(range(16)), 1: [MAC, bytes(range(20))], 2: "SN-0042"},
    5: {0: bytes(range(32)), 1: True},
    6: [
        {0: {0: MAC}, 9: 9000},
        {0: {1: "eth1"}},
        {
            1: {0: "bond0", 2: {0: 1, 1: [0, 1]}},
            2: [bytes([192, 0, 2, 10, 24]), bytes.fromhex("20010db8000000000000000000000010") + b"\x40"],
            6: [
                {0: bytes(5), 1: bytes([192, 0, 2, 1]), 2: 100},
                {0: bytes(17), 1: bytes.fromhex("fe800000000000000000000000000001")},
                {0: bytes([198, 51, 100, 0, 24])},
            ],
            7: [bytes([192, 0, 2, 53]), bytes.fromhex("20010db8000000000000000000000053")],
            8: ["example.org", "example.net"],
            9: 1500,
        },
        {1: {0: "vlan7", 1: {0: 7, 1: 2}}, 3: True},
        {1: {0: "br0", 3: [3]}, 4: True, 5: True},
        {0: {2: "virtio_net"}, 3: True},
        {0: {3: True}, 3: True, -1: "ignored"},
    ],
    7: {
        0: [{0: n, 1: v} for n, v in enumerate(["node1", "Example", "Rack 7", "DE", "Berlin", "Mitte", "SN-0042", "example"])],
        1: ["node1.example.org", "node1.example.net"],
        2: [bytes([192, 0, 2, 10]), bytes.fromhex("20010db8000000000000000000000010")],
        3: ["spiffe://example.org/node1"],
        4: ["node1@example.org"],
    },
    8: CA,
    9: [bytes(range(32))],
    10: ["line:", "https://[2001:db8::1]/.well-known/est/nodes"],
    11: "node1",
    12: {0: "hunter2", 1: True},
    14: "node1.example.org",
    15: 1,
    -24: {"any": [1, 2.5, None]},
}

# Each machine with this serial number may use it.
BOUND = TYPICAL | {4: {2: "SN-0042"}}
SIGNED = {"signed-p256": ("p256", TYPICAL), "signed-ed25519": ("ed25519", BOUND)}

SIGNERS = [
    serialization.load_pem_private_key((DATA / f"signer-{word}.pem").read_bytes(), None)
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for word in ("p256", "ed25519")
]
BUNDLE = TYPICAL | {16: SIGNERS, 17: {0: 0, 1: bytes(range(0x40, 0x60)), 2: 7}}

CREDENTIALS = {0: 1, 1: bytes(16), 2: 1, 3: 2, 8: CA, 13: {0: [CA], 1: b"\x30\x00"}}


def main() -> int:
    rules = (ROOT / "docs" / "payload.cddl").read_text()
    # The first rule is the one that counts.
    schema, signed_schema, header_schema = (
        pycddl.Schema(first + rules) for first in ("", "file = signed-payload\n", "header = signature-header\n")
    )
    failed = 0

    def check(what: str, holds: bool) -> None:
        nonlocal failed
        failed += not holds
        print(f"{'ok' if holds else 'FAILED'}: {what}")

    for name, value in (("typical", TYPICAL), ("full", FULL), ("credentials", CREDENTIALS), ("bundle", BUNDLE)):
        made, path = cbor2.dumps(value, canonical=True), DATA / f"payload-{name}.cbor"
        if "--write" in sys.argv:
            path.write_bytes(made)
        check(f"{name}: cbor2's bytes are the frozen ones ({len(made)} bytes)", made == path.read_bytes())
        try:
            schema.validate_cbor(path.read_bytes())
            check(f"{name}: pycddl accepts", True)
        except pycddl.ValidationError as error:
            check(f"{name}: pycddl accepts ({error})", False)
    pin = ""
    for name, (word, value) in SIGNED.items():
        payload, path = cbor2.dumps(value, canonical=True), DATA / f"payload-{name}.cbor"
        key = serialization.load_pem_private_key((DATA / f"signer-{word}.pem").read_bytes(), None)
        made, line = cose.sign(key, payload), cose.pin_line(key.public_key())
        pin += line + "\n"
        if "--write" in sys.argv:
            path.write_bytes(made)
        check(f"{name}: cbor2's and OpenSSL's bytes are the frozen ones ({len(made)} bytes)", made == path.read_bytes())
        check(f"{name}: the signature is that of its signer", cose.verify(made, line) == payload)
        try:
            signed_schema.validate_cbor(made)
            header_schema.validate_cbor(cbor2.loads(made).value[0])
            check(f"{name}: pycddl accepts", True)
        except pycddl.ValidationError as error:
            check(f"{name}: pycddl accepts ({error})", False)
        for what, other in (("tag 98", cbor2.CBORTag(98, cbor2.loads(made).value)), ("no tag", cbor2.loads(made).value)):
            try:
                signed_schema.validate_cbor(cbor2.dumps(other, canonical=True))
                check(f"{name}: pycddl refuses {what}", False)
            except pycddl.ValidationError:
                check(f"{name}: pycddl refuses {what}", True)
    if "--write" in sys.argv:
        (DATA / "site-signers").write_text(pin)
    check("the signers' lines of a site pin are the frozen ones", pin == (DATA / "site-signers").read_text())
    schema.validate_cbor(cbor2.dumps(TYPICAL | {17: {0: 2, 3: True, 4: bytes(32)}}, canonical=True))
    check("pycddl accepts a bundle key on a stick", True)
    schema.validate_cbor(cbor2.dumps(TYPICAL | {18: bytes(32)}, canonical=True))
    check("pycddl accepts the digest of a root", True)
    for what, broken in (
        ("unknown critical key", TYPICAL | {20: 0}),
        ("a digest of a root of 31 bytes", TYPICAL | {18: bytes(31)}),
        ("a bundle key of 31 bytes", TYPICAL | {17: {0: 0, 1: bytes(31)}}),
        ("least counter 0", TYPICAL | {17: {0: 1, 2: 0}}),
        ("pull false", TYPICAL | {17: {0: 2, 3: False}}),
        ("a recipient of 33 bytes", TYPICAL | {17: {0: 2, 4: bytes(33)}}),
        ("version 2", TYPICAL | {0: 2}),
        ("short id", TYPICAL | {1: bytes(15)}),
        ("no expiry", {k: v for k, v in TYPICAL.items() if k != 3}),
        ("empty network", TYPICAL | {6: []}),
        ("VLAN 4095", TYPICAL | {6: [{1: {0: "v", 1: {0: 4095, 1: 0}}}]}),
    ):
        try:
            schema.validate_cbor(cbor2.dumps(broken, canonical=True))
            check(f"pycddl refuses {what}", False)
        except pycddl.ValidationError:
            check(f"pycddl refuses {what}", True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
