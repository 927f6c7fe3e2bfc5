//! The rows of commands that speak to registries, and of those that say whose images are accepted.
//!
//! Invariants: as in `table`, whose first half this is.

use super::places::Use::{self, *};
use super::row::{PageRow, row};

const KEPT: &[Use] = &[Store, Layers, Blobs];
const REMOTE: &[Use] = &[Credentials, Registries];

/// These rows.
pub(super) const REMOTE_ROWS: &[PageRow] = &[
    row(
        "pull",
        &[Store, Layers, Blobs, Credentials, Registries, Policies],
        &["push", "images", "mount", "manifest", "trust show", "login"],
        &[
            ("Under a policy of its own", "strata pull --policy lab.json lab:5000/app"),
            ("From Docker Hub", "strata pull alpine:3.20"),
            ("For another platform", "strata pull --platform linux/arm64 ghcr.io/acme/tool:2"),
            ("From a registry without TLS", "strata pull --tls-verify=false lab:5000/app"),
        ],
    ),
    row(
        "push",
        &[Store, Layers, Blobs, Credentials, Registries],
        &["pull", "tag", "copy", "login"],
        &[
            ("Where its name says", "strata push ghcr.io/acme/tool:2"),
            ("Under another name", "strata push tool:2 localhost:5000/tool:2"),
            ("With zstd", "strata push --compression zstd ghcr.io/acme/tool:2"),
        ],
    ),
    row(
        "copy",
        &[Store, Layers, Blobs, Credentials, Registries, Policies, Scratch],
        &["pull", "push", "save", "trust check", "skopeo-copy(1)"],
        &[
            (
                "With signatures and attestations",
                "strata copy --signatures all docker://ghcr.io/acme/tool:2 oci:layout:2",
            ),
            (
                "From one registry to another",
                "strata copy docker://alpine docker://localhost:5000/alpine",
            ),
            ("Into a layout", "strata copy docker://alpine:3.20 oci:layout:3.20"),
            (
                "Several below one path",
                "strata copy docker://alpine docker://debian:12 docker://localhost:5000/mirror/",
            ),
            ("Those that a file lists", "strata copy --list images.txt docker-archive:all.tar"),
        ],
    ),
    row(
        "login",
        REMOTE,
        &["logout", "pull", "push"],
        &[
            ("Asking for name and password", "strata login ghcr.io"),
            ("From a script", "strata login -u me --password-stdin ghcr.io < token"),
        ],
    ),
    row(
        "logout",
        &[Credentials],
        &["login"],
        &[("Of Docker Hub", "strata logout"), ("Of another registry", "strata logout ghcr.io")],
    ),
    row(
        "search",
        REMOTE,
        &["pull"],
        &[
            ("Docker Hub", "strata search --limit 5 nginx"),
            ("All that a registry has", "strata search localhost:5000/"),
        ],
    ),
    row(
        "manifest",
        REMOTE,
        &["inspect", "verify"],
        &[
            ("What a name stands for", "strata manifest alpine"),
            ("Its digest alone", "strata -q manifest alpine"),
            ("For one platform", "strata manifest --platform linux/arm64 alpine"),
        ],
    ),
    row(
        "trust",
        &[Policies],
        &["trust show", "trust check", "pull"],
        &[("What counts for an image", "strata trust show alpine")],
    ),
    row(
        "trust show",
        &[Policies],
        &["trust check", "containers-policy.json(5)", "containers-registries.d(5)"],
        &[
            ("The whole policy", "strata trust show"),
            ("What counts for an image", "strata trust show ghcr.io/acme/tool:2"),
        ],
    ),
    PageRow {
        exits: &[
            (0, "The image would be accepted."),
            (1, "It would be refused, or that cannot be said."),
        ],
        ..row(
            "trust check",
            &[Policies, Credentials, Registries, Scratch],
            &["trust show", "pull", "inspect"],
            &[
                ("Before a pull", "strata trust check ghcr.io/acme/tool:2"),
                ("Under another policy", "strata trust check --policy new.json oci:layout"),
            ],
        )
    },
    PageRow {
        exits: &[
            (0, "Both places have the same image."),
            (1, "They have not, or one of them could not be read."),
        ],
        ..row(
            "verify",
            &[Store, Blobs, Credentials, Registries, Scratch],
            &["manifest", "fsck"],
            &[
                ("The store and its registry", "strata verify alpine --against strata:alpine"),
                (
                    "A mirror, to the byte",
                    "strata verify --exact alpine --against mirror:5000/library/alpine",
                ),
            ],
        )
    },
    row(
        "serve",
        KEPT,
        &["push", "copy", "skopeo-copy(1)"],
        &[
            ("For skopeo and others", "strata serve"),
            ("At a free port", "strata serve --listen 127.0.0.1:0"),
        ],
    ),
    row(
        "layer-store",
        &[Store, Layers, Blobs, Mounts, Fuse, Credentials, Registries, Policies],
        &["pull", "mounts", "containers-storage.conf(5)", "podman-pull(1)"],
        &[
            ("For podman of root", "strata layer-store /run/strata/layers"),
            ("And fetch what is not there", "strata layer-store --pull /run/strata/layers"),
            ("What podman has", "strata layer-store --held"),
        ],
    ),
    row(
        "containerd",
        &[Store, Layers, Blobs],
        &["images", "layer-store", "containerd(8)"],
        &[("Give it an image", "sudo strata containerd import alpine:3.20")],
    ),
    row(
        "containerd import",
        &[Store, Layers, Blobs],
        &["images", "containerd(8)"],
        &[
            ("For ctr and nerdctl", "sudo strata containerd import alpine:3.20"),
            ("For Kubernetes", "sudo strata containerd import --namespace k8s.io alpine:3.20"),
        ],
    ),
];
