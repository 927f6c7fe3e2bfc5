"""The lines of scripts/docker-words, with the reason where docker and strata differ on purpose.

bash runs a line with $D as the program, $R as the registry's host, $WORK/*.tar as archives, and
a directory of the engine's own as working directory. A tuple has the reason why the two differ.
"""
import hashlib
import io
import json
import os
import re
import tarfile

RUNS_NOTHING = "strata runs nothing; it says in a line what to do instead"
ENGINE = "what an engine is and where it keeps things"
UPPERS = "strata's uppers have a name and no id, command or ports"
QUIET = "with -q strata prints ids, here as everywhere"
ONCE = "each id once, so that `rmi $(strata images -q)` does not fail on the second"
UNSAID = "a time that is not said is N/A in strata wherever it is shown"
SHARED = "strata counts each content once, docker each layer"
PACKED = "each packs layers in its own way, so sizes and digests of pushed blobs are its own"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def layer(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mtime = 1000000000
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def archive(path, tags, config, layers):
    """An archive as `docker save` before 25 writes it."""
    config = dict(config, rootfs={"type": "layers", "diff_ids": ["sha256:" + sha256(one)
                                                                 for one in layers]})
    raw = json.dumps(config).encode()
    names = [sha256(one) + "/layer.tar" for one in layers]
    files = {sha256(raw) + ".json": raw, **dict(zip(names, layers))}
    listed = [{"Config": sha256(raw) + ".json", "RepoTags": tags, "Layers": names}]
    files["manifest.json"] = json.dumps(listed).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def make_archives(work):
    base = layer([("etc", None), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), ("bin", None),
                  ("bin/app", b"#!/bin/sh\necho hello\n" * 100), ("data", None)])
    top = layer([("etc/motd", b"hello\n"), ("bin/.wh.app", b""), ("bin/app2", b"x" * 5000)])
    since = {"created": "2020-02-03T04:05:06.789Z", "architecture": "amd64", "os": "linux"}
    steps = [{"created": "2020-02-03T04:05:05Z", "created_by": "/bin/sh -c #(nop) ADD file:a in / "},
             {"created": "2020-02-03T04:05:06Z", "created_by": "/bin/sh -c #(nop)  CMD [\"/bin/app\"]",
              "empty_layer": True},
             {"created": "2020-02-03T04:05:06.789Z", "created_by": "RUN a command that is long enough "
              "to be cut off in a listing # buildkit", "comment": "buildkit.dockerfile.v0"}]
    full = {"Hostname": "", "User": "1000:1000", "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Env": ["PATH=/usr/bin:/bin", "EMPTY=", "WITH=a=b"], "Cmd": ["/bin/app2", "--flag"],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30000000000, "Retries": 3},
            "ArgsEscaped": True, "Volumes": {"/data": {}}, "WorkingDir": "/data",
            "Entrypoint": ["/bin/sh", "-c"], "OnBuild": ["RUN true"],
            "Labels": {"a.b": "c", "empty": "", "html": "<a> & b"}, "StopSignal": "SIGINT",
            "Shell": ["/bin/bash"]}
    archive(os.path.join(work, "app.tar"), ["app:1", "registry.test:5000/team/app:latest"],
            dict(since, author="who <who@there>", config=full, history=steps,
                 docker_version="20.10.1", container="c" * 64, variant="v1"), [base, top])
    archive(os.path.join(work, "bare.tar"), ["bare:1"], dict(since, config={}, history=[
        dict(steps[0])]), [base])
    archive(os.path.join(work, "old.tar"), ["bare:2"], {
        "architecture": "arm64", "os": "linux", "created": "0001-01-01T00:00:00Z",
        "config": {"Env": None, "Cmd": ["x"]}, "history": [{"created_by": "made"}]}, [top])
    archive(os.path.join(work, "none.tar"), None, dict(since, config={}, author="nobody"), [base])
    with open(os.path.join(work, "root.tar"), "wb") as file:
        file.write(base)
    with open(os.path.join(work, "broken.tar"), "wb") as file:
        file.write(b"no archive at all\n" * 100)


FIELDS = ("Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin "
          "StdinOnce Env Cmd Healthcheck ArgsEscaped Image Volumes WorkingDir Entrypoint "
          "NetworkDisabled MacAddress OnBuild Labels StopSignal StopTimeout Shell").split()
