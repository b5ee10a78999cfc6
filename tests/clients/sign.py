"""Signs a manifest as the Notary Project specifies it, with libraries that others wrote: jwcrypto for JSON Web
Signatures, pycose for COSE, cryptography for the certificates. Prints the envelope.

The authority, made when it is not there, is DIR/ca.pem; each run issues a new certificate below an intermediate one.
"""

import argparse
import base64
import datetime
import json
import pathlib
import sys

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwcrypto import jwk, jws
from pycose import algorithms, headers
from pycose.keys import EC2Key, RSAKey
from pycose.messages import Sign1Message

CONTENT_TYPE = "application/vnd.cncf.notary.payload.v1+json"
SCHEME = "io.cncf.notary.signingScheme"
EXPIRY = "io.cncf.notary.expiry"
TIME = "io.cncf.notary.signingTime"
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)

# The key's kind, and what it signs with: in JWS, in COSE.
KINDS = {
    "p256": (lambda: ec.generate_private_key(ec.SECP256R1()), "ES256", algorithms.Es256),
    "p384": (lambda: ec.generate_private_key(ec.SECP384R1()), "ES384", algorithms.Es384),
    "p521": (lambda: ec.generate_private_key(ec.SECP521R1()), "ES512", algorithms.Es512),
    "rsa2048": (lambda: rsa.generate_private_key(65537, 2048), "PS256", algorithms.Ps256),
    "rsa3072": (lambda: rsa.generate_private_key(65537, 3072), "PS384", algorithms.Ps384),
    "rsa4096": (lambda: rsa.generate_private_key(65537, 4096), "PS512", algorithms.Ps512),
}


def certificate(name, key, issuer, issuer_key, usages, path_length=None, until=30 * DAY):
    """A certificate; its own issuer when there is none."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "forebay")])
    is_authority = path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 30 * DAY)
        .not_valid_after(NOW + until)
        .add_extension(x509.BasicConstraints(is_authority, path_length), critical=True)
        .add_extension(
            x509.KeyUsage(not is_authority, False, False, False, False, is_authority, False, False, False), critical=True
        )
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def authority(directory):
    """The root of DIR, which stays, and an intermediate below it, which does not."""
    key_file, file = directory / "ca.key", directory / "ca.pem"
    if not file.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
        file.write_bytes(certificate("root", key, None, None, None, 1).public_bytes(encoding))
    root = x509.load_pem_x509_certificate(file.read_bytes())
    root_key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    key = ec.generate_private_key(ec.SECP384R1())
    return root, certificate("intermediate", key, root, root_key, None, 0), key


def critical_of(given):
    names = [SCHEME] + ([EXPIRY] if given.expiry is not None else []) + given.critical
    return [name for name in names if name not in given.not_critical]


def as_jws(given, payload, key, algorithm, chain):
    protected = {"alg": algorithm, "cty": CONTENT_TYPE, "crit": critical_of(given), SCHEME: given.scheme, TIME: NOW.isoformat()}
    if given.expiry is not None:
        # Not in UTC: a signer's clock may stand anywhere.
        zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
        protected[EXPIRY] = (NOW + datetime.timedelta(seconds=given.expiry)).astimezone(zone).isoformat()
    protected.update({name: "x" for name in given.critical})
    known = {name: jws.JWSEHeaderParameter("", False, True, None) for name in [SCHEME, EXPIRY, TIME] + given.critical}
    unprotected = {"x5c": [base64.b64encode(der).decode() for der in chain], "io.cncf.notary.signingAgent": "sign.py"}
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    envelope = jws.JWS(payload, header_registry=known)
    envelope.allowed_algs = [algorithm]
    envelope.add_signature(jwk.JWK.from_pem(pem), algorithm, protected=json.dumps(protected), header=json.dumps(unprotected))
    return envelope.serialize(compact=False).encode()


def as_cose(given, payload, key, algorithm, chain):
    protected = {
        headers.Algorithm: algorithm,
        headers.ContentType: CONTENT_TYPE,
        headers.Critical: critical_of(given),
        SCHEME: given.scheme,
        TIME: cbor2.CBORTag(1, int(NOW.timestamp())),
    }
    if given.expiry is not None:
        protected[EXPIRY] = cbor2.CBORTag(1, int(NOW.timestamp()) + given.expiry)
    protected.update({name: "x" for name in given.critical})
    message = Sign1Message(phdr=protected, uhdr={headers.X5chain: chain}, payload=payload)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        message.key = EC2Key.from_pem_private_key(pem_of(key))
    else:
        message.key = RSAKey.from_pem_private_key(pem_of(key))
    return message.encode()


def pem_of(key):
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain).decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("digest")
    parser.add_argument("--format", choices=["jws", "cose"], default="jws")
    parser.add_argument("--key", choices=KINDS, default="p256")
    parser.add_argument("--usage", choices=["code-signing", "server-auth", "none"], default="code-signing")
    parser.add_argument("--ended", action="store_true", help="the certificate has ended")
    parser.add_argument("--expiry", type=int, help="when the signature ends, seconds from now")
    parser.add_argument("--scheme", default="notary.x509")
    parser.add_argument("--critical", action="append", default=[], help="an attribute that must be understood")
    parser.add_argument("--not-critical", action="append", default=[], help="one that is left out of that list")
    given = parser.parse_args()
    root, intermediate, intermediate_key = authority(given.directory)
    make, in_jws, in_cose = KINDS[given.key]
    key = make()
    usages = {"code-signing": [ExtendedKeyUsageOID.CODE_SIGNING], "server-auth": [ExtendedKeyUsageOID.SERVER_AUTH], "none": []}
    until = -DAY if given.ended else DAY
    own = certificate("signer", key, intermediate, intermediate_key, usages[given.usage], until=until)
    chain = [found.public_bytes(serialization.Encoding.DER) for found in (own, intermediate, root)]
    target = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": given.digest, "size": 1}
    payload = json.dumps({"targetArtifact": target}).encode()
    if given.format == "jws":
        envelope = as_jws(given, payload.decode(), key, in_jws, chain)
    else:
        envelope = as_cose(given, payload, key, in_cose, chain)
    sys.stdout.buffer.write(envelope)


main()
