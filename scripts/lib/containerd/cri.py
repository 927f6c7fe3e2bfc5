#!/usr/bin/python3
"""Asks containerd's CRI plugin for one thing, as a kubelet would: no more than scripts/engines needs.

usage: cri.py SOCKET pull IMAGE | remove IMAGE | images | run NAME IMAGE COMMAND... | stop

`run` starts a pod with the host's network and a container in it; prints the container's id.
`stop` removes all pods. Messages are written by hand: field numbers are those of the CRI's
api.proto (k8s.io/cri-api, runtime.v1). Needs python3-grpcio.
"""
import sys

import grpc


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """The length-delimited fields of a message, as (number, bytes)."""
    at = 0

    def read():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = read()
        value = read()
        if key & 7 == 2:
            yield key >> 3, data[at:at + value]
            at += value


class Cri:
    """A connection to the plugin."""

    def __init__(self, socket):
        self.channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, service, method, message=b""):
        """The answer to a message."""
        return self.channel.unary_unary(f"/runtime.v1.{service}/{method}")(message, timeout=300)

    def pull(self, image):
        """Pulls an image; its id."""
        answer = self.call("ImageService", "PullImage", field(1, field(1, image)))
        return next(value for number, value in fields(answer) if number == 1).decode()


def main():
    socket, verb, *rest = sys.argv[1:]
    cri = Cri(socket)
    call = cri.call
    if verb == "pull":
        print(cri.pull(rest[0]))
    elif verb == "remove":
        call("ImageService", "RemoveImage", field(1, field(1, rest[0])))
    elif verb == "images":
        for number, image in fields(call("ImageService", "ListImages")):
            print(*(value.decode() for at, value in fields(image) if at in (1, 2)))
    elif verb == "run":
        name, image, *command = rest
        metadata = field(1, name) + field(2, name) + field(3, "strata")
        # Host network (NODE = 2) for all namespaces but pid.
        security = field(1, field(1, 2))
        linux = field(1, "") + field(2, security)
        pod = field(1, metadata) + field(3, "/tmp") + field(8, linux)
        answer = call("RuntimeService", "RunPodSandbox", field(1, pod))
        pod_id = next(value for number, value in fields(answer) if number == 1)
        container = field(1, field(1, name)) + field(2, field(1, image))
        container += b"".join(field(3, word) for word in command)
        request = field(1, pod_id) + field(2, container) + field(3, pod)
        answer = call("RuntimeService", "CreateContainer", request)
        container_id = next(value for number, value in fields(answer) if number == 1)
        call("RuntimeService", "StartContainer", field(1, container_id))
        print(container_id.decode())
    elif verb == "stop":
        for number, pod in fields(call("RuntimeService", "ListPodSandbox")):
            pod_id = next(value for at, value in fields(pod) if at == 1)
            call("RuntimeService", "StopPodSandbox", field(1, pod_id))
            call("RuntimeService", "RemovePodSandbox", field(1, pod_id))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
