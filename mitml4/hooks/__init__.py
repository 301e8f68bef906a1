"""The objects that hooks are given (docs/hooks.md).

from mitml4.hooks import Flow, Request, Response

def response(flow: Flow, request: Request, response: Response) -> None:
    response.headers["X-Seen"] = "yes"
"""

from mitml4.address import Address
from mitml4.edit.headers import Headers
from mitml4.hooks.flows import Flow, Layer
from mitml4.hooks.messages import ContentNotHeldError, Message, Request, Response
from mitml4.hooks.pairs import Pairs

__all__ = [
    "Address",
    "ContentNotHeldError",
    "Flow",
    "Headers",
    "Layer",
    "Message",
    "Pairs",
    "Request",
    "Response",
]
