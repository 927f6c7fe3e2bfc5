"""The cases: a policy, what registries.d says, and a place."""
import base64
import json
import os
import time

from keys import Fulcio, Gpg, Pem, entry, payload, run
from places import SIGNATURE, Lookaside, cosign

ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]


def gpg(key, identity=None, **more):
    """A requirement of simple signing."""
    one = {"type": "signedBy", "keyType": "GPGKeys"}
    if not any(name.startswith("key") and name != "keyType" for name in more):
        one["keyPath"] = key.public
    one.update(more)
    if identity:
        one["signedIdentity"] = identity
    return [one]


def sigstore(key, identity=None, **more):
    """A requirement of sigstore."""
    one = {"type": "sigstoreSigned"}
    if not any(name.startswith("key") for name in more):
        one["keyPath"] = key.public
    one.update(more)
    if identity:
        one["signedIdentity"] = identity
    return [one]


def scoped(requirements, scope="", transport="docker", default=REJECT):
    return {"default": default, "transports": {transport: {scope: requirements}}}


def prepare(work, registry):
    """Makes keys, images and signatures."""
    host = registry.host
    put = type("Put", (), {})()
    fixtures = os.path.abspath("tests/fixtures")
    put.archive = "%s/busybox-gzip.oci.tar" % fixtures
    put.other = "%s/cases-gzip.oci.tar" % fixtures
    put.docker = work + "/one.docker.tar"
    run("skopeo", "--insecure-policy", "copy", "-q", "oci-archive:" + put.archive,
        "docker-archive:" + put.docker)
    put.good, put.evil = Gpg(work, "good"), Gpg(work, "evil")
    put.old = Gpg(work, "old", at="20200101T000000!", expires="2020-02-01")
    put.revoked, put.sub = Gpg(work, "revoked"), Gpg(work, "sub", subkey=True)
    put.key, put.stranger = Pem(work, "key"), Pem(work, "stranger")
    put.others = {kind: Pem(work, kind, kind) for kind in ("p384", "rsa", "ed25519")}
    put.look = Lookaside(work + "/lookaside")
    put.http = put.look.serve()
    digests = put.digests = {}
    for name in ("signed", "tampered", "stranger", "renamed", "two", "expired", "revoked", "sub",
                 "clear", "armoured", "unsigned", "wrongtype", "garbage", "extra", "mirror/app"):
        digests[name] = registry.push("oci-archive:" + put.archive, "team/%s:1" % name)
    digests["new"] = registry.push("oci-archive:" + put.other, "team/signed:2")

    def simple(name, signer, reference=None, digest=None, *options, kind="simple", **more):
        content = payload(kind, reference or "%s/team/%s:1" % (host, name),
                          digest or digests[name], **more)
        return signer.sign(content, *options)

    def look(name, *signatures, digest=None):
        put.look.put("team/" + name, digest or digests[name], signatures)

    good = simple("signed", put.good)
    look("signed", good)
    # The old signature is found for the new image too.
    look("signed", good, digest=digests["new"])
    middle = simple("tampered", put.good, None, None, "--compress-algo", "none", "--sign")
    at = middle.index(b"docker-reference")
    look("tampered", middle[:at + 2] + b"X" + middle[at + 3:])
    look("stranger", simple("stranger", put.evil))
    look("renamed", simple("renamed", put.good, host + "/team/signed:1"))
    look("two", simple("two", put.evil), simple("two", put.good))
    look("expired", simple("expired", put.old))
    look("revoked", simple("revoked", put.revoked))
    put.revoked.revoke()
    look("sub", simple("sub", put.sub))
    look("clear", simple("clear", put.good, None, None, "--clearsign"))
    look("armoured", simple("armoured", put.good, None, None, "--armor", "--sign"))
    look("wrongtype", simple("wrongtype", put.good, kind="something else"))
    look("garbage", b"\x90no packets")
    look("extra", simple("extra", put.good, optional={"more": [1], "timestamp": 1.5}))
    look("mirror/app", simple("mirror/app", put.good, "up.example/app:1"))
    put.skopeo = "%s/team/byskopeo:1" % host
    os.makedirs(work + "/staging.d")
    with open(work + "/staging.d/all.yaml", "w") as file:
        file.write("default-docker: {lookaside-staging: '%s'}\n" % put.look.url)
    run("skopeo", "--insecure-policy", "--registries.d", work + "/staging.d", "copy", "-q",
        "--dest-tls-verify=false", "--sign-by", put.good.key, "oci-archive:" + put.archive,
        "docker://" + put.skopeo, env=put.good.env)

    sign = digests["attached"] = {}
    for name in ("ok", "bad", "other", "name", "many", "rsa", "p384", "ed25519", "none", "bundle",
                 "nosig", "kind"):
        sign[name] = registry.push("oci-archive:" + put.archive, "cosign/%s:1" % name)
    new = registry.push("oci-archive:" + put.other, "cosign/ok:2")

    def attach(name, *layers, digest=None):
        registry.attach("cosign/" + name, digest or sign[name], layers)

    def by(key, name, reference=None, digest=None, **more):
        return cosign(key, reference or "%s/cosign/%s:1" % (host, name), digest or sign[name],
                      **more)

    ok = by(put.key, "ok", optional=None)
    attach("ok", ok)
    attach("ok", ok, digest=new)
    content, annotations = by(put.key, "bad")
    attach("bad", (content.replace(b"a test", b"a fest"), annotations))
    attach("other", by(put.stranger, "other"))
    attach("name", by(put.key, "name", host + "/cosign/ok:1"))
    attach("many", by(put.stranger, "many"), by(put.key, "many"))
    for kind, key in put.others.items():
        attach(kind, by(key, kind))
    attach("nosig", (by(put.key, "nosig")[0], {}))
    attach("kind", (*by(put.key, "kind"), "application/vnd.example.other+json"))
    put.sigstore_json = Lookaside(work + "/sigstore-json")
    content, annotations = by(put.key, "none")
    blob = {"mimeType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "payload": base64.b64encode(content).decode(), "annotations": annotations}
    put.sigstore_json.put("cosign/none", sign["none"],
                          [b"\0sigstore-json\n" + json.dumps(blob).encode()])

    logged(put, work, registry, by, attach, sign)

    # An index, whose image for this machine alone is signed.
    listed = registry.push("oci-archive:" + put.archive, "team/index:amd64")
    size = len(registry.ask("GET", "team/index/manifests/amd64").read())
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                            "digest": listed, "size": size,
                            "platform": {"os": "linux", "architecture": "amd64"}}]}
    digests["index"] = registry.manifest("team/index", "1", json.dumps(index).encode(),
                                         index["mediaType"])
    look("index", simple("index", put.good, digest=listed), digest=listed)
    registry.push("oci-archive:" + put.archive, "team/top:amd64")
    digests["top"] = registry.manifest("team/top", "1", json.dumps(index).encode(),
                                       index["mediaType"])
    look("top", simple("top", put.good), digest=digests["top"])

    put.layout = work + "/layouts/inner"
    os.makedirs(work + "/layouts")
    run("skopeo", "--insecure-policy", "copy", "-q", "oci-archive:" + put.archive,
        "oci:%s:1" % put.layout)
    run("ln", "-s", put.layout, work + "/layouts/link")
    return put


