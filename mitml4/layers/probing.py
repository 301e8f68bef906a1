"""Shows a client a defective certificate, and finds out what it does (`--probe-clients`).

The handshake is with the client alone, by OpenSSL. The server gets no byte of this flow, and the
flow ends with it: what a client sends to a server that it should have refused goes nowhere.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import trio

from mitml4.dataclass import dataclass
from mitml4.events import ProbeOutcome
from mitml4.layers.bridge import Bridge
from mitml4.layers.client_handshake import HANDSHAKE_S, REJECTS_WITHIN_S, described
from mitml4.net.stream import StreamTruncated
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Speaker
from mitml4.protocols.tls.alerts import Alert, alert_name
from mitml4.protocols.tls.hello import ClientHello
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.tasks import fail_after
from mitml4.tls.context import Contexts
from mitml4.tls.failure import TlsFailure
from mitml4.tls.probe import Case, Probes, outcome_for
from mitml4.tls.stream import TlsStream, tls_over

__all__ = ["ClientProbing"]

_SPEAKS_WITHIN_S: Final = 5.0
"""A client that is silent for so long after the handshake waits for the server."""
_MAX_SHOWN_BYTES: Final = 16384

_Result: TypeAlias = tuple[ProbeOutcome, str | None]


@dataclass(frozen=True, slots=True)
class ClientProbing:
    """The probe of one flow."""

    probes: Probes
    contexts: Contexts
    bridge: Bridge
    context: LayerContext
    hello: ClientHello
    name: str
    """The name or address that the client expects."""

    async def run(self, case: Case, speaker: Speaker) -> None:
        """Ends both sides. Raises OSError only where resources are exhausted."""
        outcome = outcome_for(case, self.hello)
        leaf = await self.probes.leaf(case, self.name, self.hello, outcome.version)
        client_side = self.bridge.client_side
        context = self.contexts.client_side(leaf, outcome)
        stream = tls_over(client_side, context, server_side=True)
        stream.alerts.staple = leaf.staple
        report, depth = self.bridge.report, self.context.depth
        report.enter(depth, "tls")
        result = await self._meet(stream)
        details = described(TlsDetails.of(self.hello), stream, outcome.alpn)
        report.layer(depth, speaker, "answered", details)
        self.tell(case, *result)
        client_side.close()
        self.bridge.server_side.close()

    def tell(self, case: Case, outcome: ProbeOutcome, reason: str | None = None) -> None:
        self.bridge.report.probe(self.name, case, outcome, reason)

    async def _meet(self, stream: TlsStream) -> _Result:
        try:
            with fail_after(HANDSHAKE_S):
                await stream.handshake()
        except TlsFailure as failure:
            if failure.alert is None:  # of ours: the two have nothing in common
                return "not_offered", failure.reason
            return "refused", alert_name(failure.alert)
        except ConnectionError:
            return "refused", "reset during the handshake"
        except StreamTruncated:
            return "refused", "closed during the handshake"
        except trio.TooSlowError:
            return "refused", "the client does not finish the handshake"
        return await self._after_handshake(stream)

    async def _after_handshake(self, stream: TlsStream) -> _Result:
        """Some clients check the certificate only then, and close without a byte."""
        began = trio.current_time()
        with trio.move_on_after(_SPEAKS_WITHIN_S):
            try:
                data = await stream.peek(0, _MAX_SHOWN_BYTES)
            except TlsFailure as failure:
                # RFC 9849 §6.1.6: it is sent once the certificate was accepted.
                is_accepted = failure.alert == Alert.ECH_REQUIRED
                reason = failure.reason if failure.alert is None else alert_name(failure.alert)
                return "accepted" if is_accepted else "refused", reason
            except (StreamTruncated, ConnectionError):
                data = b""
            if data:
                return "sent_data", f"{len(data)} bytes"
            if trio.current_time() - began < REJECTS_WITHIN_S:
                return "refused", "closed right after the handshake"
        return "accepted", None
