#!/usr/bin/env python3
"""Ask a Tocsin collector from Python: hosts, a range, and a query that stands.

Nothing is generated: the collector describes its services itself (gRPC reflection).

    pip install grpcio grpcio-reflection protobuf
    python3 query.py CREDENTIAL.toml 'node_load1'

The credential file is the one that `tocsin` uses: `tocsin up` writes it to
~/.local/state/tocsin/collector/credential.toml, and it looks like this:

    endpoint = "127.0.0.1:7640"
    ca = '''...PEM...'''
    credential = "tocsinc_..."
"""

import sys
import time
import tomllib

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


class Query:
    """The QueryService, its methods by name: `query.call("Instant", query="up")`."""

    def __init__(self, path):
        with open(path, "rb") as file:
            settings = tomllib.load(file)
        bearer = grpc.access_token_call_credentials(settings["credential"])
        tls = grpc.ssl_channel_credentials(settings["ca"].encode())
        self.channel = grpc.secure_channel(
            settings["endpoint"], grpc.composite_channel_credentials(tls, bearer)
        )
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.methods = pool.FindServiceByName("tocsin.v1.QueryService").methods_by_name

    def call(self, name, timeout=None, **fields):
        """One answer, or for a streaming method an iterator over its messages."""
        method = self.methods[name]
        request = GetMessageClass(method.input_type)(**fields)
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        stub = make(
            f"/{method.containing_service.full_name}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return stub(request, timeout=timeout)


def shown(series):
    return "{" + ", ".join(f'{label.name}="{label.value}"' for label in series.labels) + "}"


def every_host(query):
    """All pages of the list."""
    token = ""
    while True:
        page = query.call("ListHosts", page_size=500, page_token=token)
        yield from page.hosts
        token = page.next_page_token
        if not token:
            return


def follow(query, expression, messages):
    """Keeps the result of an expression up to date; yields it whenever it is whole."""
    result = {}
    for message in query.call("Subscribe", query=expression, step_ms=1000):
        if message.update == 1:  # QUERY_UPDATE_WHOLE
            result.clear()
        for series in message.series:
            result[shown(series)] = series.points[-1].value
        for series in message.gone:
            result.pop(shown(series), None)
        if not message.more:
            yield dict(result)
            messages -= 1
            if messages == 0:
                return


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    query, expression = Query(sys.argv[1]), sys.argv[2]
    for status in every_host(query):
        print("host", status.host.instance, "series", status.series, "firing", status.alerts_firing)
    now = int(time.time() * 1000)
    hour = dict(query=expression, start_ms=now - 3_600_000, end_ms=now, step_ms=60_000)
    try:
        for message in query.call("Range", timeout=30, **hour):
            for warning in message.warnings:
                print("warning:", warning)
            for series in message.series:
                print(shown(series), len(series.points), "points, last", series.points[-1].value)
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        sys.exit(f"{error.code().name} {trailers.get('tocsin-reason', '')}: {error.details()}")
    for result in follow(query, expression, messages=3):
        print("now", result)


if __name__ == "__main__":
    main()
