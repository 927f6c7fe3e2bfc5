"""Where images and signatures lie: a registry, lookasides, layouts."""
import base64
import http.server
import json
import os
import threading
import urllib.error
import urllib.request

from keys import payload, run, sha256

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"


class Registry:
    """A registry, spoken to as little as is needed to put signatures there."""

    def __init__(self, host):
        self.host = host

    def ask(self, method, path, content=None, kind=None):
        url = path if path.startswith("http") else "http://%s/v2/%s" % (self.host, path)
        request = urllib.request.Request(url, data=content, method=method)
        if kind:
            request.add_header("Content-Type", kind)
        request.add_header("Accept", MANIFEST)
        return urllib.request.urlopen(request)

    def blob(self, repository, content):
        digest = sha256(content)
        at = self.ask("POST", repository + "/blobs/uploads/", b"").headers["Location"]
        self.ask("PUT", at + ("&" if "?" in at else "?") + "digest=" + digest, content,
                 "application/octet-stream")
        return {"digest": digest, "size": len(content)}

    def manifest(self, repository, name, content, kind=MANIFEST):
        self.ask("PUT", "%s/manifests/%s" % (repository, name), content, kind)
        return sha256(content)

    def push(self, archive, name):
        """Pushes an archive; gives the digest of its manifest."""
        run("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", archive,
            "docker://%s/%s" % (self.host, name))
        repository, tag = name.rsplit(":", 1)
        with self.ask("GET", "%s/manifests/%s" % (repository, tag)) as answer:
            return sha256(answer.read())

    def attach(self, repository, digest, layers, tag=None):
        """Puts signatures where cosign puts them: pairs of what is signed and its annotations."""
        listed = []
        for content, annotations, *kind in layers:
            one = self.blob(repository, content)
            listed.append({"mediaType": kind[0] if kind else SIMPLE, **one,
                           "annotations": annotations})
        config = {"architecture": "", "os": "", "config": {}, "rootfs": {
            "type": "layers", "diff_ids": [one["digest"] for one in listed]}}
        config = self.blob(repository, json.dumps(config).encode())
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": listed,
                    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config}}
        tag = tag or digest.replace(":", "-") + ".sig"
        self.manifest(repository, tag, json.dumps(manifest).encode())


def cosign(key, reference, digest, **more):
    """A signature as cosign attaches it."""
    content = payload("cosign", reference, digest, **more)
    return content, {SIGNATURE: base64.b64encode(key.sign(content)).decode()}


class Lookaside:
    """A directory of signatures."""

    def __init__(self, path):
        self.path, self.url = path, "file://" + path
        os.makedirs(path)

    def put(self, repository, digest, signatures):
        dir = "%s/%s@%s" % (self.path, repository, digest.replace(":", "="))
        os.makedirs(dir, exist_ok=True)
        for number, content in enumerate(signatures, 1):
            with open("%s/signature-%d" % (dir, number), "wb") as file:
                file.write(content)

    def serve(self):
        """The same by HTTP; gives the address."""
        path = self.path

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args, **more):
                super().__init__(*args, directory=path, **more)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return "http://127.0.0.1:%d" % server.server_address[1]
