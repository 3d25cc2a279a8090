#!/usr/bin/env python3
"""An independent writer and reader of bundles, from docs/bundle.md: tarfile, zlib, cbor2, pycddl and OpenSSL; cose.py knows RFC 9052,
and age_peer.py the age format. Imports nothing of ours.

  bundle_peer.py frozen [--write]             makes the frozen bundle, and compares it byte for byte with tests/data
  bundle_peer.py read FILE IDENTITY SIGNER    verifies and opens a sealed bundle; prints it as JSON, bytes in hexadecimal

Exit code 0 only when all of it holds."""

import hashlib
import hmac
import io
import json
import pathlib
import re
import sys
import tarfile
import zlib

import cbor2
import pycddl
from cryptography.hazmat.primitives import serialization

import age_peer
import cose

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
AAD = b"imprint bundle 1"
KINDS = {tarfile.REGTYPE: "file", tarfile.SYMTYPE: "link", tarfile.DIRTYPE: "directory"}


class Info(tarfile.TarInfo):
    """tarfile writes a slash behind the name of a directory, which the form of bundles has not."""

    def get_info(self):
        return super().get_info() | {"name": self.name}


def tar(manifest, entries):
    """Entries: (path, mode, uid, gid, bytes of a file, text of a link, or None for a directory)."""
    out = io.BytesIO()
    whole = [("manifest", 0o644, 0, 0, manifest)] + sorted(("root/" + path, *rest) for path, *rest in entries)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, mode, uid, gid, content in whole:
            info = Info(path)
            info.mode, info.uid, info.gid, info.mtime = mode, uid, gid, 0
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
        end = archive.offset
    # Two blocks of zeros; tarfile would fill up to 10 KiB.
    return out.getvalue()[:end] + bytes(1024)


def gzip(data):
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = raw.compress(data) + raw.flush()
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + body + trailer


def gunzip(data):
    assert data[:8] == b"\x1f\x8b\x08\0\0\0\0\0" and data[9] == 255, data[:10]
    raw = zlib.decompressobj(-15)
    plain = raw.decompress(data[10:], 16 << 20) + raw.flush()
    assert raw.eof and not raw.unconsumed_tail
    assert raw.unused_data == zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return plain


def tag(plain, secret):
    """The tag of a tar: that of the same one with counter 0."""
    manifest, entries = untar(plain)
    manifest = re.sub(rb"(?m)^counter \d+$", b"counter 0", manifest, count=1)
    key = age_peer.derive(secret.private_bytes_raw(), b"", b"imprint bundle tag 1")
    return hmac.digest(key, tar(manifest, entries), "sha256")


def untar(data):
    manifest, entries = None, []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for info in archive:
            content = {"file": lambda: archive.extractfile(info).read(), "link": lambda: info.linkname, "directory": lambda: None}
            content = content[KINDS[info.type]]()
            if manifest is None:
                assert info.name == "manifest"
                manifest = content
            else:
                assert info.name.startswith("root/")
                entries.append((info.name.removeprefix("root/"), info.mode, info.uid, info.gid, content))
    # What is read is what would be written: there is one form.
    assert tar(manifest, entries) == data
    return manifest, entries


def cddl(rule):
    """The CDDL of docs/bundle.md, with another first rule."""
    text = (ROOT / "docs" / "bundle.md").read_text()
    block = text.split("```cddl\n", 1)[1].split("```", 1)[0]
    return pycddl.Schema(f"first = {rule}\n{block}")


def statement(node, counter, signed, approver, age):
    fields = {0: 1, 1: node, 2: counter, 3: signed, 4: approver, 5: hashlib.sha256(age).digest(), 6: len(age)}
    return cbor2.dumps(fields, canonical=True)


def split(data):
    """The signed statement, and the encrypted file behind it."""
    stream = io.BytesIO(data)
    cbor2.load(stream)
    return data[: stream.tell()], data[stream.tell() :]


def read(data, secret, signer):
    message, age = split(data)
    stated = cose.verify(message, signer, AAD)
    cddl("statement").validate_cbor(stated)
    fields = cbor2.loads(stated)
    assert cbor2.dumps(fields, canonical=True) == stated
    assert fields[5] == hashlib.sha256(age).digest() and fields[6] == len(age)
    plain = gunzip(age_peer.decrypt(age, secret))
    manifest, entries = untar(plain)
    head, node, counter, *units = manifest.decode().splitlines()
    assert head == "imprint-bundle 1" and node == f"node {fields[1]}" and int(counter.removeprefix("counter ")) <= fields[2]
    return {
        "node": fields[1],
        "counter": fields[2],
        "made": int(counter.removeprefix("counter ")),
        "signed": fields[3],
        "approver": fields[4],
        "units": units,
        "entries": [
            [path, f"{mode:04o}", uid, gid, content.hex() if isinstance(content, bytes) else content]
            for path, mode, uid, gid, content in entries
        ],
        "tag": tag(plain, secret).hex(),
        "tar": hashlib.sha256(plain).hexdigest(),
    }


MANIFEST = b"""imprint-bundle 1
node node1
counter 7
enable chrony.service
restart systemd-networkd.service
reload nftables.service
"""
ENTRIES = [
    ("etc/hostname", 0o644, 0, 0, b"node1\n"),
    ("etc/ssh", 0o755, 0, 0, None),
    ("etc/ssh/sshd_config.d/10-imprint.conf", 0o600, 0, 0, b"PasswordAuthentication no\n"),
    ("etc/systemd/system/multi-user.target.wants/x.service", 0o777, 0, 0, "/usr/lib/systemd/system/x.service"),
    ("etc-x/m\u00fcller", 0o640, 1000, 2_097_151, b""),
    ("srv/" + "a" * 60 + "/" + "b" * 70, 0o444, 1, 2, bytes(range(256)) * 3),
    ("var/tmp", 0o1777, 0, 0, None),
]


def frozen(write):
    secret = age_peer.identity((DATA / "bundle-identity").read_text().split("\n")[-2])
    other = age_peer.X25519PrivateKey.from_private_bytes(bytes(range(32)))
    plain = tar(MANIFEST, ENTRIES)
    keys = bytes(range(16)), [bytes([1] * 32), bytes([2] * 32)], bytes(range(100, 116))
    age = age_peer.encrypt(gzip(plain), [other.public_key(), secret.public_key()], *keys)
    key = serialization.load_pem_private_key((DATA / "signer-p256.pem").read_bytes(), None)
    message = cose.sign(key, statement("node1", 9, 1_795_400_000_000, "M. M\u00fcller", age), AAD)
    cddl("sealed-statement").validate_cbor(message)
    for name, made in (("bundle.tar", plain), ("bundle.sealed", message + age)):
        if write:
            (DATA / name).write_bytes(made)
        assert made == (DATA / name).read_bytes(), name
    print("tag", tag(plain, secret).hex())
    read(message + age, secret, cose.pin_line(key.public_key()))


def main():
    match sys.argv[1:]:
        case ["frozen", *write]:
            frozen(write == ["--write"])
        case ["read", file, identity, signer]:
            secret = age_peer.identity(pathlib.Path(identity).read_text().split("\n")[-2])
            print(json.dumps(read(pathlib.Path(file).read_bytes(), secret, signer)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