TOP = ("Id RepoTags RepoDigests Parent Comment Created Container DockerVersion Author Architecture "
       "Variant Os OsVersion Size VirtualSize RootFS Config ContainerConfig").split()


def templates():
    for image in ("app:1", "bare:1", "bare:2"):
        for field in FIELDS:
            # Newer clients print a health check as Go prints a struct.
            if field != "Healthcheck" or image != "app:1":
                yield f"$D inspect -f '{{{{.Config.{field}}}}}' {image}"
            yield f"$D inspect -f '{{{{json .Config.{field}}}}}' {image}"
        for field in TOP:
            if field not in ("RootFS", "Config", "ContainerConfig"):
                yield f"$D image inspect -f '{{{{.{field}}}}}' {image}"
            yield f"$D image inspect --format '{{{{json .{field}}}}}' {image}"
    yield "$D inspect -f '{{.ID}}' app:1"
    yield "$D inspect -f '{{.Nothing}}' app:1"
    yield "$D inspect -f '{{.Config.Nothing}}' app:1"
    yield "$D inspect -f '{{range .Config.Env}}<{{.}}>{{end}}' app:1"
    yield "$D inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}' app:1"
    yield "$D inspect -f '{{index .Config.Labels \"a.b\"}}|{{index .Config.Labels \"z\"}}' app:1"
    yield "$D inspect -f '{{if .Config.Entrypoint}}yes{{else}}no{{end}}' bare:1"
    yield "$D inspect -f '{{join .Config.Env \",\"}}|{{len .Config.Env}}' app:1"
    yield "$D inspect -f '{{join .Config.Env \",\"}}|{{len .Config.Env}}' bare:1"
    yield "$D inspect -f '{{printf \"%s %q %v %d\" .Os .Author .Config.Tty .Size}}' app:1"
    yield "$D inspect -f '{{upper .Os}} {{lower .Author}} {{title .Os}} {{truncate .Id 10}}' app:1"
    yield "$D inspect -f '{{with .Config.Healthcheck}}{{.Retries}} {{.Test}}{{end}}' app:1"
    yield "$D inspect -f '{{.Metadata.LastTagTime}}' bare:1"
    yield "$D inspect -f '{{.RootFS.Type}} {{index .RootFS.Layers 0}}' app:1"
    yield "$D inspect -f '{{json .Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}}' app:1"
    yield ("$D inspect -f '{{.GraphDriver.Name}}' app:1", ENGINE)
    yield "$D inspect -f '{{.Id'"
    yield "$D inspect app:1 bare:1 bare:2 | sed '/\"GraphDriver\"/,/^        }/d' | \
           sed '/\"Metadata\"/,/^        }/d'"
    yield "$D inspect -f '{{.Id}}' app:1 nothing bare:1"
    yield "$D inspect nothing"
    yield "$D image inspect $($D images -q bare:1)"' -f "{{.RepoTags}}"'
    yield "$D inspect --type image -f '{{.Id}}' app:1"
    yield "$D inspect --type container app:1"
    yield "$D inspect"


LISTINGS = [
    "$D images", "$D image ls", "$D image list", "$D images -a", ("$D images -q", ONCE),
    "$D images --no-trunc", ("$D images -q --no-trunc", ONCE), "$D images --digests", "$D images app",
    "$D images bare:1", "$D images nothing", "$D images '*/team/*'",
    "$D images -f dangling=true -q", "$D images -f dangling=false", "$D images -f label=a.b",
    "$D images -f label=a.b=c", "$D images -f label=z", "$D images -f before=app:1",
    "$D images -f since=bare:2", "$D images -f reference='bare:*'", "$D images -f colour=red",
    "$D images --format '{{.Repository}}:{{.Tag}}'", "$D images --format '{{.ID}} {{.Size}}'",
    r"$D images --format 'table {{.Repository}}\t{{.Tag}}\t{{.ID}}'",
    ("$D images --format '{{json .}}'", UNSAID), "$D images --format '{{json .}}' app", "$D images --format '{{json .ID}}'",
    ("$D images --format '{{.CreatedAt}}|{{.CreatedSince}}|{{.Digest}}|{{.Containers}}'", UNSAID),
    "$D images --format '{{.CreatedAt}}|{{.CreatedSince}}|{{.Digest}}|{{.Containers}}' app",
    "$D images --format '{{.VirtualSize}}'", "$D images --format '{{.Nothing}}'",
    "$D images --format '{{.ID'", "$D images --format '{{upper .Repository}}'",
    "$D history app:1", "$D image history bare:1", ("$D history bare:2", UNSAID), "$D history -q app:1",
    "$D history --no-trunc app:1", "$D history -H=false app:1", "$D history --human=false bare:1",
    "$D history --format '{{json .}}' app:1", "$D history --format '{{.ID}}: {{.CreatedBy}}' app:1",
    "$D history --format '{{.CreatedAt}} {{.Size}} {{.Comment}}' app:1", "$D history nothing",
    "$D history",
]

