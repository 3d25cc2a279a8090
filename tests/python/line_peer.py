#!/usr/bin/env python3
"""A node, written from docs/line-protocol.md alone: says HELLO on a Unix socket, opens its payload, has a CSR signed, and
reports. Says what it got on standard output. With the line of a signer (`signer p256 BASE64`) it sends challenges, and takes only
what that signer has signed for one of them, and only a time that the host proves. With an admission key (PEM) it calls at the
socket, which is a door, and proves in one conversation that it has the key, after another one that nobody knows.

usage: line_peer.py SOCKET [SIGNER [KEY]]"""

import hashlib
import hmac
import json
import os
import socket
import struct
import sys
import time
import zlib

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

import cose

DIGITS = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?,<>()[]{}@%$_"
# Crockford's base 32.
CODE = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def encode(data):
    out = bytearray()
    for at in range(0, len(data), 4):
        group = data[at:at + 4]
        value, digits = int.from_bytes(group, "big"), []
        for _ in range(len(group) + 1):
            value, digit = divmod(value, 85)
            digits.append(DIGITS[digit])
        out += bytes(reversed(digits))
    return bytes(out)


def decode(text):
    out = b""
    for at in range(0, len(text), 5):
        group = text[at:at + 5]
        value = 0
        for digit in group:
            value = value * 85 + DIGITS.index(digit)
        if len(group) == 1 or value >= 256 ** (len(group) - 1):
            return None
        out += value.to_bytes(len(group) - 1, "big")
    return out


def key_code(public):
    info = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    bits = int.from_bytes(hashlib.sha256(info).digest()[:10], "big")
    digits = "".join(CODE[bits >> shift & 31] for shift in range(75, -1, -5))
    return "-".join(digits[at:at + 4] for at in range(0, 16, 4))


def crc(sender, nonces, message):
    return struct.pack(">I", zlib.crc32(sender + nonces + message))


def frame(message, nonces=bytes(16)):
    return b"#" + encode(message + crc(b"N", nonces, message)) + b"\r\n"


# HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM.
def extract(suite, salt, label, value):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + value, "sha256")


def expand(suite, key, label, info, length):
    info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, info + b"\x01", "sha256")[:length]


def hpke_open(private, sealed, info, aad):
    encapsulated, ciphertext = sealed[:32], sealed[32:]
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    kem = b"KEM" + struct.pack(">H", 0x20)
    context = encapsulated + private.public_key().public_bytes(*RAW)
    secret = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", context, 32)
    suite = b"HPKE" + struct.pack(">HHH", 0x20, 1, 1)
    context = b"\x00" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, secret, b"secret", b"")
    key, nonce = expand(suite, secret, b"key", context, 16), expand(suite, secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, aad)


