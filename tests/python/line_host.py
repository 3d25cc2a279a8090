#!/usr/bin/env python3
"""A host, written from docs/line-protocol.md and docs/payload.cddl alone: brings a payload to the node at the other end of
standard input, which is a terminal, and signs its request. On its way there it does what the page describes and the other host
of this project never does. Says what was as the page says on standard output, a line each; ends with 1 at the first that was not.

usage: line_host.py line|server      which URL the payload has: line:, or a server that is not there
       line_host.py fresh KEY        as line, to a node that sends challenges, signed with this key in PEM
       line_host.py fresh KEY ADMISSION   as fresh, to a node that proves first that it has this admission key (its public half)"""

import datetime
import hashlib
import hmac
import json
import os
import pathlib
import select
import struct
import sys
import time

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import cose
from line_peer import DIGITS, crc, decode, encode, expand, extract, key_code

LINE = 0
RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
DER = serialization.Encoding.DER
# Longer than anything takes that happens at all.
PATIENCE = 120
TOKEN = "AAECAwQFBgcICQoLDA0ODw"


def ok(what, holds=True):
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    if not holds:
        sys.exit(1)


def hpke_seal(public, plain, info, aad):
    """RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM."""
    ephemeral = X25519PrivateKey.generate()
    encapsulated = ephemeral.public_key().public_bytes(*RAW)
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    kem = b"KEM" + struct.pack(">H", 0x20)
    secret = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", encapsulated + public, 32)
    suite = b"HPKE" + struct.pack(">HHH", 0x20, 1, 1)
    context = b"\x00" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, secret, b"secret", b"")
    key, nonce = expand(suite, secret, b"key", context, 16), expand(suite, secret, b"base_nonce", context, 12)
    return encapsulated + AESGCM(key).encrypt(nonce, plain, aad)


