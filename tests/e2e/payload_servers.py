"""Servers and clients for test_payload.py, in processes of their own.

python payload_servers.py grpc-server PORT | grpc-client ADDRESS PORT
                          websocket-server PORT | websocket-client ADDRESS PORT
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

ROUND = [b"", b"\0\1\2 a message", b"compress me " * 500, bytes(range(256)) * 300]
"""What a gRPC client sends, each answered with the same backwards."""
SAID: list[str | bytes] = [
    "hello",
    "grüße " * 200,
    b"\0\1\2\xff" * 50,
    "hello",
    "x" * 100_000,
    "still right",
]
"""What a WebSocket client sends, each answered with the same."""


def grpc_server(port: str) -> None:
    import grpc

    class Handler(grpc.GenericRpcHandler):
        def service(self, _: object) -> grpc.RpcMethodHandler:
            return grpc.stream_stream_rpc_method_handler(self.turn)

        @staticmethod
        def turn(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            context.set_trailing_metadata((("x-trailer", "yes"),))
            for request in requests:
                yield request[::-1]

    server = grpc.server(ThreadPoolExecutor(4), [Handler()], compression=grpc.Compression.Deflate)
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    server.wait_for_termination()


def grpc_client(address: str, port: str) -> None:
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{address}:{port}", options) as channel:
        turn = channel.stream_stream("/lab.Turn/Turn")
        answers = list(turn(iter(ROUND), timeout=20, compression=grpc.Compression.Gzip))
    assert answers == [message[::-1] for message in ROUND]


def websocket_server(port: str) -> None:
    from websockets.sync.server import ServerConnection, serve

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "0.0.0.0", int(port)) as server:
        server.serve_forever()


def websocket_client(address: str, port: str) -> None:
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
    from websockets.sync.client import connect

    for no_context in (False, True):
        extension = ClientPerMessageDeflateFactory(
            server_no_context_takeover=no_context, client_no_context_takeover=no_context
        )
        with connect(
            f"ws://{address}:{port}", compression=None, extensions=[extension], proxy=None
        ) as connection:
            for message in SAID:
                connection.send(message)
                assert connection.recv() == message
            connection.send(iter(["in ", "three ", "fragments"]))
            assert connection.recv() == "in three fragments"
            connection.ping(b"are you there").wait(10)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    globals()[name.replace("-", "_")](*arguments)
