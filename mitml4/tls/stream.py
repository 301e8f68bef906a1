"""A byte stream inside TLS, by OpenSSL.

Where the layer below is a TCP socket, OpenSSL reads and writes its descriptor itself: half the CPU
of any way that hands ciphertext through Python. Inside another TLS, where the handshake is carried
in packets of another protocol, and where what comes next is not in the kernel any more, it works on
memory BIOs, and this stream carries the ciphertext. `TlsStream` is the part that both have in
common.
"""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import field
from functools import partial
from typing import Final, TypeVar

import trio
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from mitml4.dataclass import dataclass
from mitml4.net.stream import KernelSocket, Stream, StreamTruncated, Transport
from mitml4.protocols.conversation import Framing
from mitml4.tls.failure import TlsFailure
from mitml4.tls.opened_stream import OpenedStream
from mitml4.tls.openssl import peer_chain, read_into, write
from mitml4.tls.presented import Presented

__all__ = ["Alerts", "TlsStream", "tls_over"]

T = TypeVar("T")

_RECORD_BYTES: Final = 16384  # RFC 8446 §5.1: the most plaintext a record carries
_UNEXPECTED_EOF: Final = -1  # what pyOpenSSL puts into SysCallError for a FIN without close_notify


@dataclass(slots=True)
class Alerts:
    """What OpenSSL reports of a connection in callbacks, and what those answer; its `app_data`."""

    received: int | None = None
    """The last fatal alert that the far side sent."""
    sent: int | None = None
    """The last fatal alert that we sent."""
    received_close_notify: bool = False
    """The far side has sent close_notify."""
    messages: int = 0
    """Counts messages behind the handshake, as they are read."""
    certificate_requests: int = 0
    """How often the server has asked for a certificate."""
    on_certificate_request: Callable[[], None] = lambda: None
    """Called when the server asks for a certificate for the first time."""
    without_certificate: SSL.Context | None = None
    """The context that a connection of TLS 1.3 switches to when it has signed often; None: it never
    signs."""
    usual: SSL.Context | None = None
    """The context that a TLS 1.2 handshake switches to after the ServerHello, if any."""
    replaced: list[SSL.Context] = field(default_factory=list)
    """Contexts that the connection had before. OpenSSL calls the callbacks of the first one."""
    staple: bytes = b""
    """The OCSP response: the server's, or the one to give to a client that asks."""
    leaf: bytes | None = None
    """The server's certificate (DER), of which the client has a copy; None: it has shown none, or
    the handshake is not over."""
    has_other_leaf: bool = False
    """The server has shown another one in a renegotiation."""

    @property
    def asked_for_certificate(self) -> bool:
        return self.certificate_requests > 0


