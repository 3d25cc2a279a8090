#!/usr/bin/env python3
"""An independent reader of what `imprint-host payload --as …` writes, from docs/payload.cddl, docs/line-protocol.md and
docs/cmdline.md: cbor2, pycddl, base64, email and OpenSSL, nothing of ours. Prints the payload as JSON, bytes in
hexadecimal; what is not as those pages say ends it with exit code 1.

With the line of a signer (`signer p256 BASE64`) the payload has to have that signature.

usage: payload_reader.py cbor|text|cmdline|smbios|partition|user-data|multipart FILE [SIGNER]"""

import base64
import email
import email.policy
import hashlib
import io
import json
import pathlib
import sys

import cbor2
import pycddl
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import cose
import line_peer

ROOT = pathlib.Path(__file__).resolve().parents[2]
URLSAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def text(data):
    """Frames of a host that cannot hear: ANNOUNCE, then the pieces in order."""
    assert data.endswith(b"\n")
    messages = []
    for line in data[:-1].split(b"\n"):
        line = line.removesuffix(b"\r")
        assert len(line) <= 76 and line[:1] == b"#", line
        frame = line_peer.decode(line[1:])
        assert frame[-4:] == line_peer.crc(b"H", bytes(16), frame[:-4]), line
        messages.append(frame[:-4])
    announce, *pieces = messages
    assert announce[:3] == bytes([5, 0, 2]), announce
    length, digest = int.from_bytes(announce[4:8], "big"), announce[8:40]
    found = b""
    for index, piece in enumerate(pieces):
        assert piece[:4] == bytes([6, 0]) + index.to_bytes(2, "big"), piece
        assert len(piece) - 4 == min(announce[3], length - len(found)), piece
        found += piece[4:]
    assert len(found) == length and hashlib.sha256(found).digest() == digest
    return found


def cmdline(data):
    """One word on one line, base64url without padding (RFC 4648 section 5)."""
    assert data.startswith(b"imprint.payload=") and data.endswith(b"\n")
    word = data[:-1].removeprefix(b"imprint.payload=")
    assert not word.translate(None, URLSAFE), word
    return base64.urlsafe_b64decode(word + b"=" * (-len(word) % 4))


def smbios(data):
    """A string as systemd reads it (systemd.system-credentials(7)), and in QEMU's file nothing else."""
    return base64.b64decode(data.removeprefix(b"io.systemd.credential.binary:imprint.payload="), validate=True)


def partition(data):
    """One item of CBOR, and zeros up to the end."""
    stream = io.BytesIO(data)
    cbor2.load(stream)
    end = stream.tell()
    assert not data[end:].strip(b"\0")
    return data[:end]


def user_data(data):
    """Base64 between two lines, as in PEM (RFC 7468), with lines of at most 76 characters."""
    first, *lines, last = data.decode("ascii").removesuffix("\n").split("\n")
    assert (first, last) == ("-----BEGIN IMPRINT PAYLOAD-----", "-----END IMPRINT PAYLOAD-----")
    assert all(len(line) == 76 for line in lines[:-1]) and 0 < len(lines[-1]) <= 76
    return base64.b64decode("".join(lines), validate=True)


def multipart(data):
    """Python's parser finds one part, and no defect."""
    message = email.message_from_bytes(data, policy=email.policy.strict)
    assert message.get_content_type() == "multipart/mixed" and message["MIME-Version"] == "1.0"
    (part,) = message.iter_parts()
    assert part.get_content_type() == "application/x-imprint-payload"
    assert not message.defects and not part.defects and not message.preamble and not message.epilogue
    return user_data(part.get_payload(decode=True))


def shown(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    return value


def certified(payload):
    """Key and chain belong together, up to the CA in the payload."""
    root = x509.load_der_x509_certificate(payload[8])
    chain = [x509.load_der_x509_certificate(each) for each in payload[13][0]]
    for certificate, issuer in zip(chain, chain[1:] + [root]):
        certificate.verify_directly_issued_by(issuer)
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    key = serialization.load_der_private_key(payload[13][1], None)
    assert key.public_key().public_bytes(*public) == chain[0].public_key().public_bytes(*public)
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {"subject": chain[0].subject.rfc4514_string(), "dns": names.get_values_for_type(x509.DNSName)}


def main():
    form, file, *signer = sys.argv[1:]
    data = pathlib.Path(file).read_bytes()
    readers = {
        "cbor": bytes, "text": text, "cmdline": cmdline, "smbios": smbios, "partition": partition,
        "user-data": user_data, "multipart": multipart,
    }
    data = readers[form](data)
    length = len(data)
    if signer:
        data = cose.verify(data, signer[0])
    payload = cbor2.loads(data)
    # Also: nothing behind it, no key twice, nothing longer than it has to be.
    assert cbor2.dumps(payload, canonical=True) == data
    pycddl.Schema((ROOT / "docs" / "payload.cddl").read_text()).validate_cbor(data)
    found = {"bytes": length, "payload": shown(payload)}
    if 13 in payload:
        found["certified"] = certified(payload)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
