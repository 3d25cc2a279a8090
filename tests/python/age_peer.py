"""Encrypts and decrypts age v1 files (https://c2sp.org/age) for X25519 keys, with OpenSSL through the package cryptography. Uses no
code of imprint, so that it can disagree with it. The keys of a file can be given, so that it has the same bytes each time."""

import base64
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
CHUNK = 64 * 1024


def checksum(prefix, values):
    """BIP 173."""
    total = 1
    for value in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values:
        top, total = total >> 25, (total & 0x1FFFFFF) << 5 ^ value
        for bit, word in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            total ^= word if top >> bit & 1 else 0
    return total


def to_bech32(prefix, data):
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    values = [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]
    check = checksum(prefix, values + [0] * 6) ^ 1
    return prefix + "1" + "".join(ALPHABET[value] for value in values + [check >> 5 * (5 - i) & 31 for i in range(6)])


def from_bech32(prefix, text):
    assert text.startswith(prefix + "1"), text
    values = [ALPHABET.index(c) for c in text[len(prefix) + 1 :]]
    assert checksum(prefix, values) == 1
    bits = "".join(f"{value:05b}" for value in values[:-6])
    assert len(bits) % 8 < 5 and "1" not in bits[len(bits) // 8 * 8 :]
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) // 8 * 8, 8))


def identity(text):
    """The secret key of `AGE-SECRET-KEY-1…`"""
    assert text == text.upper()
    return X25519PrivateKey.from_private_bytes(from_bech32("age-secret-key-", text.lower()))


def recipient(text):
    return X25519PublicKey.from_public_bytes(from_bech32("age", text))


def derive(secret, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def to_base64(data):
    return base64.b64encode(data).rstrip(b"=")


def from_base64(text):
    data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    assert to_base64(data) == text, text
    return data


def wrapping(secret, share, public):
    return ChaCha20Poly1305(derive(secret, share + public, b"age-encryption.org/v1/X25519"))


def chunks(length, size):
    """Begin, end and the nonce of each chunk."""
    count = max(1, -(-length // size))
    for number in range(count):
        yield number * size, min(length, (number + 1) * size), number.to_bytes(11, "big") + bytes([number == count - 1])


def encrypt(plain, recipients, file_key, ephemerals, nonce):
    head = b"age-encryption.org/v1\n"
    for public, ephemeral in zip(recipients, ephemerals, strict=True):
        ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)
        share = ephemeral.public_key().public_bytes_raw()
        key = wrapping(ephemeral.exchange(public), share, public.public_bytes_raw())
        body = key.encrypt(bytes(12), file_key, None)
        head += b"-> X25519 " + to_base64(share) + b"\n" + to_base64(body) + b"\n"
    head += b"---"
    head += b" " + to_base64(hmac.digest(derive(file_key, b"", b"header"), head, "sha256")) + b"\n"
    key = ChaCha20Poly1305(derive(file_key, nonce, b"payload"))
    return head + nonce + b"".join(key.encrypt(n, plain[b:e], None) for b, e, n in chunks(len(plain), CHUNK))


def decrypt(data, secret):
    head, code = data.split(b"\n--- ", 1)
    code, stream = code.split(b"\n", 1)
    version, *lines = head.split(b"\n")
    assert version == b"age-encryption.org/v1"
    own, file_key = secret.public_key().public_bytes_raw(), None
    while lines:
        arrow, kind, *words = lines.pop(0).split(b" ")
        assert arrow == b"->"
        body = lines.pop(0)
        while len(body) and len(body) % 64 == 0:
            body += lines.pop(0)
        if kind != b"X25519":
            continue
        share, body = from_base64(words[0]), from_base64(body)
        assert len(words) == 1 and len(share) == 32 and len(body) == 32
        key = wrapping(secret.exchange(X25519PublicKey.from_public_bytes(share)), share, own)
        try:
            file_key = key.decrypt(bytes(12), body, None)
        except Exception:  # noqa: BLE001 (it is for somebody else)
            continue
    assert file_key is not None, "encrypted for others"
    assert hmac.digest(derive(file_key, b"", b"header"), head + b"\n---", "sha256") == from_base64(code)
    nonce, stream = stream[:16], stream[16:]
    key = ChaCha20Poly1305(derive(file_key, nonce, b"payload"))
    plain = [key.decrypt(n, stream[b:e], None) for b, e, n in chunks(len(stream), CHUNK + 16)]
    assert len(plain) == 1 or plain[-1]
    return b"".join(plain)