class Authority:
    """A root, an intermediate signed by it, and what the intermediate signs."""

    def __init__(self):
        self.root_key, self.key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.root = self.make("root", self.root_key.public_key(), "root", self.root_key, ca=True)
        self.intermediate = self.make("intermediate", self.key.public_key(), "root", self.root_key, ca=True)

    def make(self, subject, public, issuer, key, ca=False, names=None):
        name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                               "encipher_only", "decipher_only"], False)
        usage |= {"digital_signature": not ca, "key_cert_sign": ca, "crl_sign": ca}
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(minutes=5))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
        builder = builder.add_extension(x509.KeyUsage(**usage), True)
        if names:
            builder = builder.add_extension(names, False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        return builder.sign(key, hashes.SHA256())

    def sign(self, csr):
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        subject = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return self.make(subject, csr.public_key(), "intermediate", self.key, names=names)


def tlv(tag, *contents):
    content = b"".join(contents)
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def certs_only(certificates):
    """CMS with the certificates in the order that is given, which is not that of DER."""
    data = bytes.fromhex("06092a864886f70d010701")
    signed_data = bytes.fromhex("06092a864886f70d010702")
    content = tlv(0x30, b"\x02\x01\x01", tlv(0x31), tlv(0x30, data), tlv(0xA0, *certificates), tlv(0x31))
    return tlv(0x30, signed_data, tlv(0xA0, content))


# What a terminal on the way does to a line that the host has sent, without the line end.
def whole(line):
    return line + b"\n"


def doubled(line):
    return line + b"\r\r\n"


def broken(line):
    """After 40 columns."""
    return b"\r\n".join(line[at:at + 40] for at in range(0, len(line), 40)) + b"\r\n"


def even(line):
    return bytes(byte | (byte.bit_count() & 1) << 7 for byte in line + b"\n")


class Host:
    def __init__(self):
        self.held = b""
        self.hello = None
        self.public = None
        self.node_nonce = None
        self.nonce = int.from_bytes(os.urandom(8), "big")
        self.nonces = None
        self.number = 0
        self.stage = None
        self.proves = False
        self.received = 0
        self.spoken = time.monotonic()
        self.longest = 0

    # Frames.

    def say(self, message, terminal=whole, inside=True):
        nonces = self.nonces if inside else bytes(16)
        os.write(LINE, terminal(b"#" + encode(message + crc(b"H", nonces, message))))
        self.spoken = time.monotonic()

    def heard(self):
        """The next valid message of the node: its type, and all of it. The line is kept alive meanwhile."""
        start = time.monotonic()
        while time.monotonic() - start < PATIENCE:
            message = self.next_frame()
            if message is None:
                if self.nonces and time.monotonic() - self.spoken > 0.8:
                    self.open_again()
                if select.select([LINE], [], [], 0.2)[0]:
                    self.held += os.read(LINE, 4096)
            elif message[0] == 9:
                self.tell_time(message)
            elif message[0] not in (2, 11):
                return message
        sys.exit("the node said nothing more")

    def challenged(self):
        """The next CHALLENGE."""
        start = time.monotonic()
        while time.monotonic() - start < PATIENCE:
            message = self.next_frame()
            if message is None:
                if select.select([LINE], [], [], 0.2)[0]:
                    self.held += os.read(LINE, 4096)
                elif time.monotonic() - self.spoken > 0.8:
                    self.open_again()
            elif message[0] == 11:
                return message[4:20]
        sys.exit("the node sent no challenge")

    def next_frame(self):
        while True:
            at = self.held.find(b"#")
            if at < 0:
                self.held = b""
                return None
            end = at + 1
            while end < len(self.held) and self.held[end] in DIGITS:
                end += 1
            if end == len(self.held):
                self.held = self.held[at:]
                return None
            digits, self.held = self.held[at + 1:end], self.held[end:]
            data = decode(digits) if digits else None
            if data and len(data) > 4:
                message, check = data[:-4], data[-4:]
                nonces = bytes(16) if message[0] == 2 else self.nonces
                if nonces and check == crc(b"N", nonces, message):
                    self.longest = max(self.longest, len(digits) + 1 if message[0] != 2 else 0)
                    return message

    # Conversations.

    def open(self):
        """A conversation with a nonce that is new."""
        self.nonce = (self.nonce + 1) % 2 ** 64
        self.nonces = self.node_nonce + self.nonce.to_bytes(8, "big")
        self.number = self.received = 0
        self.open_again()
        self.stage = self.expect(4)[1]

    def open_again(self):
        self.say(bytes([3, 1, 0, 0]) + self.nonces, inside=False)

    def expect(self, kind):
        message = self.heard()
        # READY also answers an OPEN that kept the line alive.
        while message[0] == 4 and kind != 4:
            self.stage = message[1]
            message = self.heard()
        if message[0] != kind:
            ok(f"type {kind} comes, not {message.hex()}", False)
        return message

    def nothing(self, what):
        """Nothing was answered: what is answered next is OPEN."""
        self.open_again()
        ok(f"{what}: no answer", self.heard()[0] == 4)

    def refused(self, what, number, reason):
        ok(f"{what}: refused with reason {reason}", self.expect(8)[1:3] == bytes([number, reason]))

    def acknowledged(self, what, number, following, later=0):
        _, got, got_following, got_later = struct.unpack(">BBHI", self.expect(7))
        ok(f"{what}: next {following}, later {later}", (got, got_following, got_later) == (number, following, later))

    # Objects.

    def announce(self, number, kind, chunk, data, length=None, digest=None):
        length = len(data) if length is None else length
        digest = digest or hashlib.sha256(data).digest()
        self.say(bytes([5, number, kind, chunk]) + struct.pack(">I", length) + digest)

    def piece(self, number, index, data, terminal=whole):
        self.say(bytes([6, number]) + struct.pack(">H", index) + data, terminal)

    def sealed(self, payload, number, kind=1):
        info = b"imprint line" + bytes([1]) + self.nonces + hashlib.sha256(self.hello).digest()
        return hpke_seal(self.public, payload, info, bytes([kind, number]))

    def receive(self, silent_once=False):
        """An object of the node: number, kind and bytes. `silent_once`: its last piece is not answered when it comes first."""
        message = self.heard()
        while message[0] != 5:
            if message[0] == 4:
                self.stage = message[1]
            message = self.heard()
        number, kind, chunk = message[1:4]
        length, digest = struct.unpack(">I", message[4:8])[0], message[8:40]
        pieces = [None] * -(-length // chunk)
        repeats = 0
        self.answer(number, pieces)
        while None in pieces:
            message = self.heard()
            if message[0] == 5:
                self.answer(number, pieces)
            elif message[0] == 6 and message[1] == number:
                index = struct.unpack(">H", message[2:4])[0]
                last = pieces.count(None) == 1 and pieces[index] is None
                if last and silent_once:
                    silent_once = False
                    repeats = 1
                    continue
                repeats += last and repeats > 0
                pieces[index] = message[4:]
                self.answer(number, pieces)
        data = b"".join(pieces)
        ok(f"object {number} of kind {kind} arrived, {len(pieces)} pieces of {chunk}", hashlib.sha256(data).digest() == digest)
        ok("it has the next number", number == self.received)
        self.received += 1
        return number, kind, chunk, data, repeats

    def answer(self, number, pieces):
        following = next((index for index, piece in enumerate(pieces) if piece is None), len(pieces))
        later = sum(1 << bit for bit, piece in enumerate(pieces[following + 1:following + 33]) if piece is not None)
        self.say(bytes([7, number]) + struct.pack(">HI", following, later))

    def tell_time(self, ask):
        """Midnight in 2015, which is before any payload of today was made: a node MUST NOT use it."""
        if not self.proves:
            self.say(bytes([10, ask[1], 0, 0]) + struct.pack(">QI", 1_420_070_400_000_000, 250))
            return
        # After kind 6 neither counts: a time without a proof, and one whose proof is of something else. This host could set the
        # node's clock with them, as both lie within the payload's life.
        # It claims to have held the question for no time: on a fast machine any other figure may be more than the round trip.
        soon = struct.pack(">QI", int((time.time() + 600) * 1e6), 0)
        self.say(bytes([10, ask[1], 0, 0]) + soon)
        self.say(bytes([12, ask[1], 0, 0]) + soon + self.proof(ask[1], soon, b"guessed"))
        # A proof, and a time that the signature contradicts.
        self.say(bytes([12, ask[1], 0, 0]) + soon + self.proof(ask[1], soon, TOKEN.encode()))

    def proof(self, number, answer, token):
        text = b"imprint line time" + bytes([1]) + hashlib.sha256(self.hello).digest() + self.nonces + bytes([number])
        return hmac.digest(hashlib.sha256(token).digest(), text + answer, "sha256")[:16]


def payload(authority, url, age=60_000):
    now = int(time.time() * 1000)
    return cbor2.dumps({
        0: 1,
        1: os.urandom(16),
        2: now - age,
        3: now + 3_600_000,
        7: {0: [{0: 0, 1: "node1.example.org"}], 1: ["node1.example.org"]},
        8: authority.root.public_bytes(DER),
        10: [url],
        11: "node1",
        12: {0: TOKEN},
    }, canonical=True)


def edges(host):
    """Numbers, lengths and pieces at which an end may be in doubt. All that is refused here uses a number up."""
    host.piece(0, 0, b"x")
    host.refused("a piece of what nobody announced, with the wanted number", 0, 1)
    host.piece(9, 0, b"x")
    host.refused("a piece with another number", 9, 2)
    host.announce(9, 1, 192, b"x")
    host.refused("an announcement with another number", 9, 2)
    for number, (what, chunk, length) in enumerate([
        ("pieces of no length", 0, 100),
        ("pieces of 193 bytes", 193, 100),
        ("a payload that is too long", 192, 65_536 + 49),
        ("65,560 pieces of one byte", 1, 65_560),
    ]):
        host.announce(number, 1, chunk, b"", length, bytes(32))
        host.refused(what, number, 3)
    host.piece(3, 7, b"y")
    host.refused("a piece of what was refused last", 3, 3)
    host.announce(4, 3, 0, b"", 2 ** 32 - 1, bytes(32))
    host.refused("certificates that are too long, at stage 0", 4, 5)
    host.announce(5, 1, 192, b"")
    host.acknowledged("an object of no bytes", 5, 0)
    ok("it holds no seal: stage 0", host.expect(4)[1] == 0)
    for number in range(6, 256):
        host.announce(number, 3, 192, b"z")
        host.expect(8)
    host.announce(255, 3, 192, b"z")
    host.refused("number 255, again", 255, 5)
    host.announce(0, 3, 192, b"z")
    host.refused("number 0, the next one after 255", 0, 5)
    host.announce(255, 3, 192, b"z")
    host.refused("number 255, which is over no longer last", 255, 2)
    host.announce(1, 1, 192, b"abcd", digest=bytes(32))
    host.acknowledged("an announcement", 1, 0)
    host.piece(1, 0, b"abcd")
    host.refused("bytes that do not have the digest", 1, 2)
    old = host.nonces
    host.open()
    ok("another conversation, at stage 0", host.stage == 0)
    host.say(bytes([3, 1, 0, 0]) + old, inside=False)
    host.nothing("OPEN of the conversation that was left")


def deliver(host, plain):
    """The payload in pieces of 54 bytes, which terminals break and send with parity."""
    number = 0
    data = host.sealed(plain, number)
    pieces = [data[at:at + 54] for at in range(0, len(data), 54)]
    host.announce(number, 1, 200, data)
    host.refused("pieces of 200 bytes", number, 3)
    number = 1
    data = host.sealed(plain, number)
    pieces = [data[at:at + 54] for at in range(0, len(data), 54)]
    host.announce(number, 1, 192, data)
    host.acknowledged("pieces of 192 bytes", number, 0)
    host.announce(number, 1, 54, data)
    host.acknowledged("pieces of 54 bytes instead", number, 0)
    host.piece(number, 3, pieces[3], doubled)
    host.acknowledged("the fourth piece, with CR CR LF", number, 0, 0b100)
    host.piece(number, 0, pieces[0], broken)
    host.acknowledged("the first, broken after 40 columns", number, 1, 0b010)
    host.piece(number, 2, pieces[2], even)
    host.acknowledged("the third, with even parity", number, 1, 0b011)
    host.piece(number, 1, pieces[1][:-1])
    host.piece(number, len(pieces), pieces[1])
    host.nothing("a piece that is too short, and one behind the last")
    host.announce(number, 1, 54, data)
    host.acknowledged("the same announcement again", number, 1, 0b011)
    for index in [1, *range(4, len(pieces))]:
        host.piece(number, index, pieces[index])
        following = index + 1 if index > 1 else 4
        host.acknowledged(f"piece {index}", number, following)
    host.piece(number, 0, pieces[0])
    host.acknowledged("a piece of an object that has arrived", number, len(pieces))


def sent(host, kind, data):
    """An object, whole, with the next number."""
    number, host.number = host.number, host.number + 1
    host.announce(number, kind, 54, data)
    host.expect(7)
    pieces = [data[at:at + 54] for at in range(0, len(data), 54)]
    for index, piece in enumerate(pieces):
        host.piece(number, index, piece)
        host.acknowledged(f"piece {index} of an object of kind {kind}", number, index + 1)


def deliver_fresh(host, authority, key):
    aad = lambda hello, challenge: b"imprint payload 1" + hashlib.sha256(hello).digest() + challenge
    ok("HELLO says that the node sends challenges", host.hello[3] & 2 == 2)
    first = host.challenged()
    # Signed as it should be, for a challenge that is none of this node.
    other = bytes(16)
    signed = cose.sign(key, payload(authority, "line:", 0), aad(host.hello, other))
    sent(host, 6, host.sealed(other + signed, host.number, 6))
    ok("a challenge that is none of the node: stage 0 again", host.expect(4)[1] == 0)
    newest = host.challenged()
    while newest == first:
        host.open_again()
        newest = host.challenged()
    ok("asked again and again, it sends another one", newest != other)
    # The first one is not the newest any more, and still good.
    signed = cose.sign(key, payload(authority, "line:", 0), aad(host.hello, first))
    host.proves = True
    sent(host, 6, host.sealed(first + signed, host.number, 6))


def proven(host, key):
    """The proof of an admission key: it is for this HELLO and for this host's nonce, in each conversation anew."""
    public = key.public_bytes(*RAW)
    seen = []
    for _ in range(2):
        _, kind, _, proof, _ = host.receive()
        ok("a proof comes at stage 0, of 96 bytes", (kind, host.stage, len(proof)) == (18, 0, 96))
        ok("it is of the key that the image has", proof[:32] == public)
        text = b"imprint admission" + bytes([1]) + hashlib.sha256(host.hello).digest() + host.nonces[8:]
        # Raises what ends this program.
        key.verify(proof[32:], text)
        ok("the key has signed this HELLO and this host's nonce")
        seen.append(proof)
        host.open()
    host.receive()
    ok("another conversation, another proof", seen[0] != seen[1])
    # The node has not seen yet how short our pieces are.
    host.longest = 0


def certify(host, authority):
    _, kind, chunk, request, _ = host.receive()
    ok("a request comes, in pieces as short as ours", (kind, chunk) == (16, 54))
    proof, csr = request[:32], request[32:]
    text = b"imprint line request" + bytes([1]) + hashlib.sha256(host.hello).digest() + csr
    ok("it proves that the node has the payload", proof == hmac.digest(hashlib.sha256(TOKEN.encode()).digest(), text, "sha256"))
    csr = x509.load_der_x509_csr(csr)
    leaf, intermediate = authority.sign(csr).public_bytes(DER), authority.intermediate.public_bytes(DER)
    # Not as DER sorts them, and the node's last.
    data = certs_only([intermediate, authority.root.public_bytes(DER), leaf])
    number = max(host.number, 2)
    host.announce(number, 3, 54, data)
    host.expect(7)
    for index, at in enumerate(range(0, len(data), 54)):
        host.piece(number, index, data[at:at + 54])
        host.expect(7)
    return key_code(csr.public_key())


def report(host):
    _, kind, chunk, data, repeats = host.receive(silent_once=True)
    ok("a report comes, in pieces as short as ours", (kind, chunk) == (17, 54))
    ok("its last piece was repeated until it was answered", repeats == 2)
    # What comes again is answered again, for 1.5 s after the last of it.
    until = time.monotonic() + 1.5
    while time.monotonic() < until and select.select([LINE], [], [], 0.1)[0]:
        try:
            host.held += os.read(LINE, 4096)
        except OSError:
            break
    ok("no frame was longer than 79 characters, HELLO but", host.longest <= 79)
    return json.loads(data)


def main():
    authority, host = Authority(), Host()
    while host.hello is None:
        host.held += os.read(LINE, 4096)
        message = host.next_frame()
        host.hello = message if message and message[0] == 2 else None
    host.node_nonce, host.public = host.hello[4:12], host.hello[12:44]
    ok("HELLO of version 1", host.hello[1:3] == bytes([1, 1]))
    host.open()
    ok("READY, stage 0", host.stage == 0)
    if sys.argv[1] == "fresh":
        key = serialization.load_pem_private_key(pathlib.Path(sys.argv[2]).read_bytes(), None)
        if len(sys.argv) > 3:
            proven(host, serialization.load_pem_public_key(pathlib.Path(sys.argv[3]).read_bytes()))
        deliver_fresh(host, authority, key)
        code = certify(host, authority)
        status = report(host)
        ok("it is done, with the key of its request", (status["outcome"], status["key_code"]) == ("done", code))
        ok("it names its signer", len(status["signer"]) == 16)
        return
    edges(host)
    if sys.argv[1] == "line":
        deliver(host, payload(authority, "line:"))
        code = certify(host, authority)
        status = report(host)
        ok("it is done, with the key of its request", (status["outcome"], status["key_code"]) == ("done", code))
    else:
        deliver(host, payload(authority, "https://127.0.0.1:1/.well-known/est"))
        status = report(host)
        ok("without line: among its URLs it requests nothing here", status["error"]["stage"] == "check-in")


if __name__ == "__main__":
    main()