class Node:
    def __init__(self, line, signer=None, key=None):
        self.line = line
        self.signer = signer
        self.keys = [Ed25519PrivateKey.generate(), key] if key else []
        self.proven = 0
        self.challenges = {}
        self.announced = None
        self.request = None
        self.token = None
        self.private = X25519PrivateKey.generate()
        self.nonce = os.urandom(8)
        public = self.private.public_key().public_bytes(*RAW)
        self.hello = bytes([2, 1, 1, 2 if signer else 0]) + self.nonce + public + bytes([1, 16]) + bytes([7]) * 16
        self.nonces = None
        self.stage = 0
        self.coming = None
        self.sending = None
        self.sent = 0
        self.code = None

    def say(self, message, inside=True):
        self.line.sendall(frame(message, self.nonces if inside else bytes(16)))

    def send(self, kind, data):
        number, self.sent = self.sent, self.sent + 1
        pieces = [data[at:at + 192] for at in range(0, len(data), 192)]
        self.sending = (number, kind, len(pieces))
        self.say(bytes([5, number, kind, 192]) + struct.pack(">I", len(data)) + hashlib.sha256(data).digest())
        for index, piece in enumerate(pieces):
            self.say(bytes([6, number]) + struct.pack(">H", index) + piece)

    def run(self):
        self.say(self.hello, inside=False)
        held = b""
        while self.stage != 5:
            data = self.line.recv(4096)
            if not data:
                sys.exit("the host is gone")
            held += data
            while b"\n" in held:
                text, held = held.split(b"\n", 1)
                if b"#" in text:
                    self.heard(text.rsplit(b"#", 1)[1].rstrip(b"\r"))

    def heard(self, digits):
        data = decode(digits) if all(digit in DIGITS for digit in digits) else None
        if not data or len(data) < 5:
            return
        message, check = data[:-4], data[-4:]
        if message[0] in (1, 3):
            if check != crc(b"H", bytes(16), message):
                return
            if message[0] == 1:
                self.say(self.hello, inside=False)
            elif message[4:12] == self.nonce and message[1] == 1:
                is_new = self.nonces != message[4:20]
                self.nonces = message[4:20]
                self.ready()
                if is_new:
                    self.proven = self.sent = 0
                    self.prove()
            return
        if self.nonces is None or check != crc(b"H", self.nonces, message):
            return
        if message[0] == 5:
            number, kind, chunk = message[1:4]
            length, digest = struct.unpack(">I", message[4:8])[0], message[8:40]
            self.announced = time.monotonic()
            self.coming = (number, kind, digest, [None] * -(-length // chunk))
            self.acknowledge()
        elif message[0] == 6 and self.coming and self.coming[0] == message[1]:
            self.coming[3][struct.unpack(">H", message[2:4])[0]] = message[4:]
            self.acknowledge()
            if None not in self.coming[3]:
                number, kind, digest, pieces = self.coming
                data = b"".join(pieces)
                assert hashlib.sha256(data).digest() == digest
                self.arrived(number, kind, data)
        elif message[0] == 12:
            self.told(message)
        elif message[0] == 7 and self.sending:
            number, kind, count = self.sending
            if message[1] == number and struct.unpack(">H", message[2:4])[0] == count:
                self.sending = None
                if kind == 17:
                    self.stage = 5
                elif kind == 18:
                    print("proof: acknowledged", flush=True)
                    self.prove()

    def prove(self):
        """The next admission key, in an object of kind 18. An object follows when the last one has arrived."""
        if self.stage == 0 and self.proven < len(self.keys):
            key = self.keys[self.proven]
            self.proven += 1
            text = b"imprint admission" + bytes([1]) + hashlib.sha256(self.hello).digest() + self.nonces[8:16]
            self.send(18, key.public_key().public_bytes(*RAW) + key.sign(text))

    def ready(self):
        self.say(bytes([4, self.stage, 0, 0]))
        if self.signer and self.stage == 0:
            # A new one each time, and CHALLENGE right behind READY.
            challenge = os.urandom(16)
            self.challenges[challenge] = time.monotonic()
            self.say(bytes([11, 0, 0, 0]) + challenge)

    def fresh(self, data):
        """The payload in an object of kind 6, and for how long it was on its way at most."""
        challenge, signed = data[:16], data[16:]
        age = self.announced - self.challenges[challenge]
        assert age < 60
        aad = b"imprint payload 1" + hashlib.sha256(self.hello).digest() + challenge
        return cose.verify(signed, self.signer, aad), age

    def told(self, message):
        """PROVEN TIME, the answer to ASK 1."""
        number, received, held, proof = struct.unpack(">xBxxQI16s", message)
        text = b"imprint line time" + bytes([1]) + hashlib.sha256(self.hello).digest() + self.nonces
        text += bytes([number]) + message[4:16]
        assert number == 1 and proof == hmac.digest(hashlib.sha256(self.token).digest(), text, "sha256")[:16]
        now = received / 1e6 + held / 1e6
        assert abs(now - time.time()) < 60, now
        print("time: proven", flush=True)
        self.asks()

    def asks(self):
        self.stage = 2
        self.say(bytes([4, 2, 0, 0]))
        self.send(16, self.request)

    def acknowledge(self):
        number, _, _, pieces = self.coming
        following = next((index for index, piece in enumerate(pieces) if piece is None), len(pieces))
        later = sum(1 << bit for bit, piece in enumerate(pieces[following + 1:following + 33]) if piece is not None)
        self.say(bytes([7, number]) + struct.pack(">HI", following, later))

    def arrived(self, number, kind, data):
        hello = hashlib.sha256(self.hello).digest()
        if kind == (6 if self.signer else 1):
            info = b"imprint line" + bytes([1]) + self.nonces + hello
            opened = hpke_open(self.private, data, info, bytes([kind, number]))
            if self.signer:
                opened, age = self.fresh(opened)
                composed = cbor2.loads(opened)[2] / 1000
                # One clock, so this is when it was signed: after the challenge, and before it was announced.
                assert -0.002 <= time.time() - composed <= age + (time.monotonic() - self.announced) + 0.002
                print("signed for a challenge", flush=True)
            payload = cbor2.loads(opened)
            if isinstance(payload, cbor2.CBORTag):
                # Signed: COSE_Sign1. This node knows no signer.
                payload = cbor2.loads(payload.value[2])
            self.token = token = payload[12][0].encode()
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node1.example.org")])
            key = ec.generate_private_key(ec.SECP256R1())
            csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
            self.code = key_code(key.public_key())
            csr = csr.public_bytes(serialization.Encoding.DER)
            text = b"imprint line request" + bytes([1]) + hello + csr
            proof = hmac.digest(hashlib.sha256(token).digest(), text, "sha256")
            self.request = proof + csr
            if self.signer:
                self.stage = 1
                self.say(bytes([9, 1]) + bytes(14))
            else:
                self.asks()
        elif kind == 3:
            certificates = pkcs7.load_der_pkcs7_certificates(data)
            print("certificates:", ", ".join(each.subject.rfc4514_string() for each in certificates))
            report = {"version": 1, "outcome": "done", "exit_code": 0, "error": None, "origin": "line",
                      "payload_id": None, "name": None, "key_code": self.code, "steps": []}
            self.send(17, json.dumps(report).encode())
        else:
            sys.exit(f"kind {kind}: {data!r}")


def called(path, signer, key):
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    line.settimeout(120)
    with open(key, "rb") as file:
        Node(line, signer, serialization.load_pem_private_key(file.read(), None)).run()


def main():
    if len(sys.argv) == 4:
        return called(*sys.argv[1:])
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen(1)
    print("listening", flush=True)
    line, _ = server.accept()
    line.settimeout(120)
    Node(line, *sys.argv[2:]).run()


if __name__ == "__main__":
    main()
