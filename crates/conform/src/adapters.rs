//! The unpackers that are known by name: shell scripts for `sh`.
//!
//! A script is told by its environment where the image is (`LAYOUT`, the tag is `case`), where the
//! root file system goes (`OUT`, an empty directory) and where it may keep things (`WORK`). The
//! same image is there as a docker archive for a script that names `ARCHIVE`. A script may mount
//! on `OUT`; its clean-up then unmounts.
//!
//! The programs of a directory can come before those of the path: `FIRST`.
//!
//! Invariant: a script keeps all it makes below `WORK` and `OUT`, storage and sockets included: the
//! machine's own images are neither read nor changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// A program that makes a root file system of an image.
#[derive(Debug, Clone)]
pub struct Unpacker {
    /// As reports name it.
    pub name: String,
    /// Its version, as it says it; empty if it cannot be asked.
    pub version: String,
    /// What `sh` runs.
    pub(crate) script: String,
    /// What `sh` runs afterwards, whatever came of it.
    pub(crate) cleanup: String,
    /// Where programs are looked for before the path.
    pub(crate) first: Option<PathBuf>,
}

/// A process of `sh` that finds the programs of `first` before those of the path.
pub(crate) fn shell(script: &str, first: Option<&Path>) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").stdin(Stdio::null());
    match first {
        // Scripts run in directories of their own.
        Some(first) => command
            .arg(format!("PATH=$FIRST:$PATH\n{script}"))
            .env("FIRST", std::path::absolute(first).unwrap_or_else(|_| first.to_owned())),
        None => command.arg(script),
    };
    command
}

/// Says which of the programs is not there.
pub(crate) fn missing_program(needs: &[&str], first: Option<&Path>) -> Option<String> {
    let absent = needs.iter().find(|tool| {
        let asked = shell(&format!("command -v {tool}"), first).output();
        !asked.is_ok_and(|asked| asked.status.success())
    });
    absent.map(|tool| format!("{tool} is not in the path"))
}

/// The first line that a script prints; empty if it cannot run.
pub(crate) fn version(script: &str, first: Option<&Path>) -> String {
    let asked = shell(script, first).output();
    let said = asked.map(|asked| asked.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or_default().trim().to_owned()
}

struct Adapter {
    name: &'static str,
    /// The programs that must be in the path.
    needs: &'static [&'static str],
    /// Whether only root can run it.
    root: bool,
    version: &'static str,
    unpack: &'static str,
    cleanup: &'static str,
}