class TlsStream(OpenedStream):
    """The plaintext of a TLS connection by OpenSSL."""

    def __init__(self, connection: SSL.Connection, below: Stream) -> None:
        super().__init__(below)
        self.connection = connection
        self.alerts = Alerts()
        connection.set_app_data(self.alerts)
        # pyOpenSSL sets this mode. With it, SSL_read returns only once it has a byte of plaintext,
        # however many tickets and key updates come before that.
        lib.SSL_clear_mode(connection._ssl, lib.SSL_MODE_AUTO_RETRY)
        self._sending = trio.Lock()
        self._has_message_left = False
        """Whether the last record that was read may have another message behind the first."""

    @abstractmethod
    async def _wait_writable(self, fed_by: Transport | None) -> None:
        """Wait until OpenSSL can write more."""

    async def _flush(self, fed_by: Transport | None = None) -> None:
        """Send the ciphertext that OpenSSL has produced."""

    def on_certificate_request(self, call: Callable[[], None]) -> None:
        self.alerts.on_certificate_request = call

    async def handshake(self) -> None:
        """Do the handshake. Raises TlsFailure (with the far side's alert), StreamTruncated,
        OSError."""
        await self._drive(self.connection.do_handshake)

    def presented(self) -> Presented:
        """What the server has shown in the handshake, which is done. From now on it may not show
        another certificate."""
        presented = Presented(
            chain=peer_chain(self.connection),
            staple=self.alerts.staple,
            faults=tuple(self._handshake_faults()),
        )
        self.alerts.leaf = presented.leaf
        return presented

    def _handshake_faults(self) -> Iterator[str]:
        """What a client may refuse, and OpenSSL has let pass."""
        has_usual_level = self.connection.get_context() is self.alerts.usual
        finite_field = (self.connection.get_cipher_name() or "").startswith(("DHE-", "ADH-"))
        if finite_field and not self.connection.get_group_name() and not has_usual_level:
            yield "Diffie-Hellman parameters"  # the server's own; OpenSSL does not tell their size

    def _read_record(self, buffer: memoryview) -> int | None:
        seen = self.alerts.messages
        try:
            count = read_into(self.connection, buffer)
        except SSL.Error as error:
            if isinstance(error, SSL.ZeroReturnError) and self.alerts.received_close_notify:
                return 0
            raise self._translate(error) from None
        # OpenSSL returns behind each message, and does not say whether it has more.
        self._has_message_left = count is None and self.alerts.messages != seen
        self._check_leaf()
        return count

    def _takes_message_left(self) -> bool:
        """Whether to read again at once; asked once behind each read."""
        has_left, self._has_message_left = self._has_message_left, False
        return has_left

    def _check_leaf(self) -> None:
        """The client learns nothing of a renegotiation, and could not refuse the certificate."""
        if self.alerts.has_other_leaf:
            raise TlsFailure("another certificate than before")

    async def wait_receivable(self) -> None:
        await self._flush_unless_sending()
        has_ended = self.failure or self.alerts.received_close_notify
        if has_ended or self._ahead or self.connection.pending():
            await trio.lowlevel.checkpoint()
        else:
            await self._wait_readable()

    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        """As `Stream` has it. Once TLS has broken, sending raises BrokenPipeError: a
        StreamTruncated would be taken for the end of the stream that the data came from."""
        try:
            while data:
                self._check_leaf()
                count = await self._drive(partial(write, self.connection, data), fed_by)
                data = data[count:]
        except StreamTruncated as failure:
            raise BrokenPipeError(errno.EPIPE, str(failure)) from failure

    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        try:
            await self._drive(self.connection.shutdown, fed_by)
        except (StreamTruncated, OSError):
            return  # receiving reports it

    async def _drive(self, operation: Callable[[], T], fed_by: Transport | None = None) -> T:
        """Repeat an OpenSSL operation until it neither wants to read nor to write."""
        while True:
            try:
                result = operation()
            except SSL.WantReadError:
                await self._flush(fed_by)
                await self._wait_readable()
            except SSL.WantWriteError:
                await self._flush(fed_by)
                await self._wait_writable(fed_by)
            except SSL.Error as error:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._flush_quietly()
                raise self._translate(error) from None
            else:
                await self._flush(fed_by)
                return result

    async def _flush_quietly(self) -> None:
        """After a failed handshake, OpenSSL may still hold an alert of ours."""
        try:
            await self._flush()
        except (OSError, StreamTruncated):
            return

    def _translate(self, error: SSL.Error) -> Exception:
        if isinstance(error, SSL.ZeroReturnError) and not self.alerts.received_close_notify:
            return StreamTruncated("the connection ended without close_notify")
        if isinstance(error, SSL.SysCallError):
            code = error.args[0]
            if code == _UNEXPECTED_EOF:
                return StreamTruncated("the connection ended without close_notify")
            return OSError(code, os.strerror(code))
        reasons = error.args[0] if error.args else []
        reason = reasons[-1][2] if reasons else type(error).__name__
        return TlsFailure(reason or "TLS failed", self.alerts.received)


