"""Clients that notice in which pieces an answer comes, and when it ends."""

from __future__ import annotations

UPGRADE = r"""
const http = require("http"), net = require("net");
const head = "HTTP/1.1 101 Switching Protocols\r\n"
  + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const frame = "\x81\x02hi";
const server = net.createServer(
  (socket) => socket.once("data", () => socket.write(head + frame, "latin1")));
server.listen(0, "127.0.0.1", () => {
  const headers = {Connection: "Upgrade", Upgrade: "websocket"};
  const asked = http.get({host: "127.0.0.1", port: server.address().port, headers});
  asked.on("upgrade", (answer, socket, behind) => {
    console.log(behind.toString("latin1") === frame);
    socket.destroy();
    server.close();
  });
});
"""

# A server that gives up on a head which comes too slowly, as most do.
TRICKLE = r"""
import itertools, socket, threading, time

with socket.create_server(("127.0.0.1", 0)) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    client.sendall(b"GET / HTTP/1.1\r\nX: ")
    threading.Timer(0.3, server.close).start()
    try:
        for sent in itertools.count():
            client.sendall(b"x")
            time.sleep(0.05)
            if sent > 200:
                break
    except OSError as error:
        print(type(error).__name__)
"""


def test_node_gets_the_first_frame_with_the_head_of_a_101(host) -> None:
    ended = host.run("node", "-e", UPGRADE, options=["--loopback"])
    assert ended.out == "true\n"
    assert ["http/1", "websocket"] in ended.stacks


def test_a_client_that_sends_its_head_slowly_is_told_that_the_server_has_gone(host) -> None:
    ended = host.run("python3", "-c", TRICKLE, options=["--loopback"])
    assert ended.out in ("BrokenPipeError\n", "ConnectionResetError\n")
