"""`mitml4 run --allow`: every kind of socket and packet is tried, and nothing of them gets out."""

from __future__ import annotations

import json
import select
import socket

import pytest

from mitml4.lab.network import SERVER_V4, SERVER_V6

MARK = "escape-7f3a"

TRY = r"""
import ctypes, errno, json, os, socket, struct, sys
v4, v6, mark = sys.argv[1], sys.argv[2], sys.argv[3].encode()
libc = ctypes.CDLL(None, use_errno=True)
found = {}

def attempt(name, what):
    try:
        found[name] = what() or "done"
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, str(error))
    except Exception as error:
        found[name] = type(error).__name__

def send(family, kind, protocol=0, address=None, data=mark):
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(2)
        sock.sendto(data, address or (v4, 4433))

def connect(family, kind, protocol, address):
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(2)
        sock.connect(address)
        sock.sendall(mark)
        return "connected"

def fast_open():
    with socket.socket() as sock:
        sock.settimeout(2)
        sock.sendto(mark, socket.MSG_FASTOPEN, (v4, 443))
        sock.recv(1)

def marked():
    with socket.socket() as sock:
        sock.settimeout(2)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x4D34)
        sock.connect((v4, 443))

def transparent():
    with socket.socket() as sock:
        sock.settimeout(2)
        sock.setsockopt(socket.SOL_IP, 19, 1)
        sock.bind((v4, 443))

def to_device():
    with socket.socket() as sock:
        sock.settimeout(2)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.connect((v4, 443))

def netlink(kind):
    # RTM_NEWROUTE (24) and RTM_NEWLINK (16) with nothing in them
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        body = bytes(16)
        sock.send(struct.pack("=LHHLL", 16 + len(body), kind, 0x405, 1, 0) + body)
        code = -struct.unpack_from("=l", sock.recv(4096), 16)[0]
        if code:
            raise OSError(code, "")

def source_route():
    with socket.socket() as sock:
        sock.settimeout(2)
        route = b"\x83\x07\x04" + socket.inet_aton(v4) + b"\0"
        sock.setsockopt(socket.SOL_IP, socket.IP_OPTIONS, route)
        sock.connect((v4, 443))

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

eth = struct.pack("!6s6sH", b"\xff" * 6, b"\2" * 6, 0x800) + mark
TCP, UDP, SOCK_RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
IP, IP6 = socket.AF_INET, socket.AF_INET6
attempt("udp", lambda: send(IP, UDP))
attempt("udp6", lambda: send(IP6, UDP, address=(v6, 4433)))
attempt("udp to port 53", lambda: send(IP, UDP, address=(v4, 53)))
attempt("multicast", lambda: send(IP, UDP, address=("224.0.0.251", 5353)))
attempt("multicast6", lambda: send(IP6, UDP, address=("ff02::fb", 5353)))
attempt("udplite", lambda: send(IP, UDP, 136))
attempt("link local", lambda: connect(IP6, TCP, 0, ("fe80::1", 443, 0, 1)))
attempt("dccp", lambda: connect(IP, 6, 33, (v4, 443)))
attempt("sctp", lambda: connect(IP, TCP, 132, (v4, 443)))
attempt("sctp packets", lambda: connect(IP, socket.SOCK_SEQPACKET, 132, (v4, 443)))
attempt("mptcp", lambda: connect(IP, TCP, 262, (v4, 443)))
attempt("tcp", lambda: connect(IP, TCP, 0, (v4, 443)))
attempt("tcp6", lambda: connect(IP6, TCP, 0, (v6, 443)))
attempt("mapped", lambda: connect(IP6, TCP, 0, ("::ffff:" + v4, 443)))
attempt("nat64", lambda: connect(IP6, TCP, 0, ("64:ff9b::" + v4, 443)))
attempt("fast open", fast_open)
attempt("marked", marked)
attempt("transparent", transparent)
attempt("to a device", to_device)
attempt("source route", source_route)
attempt("raw", lambda: send(IP, SOCK_RAW, 253))
attempt("raw tcp", lambda: send(IP, SOCK_RAW, 6))
attempt("raw icmp", lambda: send(IP, SOCK_RAW, 1, data=b"\x08\0\0\0" + mark))
attempt("raw6", lambda: send(IP6, SOCK_RAW, 253, (v6, 0)))
attempt("ping", lambda: send(IP, UDP, 1, data=b"\x08" + bytes(7) + mark))
attempt("packet", lambda: send(socket.AF_PACKET, SOCK_RAW, 0, ("lo", 0x800), eth))
attempt("vsock", lambda: connect(socket.AF_VSOCK, TCP, 0, (2, 22)))
attempt("vsock to itself", lambda: connect(socket.AF_VSOCK, TCP, 0, (1, 22)))
attempt("qipcrtr", lambda: socket.socket(42, UDP).close())
attempt("rds", lambda: socket.socket(21, socket.SOCK_SEQPACKET).close())
attempt("tipc", lambda: connect(socket.AF_TIPC, TCP, 0, (1, 1, 1, 1)))
attempt("bluetooth", lambda: send(31, SOCK_RAW, 1, (0,)))
attempt("a route", lambda: netlink(24))
attempt("a link", lambda: netlink(16))
attempt("io_uring", lambda: call(425, 1, ctypes.create_string_buffer(120)))
for name in ("/proc/1/root/run", "/proc/1/ns/net"):
    attempt(name, lambda: call(308, os.open(name, os.O_RDONLY), 0))
print(json.dumps(found))
"""


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_no_kind_of_packet_gets_out(host, nginx, lab, root) -> None:
    program = host.home.parent / "try.py"
    program.write_text(TRY)
    listener = lab.server.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
    with listener:
        argv = ("/usr/bin/python3", str(program), SERVER_V4, SERVER_V6, MARK)
        ended = host.run(*argv, options=["--allow", "www.example"], root=root)
        assert ended.code == 0, ended.err
        seen = []
        while select.select([listener], [], [], 0)[0]:
            seen.append(listener.recv(65536))
    assert not [each for each in seen if MARK.encode() in each]
    found = json.loads(ended.out)
    assert "connected" not in found.values()
    sent = {name for name, what in found.items() if what == "done"}
    # These are dropped on the way, in the command's own namespace.
    assert sent <= {
        *("udp", "udp6", "udp to port 53", "multicast", "multicast6", "udplite", "ping"),
        *("raw", "raw tcp", "raw icmp", "raw6", "packet", "transparent"),
    }, found
