"""The content of the CA page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from mitml4.session.ca_page import ca_pages
from mitml4.tls.ca import CertificateAuthority

CA = CertificateAuthority.generate(name="<script>x</script>&\"'", permit_domains=["a.example"])


class Found(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attributes:
            assert name in ("lang", "charset", "name", "content", "class", "href")
            if name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_links_to_its_files_and_nothing_else() -> None:
    pages = ca_pages(CA)
    found = Found(pages[b"/"].body.decode())
    assert found.open == []
    assert {link.encode() for link in found.links} == pages.keys() - {b"/"}
    assert "script" not in found.tags


def test_what_the_certificate_says_is_escaped() -> None:
    html = ca_pages(CA)[b"/"].body.decode()
    assert "<script" not in html
    text = Found(html).text
    assert CA.subject in text
    assert "a.example" in text
    assert CA.sha256 in re.sub("[^0-9a-f]", "", text[text.index("SHA-256") + 7 :].lower())


def test_the_policy_permits_the_style_alone() -> None:
    (policy,) = [value for name, value in ca_pages(CA)[b"/"].headers if name.endswith("Policy")]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
