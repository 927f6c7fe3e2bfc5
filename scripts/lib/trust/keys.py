"""Keys and signatures of all kinds, made by gpg and openssl."""
import base64
import hashlib
import json
import os
import subprocess


def run(*words, stdin=None, env=None, cwd=None):
    """Runs a program; gives what it prints."""
    done = subprocess.run(words, input=stdin, env={**os.environ, **(env or {})}, cwd=cwd,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit("trust: %s: %s" % (" ".join(map(str, words)), done.stderr.decode()))
    return done.stdout


def payload(kind, reference, digest, **more):
    """What simple signing and cosign sign."""
    return json.dumps({
        "critical": {
            "type": {"simple": "atomic container signature",
                     "cosign": "cosign container image signature"}.get(kind, kind),
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": reference},
        },
        "optional": more.get("optional", {"creator": "a test", "timestamp": 1700000000}),
    }).encode()


class Gpg:
    """A home of gpg with one signing key."""

    def __init__(self, work, name, at=None, expires="never", subkey=False):
        self.home = "%s/gpg/%s" % (work, name)
        os.makedirs(self.home, mode=0o700)
        self.env = {"GNUPGHOME": self.home}
        faked = ["--faked-system-time", at] if at else []
        base = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        usage = "cert" if subkey else "sign"
        run(*base, *faked, "--quick-gen-key", "%s <%s@example.com>" % (name, name), "ed25519",
            usage, expires, env=self.env)
        listed = run("gpg", "--batch", "--with-colons", "--list-keys", env=self.env).decode()
        self.key = [line for line in listed.splitlines() if line.startswith("fpr")][0].split(":")[9]
        if subkey:
            run(*base, "--quick-add-key", self.key, "ed25519", "sign", "never", env=self.env)
        self.public = "%s/%s.asc" % (work, name)
        self.export(armour=True)
        self.faked = faked

    def export(self, armour):
        """Writes the public key, armoured or not; gives the path."""
        path = self.public if armour else self.public.replace(".asc", ".gpg")
        with open(path, "wb") as file:
            file.write(run("gpg", "--batch", *(["--armor"] if armour else []), "--export", self.key,
                           env=self.env))
        return path

    def revoke(self):
        """Revokes the key and exports it again."""
        path = "%s/openpgp-revocs.d/%s.rev" % (self.home, self.key)
        text = open(path).read().replace(":-----BEGIN", "-----BEGIN")
        run("gpg", "--batch", "--quiet", "--import", stdin=text.encode(), env=self.env)
        self.export(armour=True)

    def sign(self, content, *options):
        """A signed message."""
        return run("gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "",
                   *self.faked, "--local-user", self.key, *(options or ["--sign"]),
                   stdin=content, env=self.env)

    def data(self):
        """The public key as policies hold it."""
        return base64.b64encode(open(self.public, "rb").read()).decode()


class Pem:
    """A key of openssl."""

    def __init__(self, work, name, kind="ec"):
        self.private, self.public = "%s/%s.key" % (work, name), "%s/%s.pub" % (work, name)
        how = {
            "ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "ed25519": ["-algorithm", "ED25519"],
        }[kind]
        self.kind = kind
        run("openssl", "genpkey", *how, "-out", self.private)
        run("openssl", "pkey", "-in", self.private, "-pubout", "-out", self.public)

    @classmethod
    def of(cls, work, name):
        """One that is there."""
        one = cls.__new__(cls)
        one.kind = "ec"
        one.private, one.public = "%s/%s.key" % (work, name), "%s/%s.pub" % (work, name)
        return one

    def sign(self, content):
        """A signature as cosign makes it."""
        if self.kind != "ed25519":
            return run("openssl", "dgst", "-sha256", "-sign", self.private, stdin=content)
        path = self.private + ".content"
        with open(path, "wb") as file:
            file.write(content)
        return run("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.private, "-in", path)

    def data(self):
        """The public key as policies hold it."""
        return base64.b64encode(open(self.public, "rb").read()).decode()


class Fulcio:
    """An authority as Fulcio is, with one certificate that is good for a day."""

    def __init__(self, work, name, issuer, email):
        self.dir = "%s/%s" % (work, name)
        os.makedirs(self.dir)
        with open(self.dir + "/ext", "w") as file:
            file.write("[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n"
                       "[leaf]\nkeyUsage=critical,digitalSignature\n"
                       "extendedKeyUsage=codeSigning\nsubjectAltName=critical,email:%s\n"
                       "1.3.6.1.4.1.57264.1.1=DER:%s\n" % (email, issuer.encode().hex()))
        for one, by in (("root", None), ("middle", "root"), ("leaf", "middle")):
            Pem(self.dir, one)
            run("openssl", "req", "-new", "-key", one + ".key", "-subj", "/CN=" + one, "-out",
                one + ".csr", cwd=self.dir)
            signer = ["-signkey", "root.key"] if by is None else [
                "-CA", by + ".pem", "-CAkey", by + ".key", "-CAcreateserial"]
            run("openssl", "x509", "-req", "-in", one + ".csr", *signer, "-days", "1", "-extfile",
                "ext", "-extensions", "leaf" if one == "leaf" else "ca", "-out", one + ".pem",
                cwd=self.dir)
        self.root, self.key = self.dir + "/root.pem", Pem.of(self.dir, "leaf")

    def text(self, *names):
        return "".join(open("%s/%s.pem" % (self.dir, name)).read() for name in names)


def entry(log, signed, signature, signer, at):
    """What the log says of a signature, as cosign attaches it."""
    body = base64.b64encode(json.dumps({
        "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": sha256(signed)[7:]}},
            "signature": {"content": base64.b64encode(signature).decode(), "publicKey": {
                "content": base64.b64encode(signer.encode()).decode()}}}}).encode()).decode()
    payload = {"body": body, "integratedTime": int(at), "logID": "c0" * 32, "logIndex": 7}
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    promise = base64.b64encode(log.sign(canonical)).decode()
    return json.dumps({"SignedEntryTimestamp": promise, "Payload": payload})


def sha256(content):
    """The digest as manifests write it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()