ISSUER, EMAIL = "https://issuer.example", "signer@example.com"


def logged(put, work, registry, by, attach, sign):
    """Signatures that are in a log, some of them by certificates."""
    put.log, put.other_log = Pem(work, "log"), Pem(work, "otherlog")
    put.fulcio = Fulcio(work, "fulcio", ISSUER, EMAIL)
    put.other_fulcio = Fulcio(work, "otherfulcio", ISSUER, EMAIL)
    now, day = time.time(), 86400

    def add(name, key, signer, at=now, log=put.log, about=None, more=None):
        sign[name] = registry.push("oci-archive:" + put.archive, "cosign/%s:1" % name)
        content, annotations = by(key, name)
        signature = base64.b64decode(annotations[SIGNATURE])
        annotations["dev.sigstore.cosign/bundle"] = entry(
            log, about or content, signature, signer, at)
        annotations.update(more or {})
        attach(name, (content, annotations))

    public = open(put.key.public).read()
    add("logged", put.key, public)
    add("otherlog", put.key, public, log=put.other_log)
    add("logother", put.key, public, about=b"something else")
    add("logkey", put.key, open(put.stranger.public).read())
    fulcio = put.fulcio
    chain = {"dev.sigstore.cosign/certificate": fulcio.text("leaf"),
             "dev.sigstore.cosign/chain": fulcio.text("middle", "root")}
    add("certified", fulcio.key, fulcio.text("leaf"), more=chain)
    add("early", fulcio.key, fulcio.text("leaf"), at=now - 3 * day, more=chain)
    add("late", fulcio.key, fulcio.text("leaf"), at=now + 3 * day, more=chain)
    add("chainless", fulcio.key, fulcio.text("leaf"),
        more={"dev.sigstore.cosign/certificate": fulcio.text("leaf")})
    add("certless", fulcio.key, fulcio.text("leaf"))
    add("certlog", fulcio.key, fulcio.text("leaf"), log=put.other_log, more=chain)
    other = put.other_fulcio
    add("othercert", other.key, other.text("leaf"),
        more={"dev.sigstore.cosign/certificate": other.text("leaf"),
              "dev.sigstore.cosign/chain": other.text("middle", "root")})
    add("certkey", put.key, fulcio.text("leaf"), more=chain)


