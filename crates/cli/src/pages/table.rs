//! What clap does not know of each command: examples, what it uses, its exit codes, its relatives.
//!
//! Invariants: every command that has no plain name (`image ls` is `images`) has one row; every
//! example is a line that the command line takes (a test parses them all).

use super::places::Use::{self, *};
use super::row::{PageRow, row};

const KEPT: &[Use] = &[Store, Layers, Blobs];
const SEEN: &[Use] = &[Store, Trees, Mounts];
const READ: &[Use] = &[Store, Layers, Trees];
const WHOLE: &[Use] = &[Store, Layers, Blobs, Trees, Uppers, Mounts, Leftovers];
const LAID_OUT: (u8, &str) = (
    0,
    "Done; also if an ordinary user could not set owners, devices or attributes, which is told.",
);

/// Every other command without a plain name.
pub(super) const ROWS: &[PageRow] = &[
    row(
        "load",
        &[Store, Layers, Blobs, Policies],
        &["import", "save", "pull", "docker-save(1)"],
        &[
            ("From docker", "docker save alpine | strata load"),
            ("From a file, under a further name", "strata load -i app.tar -t app:today"),
            ("One image of a layout", "strata load -i oci:layout:app"),
        ],
    ),
    row(
        "import",
        KEPT,
        &["load", "export", "docker-import(1)"],
        &[
            ("A root file system", "strata import rootfs.tar.xz debian:12"),
            ("With a command to run", "strata import -c 'CMD [\"/bin/sh\"]' rootfs.tar debian:12"),
        ],
    ),
    row(
        "save",
        KEPT,
        &["load", "export", "docker-load(1)"],
        &[
            ("Into a file", "strata save -o alpine.tar alpine"),
            ("Into docker", "strata save alpine | docker load"),
        ],
    ),
    row(
        "images",
        &[Store],
        &["rmi", "df", "inspect"],
        &[
            ("All", "strata images"),
            ("Of one team, with digests", "strata images --digests 'team/*'"),
            ("One line each", "strata images --format '{{.Repository}} {{.Size}}'"),
        ],
    ),
    row(
        "tag",
        &[Store],
        &["rmi", "images"],
        &[
            ("A further name", "strata tag alpine base:1"),
            ("Of an id", "strata tag 1e846c23b265 base:1"),
        ],
    ),
    row(
        "rmi",
        WHOLE,
        &["images", "rm", "image prune", "df"],
        &[
            ("A name, and the image with it", "strata rmi alpine:3.20"),
            ("What would that free?", "strata rmi --dry-run alpine:3.20"),
        ],
    ),
    row(
        "image",
        WHOLE,
        &["images", "rmi", "mount"],
        &[
            ("List images", "strata image ls"),
            ("Remove those without a name", "strata image prune"),
        ],
    ),
    row(
        "image prune",
        WHOLE,
        &["rmi", "gc", "system prune"],
        &[
            ("Those without a name", "strata image prune"),
            (
                "Those that nothing uses and that are a month old",
                "strata image prune -af --filter until=720h",
            ),
        ],
    ),
    row(
        "container",
        &[Store, Layers, Blobs, Trees, Uppers, Mounts, Fuse],
        &["ps", "uppers", "mount", "commit"],
        &[
            ("List writable layers", "strata container ls -a"),
            ("Remove one", "strata container rm demo"),
        ],
    ),
    row(
        "container prune",
        &[Store, Uppers, Mounts],
        &["rm", "uppers", "system prune"],
        &[("After a question", "strata container prune"), ("Without", "strata container prune -f")],
    ),
    row(
        "system",
        WHOLE,
        &["df", "info", "gc"],
        &[("What could be freed?", "strata system df"), ("Free it", "strata system prune")],
    ),
    row(
        "system df",
        &[Store, Layers, Blobs, Trees, Uppers, Mounts],
        &["df", "system prune"],
        &[("In docker's words", "strata system df"), ("Image by image", "strata system df -v")],
    ),
    row(
        "system prune",
        WHOLE,
        &["image prune", "container prune", "gc"],
        &[
            ("Images without a name and temporary layers", "strata system prune"),
            ("All images that are not in use", "strata system prune -af"),
        ],
    ),
    row(
        "inspect",
        &[Store, Blobs, Uppers, Mounts],
        &["images", "stat", "history"],
        &[
            ("All that is known", "strata inspect alpine"),
            ("One thing", "strata inspect -f '{{.Config.Cmd}}' alpine"),
            ("A mount", "strata inspect --type mount look"),
        ],
    ),
    row(
        "history",
        &[Store, Blobs],
        &["layers", "why", "inspect"],
        &[
            ("The steps", "strata history alpine"),
            ("Whole commands", "strata history --no-trunc alpine"),
        ],
    ),
    row(
        "mount",
        &[Store, Layers, Trees, Uppers, Mounts, Fuse, Credentials, Registries, Policies],
        &["umount", "mounts", "uppers", "commit", "mount.fuse3(8)"],
        &[
            ("To look", "mkdir look && strata mount alpine look"),
            (
                "To try something out; the layer goes with the mount",
                "strata mount --rw alpine work",
            ),
            ("To work on; the layer stays", "strata mount --upper demo alpine work"),
        ],
    ),
    row(
        "umount",
        &[Uppers, Mounts, Fuse],
        &["mount", "mounts", "fusermount3(1)"],
        &[
            ("End a mount", "strata umount look"),
            ("Even if files are open", "strata umount -l look"),
            ("One that another mount namespace has", "strata umount --abort look"),
        ],
    ),
    row(
        "mounts",
        &[Mounts],
        &["mount", "umount", "ps"],
        &[("All", "strata mounts"), ("For a program", "strata mounts --format json")],
    ),
    row(
        "uppers",
        &[Store, Uppers, Mounts],
        &["mount", "rm", "ps", "commit"],
        &[("All", "strata uppers"), ("Names alone", "strata uppers -q")],
    ),
    row(
        "ps",
        &[Store, Uppers, Mounts],
        &["uppers", "mounts"],
        &[
            ("Those that are mounted", "strata ps"),
            ("All, with sizes", "strata ps -as"),
            ("One line each", "strata ps --format '{{.Names}} {{.Image}}'"),
        ],
    ),
    PageRow {
        exits: &[
            (0, "Done; with --exit-code: there is no difference."),
            (1, "An error; with --exit-code: there are differences."),
            (2, "The command line was wrong; with --exit-code: any error."),
        ],
        ..row(
            "diff",
            &[Store, Layers, Trees, Uppers, Mounts],
            &["why", "commit", "duplicates"],
            &[
                ("What was changed on a mount", "strata diff work"),
                ("Two images, counted by directory", "strata diff --stat app:1 app:2"),
                ("One file, line by line", "strata diff app:1 app:2 /etc/passwd"),
            ],
        )
    },
    row(
        "why",
        &[Store, Blobs, Trees],
        &["history", "diff", "layers"],
        &[
            ("Which layers did what to a path", "strata why app:2 /etc/passwd"),
            ("All names of its content", "strata why app:2:/etc/passwd --names 1000"),
        ],
    ),
    row(
        "duplicates",
        READ,
        &["reuse", "diff", "explore"],
        &[
            ("Of the whole store", "strata duplicates"),
            ("What an image's layers hold for nothing", "strata duplicates --waste app:2"),
        ],
    ),
    row(
        "commit",
        &[Store, Layers, Blobs, Trees, Uppers, Mounts],
        &["mount", "diff", "save", "push"],
        &[
            ("By the layer's name", "strata commit -m 'new motd' demo app:2"),
            (
                "By the directory, with another command to run",
                "strata commit -c 'CMD [\"/app\"]' work app:2",
            ),
        ],
    ),
    row(
        "rm",
        &[Uppers, Mounts, Fuse],
        &["uppers", "umount", "rmi"],
        &[("One", "strata rm demo"), ("Even if it is mounted", "strata rm -f demo")],
    ),
    row(
        "ls",
        SEEN,
        &["stat", "cat", "explore"],
        &[("A directory", "strata ls -l alpine:/etc"), ("All files", "strata ls -lR alpine")],
    ),
    row(
        "cat",
        READ,
        &["cp", "ls"],
        &[
            ("One file", "strata cat alpine:/etc/os-release"),
            ("Of two images", "strata cat app:1:/VERSION app:2:/VERSION"),
        ],
    ),
    PageRow {
        exits: &[LAID_OUT],
        ..row(
            "cp",
            READ,
            &["cat", "unpack", "export"],
            &[
                ("A file", "strata cp alpine:/etc/passwd ."),
                ("A directory as a tar", "strata cp alpine:/etc - | tar tv"),
            ],
        )
    },
    row(
        "stat",
        SEEN,
        &["ls", "why"],
        &[
            ("A file", "strata stat alpine:/bin/busybox"),
            ("What a link leads to", "strata stat -L alpine:/bin/sh"),
        ],
    ),
    row(
        "layers",
        &[Store, Blobs],
        &["history", "explore", "why"],
        &[
            ("The base first", "strata layers alpine"),
            ("For a program", "strata layers --format json alpine"),
        ],
    ),
    row(
        "explore",
        &[Store, Layers, Blobs, Trees, Colour],
        &["layers", "duplicates", "report"],
        &[
            ("In the terminal", "strata explore app:2"),
            ("What layer 3 changed, as text", "strata explore --print --layer 3 --changes app:2"),
        ],
    ),
    PageRow {
        exits: &[LAID_OUT],
        ..row(
            "unpack",
            READ,
            &["export", "cp", "mount"],
            &[
                ("As real files", "strata unpack alpine tree"),
                ("Exactly", "sudo strata unpack alpine tree"),
            ],
        )
    },
    row(
        "export",
        &[Store, Layers, Trees, Uppers, Mounts],
        &["import", "save", "unpack"],
        &[
            ("As a tar", "strata export -o rootfs.tar alpine"),
            ("What is on a mount", "strata export work | tar tv"),
            ("For the kernel to mount", "strata export --type erofs -o alpine.erofs alpine"),
        ],
    ),
    row(
        "report",
        KEPT,
        &["df", "reuse", "explore"],
        &[
            ("Of the whole store", "strata report"),
            ("Of two images", "strata report -o two.html app:1 app:2"),
        ],
    ),
    row(
        "reuse",
        &[Store, Layers, Blobs, Scratch],
        &["df", "duplicates", "report"],
        &[
            ("Of all images", "strata reuse"),
            ("With chunks of files too", "strata reuse --chunks app:1 app:2"),
            ("Before loading", "strata reuse --dry-run app.tar"),
        ],
    ),
    row(
        "df",
        WHOLE,
        &["system df", "rmi", "report", "du(1)"],
        &[
            ("Whose the disk is", "strata df"),
            ("Layer by layer, in bytes", "strata df -v -b"),
            ("What two images take together", "strata df app:1 app:2"),
        ],
    ),
    row(
        "facts",
        &[Store, Blobs],
        &["df", "reuse", "report"],
        &[
            ("Beside the facts of other machines", "strata facts -o /srv/facts"),
            ("Under a name of its own", "strata facts -o /srv/facts --store build-7"),
            ("With hashes for paths", "strata facts -o /srv/facts --hash-paths @/etc/facts.key"),
            (
                "What a registry has, without a store",
                "strata facts -o /srv/facts --store registry --from registry r.example.org:5000",
            ),
        ],
    ),
    PageRow {
        exits: &[
            (0, "No finding of the class of --fail-on or a graver one."),
            (1, "There is one, or an image could not be read."),
        ],
        ..row(
            "lint",
            &[Store, Layers, Blobs, Scratch],
            &["layers", "why", "verify"],
            &[
                ("Of an image of the store", "strata lint app:1"),
                ("Before loading", "strata lint app.tar"),
                ("For code scanning", "strata lint --format sarif oci:build:app > lint.sarif"),
                ("But for what is known", "strata lint --allow setuid --allow device=dev/* app:1"),
            ],
        )
    },
    PageRow {
        exits: &[
            (0, "Nothing is wrong, or nothing any more."),
            (1, "Something is wrong, or the store could not be read."),
        ],
        ..row(
            "fsck",
            WHOLE,
            &["gc", "verify"],
            &[("Look", "strata fsck"), ("Mend", "strata fsck --repair")],
        )
    },
    row(
        "gc",
        WHOLE,
        &["fsck", "rmi", "system prune"],
        &[("Now", "strata gc"), ("In another store", "strata --root /srv/images gc")],
    ),
    row(
        "info",
        &[Store, Credentials, Registries, Fuse],
        &["df", "version"],
        &[("For people", "strata info"), ("For programs", "strata info --format json")],
    ),
    row("version", &[], &["info"], &[("Which strata is this", "strata version")]),
    row(
        "help",
        &[],
        &["man"],
        &[("Of a command", "strata help mount"), ("Of one of a group", "strata help image prune")],
    ),
    row(
        "completions",
        &[Store, Uppers, Mounts, Completion],
        &["man", "bash(1)", "zsh(1)", "fish(1)"],
        &[
            (
                "For bash",
                "strata completions bash > ~/.local/share/bash-completion/completions/strata",
            ),
            ("For zsh", "strata completions zsh > ~/.zfunc/_strata"),
        ],
    ),
    row(
        "man",
        &[],
        &["help", "man(1)"],
        &[
            ("For everybody", "sudo strata man /usr/local/share/man/man1"),
            ("One, without installing it", "strata man | man -l -"),
        ],
    ),
];
