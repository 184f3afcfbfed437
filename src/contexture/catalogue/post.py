"""Sending a message by SMTP: over TLS wherever the server offers it, and a password never without it."""

import ipaddress
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage

from contexture.errors import ContextureError, InputError

TIMEOUT = 30.0
IMPLICIT_TLS = 465


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where messages are handed in. password: used with `user` alone."""

    host: str = "localhost"
    port: int = 25
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, text: str, *, user: str = "", password: str = "") -> "Server":
        """The server of `host`, `host:port` or `[address]:port`; InputError for what is none.

        >>> Server.parse("mail.example.org:587").port
        587
        """
        host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        if not colon:
            host, port = text, "25"
        name = host.removeprefix("[").removesuffix("]")
        if not name or not name.isprintable() or " " in name or not port.isdecimal() or not 0 < int(port) < 65536:
            raise InputError(f"{text!r} is not a mail server such as localhost:25 or mail.example.org:587")
        return cls(host=name, port=int(port), user=user, password=password)

    @property
    def local(self) -> bool:
        """Whether it is this machine, to which nothing travels over a network."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def send(message: EmailMessage, server: Server, *, sender: str, to: Sequence[str]) -> None:
    """Hand a message in; returns once the server has accepted it for every recipient.

    Raises ContextureError with the server's own words if it refuses the message or any recipient, if it cannot be
    reached, or if it would have the password in clear.
    """
    try:
        with _connected(server) as connection:
            if server.user:
                _log_in(connection, server)
            refused = connection.send_message(message, from_addr=sender, to_addrs=list(to))
    except smtplib.SMTPRecipientsRefused as error:
        raise ContextureError(f"the mail server {server.host} refused {_said(error.recipients)}") from error
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        raise ContextureError(f"the mail server {server.host} answered {error.smtp_code}: {said}") from error
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        raise ContextureError(f"the mail server {server.host}:{server.port} failed: {error}") from error
    if refused:
        raise ContextureError(f"the mail server {server.host} refused {_said(refused)}; the others have the letter")


def _connected(server: Server) -> smtplib.SMTP:
    if server.port == IMPLICIT_TLS:
        return smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT, context=_tls(server))
    connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT)
    try:
        connection.ehlo()
        if connection.has_extn("starttls"):
            connection.starttls(context=_tls(server))
            connection.ehlo()
    except BaseException:
        connection.close()
        raise
    return connection


def _tls(server: Server) -> ssl.SSLContext:
    """Certificates are checked, except for this machine's own server, which rarely has one that can be."""
    context = ssl.create_default_context()
    if server.local:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _log_in(connection: smtplib.SMTP, server: Server) -> None:
    if not server.local and not isinstance(connection.sock, ssl.SSLSocket):
        raise ContextureError(f"the mail server {server.host} offers no TLS, so it is not given the password")
    connection.login(server.user, server.password)


def _said(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{address} ({code} {text.decode(errors='replace')})" for address, (code, text) in refused.items())