class _DescriptorTlsStream(TlsStream):
    """OpenSSL reads and writes the socket itself."""

    def __init__(self, context: SSL.Context, below: Stream, kernel: KernelSocket) -> None:
        super().__init__(SSL.Connection(context, kernel.socket), below)
        self._kernel = kernel

    def _has_unread(self) -> bool:
        return self._kernel.unread_count() > 0

    async def _wait_readable(self) -> None:
        if self._takes_message_left():
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._kernel.wait_receivable()
        except trio.BusyResourceError:
            # A sender in a renegotiation waits for the same event. Whichever wakes reads.
            await trio.sleep(0.001)

    async def _wait_writable(self, fed_by: Transport | None) -> None:
        async with self._sending:
            await self._kernel.wait_sendable(fed_by)


class _MemoryTlsStream(TlsStream):
    """OpenSSL works on memory; the ciphertext goes through the stream below.

    With a `framing`, this side wraps its handshake messages, and the far side may.
    """

    def __init__(
        self, context: SSL.Context, below: Stream, *, server_side: bool, framing: Framing | None
    ) -> None:
        super().__init__(SSL.Connection(context, None), below)
        self._incoming = memoryview(bytearray(_RECORD_BYTES + 2048))
        self._receiving = trio.Lock()
        self._server_side = server_side
        self._framing = framing
        self._wraps = framing is not None

    async def handshake(self) -> None:
        await self._drive(self._shake_hands)
        self._wraps = False

    def _shake_hands(self) -> None:
        """The last step of a handshake writes its last message, except for a server in TLS 1.3.

        That server has sent all messages before the client's Finished. What it writes in the last
        step are tickets, for a client that no longer unwraps.
        """
        self.connection.do_handshake()
        if self._server_side and self.connection.get_protocol_version() == SSL.TLS1_3_VERSION:
            self._wraps = False

    def _has_unread(self) -> bool:
        return bool(lib.BIO_get_mem_data(self.connection._into_ssl, ffi.new("char **")))

    async def _wait_readable(self) -> None:
        if self._takes_message_left() or self._has_unread():
            await trio.lowlevel.checkpoint()
            return
        if self._receiving.locked():
            async with self._receiving:
                return  # another task has just fed OpenSSL
        async with self._receiving:
            while (count := self.below.receive_nowait(self._incoming)) is None:
                if (count := self.below.receive_urgent(self._incoming)) is not None:
                    break
                await self.below.wait_receivable()
            received: bytes | memoryview = self._incoming[:count]
            if self._framing:
                received = self._framing.unwrap(received)
            if received:
                self.connection.bio_write(received)
            elif not count:
                self.connection.bio_shutdown()

    async def _wait_writable(self, fed_by: Transport | None) -> None:
        await trio.lowlevel.checkpoint()

    async def _flush(self, fed_by: Transport | None = None) -> None:
        async with self._sending:
            while ciphertext := self._take_ciphertext():
                await self.below.send_all(memoryview(ciphertext), fed_by=fed_by)

    async def _flush_unless_sending(self) -> None:
        # Taken before the first await: the sending task sends what it adds later.
        if not self._sending.locked() and (ciphertext := self._take_ciphertext()):
            async with self._sending:
                await self.below.send_all(memoryview(ciphertext))

    def _take_ciphertext(self) -> bytes:
        """Some or all of the ciphertext that OpenSSL has produced."""
        try:
            ciphertext = self.connection.bio_read(1 << 17)
        except SSL.WantReadError:
            return b""
        return self._framing.wrap(ciphertext) if self._framing and self._wraps else ciphertext


def tls_over(
    below: Stream,
    context: SSL.Context,
    *,
    server_side: bool = False,
    framing: Framing | None = None,
) -> TlsStream:
    """A TLS stream over any stream; `handshake` comes next. `framing` carries the handshake."""
    stream: TlsStream
    kernel = below.kernel_source
    if kernel and framing is None:
        stream = _DescriptorTlsStream(context, below, kernel)
    else:
        stream = _MemoryTlsStream(context, below, server_side=server_side, framing=framing)
    if server_side:
        stream.connection.set_accept_state()
    else:
        stream.connection.set_connect_state()
    return stream
