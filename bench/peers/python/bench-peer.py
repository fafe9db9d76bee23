"""What mtls-auth does for a request that passes, in Kong's Python PDK: the proof, the chain, the consumer, the headers."""

import base64
import datetime
import hashlib
import hmac
import time

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Schema = (
    {"ca": {"type": "string", "required": True}},
    {"key": {"type": "string", "required": True}},
)
version = "0.1.0"
priority = 1600

CONTEXT = b"kong-mtls-auth Client-Cert-Proof v1"
LIFETIME = 30
HANDOFF = ("client-cert", "client-cert-chain", "client-cert-proof")


class Plugin:
    def __init__(self, config):
        self.ca = x509.load_pem_x509_certificate(config["ca"].encode())
        self.key = base64.b64decode(config["key"])
        self.verified = {}
        self.consumers = {}

    def access(self, kong):
        headers, error = kong.request.get_headers(1000)
        leaf, chain, proof = (only(headers, name) for name in HANDOFF)
        if error or leaf is None:
            return kong.response.error(401, "No required TLS certificate was sent")
        leaf, chain = der(leaf), [der(each) for each in chain.split(",")] if chain else []
        name = self.checked(leaf, chain, proof) and self.name(leaf, chain)
        consumer = name and self.consumer(kong, name)
        if not consumer:
            return kong.response.error(401, "TLS certificate failed verification")
        # An empty list removes a header.
        kong.service.request.set_headers({
            **{header: [] for header in headers if header in HANDOFF},
            "X-Consumer-ID": consumer["id"],
            "X-Consumer-Username": consumer["username"],
            "X-Credential-Identifier": name,
        })
        kong.client.authenticate(consumer, {"id": name, "consumer": {"id": consumer["id"]}})

    def checked(self, leaf, chain, proof):
        """Whether the shim wrote this, just now."""
        version, issued_at, sni, mac = proof.split(".")
        sni = unpadded(sni)
        digest = hashlib.sha256()
        for each in chain:
            digest.update(len(each).to_bytes(8, "big") + each)
        said = (CONTEXT + int(issued_at).to_bytes(8, "big") + len(sni).to_bytes(8, "big") + sni
                + hashlib.sha256(leaf).digest() + digest.digest())
        made = hmac.digest(self.key, said, "sha256")
        return version == "v1" and hmac.compare_digest(made, unpadded(mac)) and abs(time.time() - int(issued_at)) <= LIFETIME

    def name(self, leaf, chain):
        """The CN of a certificate that is trusted. It is verified once."""
        digest = hashlib.sha256(b"".join([leaf, *chain])).digest()
        if digest not in self.verified:
            self.verified[digest] = self.verify(leaf, chain)
        return self.verified[digest]

    def verify(self, leaf, chain):
        path = [x509.load_der_x509_certificate(each) for each in (leaf, *chain)] + [self.ca]
        now = datetime.datetime.now(datetime.timezone.utc)
        for subject, issuer in zip(path, path[1:]):
            subject.verify_directly_issued_by(issuer)
            if not subject.not_valid_before_utc <= now <= subject.not_valid_after_utc:
                return None
        usage = path[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
            return None
        return path[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value

    def consumer(self, kong, name):
        if name not in self.consumers:
            self.consumers[name] = kong.client.load_consumer(name, True)[0]
        return self.consumers[name]


def only(headers, name):
    value = headers.get(name)
    value = value[0] if isinstance(value, list) else value
    return value.decode() if isinstance(value, bytes) else value


def der(value):
    return base64.b64decode(value.strip().strip(":"))


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
