"""The CA page, for a command of `run`."""

from __future__ import annotations

import pytest

PAGE = "http://192.0.2.1/"


@pytest.fixture(scope="module")
def lab(lab_without_ca_page_address):
    return lab_without_ca_page_address


def test_a_command_gets_the_certificate_that_signs_for_it(host, nginx) -> None:
    script = f"curl -sSf {PAGE}mitml4-ca.pem > ca.pem && env -u SSL_CERT_FILE "
    script += "curl -sS --cacert ca.pem https://www.example/"
    ended = host.run("sh", "-c", script)
    assert ended.code == 0, ended.err
    assert ended.of_type("flow.layer")[0]["action"] == "answered"


def test_without_the_page_the_address_is_a_server_like_any_other(host, nginx) -> None:
    ended = host.run("curl", "-sS", PAGE, options=["--no-ca-page"])
    assert ended.out == "hello from nginx\n"
    assert ended.of_type("flow.layer")[0]["action"] == "relayed"
