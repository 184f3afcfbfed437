import asyncio
import email
import email.policy
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import html5lib
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from contexture.catalogue import library
from contexture.catalogue.digest import addresses, compose, digest, read_known, subject, write_known
from contexture.catalogue.post import Server, send
from contexture.cli import main
from contexture.errors import ContextureError, InputError
from serve_toys import load, republish, write_catalogue


class Inbox:
    """Keeps what is handed in; refuses the recipients and the messages that it is told to."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.envelopes: list[Any] = []
        self.refused: set[str] = set()
        self.full = False

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.full:
            return "452 the disk is full"
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos), session.ssl is not None))
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 OK"


@contextmanager
def serving(make: Callable[[], SMTP]) -> Iterator[int]:
    """A server of mail at a free port, whose number is given."""
    loop, begun = asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        server = await loop.create_server(make, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    def run() -> None:
        asyncio.set_event_loop(loop)
        task = loop.create_task(serve())
        tasks.append(task)
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        for other in asyncio.all_tasks(loop):
            other.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        asyncio.set_event_loop(None)
        loop.close()

    tasks: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join()


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, str]]:
    box = Inbox()
    with serving(lambda: SMTP(box)) as port:
        yield box, f"127.0.0.1:{port}"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    made = write_catalogue(tmp_path)
    real = library.load_library
    monkeypatch.setattr(library, "load_library", lambda results: real(results, entries=made[0]))
    return made


def sent_by_command(folders: tuple[Path, Path], server: str, state: Path, *more: str) -> int:
    to = ["--to", "you@example.org, them@example.org", "--smtp", server, "--state", str(state)]
    return main(["digest", *to, "--results", str(folders[1]), *more])


def test_the_first_letter_tells_everything_and_the_next_nothing(
    folders: tuple[Path, Path], inbox: tuple[Inbox, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box, server = inbox
    state = tmp_path / "state" / "digest.json"
    assert sent_by_command(folders, server, state) == 0
    (message,) = box.messages
    assert message["Subject"] == "Contexture: 2 results published so far"
    assert (message["From"], message["To"]) == ("you@example.org", "you@example.org, them@example.org")
    assert box.envelopes == [("you@example.org", ["you@example.org", "them@example.org"], False)]
    plain, html = (part.get_content() for part in message.iter_parts())
    assert "held: With weights set by hand" in plain
    assert "measured 2.8e-13 [1.4e-15, 1.1e-12], claimed < 1e-10" in plain
    assert "again    contexture claim icl-by-gd --only construction --scale cpu" in plain
    html5lib.HTMLParser(strict=True).parse(html)
    assert "<script" not in html
    assert sent_by_command(folders, server, state) == 0
    assert len(box.messages) == 1
    assert "nothing changed" in capsys.readouterr().err


def test_a_letter_tells_what_changed_alone(
    folders: tuple[Path, Path], inbox: tuple[Inbox, str], tmp_path: Path
) -> None:
    box, server = inbox
    state = tmp_path / "digest.json"
    sent_by_command(folders, server, state)
    republish(folders[1], at="2027-01-01T00:00:00Z", verdict="not-held", value=0.5, sentence="<b>Other</b> & so")
    sent_by_command(folders, server, state, "--site", "https://example.org/c", "--from", "robot@example.org")
    message = box.messages[1]
    assert message["Subject"] == "Contexture: 1 result changed, 1 of them in the verdict"
    assert message["From"] == "robot@example.org"
    plain, html = (part.get_content() for part in message.iter_parts())
    assert "Verdicts that changed" in plain
    assert "not-held: <b>Other</b> & so" in plain
    assert "before   held, 2.8e-13" in plain
    assert "page     https://example.org/c/papers/icl-by-gd.html#claim-construction" in plain
    assert "trained layer" not in plain
    assert "&lt;b&gt;Other&lt;/b&gt; &amp; so" in html
    assert "<b>Other" not in html


def test_time_and_machine_are_no_news(folders: tuple[Path, Path]) -> None:
    known = digest(load(folders), None).now
    republish(folders[1], at="2027-01-01T00:00:00Z", seconds=1e6)
    assert digest(load(folders), known).empty


def test_every_kind_of_change_is_told_apart(folders: tuple[Path, Path]) -> None:
    known = digest(load(folders), None).now
    for changed, kind in (
        ({"threshold": 2.0}, "terms"),
        ({"value": 1.0}, "value"),
        ({"verdict": "undecided"}, "verdict"),
    ):
        republish(folders[1], at="2027-01-01T00:00:00Z", **changed)
        (one,) = digest(load(folders), known).changes
        assert one.kind == kind
    found = digest(load(folders), {**known, "gone/away": {"mark": "x", "verdict": "held", "value": 1.0}})
    assert found.withdrawn == ("gone/away",)
    assert subject(found) == "Contexture: 2 results changed, 1 of them in the verdict"


@pytest.mark.parametrize(
    "why", ["a recipient is refused", "all are refused", "the message is refused", "nobody listens"]
)
def test_what_was_not_accepted_is_told_again(
    folders: tuple[Path, Path], inbox: tuple[Inbox, str], tmp_path: Path, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    box, server = inbox
    state = tmp_path / "digest.json"
    box.refused = {"a recipient is refused": {"them@example.org"},
                   "all are refused": {"them@example.org", "you@example.org"}}.get(why, set())  # fmt: skip
    box.full = why == "the message is refused"
    assert sent_by_command(folders, "127.0.0.1:9" if why == "nobody listens" else server, state) == 1
    said = capsys.readouterr().err
    assert {"a recipient is refused": "550 no such mailbox", "all are refused": "550 no such mailbox",
            "the message is refused": "the disk is full", "nobody listens": "127.0.0.1:9"}[why] in said  # fmt: skip
    assert not state.exists()
    box.refused, box.full = set(), False
    assert sent_by_command(folders, server, state) == 0
    assert state.exists()


def test_a_dry_run_prints_and_changes_nothing(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "digest.json"
    assert sent_by_command(folders, "127.0.0.1:9", state, "--dry-run", "--user", "me") == 0
    message = email.message_from_string(capsys.readouterr().out)
    assert message["Subject"] == "Contexture: 2 results published so far"
    assert message.get_content_type() == "multipart/alternative"
    assert not state.exists()


def test_a_state_that_is_none_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    state = tmp_path / "digest.json"
    for text in ("{", '{"schema": 1}', '{"schema": 1, "digest": {"a/b": {"mark": 1}}}', '{"schema": 2}'):
        state.write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            read_known(state)
        assert sent_by_command(folders, "127.0.0.1:9", state) == 2
        assert state.read_text(encoding="utf-8") == text


def test_what_is_known_is_read_back(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = digest(load(folders), None)
    write_known(tmp_path / "a" / "digest.json", found)
    assert read_known(tmp_path / "a" / "digest.json") == found.now
    assert read_known(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "text", ["", "you", "@", "a@", "@b", "you@example.org\nBcc: them@example.org", "a b@c", "ü@example.org", "a@b, , c"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an address"):
        addresses(text, option="--to")


@pytest.mark.parametrize("text", ["", ":25", "host:", "host:0", "host:70000", "a b:25", "host:²"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a mail server"):
        Server.parse(text)
    assert Server.parse("[::1]:2525") == Server(host="::1", port=2525)
    assert Server.parse("mail") == Server(host="mail", port=25)


def test_a_sender_of_two_addresses_and_a_strange_site_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONTEXTURE_SMTP_PASSWORD", raising=False)
    for more in (["--from", "a@b.c, d@e.f"], ["--site", "javascript:alert(1)"], ["--user", "me"]):
        assert sent_by_command(folders, "127.0.0.1:9", tmp_path / "state.json", *more) == 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A certificate that nobody has signed, for a server of this machine."""
    folder = tmp_path_factory.mktemp("certificate")
    key, signed = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", signed], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("a certificate is made by openssl, which is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    return context


