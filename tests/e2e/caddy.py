"""Caddy, a server in Go, without anything that it does on its own: certificates, trust, admin."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path
from typing import Any

CADDY = Path(sysconfig.get_path("scripts")) / "caddy"


def caddy(port: int, identity, files: Path, **tls: Any) -> list[str]:
    """The command that serves `ok` on a port; `tls`: more of the app of this name. What it keeps is
    in the directory `caddy-PORT` of `files`."""
    pair = {"certificate": str(identity.certificate), "key": str(identity.key)}
    server = {
        "listen": [f":{port}"],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "tls_connection_policies": [{}],
        "routes": [{"handle": [{"handler": "static_response", "body": "ok\n"}]}],
    }
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(files / f"caddy-{port}")},
        "apps": {
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            "tls": {
                "certificates": {"load_files": [pair]},
                "automation": {"policies": [{"issuers": [{"module": "internal"}]}]},
                **tls,
            },
            "http": {"servers": {"one": server}},
        },
    }
    file = files / f"caddy-{port}.json"
    file.write_text(json.dumps(config))
    return ["env", f"HOME={files}", str(CADDY), "run", "--config", str(file)]