def registries_d(put, host):
    """Settings of registries.d, by name."""
    look = "default-docker: {lookaside: '%s'}\n" % put.look.url
    attached = "docker: {'%s/cosign': {use-sigstore-attachments: true}}\n" % host
    return {
        "look": look,
        "old name": look.replace("lookaside", "sigstore"),
        "http": "default-docker: {lookaside: '%s'}\n" % put.http,
        "narrow": look.replace("file:///", "file:///nowhere/")
        + "docker: {'%s/team/signed': {lookaside: '%s'}}\n" % (host, put.look.url),
        "attached": attached,
        "json": "default-docker: {lookaside: '%s'}\n" % put.sigstore_json.url,
        "none": "",
        "broken": "default-docker: [\n",
        "wrong scheme": "default-docker: {lookaside: 'ftp://127.0.0.1/x'}\n",
    }


def cases(put, host, work):
    """Name, policy, registries.d, place; and what argues a difference."""
    def image(name):
        return "docker://%s/team/%s" % (host, name if ":" in name or "@" in name else name + ":1")

    def attached(name):
        return "docker://%s/cosign/%s" % (host, name if ":" in name else name + ":1")

    def identity(kind, **more):
        return {"type": kind, **more}

    signed, repo = image("signed"), "%s/team" % host
    by_digest = image("signed@" + put.digests["signed"])
    good, key = put.good, put.key
    yield "default accepts", {"default": ACCEPT}, "none", signed
    yield "default rejects", {"default": REJECT}, "none", signed
    yield "a transport accepts", scoped(ACCEPT), "none", signed
    yield "a transport rejects", scoped(REJECT, default=ACCEPT), "none", signed
    yield "another transport's scope", scoped(ACCEPT, transport="oci"), "none", signed
    yield "scope: the host", scoped(ACCEPT, host), "none", signed
    yield "scope: the namespace", scoped(ACCEPT, repo), "none", signed
    yield "scope: the repository", scoped(ACCEPT, repo + "/signed"), "none", signed
    yield "scope: the tag", scoped(ACCEPT, repo + "/signed:1"), "none", signed
    yield "scope: another tag", scoped(ACCEPT, repo + "/signed:2"), "none", signed
    yield "scope: the digest", scoped(ACCEPT, by_digest[9:]), "none", by_digest
    yield "scope: half a name", scoped(ACCEPT, repo + "/sig"), "none", signed
    yield "scope: a wildcard", scoped(ACCEPT, "*.0.0.1"), "none", signed
    yield "scope: a wider wildcard", scoped(ACCEPT, "*.1"), "none", signed
    yield "scope: a wildcard elsewhere", scoped(ACCEPT, "*.0.1.1"), "none", signed
    narrow = {"default": ACCEPT, "transports": {"docker": {repo: ACCEPT, repo + "/signed": REJECT}}}
    yield "the longest scope rejects", narrow, "none", signed
    both = {"default": REJECT, "transports": {"docker": {host: REJECT, repo: ACCEPT}}}
    yield "the longest scope accepts", both, "none", signed
    yield "two requirements, one rejects", {"default": ACCEPT + REJECT}, "none", signed

    for name, place, how in [
        ("a good signature", "signed", "look"), ("sigstore for lookaside", "signed", "old name"),
        ("a lookaside by HTTP", "signed", "http"), ("a narrow lookaside", "signed", "narrow"),
        ("a lookaside of another kind", "signed", "wrong scheme"),
        ("no signature", "unsigned", "look"), ("no lookaside", "signed", "none"),
        ("registries.d is broken", "signed", "broken"), ("tampered with", "tampered", "look"),
        ("a stranger's signature", "stranger", "look"), ("another image's name", "renamed", "look"),
        ("an old signature, replayed", "signed:2", "look"), ("the second is good", "two", "look"),
        ("clear-signed", "clear", "look"), ("armoured", "armoured", "look"),
        ("another type of document", "wrongtype", "look"), ("garbage", "garbage", "look"),
        ("a time that is no integer", "extra", "look"), ("made by skopeo", "byskopeo", "look"),
        ("an index, its image signed", "index", "look"), ("an index, itself signed", "top", "look"),
    ]:
        yield "signedBy: " + name, scoped(gpg(good)), how, image(place)
    yield "signedBy: an expired key", scoped(gpg(put.old)), "look", image("expired")
    yield "signedBy: a revoked key", scoped(gpg(put.revoked)), "look", image("revoked")
    yield ("signedBy: a subkey", scoped(gpg(put.sub)), "look", image("sub"),
           "a subkey signs for its primary key, as gpg has it")
    binary = good.export(armour=False)
    yield "signedBy: a binary key", scoped(gpg(good, keyPath=binary)), "look", signed
    yield "signedBy: keyData", scoped(gpg(good, keyData=good.data())), "look", signed
    paths = [put.evil.public, good.public]
    yield "signedBy: keyPaths", scoped(gpg(good, keyPaths=paths)), "look", signed
    yield "signedBy: keyPaths of others", scoped(gpg(good, keyPaths=paths[:1])), "look", signed
    yield "signedBy: no keyPaths", scoped(gpg(good, keyPaths=[])), "look", signed
    yield "signedBy: an empty keyData", scoped(gpg(good, keyData="")), "look", signed
    yield "signedBy: the key is absent", scoped(gpg(good, keyPath="/none")), "look", signed
    yield "signedBy: X509Certificates", scoped(gpg(good, keyType="X509Certificates")), "look", signed
    yield "signedBy and signedBy", scoped(gpg(good) + gpg(put.evil)), "look", image("two")
    yield "signedBy and another's", scoped(gpg(good) + gpg(put.evil)), "look", signed
    yield "signedBy: by digest", scoped(gpg(good)), "look", by_digest
    yield "signedBaseLayer", scoped([{"type": "signedBaseLayer",
                                      "baseLayerIdentity": identity("matchExact")}]), "look", signed

    ref = "%s/team/signed" % host
    for kind, place, more in [
        ("matchExact", signed, {}), ("matchExact", by_digest, {}),
        ("matchExact", image("renamed"), {}), ("matchRepoDigestOrExact", signed, {}),
        ("matchRepoDigestOrExact", image("renamed"), {}), ("matchRepository", signed, {}),
        ("matchRepository", by_digest, {}), ("matchRepository", image("renamed"), {}),
        ("exactReference", image("renamed"), {"dockerReference": ref + ":1"}),
        ("exactReference", signed, {"dockerReference": ref + ":2"}),
        ("exactReference", signed, {"dockerReference": ref}),
        ("exactRepository", image("renamed"), {"dockerRepository": ref}),
        ("exactRepository", signed, {"dockerRepository": host + "/team/renamed"}),
        ("remapIdentity", image("mirror/app"),
         {"prefix": host + "/team/mirror", "signedPrefix": "up.example"}),
        ("remapIdentity", image("mirror/app"),
         {"prefix": host + "/team/mir", "signedPrefix": "up.example"}),
        ("remapIdentity", signed, {"prefix": "example.com", "signedPrefix": "up.example"}),
        ("remapIdentity", signed, {"prefix": "no_host", "signedPrefix": "up.example"}),
    ]:
        name = "%s, %s%s" % (kind, place.split("/team/")[1].split("@")[0],
                             " by digest" if "@" in place else "")
        if more:
            name += ", " + list(more.values())[0].replace(host, "HOST")
        yield name, scoped(gpg(good, identity(kind, **more))), "look", place

    for name, place, how in [
        ("an attachment", "ok", "attached"), ("attachments are off", "ok", "none"),
        ("no attachment", "none", "attached"), ("tampered with", "bad", "attached"),
        ("a stranger's", "other", "attached"), ("another image's name", "name", "attached"),
        ("an old one, replayed", "ok:2", "attached"), ("the second is good", "many", "attached"),
        ("without the signature", "nosig", "attached"), ("of another kind", "kind", "attached"),
        ("in a lookaside", "none", "json"),
    ]:
        yield "sigstoreSigned: " + name, scoped(sigstore(key)), how, attached(place)
    for kind, other in put.others.items():
        yield ("sigstoreSigned: a key of %s" % kind, scoped(sigstore(other)), "attached",
               attached(kind))
    yield ("sigstoreSigned: keyData", scoped(sigstore(key, keyData=key.data())), "attached",
           attached("ok"))
    yield ("sigstoreSigned: another key's data", scoped(sigstore(key, keyData=put.stranger.data())),
           "attached", attached("ok"))
    yield "sigstoreSigned: no key", scoped([{"type": "sigstoreSigned"}]), "attached", attached("ok")
    yield ("sigstoreSigned: two kinds of key", scoped(sigstore(key, keyPath=key.public,
           keyData=key.data())), "attached", attached("ok"))
    yield ("sigstoreSigned: the key is no PEM", scoped(sigstore(key, keyData="eA==")), "attached",
           attached("ok"))
    yield ("sigstoreSigned: matchRepository", scoped(sigstore(key, identity("matchRepository"))),
           "attached", attached("ok"))
    yield ("sigstoreSigned: an image signed otherwise", scoped(sigstore(key)), "look", signed)
    yield "signedBy: an image signed otherwise", scoped(gpg(good)), "attached", attached("ok")

    rekor = {"rekorPublicKeyPath": put.log.public}
    for name, place in [
        ("logged", "logged"), ("not logged", "ok"), ("in another log", "otherlog"),
        ("about something else", "logother"), ("about another key", "logkey"),
    ]:
        yield "rekor: " + name, scoped(sigstore(key, **rekor)), "attached", attached(place)
    yield ("rekor: not asked for", scoped(sigstore(key)), "attached", attached("otherlog"))
    yield ("several keys: keyPaths", scoped(sigstore(key, keyPaths=[
        put.stranger.public, key.public])), "attached", attached("ok"))
    yield ("several keys: keyDatas", scoped(sigstore(key, keyDatas=[
        put.stranger.data(), key.data()])), "attached", attached("ok"))
    yield ("several keys: those of others", scoped(sigstore(key, keyPaths=[
        put.stranger.public])), "attached", attached("ok"))
    yield ("several keys: none", scoped(sigstore(key, keyPaths=[])), "attached", attached("ok"))

    def fulcio(issuer=ISSUER, email=EMAIL, **more):
        one = {"caPath": put.fulcio.root, "oidcIssuer": issuer, "subjectEmail": email}
        return [{"type": "sigstoreSigned", "fulcio": {**one, **more}, **rekor}]

    for name, place, requirements in [
        ("a certificate", "certified", fulcio()),
        ("another issuer", "certified", fulcio(issuer="https://other.example")),
        ("another address", "certified", fulcio(email="other@example.com")),
        ("before its time", "early", fulcio()), ("after its time", "late", fulcio()),
        ("no chain", "chainless", fulcio()), ("no certificate", "certless", fulcio()),
        ("in another log", "certlog", fulcio()), ("another authority", "othercert", fulcio()),
        ("signed by another key", "certkey", fulcio()), ("a bare key", "logged", fulcio()),
        ("no log in the policy", "certified",
         [{key: value for key, value in fulcio()[0].items() if key != "rekorPublicKeyPath"}]),
        ("and a key", "certified", [{**fulcio()[0], "keyPath": put.key.public}]),
        ("no address in the policy", "certified", fulcio(email="")),
        ("two authorities' fields", "certified", fulcio(caData="eA==")),
    ]:
        yield "fulcio: " + name, scoped(requirements), "attached", attached(place)

    layout, link = put.layout, work + "/layouts/link"
    for name, scope, place in [
        ("the path", layout, "oci:%s:1" % layout), ("above the path", work, "oci:%s:1" % layout),
        ("half a path", layout[:-1], "oci:%s:1" % layout),
        ("behind a link", layout, "oci:%s:1" % link), ("of a link", link, "oci:%s:1" % link),
        ("with a slash", layout + "/", "oci:%s:1" % layout), ("the root", "/", "oci:%s:1" % layout),
        ("a relative path", "layouts", "oci:%s:1" % layout),
    ]:
        yield "oci: " + name, scoped(ACCEPT, scope, "oci"), "none", place
    yield "oci: signedBy", scoped(gpg(good), "", "oci"), "look", "oci:%s:1" % layout
    archive = "oci-archive:" + put.archive
    yield "oci-archive: the path", scoped(ACCEPT, put.archive, "oci-archive"), "none", archive
    yield "oci-archive: oci's scope", scoped(ACCEPT, put.archive, "oci"), "none", archive
    docker = "docker-archive:" + put.docker
    yield "docker-archive: all", scoped(ACCEPT, "", "docker-archive"), "none", docker
    yield "docker-archive: a path", scoped(ACCEPT, put.docker, "docker-archive"), "none", docker
    yield "docker-archive: signedBy", scoped(gpg(good), "", "docker-archive"), "look", docker

    any_ = '{"type": "insecureAcceptAnything"}'
    for name, text in [
        ("empty", ""), ("no object", "[]"), ("no default", "{}"), ("an empty list",
         '{"default": []}'), ("null", '{"default": null}'), ("an unknown key",
         '{"default": [%s], "more": 1}' % any_), ("a key twice",
         '{"default": [%s], "default": [%s]}' % (any_, any_)),
        ("a scope twice", '{"default": [%s], "transports": {"docker": {"": [%s], "": [%s]}}}'
         % (any_, any_, any_)),
        ("an unknown type", '{"default": [{"type": "accept"}]}'),
        ("a type in capitals", '{"default": [{"Type": "insecureAcceptAnything"}]}'),
        ("a key too many", '{"default": [{"type": "insecureAcceptAnything", "x": 1}]}'),
        ("a type that is no text", '{"default": [{"type": 1}]}'),
        ("transports are a list", '{"default": [%s], "transports": []}' % any_),
        ("an unknown transport", '{"default": [%s], "transports": {"new": {"a/": [%s]}}}'
         % (any_, any_)),
        ("something behind it", '{"default": [%s]} x' % any_),
        ("an unknown keyType", '{"default": [{"type": "signedBy", "keyType": "x", '
         '"keyPath": "/x"}]}'),
        ("a wrong signedIdentity", '{"default": [%s], "transports": {"oci": {"": [{"type": '
         '"signedBy", "keyType": "GPGKeys", "keyPath": "/x", "signedIdentity": {"type": "x"}}]}}}'
         % any_),
        ("an empty keyPath", '{"default": [%s], "transports": {"oci": {"": [{"type": "signedBy", '
         '"keyType": "GPGKeys", "keyPath": ""}]}}}' % any_),
    ]:
        yield "a policy: " + name, text, "none", signed