def keyed(box: Inbox, context: ssl.SSLContext | None) -> SMTP:
    """A server that asks who one is and, with a certificate, lets one say it over TLS alone."""

    def known(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        return AuthResult(success=(given.login, given.password) == (b"me", b"sesame"))

    return SMTP(box, authenticator=known, auth_required=True, auth_require_tls=context is not None, tls_context=context)


def test_a_name_and_a_password_go_over_tls(
    folders: tuple[Path, Path], tmp_path: Path, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Inbox()
    with serving(lambda: keyed(box, certificate)) as port:
        monkeypatch.setitem(os.environ, "CONTEXTURE_SMTP_PASSWORD", "wrong")
        state = tmp_path / "digest.json"
        assert sent_by_command(folders, f"127.0.0.1:{port}", state, "--user", "me") == 1
        monkeypatch.setitem(os.environ, "CONTEXTURE_SMTP_PASSWORD", "sesame")
        assert sent_by_command(folders, f"127.0.0.1:{port}", state, "--user", "me") == 0
    assert [over_tls for _, _, over_tls in box.envelopes] == [True]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_another_machine_is_not_given_a_password_in_clear(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Inbox()
    monkeypatch.setattr(Server, "local", property(lambda server: False))
    message = compose(digest(load(folders), None), sender="a@b.c", to=["d@e.f"])
    with serving(lambda: keyed(box, None)) as port:
        server = Server(host="127.0.0.1", port=port, user="me", password="sesame")
        with pytest.raises(ContextureError, match="offers no TLS"):
            send(message, server, sender="a@b.c", to=["d@e.f"])
    assert box.messages == []


def test_the_certificate_of_another_machine_is_checked(
    folders: tuple[Path, Path], certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Inbox()
    monkeypatch.setattr(Server, "local", property(lambda server: False))
    message = compose(digest(load(folders), None), sender="a@b.c", to=["d@e.f"])
    with serving(lambda: keyed(box, certificate)) as port, pytest.raises(ContextureError, match="certificate"):
        send(message, Server(host="127.0.0.1", port=port), sender="a@b.c", to=["d@e.f"])
    assert box.messages == []


def test_which_servers_are_this_machine() -> None:
    assert all(Server(host=host).local for host in ("localhost", "127.0.0.1", "::1"))
    assert not any(Server(host=host).local for host in ("mail.example.org", "10.0.0.1", "localhost.example.org"))
