"""The page that intercepted clients see at http://192.0.2.1/: the CA's certificate in each format,
and how each system is made to trust it.

Each page is made from the certificate alone, when it is asked for first: most sessions show none.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from html import escape
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256

from mitml4.layers.ca_page import Page, Pages
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.ca_files import Format, write_certificate
from mitml4.tls.java_keystore import PASSWORD

__all__ = ["ca_pages"]

_NAME: Final = "mitml4-ca"
_FILES: Final[tuple[tuple[Format, str, str, str], ...]] = (
    # Browsers of phones, and Firefox, offer to install this type if it is no attachment.
    ("der", "crt", "application/x-x509-ca-cert", "Android, Windows, Java, Firefox (DER)"),
    ("pem", "pem", "application/x-pem-file", "Linux, macOS, programs (PEM)"),
    ("mobileconfig", "mobileconfig", "application/x-apple-aspen-config", "iPhone, iPad, Mac"),
    ("p12", "p12", "application/x-pkcs12", f"a trust store for Java; password {PASSWORD}"),
)
"""Format, suffix, media type, and what takes it."""

_STYLE: Final = """
:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:0}
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}
pre{overflow-x:auto;padding:.6rem;border:1px solid #8888;border-radius:.4rem}
dt{font-weight:bold}dd{margin:0 0 .5rem}
.files{list-style:none;padding:0}
.files a{display:block;padding:.7rem;margin:.4rem 0;border:1px solid #8888;border-radius:.4rem}
details{border-bottom:1px solid #8888;padding:.6rem 0}summary{cursor:pointer}
summary h2{display:inline}
"""
_GUIDES: Final = """
<details><summary><h2>Android</h2></summary><ol>
<li>Download <a href="/mitml4-ca.crt">mitml4-ca.crt</a>.</li>
<li>Open Settings, search for <b>CA certificate</b>, and choose <b>Install anyway</b>. (It is below
Security, Encryption &amp; credentials, Install a certificate.)</li>
<li>Choose the file.</li></ol>
<p>Chrome trusts it then. Other apps do only if they say so, since Android 7. Firefox: Settings,
About Firefox, tap the logo five times; then Settings, Secret Settings, <b>Use third party CA
certificates</b>.</p></details>

<details><summary><h2>iPhone, iPad</h2></summary><ol>
<li>Open <a href="/mitml4-ca.mobileconfig">mitml4-ca.mobileconfig</a> in Safari, and allow the
download.</li>
<li>Settings, General, VPN &amp; Device Management: choose the profile, <b>Install</b>.</li>
<li>Settings, General, About, Certificate Trust Settings: switch the certificate on.</li>
</ol></details>

<details><summary><h2>macOS</h2></summary>
<p>Download <a href="/mitml4-ca.pem">mitml4-ca.pem</a>, and in its folder:</p>
<pre><code>sudo security add-trusted-cert -d -r trustRoot \\
  -k /Library/Keychains/System.keychain mitml4-ca.pem</code></pre></details>

<details><summary><h2>Windows</h2></summary>
<p>Download <a href="/mitml4-ca.crt">mitml4-ca.crt</a>, and in its folder, as administrator:</p>
<pre><code>certutil -addstore -f Root mitml4-ca.crt</code></pre>
<p>For one user, without an administrator: <code>certutil -user -addstore Root
mitml4-ca.crt</code></p></details>

<details><summary><h2>Linux</h2></summary>
<p>Download <a href="/mitml4-ca.pem">mitml4-ca.pem</a>, and in its folder:</p>
<p>Debian, Ubuntu, Alpine:</p>
<pre><code>sudo cp mitml4-ca.pem /usr/local/share/ca-certificates/mitml4-ca.crt
sudo update-ca-certificates</code></pre>
<p>Fedora, RHEL:</p>
<pre><code>sudo cp mitml4-ca.pem /etc/pki/ca-trust/source/anchors/
sudo update-ca-trust extract</code></pre>
<p>Arch:</p>
<pre><code>sudo trust anchor --store mitml4-ca.pem</code></pre>
<p>openSUSE:</p>
<pre><code>sudo cp mitml4-ca.pem /etc/pki/trust/anchors/
sudo update-ca-certificates</code></pre>
<p>Chromium has a separate store (<code>certutil</code> is in libnss3-tools or nss-tools):</p>
<pre><code>certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n mitml4 -i mitml4-ca.pem</code></pre>
<p>From version 146 on, it is <code>sql:$HOME/.local/share/pki/nssdb</code>.</p></details>

<details><summary><h2>Firefox</h2></summary><ol>
<li>Download <a href="/mitml4-ca.crt">mitml4-ca.crt</a>. If Firefox asks at once, go on with the
last step.</li>
<li>Settings, Privacy &amp; Security, <b>View Certificates</b>, Authorities, <b>Import</b>: choose
the file.</li>
<li>Tick <b>Trust this CA to identify websites</b>.</li></ol></details>

<details><summary><h2>Java</h2></summary>
<p>Download <a href="/mitml4-ca.crt">mitml4-ca.crt</a>, and in its folder:</p>
<pre><code>sudo keytool -importcert -cacerts -storepass changeit -noprompt \\
  -alias mitml4 -file mitml4-ca.crt</code></pre>
<p>Or let one program trust this authority and no other, with <a
href="/mitml4-ca.p12">mitml4-ca.p12</a>:</p>
<pre><code>java -Djavax.net.ssl.trustStore=mitml4-ca.p12 \\
  -Djavax.net.ssl.trustStorePassword=changeit …</code></pre></details>
"""


def ca_pages(authority: CertificateAuthority) -> Pages:
    """The page and its files, by path."""
    files = {
        f"/{_NAME}.{suffix}".encode(): partial(_file, authority, form, suffix, media_type)
        for form, suffix, media_type, _ in _FILES
    }
    return _MadeWhenAsked({b"/": partial(_index, authority), **files})


class _MadeWhenAsked(Mapping[bytes, Page]):
    def __init__(self, makers: Mapping[bytes, Callable[[], Page]]) -> None:
        self._makers = {path: cache(make) for path, make in makers.items()}

    def __getitem__(self, path: bytes) -> Page:
        return self._makers[path]()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _file(authority: CertificateAuthority, form: Format, suffix: str, media_type: str) -> Page:
    headers: tuple[tuple[str, str], ...] = ()
    if form == "pem":
        headers = (("Content-Disposition", f'attachment; filename="{_NAME}.{suffix}"'),)
    body = write_certificate(authority.certificate, form)
    return Page(content_type=media_type, body=body, headers=headers)


def _index(authority: CertificateAuthority) -> Page:
    certificate = authority.certificate
    links = "\n".join(
        f'<li><a href="/{_NAME}.{suffix}"><code>{_NAME}.{suffix}</code><br>{escape(what)}</a></li>'
        for _, suffix, _, what in _FILES
    )
    domains = escape(", ".join(authority.permitted_domains))
    limit = f"<dt>Only for</dt><dd>{domains}</dd>" if domains else ""
    fingerprint = certificate.fingerprint(SHA256()).hex(":").upper()
    html = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mitml4: trust this certificate authority</title>
<style>{_STYLE}</style></head><body>
<h1>mitml4 intercepts the connections of this device</h1>
<p>If this device trusts the certificate authority below, mitml4 can decrypt its TLS connections.
Whoever has the key of the authority can then read and change what this device sends and receives.
Install the certificate only where you are entitled to, and remove it when you are done.</p>
<ul class="files">
{links}
</ul>
<dl><dt>Name</dt><dd>{escape(authority.subject)}</dd>
<dt>SHA-256</dt><dd><code>{fingerprint}</code></dd>
<dt>Valid until</dt><dd>{certificate.not_valid_after_utc:%Y-%m-%d}</dd>{limit}</dl>
<p>This page is not encrypted: compare the fingerprint with what <code>mitml4 ca show</code> prints,
or the key <code>c</code> in mitml4's table.</p>
{_GUIDES}</body></html>
"""
    style = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Page(
        content_type="text/html; charset=utf-8",
        body=html.encode(),
        headers=(("Content-Security-Policy", policy),),
    )
