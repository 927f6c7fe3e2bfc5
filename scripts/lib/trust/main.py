"""Runs the cases and prints both verdicts of each."""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cases as all_cases  # noqa: E402
from places import Registry  # noqa: E402

work, host, strata, podman = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "1"
markdown, newer = sys.argv[5] == "markdown", sys.argv[6:]
# What the tools of Debian 12 say where their packages leave sigstore out.
LEFT_OUT = b"Debian-local change"
# What only the newer knows.
RECENT = ("rekor", "fulcio", "several keys")
WORDS = {True: "accepted", False: "refused", None: "-"}


def done(*words, **more):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, **more)


def empty(path):
    shutil.rmtree(path, ignore_errors=True)
    return path


def by_skopeo(policy, settings, place, skopeo=("skopeo",)):
    to = empty(work + "/to")
    words = [*skopeo, "--policy", policy, "--registries.d", settings, "copy", "-q"]
    tls = ["--src-tls-verify=false"] if place.startswith("docker:") else []
    return done(*words, *tls, place, "dir:" + to)


def by_podman(policy, settings, place):
    config = empty(os.environ["HOME"] + "/.config/containers")
    os.makedirs(config)
    os.symlink(settings, config + "/registries.d")
    words = ["podman", "--root", empty(work + "/pod"), "--runroot", work + "/podrun",
             "--storage-driver", "vfs", "pull", "-q", "--tls-verify=false",
             "--signature-policy", policy, place]
    return done(*words)


def by_strata(policy, settings, place):
    """What strata says; and what is wrong besides."""
    options = ["--policy", policy, "--registries.d", settings]
    store, wrong = empty(work + "/store"), []
    command = ["pull"] if place.startswith("docker:") else ["load", "-i"]
    answer = done(strata, "--root", store, "-q", *command, place, *options)
    asked = done(strata, "--root", work + "/none", "trust", "check", place, *options)
    if asked.returncode != answer.returncode:
        wrong.append("trust check says %d: %s" % (asked.returncode, asked.stderr.decode()))
    if answer.returncode != 0:
        for dir in ("layers", "blobs/sha256", "staging"):
            path = "%s/%s" % (store, dir)
            if os.path.isdir(path) and os.listdir(path):
                wrong.append("%s is not empty after a refusal" % dir)
    return answer, wrong


def main():
    registry = Registry(host)
    put = all_cases.prepare(work, registry)
    settings = {}
    for name, text in all_cases.registries_d(put, host).items():
        settings[name] = "%s/d-%s" % (work, name.replace(" ", "-"))
        os.makedirs(settings[name])
        with open(settings[name] + "/all.yaml", "w") as file:
            file.write(text)
    rows, bad, argued, asked = [], [], [], 0
    for name, policy, how, place, *why in all_cases.cases(put, host, work):
        path = work + "/policy.json"
        with open(path, "w") as file:
            file.write(policy if isinstance(policy, str) else json.dumps(policy))
        answers, recent = [None, None, None], name.startswith(RECENT)
        if newer:
            answers[0] = by_skopeo(path, settings[how], place, newer)
        if not recent:
            answers[1] = by_skopeo(path, settings[how], place)
        if podman and place.startswith("docker:") and not recent:
            answers[2] = by_podman(path, settings[how], place)
        ours, wrong = by_strata(path, settings[how], place)
        answers = [one if one and LEFT_OUT not in one.stderr else None for one in answers]
        verdicts = [one.returncode == 0 if one else None for one in answers]
        verdicts.append(ours.returncode == 0)
        same = all(one in (None, verdicts[3]) for one in verdicts)
        asked += any(one is not None for one in verdicts[:3])
        if wrong or (not same and not why) or (same and why):
            said = [one.stderr.decode().strip() if one else "-" for one in answers + [ours]]
            bad.append("%s: %s\n  skopeo: %s\n  older: %s\n  podman: %s\n  strata: %s" % (
                name, "; ".join(wrong) or "the verdicts differ", *said))
        if why and not same:
            argued.append("%s: %s" % (name, why[0]))
        rows.append([name, *(WORDS[one] for one in verdicts),
                     "same" if same else "argued" if why else "DIFFERENT"])
    heading = ["CASE", "SKOPEO", "OLDER", "PODMAN", "STRATA", ""]
    if markdown:
        print("| case | skopeo | older | podman | strata | |\n|---|---|---|---|---|---|")
        for row in rows:
            print("| %s |" % " | ".join(row))
    else:
        for row in [heading] + rows:
            print(("%-54s %-9s %-9s %-9s %-9s %s" % tuple(row)).rstrip())
    print()
    for text in argued:
        print("argued: " + text)
    for text in bad:
        print("WRONG: " + text)
    print("%d cases, %d with an answer to compare; %d accepted and %d refused by strata, %d argued, "
          "%d wrong" % (len(rows), asked, sum(row[4] == "accepted" for row in rows),
                        sum(row[4] == "refused" for row in rows), len(argued), len(bad)))
    if bad:
        sys.exit(1)
    if not newer:
        print("NOT RUN: skopeo of Debian 13 cannot be had")
        sys.exit(77)


main()
