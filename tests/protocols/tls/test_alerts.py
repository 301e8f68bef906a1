"""Alerts and their names."""

from __future__ import annotations

from mitml4.protocols.tls.alerts import Alert, TlsError, alert_name, is_alert


def test_an_alert_has_the_name_that_the_standard_gives_it() -> None:
    for number, name in ((0, "close_notify"), (51, "decrypt_error"), (121, "ech_required")):
        assert Alert(number).name.lower() == alert_name(number) == name
        assert is_alert(number)


def test_a_number_that_is_no_alert_is_its_own_name() -> None:
    assert alert_name(1) == "0x01"
    assert not is_alert(1)


def test_an_error_says_which_alert_answers_it() -> None:
    error = TlsError(Alert.ILLEGAL_PARAMETER, "a key share of 31 bytes")
    assert (error.alert, error.message) == (47, "a key share of 31 bytes")
