"""Writes and reads COSE_Sign1 (RFC 9052) in the shape of docs/payload.cddl, with cbor2 and with OpenSSL (through the package
cryptography). Uses no code of imprint, so that it can disagree with it."""

import base64
import hashlib

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

AAD = b"imprint payload 1"
WORDS = {-7: "p256", -8: "ed25519"}


def spki(public):
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def pin_line(public):
    word = "p256" if isinstance(public, ec.EllipticCurvePublicKey) else "ed25519"
    return f"signer {word} {base64.b64encode(spki(public)).decode()}"


def to_be_signed(protected, payload, aad=AAD):
    return cbor2.dumps(["Signature1", protected, aad, payload], canonical=True)


def sign(key, payload, aad=AAD):
    """Signs with the nonce of RFC 6979, so that the signature has the same bytes each time."""
    is_p256 = isinstance(key, ec.EllipticCurvePrivateKey)
    kid = hashlib.sha256(spki(key.public_key())).digest()[:8]
    protected = cbor2.dumps({1: -7 if is_p256 else -8, 4: kid}, canonical=True)
    signed = to_be_signed(protected, payload, aad)
    if is_p256:
        der = key.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        signature = b"".join(number.to_bytes(32, "big") for number in utils.decode_dss_signature(der))
    else:
        signature = key.sign(signed)
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, signature]), canonical=True)


def verify(data, line, aad=AAD):
    """Returns the payload if the signer of this line of a site pin has signed it. Raises an exception if not."""
    message = cbor2.loads(data)
    assert isinstance(message, cbor2.CBORTag) and message.tag == 18, message
    assert cbor2.dumps(message, canonical=True) == data
    protected, unprotected, payload, signature = message.value
    header = cbor2.loads(protected)
    assert cbor2.dumps(header, canonical=True) == protected and list(header) == [1, 4] and unprotected == {}
    marker, word, key = line.split()
    key = base64.b64decode(key, validate=True)
    assert marker == "signer" and word == WORDS[header[1]] and header[4] == hashlib.sha256(key).digest()[:8]
    public, signed = serialization.load_der_public_key(key), to_be_signed(protected, payload, aad)
    assert len(signature) == 64
    if word == "p256":
        assert isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
        numbers = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public.verify(utils.encode_dss_signature(*numbers), signed, ec.ECDSA(hashes.SHA256()))
    else:
        assert isinstance(public, ed25519.Ed25519PublicKey)
        public.verify(signature, signed)
    return payload