LINES = [
    "$D load -i $WORK/app.tar", ("$D load -q -i $WORK/bare.tar", QUIET), "$D image load -i $WORK/old.tar",
    "$D load < $WORK/none.tar", "$D load -i $WORK/app.tar", "$D load -i $WORK/broken.tar",
    "$D load -i $WORK/nothing.tar", "$D load < /dev/null",
    *LISTINGS,
    *templates(),
    # Names.
    "$D tag app:1 other", "$D tag app:1 Other", "$D tag nothing new", "$D tag app:1",
    "$D image tag app:1 a.b:5000/c/d:e", "$D images --format '{{.Repository}}:{{.Tag}}' | sort",
    "$D inspect -f '{{json .RepoTags}}' other", "$D rmi other", "$D image rm a.b:5000/c/d:e",
    "$D rmi nothing", "$D rmi -f nothing", "$D rmi", "$D rmi app:1 nothing",
    "$D inspect -f '{{json .RepoTags}}' registry.test:5000/team/app",
    "$D tag registry.test:5000/team/app app:1",
    "$D rmi $($D images -q app:1)", ("$D rmi --no-prune bare:2", SHARED), "$D load -i $WORK/old.tar",
    # In and out.
    "$D save app:1 | tar t | grep -c manifest.json", "$D save -o x.tar app:1 bare:1; echo $?; ls x.tar",
    "$D image save -o y.tar nothing", "$D save", "$D rmi app:1 bare:1", "$D load -i x.tar",
    "$D import $WORK/root.tar imported:1 > /dev/null; $D images imported --format '{{.Size}}'",
    "$D import -c 'CMD [\"x\", \"y\"]' -c 'ENV A=b' -m why $WORK/root.tar imported:2 > /dev/null; "
    "$D inspect -f '{{json .Config.Cmd}}{{json .Config.Env}}{{.Comment}}{{.Os}}' imported:2",
    "cat $WORK/root.tar | $D import - | cut -c1-7", "$D import $WORK/nothing.tar",
    "$D image import -c 'NONSENSE x' $WORK/root.tar",
    "$D history imported:2 --format '{{.Comment}}|{{.Size}}'",
    # A registry.
    "$D tag bare:1 $R/$NAME/bare:1", ("$D push $R/$NAME/bare:1", PACKED),
    "$D push $R/$NAME/bare:1 | head -1", "$D push -q $R/$NAME/bare:1", ("$D push $R/nothing:1", "strata says where it would push to only once it has an image"),
    "$D push $R/$NAME/bare:1 | grep -c 'Layer already exists'",
    "$D tag bare:2 $R/$NAME/bare:2", "$D push -a $R/$NAME/bare > /dev/null; echo $?",
    "$D rmi $R/$NAME/bare:1 $R/$NAME/bare:2 > /dev/null; echo $?",
    "$D rmi bare:1 bare:2 $($D images -f dangling=true -q) > /dev/null; echo $?",
    "$D pull $R/docker/bare:1", "$D pull $R/docker/bare:1", "$D pull -q $R/docker/bare:1",
    ("$D image pull -a $R/docker/bare", SHARED), "$D pull $R/docker/bare:none", "$D pull $R/none/none",
    "$D inspect -f '{{json .RepoDigests}}' $R/docker/bare:1",
    "$D images --digests $R/docker/bare", ("$D rmi $R/docker/bare:2", SHARED),
    "$D pull $($D inspect -f '{{index .RepoDigests 0}}' $R/docker/bare:1)",
    "$D rmi $R/docker/bare:1", "$D images $R/docker/bare", "$D pull NONSENSE",
    "$D pull $R/docker/bare@sha256:0000", "$D pull", "$D search --limit 3",
    "$D login -u a -p b $R", "$D logout $R",
    # Containers.
    "# container", ("$D ps", UPPERS), "$D ps -q", "$D container ls -q",
    ("$D ps -a", UPPERS), ("$D ps -a --format '{{json .}}'", UPPERS),
    "$D ps -a --format '{{.Names}} {{.Image}}'", "$D container ls -a --format '{{.Names}}'",
    "$D diff cc", "$D container diff cc", "$D diff nothing",
    "$D commit -m why -a who cc new:1 | cut -c1-7", "$D commit cc | cut -c1-7",
    "$D commit -c 'CMD [\"z\"]' -c 'LABEL k=v' cc new:2 > /dev/null; "
    "$D inspect -f '{{json .Config.Cmd}} {{json .Config.Labels}}' new:2",
    ("$D inspect -f '{{.Author}}' new:2", "a commit that names no author keeps that of the image"),
    "$D inspect -f '{{.Author}}|{{.Comment}}|{{len .RootFS.Layers}}' new:1",
    "$D history new:1 --format '{{.Comment}}|{{.Size}}' | head -1",
    "$D commit nothing new:3", ("$D inspect -f '{{.State.Status}}' cc", "an upper that is not mounted was mounted once"),
    "$D inspect -f '{{.State.Running}} {{.State.Pid}}' cc",
    "$D rmi bare:1", "$D rmi -f bare:1", "$D rm nothing", "$D rm -f nothing",
    "$D rm cc", "$D container rm cc",
    # What a removal would free.
    ("$D system df", SHARED), ("$D system df --format '{{json .}}'", SHARED),
    "$D image prune -f | grep -c '^deleted: sha256'", "$D image prune -f",
    "$D container prune -f", "$D system prune -f", ("$D system prune --volumes -f", "there are no volumes, which docker removes here"),
    "$D image prune -a -f | tail -n 1 | cut -d: -f1", "$D images", "$D images -q",
    # The engine.
    ("$D version", ENGINE), "$D version -f '{{.Server.Os}}/{{.Server.Arch}}'",
    "$D version --format '{{.Client.Os}}'", "$D version -f '{{.Nothing}}'",
    ("$D info", ENGINE), "$D info -f '{{.OSType}} {{.Architecture}} {{.NCPU}}'",
    "$D info -f '{{.KernelVersion}}|{{.MemTotal}}|{{.Name}}'",
    "$D info -f '{{json .RegistryConfig.Mirrors}} {{.IndexServerAddress}}'",
    "$D info -f '{{.Images}} {{.Containers}} {{.ContainersRunning}}'",
    ("$D info -f '{{.Driver}}'", ENGINE), ("$D info -f '{{.DockerRootDir}}'", ENGINE),
    "$D info -f '{{.Nothing}}'", "$D help > /dev/null", "$D help images > /dev/null",
    "$D help nothing", "$D images --help > /dev/null", "$D nothing", "$D images --nothing",
    "$D --version > /dev/null", "$D -v > /dev/null",
    # What strata does not do.
    *((f"$D {words}", RUNS_NOTHING) for words in [
        "create --name d app:1 x", "stop d", "kill d", "logs d", "top d", "wait d", "start d", "restart d",
        "pause d", "port d", "rename d e", "stats --no-stream d", "update d", "events --until 1s",
        "volume ls", "network ls", "builder prune -f", "context ls", "attach d", "exec d x", "run app:1"]),
]

# How each engine gets what the lines after it need.
FOR_ENGINE = {
    "# container": {
        "docker": "$D load -q -i $WORK/app.tar; $D create --name cc app:1 x; echo new > new; "
                  "$D cp new cc:/etc/new",
        "strata": "$D load -q -i $WORK/app.tar; mkdir m; $D mount --upper cc app:1 m; "
                  "echo new > m/etc/new; $D umount m",
    },
}


def alike(line, text, engine):
    """The output without what differs between the engines, and with one gap between columns."""
    text = text.replace(engine.command, "D").replace(engine.work, "WORK")
    text = text.replace(engine.dir, "DIR").replace(engine.registry, "HOST")
    text = re.sub("HOST/(docker|strata)/", "HOST/NAME/", text)
    lines = [re.sub(" {2,}", "  ", said.rstrip()) for said in text.splitlines()]
    # Images that were made at the same time come in any order, also those that docker saves.
    if re.match(r"[$]D (images|image l|load -i x)", line):
        lines.sort()
    return "\n".join(same_json(said) for said in lines if said)


def same_json(line):
    try:
        return json.dumps(json.loads(line))
    except ValueError:
        return line
