"""This knows throw-away certificates: a CA with a client and a server under it, by P-256 and by RSA-2048."""

import subprocess

SNI = "bench.example"


def make(folder):
    """Writes ca.crt, and for each kind of key client-KIND.* and server-KIND.*"""
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", *_new("p256"), "-nodes", "-days", "30", "-subj", "/CN=bench CA",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", "ca.key", "-out", "ca.crt")
    for kind in ("p256", "rsa2048"):
        for name, usage in (("client", "clientAuth"), ("server", "serverAuth")):
            stem = f"{name}-{kind}"
            # By its CN the client is a consumer; a name among its SANs would come before.
            names = f"subjectAltName=DNS:{SNI}\n" if name == "server" else ""
            (folder / f"{stem}.ext").write_text(f"extendedKeyUsage={usage}\n{names}")
            openssl("req", *_new(kind), "-nodes", "-subj", f"/CN={'alice' if name == 'client' else SNI}",
                    "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
            openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                    "-days", "30", "-extfile", f"{stem}.ext", "-out", f"{stem}.crt")
            pair = (folder / f"{stem}.crt").read_text() + (folder / f"{stem}.key").read_text()
            (folder / f"{stem}.pem").write_text(pair)


def _new(kind):
    return ["-newkey", "rsa:2048"] if kind == "rsa2048" else ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
