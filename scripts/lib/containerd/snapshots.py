"""containerd's snapshots API by hand: no more of it than the benchmarks need.

The model: a request is a message of strings (field numbers of api/services/snapshots/v1/
snapshots.proto), the namespace is the header `containerd-namespace`. Needs python3-grpcio.
"""
import grpc

from cri import field, fields

SERVICE = "/containerd.services.snapshots.v1.Snapshots/"
# A map's entry. containerd collects what nothing refers to, so each snapshot says that it stays.
STAYS = field(4, field(1, "containerd.io/gc.root") + field(2, "yes"))


class Snapshots:
    """One snapshotter in one namespace, through containerd's socket or a snapshotter's own."""

    def __init__(self, socket, snapshotter, namespace="default"):
        self.channel = grpc.insecure_channel("unix://" + socket)
        self.snapshotter = field(1, snapshotter)
        self.header = (("containerd-namespace", namespace),)

    def call(self, method, *strings, more=b""):
        """Calls a method with the strings as fields 2, 3, ...; the answer's fields."""
        message = self.snapshotter + b"".join(
            field(number, text) for number, text in enumerate(strings, 2) if text) + more
        answer = self.channel.unary_unary(SERVICE + method)(
            message, timeout=300, metadata=self.header)
        return list(fields(answer))

    def prepare(self, key, parent=""):
        """Prepares a snapshot; its mounts as (type, source, options)."""
        return [mount(data) for number, data in self.call("Prepare", key, parent, more=STAYS)
                if number == 1]

    def commit(self, name, key):
        """Commits an active snapshot under a name."""
        self.call("Commit", name, key, more=STAYS)

    def remove(self, key):
        """Removes a snapshot."""
        self.call("Remove", key)

    def stat(self, key):
        """Asks what a snapshot is."""
        return self.call("Stat", key)

    def usage(self, key):
        """Asks what a snapshot uses."""
        return self.call("Usage", key)

    def infos(self):
        """What each snapshot is, as a message."""
        answers = self.channel.unary_stream(SERVICE + "List")(
            self.snapshotter, timeout=300, metadata=self.header)
        return [info for answer in answers for number, info in fields(answer) if number == 1]

    def list(self):
        """The number of snapshots."""
        return len(self.infos())

    def key_like(self, end):
        """The name of the snapshot that ends so."""
        names = (dict(fields(info))[1].decode() for info in self.infos())
        return next(name for name in names if name.endswith(end))


def mount(data):
    """A Mount message: its type, source and options."""
    found = list(fields(data))
    text = {number: value.decode() for number, value in found}
    return text.get(1, ""), text.get(2, ""), [v.decode() for n, v in found if n == 4]