const STRATA_LOAD: &str = r#"
id=$(strata --root "$WORK/store" load -q -i "oci:$LAYOUT:case")
"#;
/// What podman and buildah begin with. They make a name of the layout's directory, in which no
/// capital letter may be: so they are told a relative one.
const STORAGE: &str = r#"
[ ${#WORK} -le 46 ] || { echo "podman takes no runroot of more than 50 bytes: set TMPDIR" >&2
  exit 127; }
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > "$WORK/policy.json"
tool() { name=$1; shift
  "$name" --root "$WORK/storage" --runroot "$WORK/run" --storage-driver overlay "$@"; }
"#;
/// Mounts the layers of a directory of docker's or containers-storage's overlay driver, the topmost
/// by its id.
const OVERLAY_LAYERS: &str = r#"
shown() { # DIR ID
  cd "$1"
  if [ -s "$2/lower" ]; then
    mount -t overlay -o "ro,index=off,lowerdir=l/$(cat "$2/link"):$(cat "$2/lower")" o "$OUT"
  else
    mount --bind "$2/diff" "$OUT"
  fi
}
"#;
/// Its own containerd is a child; both hold nothing that has to be kept.
const DOCKERD_END: &str = r#"
umount "$OUT"
# Neither file ends its line.
for pid in $(cat "$WORK/pid") $(cat "$WORK/run/containerd/containerd.pid"); do
  kill -9 "$pid"
  while grep -q . "/proc/$pid/cmdline" 2> /dev/null; do sleep 0.02; done
done
umount "$WORK/root/overlay2"
umount "$WORK/root"
"#;
const CONTAINERD: &str = r#"
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' > "$WORK/config.toml"
containerd --config "$WORK/config.toml" --root "$WORK/root" --state "$WORK/state" \
  --address "$WORK/s" > "$WORK/log" 2>&1 &
echo $! > "$WORK/pid"
tool() { ctr --address "$WORK/s" "$@"; }
tries=0
until [ -S "$WORK/s" ]; do
  tries=$((tries + 1)); [ $tries -lt 500 ] || exit 127
  sleep 0.02
done
tar -C "$LAYOUT" -cf "$WORK/image.tar" .
# `ctr images mount` unpacks into the default snapshotter, whichever is asked for.
unpacked() {
  tool images import --snapshotter "$1" --base-name conform.test/layers "$WORK/image.tar"
  top=$(tool snapshots --snapshotter "$1" ls |
    awk 'NR > 1 {key[$1]; if (NF == 3) parent[$2]}
      END {for (k in key) if (!(k in parent)) print k}')
  # `view` would leave it to the garbage collector, which runs when the import has ended.
  tool snapshots --snapshotter "$1" prepare shown "$top" > "$WORK/prepared"
  tool snapshots --snapshotter "$1" mounts "$OUT" shown > "$WORK/mounts"
  sh -e "$WORK/mounts"
}
"#;
const CONTAINERD_END: &str = r#"
umount "$OUT"
pid=$(cat "$WORK/pid") && kill "$pid"
# One that nobody has reaped yet has no command line.
while grep -q . "/proc/$pid/cmdline" 2> /dev/null; do sleep 0.02; done
"#;

const ADAPTERS: [Adapter; 10] = [
    Adapter {
        name: "strata",
        needs: &["strata"],
        root: false,
        version: "strata --version",
        unpack: r#"strata --root "$WORK/store" unpack "$id" "$OUT""#,
        cleanup: "",
    },
    Adapter {
        name: "strata-fuse",
        needs: &["strata"],
        root: false,
        version: "strata --version",
        unpack: r#"strata --root "$WORK/store" mount --backend fuse "$id" "$OUT""#,
        cleanup: r#"strata --root "$WORK/store" umount "$OUT""#,
    },
    Adapter {
        name: "strata-kernel",
        needs: &["strata"],
        root: true,
        version: r#"echo "$(strata --version), Linux $(uname -r | cut -d- -f1)""#,
        unpack: r#"strata --root "$WORK/store" mount --backend kernel "$id" "$OUT""#,
        cleanup: r#"strata --root "$WORK/store" umount "$OUT""#,
    },
    Adapter {
        name: "umoci",
        needs: &["umoci"],
        root: false,
        version: "umoci --version",
        unpack: r#"
[ "$(id -u)" = 0 ] || set -- --rootless
rmdir "$OUT"
umoci raw unpack "$@" --image "$LAYOUT:case" "$OUT""#,
        cleanup: "",
    },
    Adapter {
        name: "podman",
        needs: &["podman"],
        root: true,
        version: "podman --version",
        unpack: r#"
cd "$LAYOUT/.."
id=$(tool podman pull -q --signature-policy "$WORK/policy.json" oci:layout:case)
at=$(tool podman image mount "$id")
mount --bind "$at" "$OUT""#,
        cleanup: r#"
umount "$OUT"
tool podman image umount --all
umount "$WORK/storage/overlay""#,
    },
    Adapter {
        name: "buildah",
        needs: &["buildah"],
        root: true,
        version: "buildah --version | cut -d'(' -f1",
        unpack: r#"
cd "$LAYOUT/.."
id=$(tool buildah pull -q --signature-policy "$WORK/policy.json" oci:layout:case)
container=$(tool buildah from -q --pull-never "$id")
at=$(tool buildah mount "$container")
mount --bind "$at" "$OUT""#,
        cleanup: r#"
umount "$OUT"
tool buildah umount --all
umount "$WORK/storage/overlay""#,
    },
    Adapter {
        name: "skopeo",
        needs: &["skopeo", "jq"],
        root: true,
        version: "skopeo --version",
        unpack: r#"
skopeo copy -q --insecure-policy "oci:$LAYOUT:case" \
  "containers-storage:[overlay@$WORK/storage+$WORK/run]image:case"
top=$(jq -r '.[0].layer // ""' "$WORK/storage/overlay-images/images.json")
[ -z "$top" ] || shown "$WORK/storage/overlay" "$top""#,
        cleanup: r#"
umount "$OUT"
umount "$WORK/storage/overlay""#,
    },
    Adapter {
        name: "docker",
        needs: &["dockerd", "docker"],
        root: true,
        version: "dockerd --version | sed 's/, build.*//'",
        unpack: r#"
dockerd --data-root "$WORK/root" --exec-root "$WORK/run" --pidfile "$WORK/pid" \
  --host "unix://$WORK/s" --storage-driver overlay2 --bridge none --iptables=false \
  --ip-forward=false --ip-masq=false > "$WORK/log" 2>&1 &
tool() { docker --host "unix://$WORK/s" "$@"; }
tries=0
until [ -S "$WORK/s" ] && tool version > /dev/null 2>&1; do
  tries=$((tries + 1)); [ $tries -lt 500 ] || exit 127
  sleep 0.02
done
tool load -q -i "$ARCHIVE" > "$WORK/loaded"
upper=$(tool image inspect -f '{{.GraphDriver.Data.UpperDir}}' \
  "$(sed 's/^Loaded image\( ID\)*: //' "$WORK/loaded")")
case $upper in
  /*) top=${upper%/diff} && shown "$WORK/root/overlay2" "${top##*/}" ;;
esac"#,
        cleanup: DOCKERD_END,
    },
    Adapter {
        name: "containerd-native",
        needs: &["containerd", "ctr"],
        root: true,
        version: "containerd --version | cut -d' ' -f1-3",
        unpack: "unpacked native",
        cleanup: CONTAINERD_END,
    },
    Adapter {
        name: "containerd-overlayfs",
        needs: &["containerd", "ctr"],
        root: true,
        version: "containerd --version | cut -d' ' -f1-3",
        unpack: "unpacked overlayfs",
        cleanup: CONTAINERD_END,
    },
];

impl Adapter {
    /// What all scripts of one program begin with.
    fn setup(&self) -> &'static str {
        match self.needs {
            ["strata"] => STRATA_LOAD,
            ["podman" | "buildah"] => STORAGE,
            ["skopeo" | "dockerd", ..] => OVERLAY_LAYERS,
            ["containerd", ..] => CONTAINERD,
            _ => "",
        }
    }

    /// Why it cannot run here.
    fn missing(&self, first: Option<&Path>) -> Option<String> {
        match missing_program(self.needs, first) {
            Some(why) => Some(why),
            None if self.root && !rustix::process::geteuid().is_root() => {
                Some("only root can run it".to_owned())
            }
            None => None,
        }
    }

    fn unpacker(&self, first: Option<&Path>) -> Unpacker {
        // The functions of the set-up, for the clean-up too, without what they were made for.
        let tools = if self.setup() == STORAGE { STORAGE } else { "" };
        Unpacker {
            name: self.name.to_owned(),
            version: version(self.version, first),
            script: format!("set -eu\n{}\n{}", self.setup(), self.unpack),
            cleanup: format!("{tools}\n{}", self.cleanup),
            first: first.map(Path::to_owned),
        }
    }
}

/// The names of all that are known.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ADAPTERS.iter().map(|adapter| adapter.name).collect()
}

/// The unpacker of a name, or of a command with `%layout` and `%out`; programs of the directory
/// `first` come before those of the path.
///
/// # Errors
/// If it is neither, or the named one cannot run here.
pub fn find(text: &str, first: Option<&Path>) -> Result<Unpacker> {
    if let Some(adapter) = ADAPTERS.iter().find(|adapter| adapter.name == text) {
        return match adapter.missing(first) {
            Some(why) => Err(Error::CannotRun(text.to_owned(), why)),
            None => Ok(adapter.unpacker(first)),
        };
    }
    if !text.contains("%layout") || !text.contains("%out") {
        return Err(Error::NoUnpacker(text.to_owned(), names().join(", ")));
    }
    Ok(Unpacker {
        name: text.to_owned(),
        version: String::new(),
        script: text.replace("%layout", "\"$LAYOUT\"").replace("%out", "\"$OUT\""),
        cleanup: String::new(),
        first: first.map(Path::to_owned),
    })
}

/// All known unpackers that can run here, and why the others cannot.
#[must_use]
pub fn present(first: Option<&Path>) -> (Vec<Unpacker>, Vec<(&'static str, String)>) {
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for adapter in &ADAPTERS {
        match adapter.missing(first) {
            Some(why) => absent.push((adapter.name, why)),
            None => found.push(adapter.unpacker(first)),
        }
    }
    (found, absent)
}
