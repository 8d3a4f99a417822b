"""What mail servers do to one, and what never happens whatever they do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest

from devtools.servers import MailServer
from devtools.servers.certificates import write_certificates
from devtools.servers.children import free_port
from lethe.adapters.notices.mailboxes import NotAMailbox, parse_mailbox
from lethe.adapters.notices.smtp import SmtpChannel
from lethe.domain.identifiers import PersonalText
from lethe.ports.notices import ChannelError, Delivery, DeliveryResult
from tests.contracts.notices import AT, letter, message_id

SENDER = "Exämple Privacy <privacy@lethe.example>"
SOON = timedelta(seconds=20)
MOMENT = timedelta(milliseconds=500)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with MailServer(tmp_path_factory.mktemp("mail")) as server:
        yield server


@pytest.fixture
def server(running: MailServer) -> MailServer:
    running.clear()
    return running


def channel(server: MailServer, url: str | None = None) -> SmtpChannel:
    return SmtpChannel(url or server.url, SENDER, server.ca_file, SOON)


def told(server: MailServer, to: str = "ada@people.example") -> Delivery:
    (delivery,) = channel(server).send([letter(1, to)]).values()
    return delivery


def test_headers_say_what_it_is_and_nothing_else(server: MailServer) -> None:
    channel(server).send([letter(1, "ada@people.example")])
    (delivered,) = server.messages()
    message = delivered.message

    assert sorted(name.lower() for name in message) == [
        "auto-submitted",
        "content-language",
        "content-type",
        "date",
        "from",
        "message-id",
        "mime-version",
        "subject",
        "to",
    ]
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == f"<{message_id(1)}>"
    assert message["Date"].datetime == AT
    assert message["From"] == "Exämple Privacy <privacy@lethe.example>"
    assert message["Content-Language"] == "de"
    assert message.get_content_type() == "multipart/alternative"
    # The last alternative is the one that programs prefer.
    parts = [part for part in message.iter_parts() if isinstance(part, EmailMessage)]
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    assert {part["Content-Transfer-Encoding"] for part in parts} == {"quoted-printable"}
    assert {part.get_content_charset() for part in parts} == {"utf-8"}
    assert delivered.sender == "privacy@lethe.example"


def test_a_message_is_ascii_in_short_lines_and_the_same_each_time(server: MailServer) -> None:
    channel(server).send([letter(1)])
    channel(server).send([letter(1)])
    first, second = (one.raw for one in server.messages())

    assert first == second
    assert first.isascii()
    assert max(map(len, first.split(b"\r\n"))) <= 100
    assert b"\n" not in first.replace(b"\r\n", b"")


def test_between_letters_the_transaction_is_reset(server: MailServer) -> None:
    server.refuse("b@people.example", 550)
    channel(server).send(
        [letter(1, "a@people.example"), letter(2, "b@people.example"), letter(3, "c@people.example")]
    )

    assert server.conversations() == [
        ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]
    ]


LATER = [
    (450, "4.2.0 greylisted", "450 4.2.0 to {}: the mailbox is busy, or the server greylists"),
    (452, "4.2.2 full", "452 4.2.2 to {}: the mailbox is full"),
]
OF_THE_ADDRESS = [
    (550, "5.1.1 no ada@people.example", "550 5.1.1 to {}: no such mailbox"),
    (553, "5.1.3 ada@people.example", "553 5.1.3 to {}: the address is not written as it should be"),
    (556, "5.1.10 ada@people.example", "556 5.1.10 to {}: the domain takes no mail"),
]
OF_OURS = [
    (550, "ada@people.example", "550 to {}: the mailbox is not there, or the server refuses it"),
    (
        550,
        "5.7.60 Client does not have permissions to send as this sender",
        "550 5.7.60 to {}: this user",
    ),
    (553, "5.7.1 <privacy@lethe.example>: not owned by user", "553 5.7.1 to {}: the server refuses it"),
    (554, "Message rejected: Email address is not verified.", "554 to {}: the server refuses the message"),
    (550, "5.1.7 sender ada@people.example", "550 5.1.7 to {}: the mailbox is not there, or"),
    (553, "5.1.8 sender ada@people.example", "553 5.1.8 to {}: the sender's domain is not known"),
    (552, "5.3.4 too large", "552 5.3.4 to {}: the message is too large"),
    (554, "5.7.1 ada@people.example", "554 5.7.1 to {}: the server refuses it"),
    (554, "4.1.1 a class of another code", "554 to {}: the server refuses the message"),
    (599, "5.9.9 who knows", "599 5.9.9 to {}: the server refuses"),
]
"""What is not said of the recipient's address, also by servers that say no more than a bare code."""


def refused(server: MailServer, command: str, code: int, text: str) -> None:
    address = "privacy@lethe.example" if command == "MAIL" else "ada@people.example"
    server.refuse(address, code, at=command, text=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(("code", "text", "words"), LATER)
def test_what_is_put_off_is_told_in_our_words(
    server: MailServer, command: str, code: int, text: str, words: str
) -> None:
    refused(server, command, code, text)
    assert told(server) == Delivery(DeliveryResult.LATER, words.format(command))


@pytest.mark.parametrize("command", ["RCPT", "DATA"])
@pytest.mark.parametrize(("code", "text", "words"), OF_THE_ADDRESS)
def test_an_address_that_is_none_is_given_up(
    server: MailServer, command: str, code: int, text: str, words: str
) -> None:
    refused(server, command, code, text)
    assert told(server) == Delivery(DeliveryResult.REFUSED, words.format(command))


@pytest.mark.parametrize("command", ["RCPT", "DATA"])
@pytest.mark.parametrize(("code", "text", "words"), OF_OURS)
def test_what_may_be_ours_to_mend_waits_and_names_the_settings(
    server: MailServer, command: str, code: int, text: str, words: str
) -> None:
    refused(server, command, code, text)
    delivery = told(server)
    assert delivery.result is DeliveryResult.LATER
    assert delivery.answer.startswith(words.format(command))
    assert delivery.answer.endswith("; look at LETHE_MAIL_FROM and LETHE_SMTP_URL")
    assert "people" not in delivery.answer
    server.accept("ada@people.example")
    assert told(server) == Delivery(DeliveryResult.SENT)


@pytest.mark.parametrize(("code", "text", "words"), [*OF_THE_ADDRESS, *OF_OURS])
def test_a_sender_who_is_refused_is_a_setting_to_correct(
    server: MailServer, code: int, text: str, words: str
) -> None:
    refused(server, "MAIL", code, text)
    with pytest.raises(ChannelError) as raised:
        told(server)
    assert raised.value.problem.startswith(f"notices can't be sent: {words.format('MAIL')}")
    assert raised.value.remedy == "correct LETHE_MAIL_FROM, or the user in LETHE_SMTP_URL"
    assert "people" not in str(raised.value)


def test_a_server_that_says_goodbye_gets_the_rest_later(server: MailServer) -> None:
    server.refuse("b@people.example", 421)
    found = channel(server).send([letter(1), letter(2, "b@people.example"), letter(3)])

    assert [one.result.value for one in found.values()] == ["Sent", "Later", "Later"]
    assert len(server.messages()) == 1


ADDRESSES = [
    ("ada@people.example", "ada@people.example"),
    ("ada+tag@People.Example", "ada+tag@People.Example"),
    ("o'neill@people.example", "o'neill@people.example"),
    ("a,b@people.example", '"a,b"@people.example'),
    ("a@b@people.example", '"a@b"@people.example'),
    ("<eve@people.example>,ada@people.example", '"<eve@people.example>,ada"@people.example'),
    ('"a.b."@people.example', "a.b.@people.example"),
    ("a..b@people.example", "a..b@people.example"),
    ("ada@bücher.example", "ada@xn--bcher-kva.example"),
    ("ada@straße.example", "ada@xn--strae-oqa.example"),
    ("ada@BÜCHER。example", "ada@xn--bcher-kva.example"),
    ("ада@пример.example", "ада@xn--e1afmkfd.example"),
    ("ada@[127.0.0.1]", "ada@[127.0.0.1]"),
]


@pytest.mark.parametrize(("address", "envelope"), ADDRESSES)
def test_an_address_reaches_one_mailbox_and_no_other(server: MailServer, address: str, envelope: str) -> None:
    assert told(server, address) == Delivery(DeliveryResult.SENT)
    (delivered,) = server.messages()
    assert delivered.recipients == (envelope,)
    assert [str(one) for one in delivered.message["To"].addresses] == [envelope]


@pytest.mark.parametrize(
    "address",
    [
        "ada",
        " ",
        "@people.example",
        "ada@",
        "ada@people.example\r\nRCPT TO:<eve@people.example>",
        "a b@people.example",
        "ada\0@people.example",
        "ada@peo ple.example",
        'a"b@people.example',
        "a\\b@people.example",
        "ada@-.example",
        "ada@people..example",
        "ada@" + "x" * 300 + ".exämple",
        "ada@\u202epeople.example",
        "\ud800@people.example",
        "ada@xn--\u00fc.example",
    ],
)
def test_what_is_no_address_is_refused_without_a_word_to_the_server(server: MailServer, address: str) -> None:
    delivery = told(server, address)

    assert delivery.result is DeliveryResult.REFUSED
    assert delivery.answer.startswith("the address ")
    assert "people" not in delivery.answer
    assert server.messages() == []


def test_without_smtputf8_only_the_domain_can_be_foreign(tmp_path: Path) -> None:
    with MailServer(tmp_path, smtputf8=False) as server:
        assert told(server, "ada@bücher.example").result is DeliveryResult.SENT
        waits = told(server, "ädä@bücher.example")

        assert waits.result is DeliveryResult.LATER
        assert "SMTPUTF8" in waits.answer
        assert "let LETHE_SMTP_URL name one that has it" in waits.answer
        assert [one.recipients for one in server.messages()] == [("ada@xn--bcher-kva.example",)]


def test_starttls_is_never_done_without(server: MailServer) -> None:
    plain = server.url_for("mailer", "canary-secret", scheme="smtp+starttls")
    with pytest.raises(ChannelError, match="offers no STARTTLS") as raised:
        channel(server, plain).send([letter(1)])

    assert "LETHE_SMTP_URL" in raised.value.remedy
    assert "canary" not in str(raised.value)
    assert server.conversations() == [["EHLO"]]


def test_tls_at_a_port_without_it_is_a_setting_to_correct(server: MailServer) -> None:
    with pytest.raises(ChannelError, match="speaks no TLS"):
        channel(server, server.url_for(scheme="smtps")).send([letter(1)])


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_certificate_of_anybody_elses_is_refused_before_a_word_is_said(tls: str, tmp_path: Path) -> None:
    write_certificates(tmp_path / "other")
    users = {"mailer": "canary-secret"}
    with MailServer(tmp_path / "mail", tls=tls, users=users) as server:  # type: ignore[arg-type]
        for ca_file in (tmp_path / "other" / "ca.crt", None):
            with pytest.raises(ChannelError, match="certificate can't be verified") as raised:
                SmtpChannel(server.url, SENDER, ca_file, SOON).send([letter(1)])
            assert "LETHE_SMTP_CA_FILE" in raised.value.remedy
            assert "canary" not in str(raised.value)

        assert not {"AUTH", "MAIL"} & {command for one in server.conversations() for command in one}


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    with MailServer(tmp_path, tls="implicit") as server:
        url = server.url.replace("127.0.0.1", "127.0.0.2")
        with (
            forwarding(("127.0.0.2", server.port), ("127.0.0.1", server.port)),
            pytest.raises(ChannelError, match="certificate can't be verified"),
        ):
            SmtpChannel(url, SENDER, server.ca_file, SOON).send([letter(1)])


@contextmanager
def forwarding(here: tuple[str, int], there: tuple[str, int], pause: float = 0) -> Iterator[None]:
    """Let what connects to `here` arrive `there`: a name that leads to a server of another name.

    With a `pause`, what is answered to a letter (no command is that long) is let through a byte at a time.
    """
    carried = 0

    def carry(source: socket.socket, target: socket.socket, *, counted: bool) -> None:
        nonlocal carried
        try:
            while piece := source.recv(65536):
                if counted:
                    carried += len(piece)
                elif pause and carried > 3000:
                    for byte in piece:
                        target.sendall(bytes([byte]))
                        time.sleep(pause)
                    continue
                target.sendall(piece)
        except OSError:
            pass
        target.close()

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(there)
        for pair in ((client, server), (server, client)):
            counted = {"counted": pair[0] is client}
            threading.Thread(target=carry, args=pair, kwargs=counted, daemon=True).start()

    with socket.create_server(here) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield


@pytest.mark.parametrize("mechanisms", [("PLAIN",), ("LOGIN",)])
def test_user_and_password_may_hold_any_sign(mechanisms: Sequence[str], tmp_path: Path) -> None:
    with MailServer(
        tmp_path, tls="starttls", users={"ma:il@er": "pä/ss wörd%@:#"}, mechanisms=mechanisms
    ) as server:
        assert told(server) == Delivery(DeliveryResult.SENT)


def test_credentials_that_are_not_taken_are_a_setting_to_correct(tmp_path: Path) -> None:
    with MailServer(tmp_path, tls="starttls", users={"mailer": "right"}) as server:
        for url in (
            server.url_for("mailer", "canary-secret"),
            server.url_for("canary-user", "right"),
            server.url_for(),
        ):
            with pytest.raises(ChannelError) as raised:
                channel(server, url).send([letter(1)])
            assert "LETHE_SMTP_URL" in raised.value.remedy
            assert raised.value.problem.removeprefix("notices can't be sent: ")[:3] in {"535", "530"}
            assert "canary" not in str(raised.value)
        assert server.messages() == []


HELLO = (b"220 hi\r\n", b"250 hi\r\n")
TO_DATA = (*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")
SCRIPTS: list[tuple[tuple[bytes, ...], list[str] | None]] = [
    # what the server says at each turn; what becomes of two letters, None: a setting has to be corrected
    ((b"421 4.3.2 later ada@people.example\r\n",), ["Later", "Later"]),
    ((b"554 5.7.1 you are listed, ada@people.example\r\n",), None),
    ((b"220 hi\r\n", b"451 no\r\n", b"451 no\r\n"), ["Later", "Later"]),
    ((b"220 hi\r\n", b"550 no\r\n", b"550 no\r\n"), None),
    ((*HELLO, b""), ["Later", "Later"]),
    ((*HELLO, b"nonsense ada@people.example\r\n"), ["Later", "Later"]),
    ((*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"250 not 354\r\n"), ["Later", "Later"]),
    ((*TO_DATA, b""), ["Later", "Later"]),
    ((*TO_DATA, b"250 ok\r\n"), ["Sent", "Later"]),
    ((*TO_DATA, b"250 ok\r\n", b"502 no RSET\r\n"), ["Sent", "Later"]),
    ((*TO_DATA, b"250 ok\r\n", b"250 reset\r\n", b"530 5.7.0 who are you\r\n"), ["Sent", "Later"]),
    ((*HELLO, b"530 5.7.0 who are you\r\n"), None),
    ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), ["Later", "Later"]),
    ((b"x" * 100_000,), ["Later", "Later"]),
]


@pytest.mark.parametrize(("turns", "expected"), SCRIPTS)
def test_no_answer_of_a_server_loses_a_letter(turns: tuple[bytes, ...], expected: list[str] | None) -> None:
    letters = [letter(1, "ada@people.example"), letter(2, "ada@people.example")]
    with scripted(turns) as port:
        mail = SmtpChannel(f"smtp://127.0.0.1:{port}", SENDER, timeout=SOON)
        if expected is None:
            with pytest.raises(ChannelError) as raised:
                mail.send(letters)
            assert "people" not in str(raised.value)
            return
        found = mail.send(letters)
    assert [one.result.value for one in found.values()] == expected
    assert "people" not in repr(found)


@contextmanager
def scripted(turns: Sequence[bytes], *, silent: bool = False, pause: float = 0) -> Iterator[int]:
    """Listen on a port and say `turns`, one after each line (or message) of the client's; then hang up.

    With a `pause`, the greeting is said a byte at a time.
    """

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with suppress(OSError), client, client.makefile("rb") as lines:
            for number, turn in enumerate(turns):
                if not turn:
                    return
                for byte in turn if pause and number == 0 else b"":
                    client.sendall(bytes([byte]))
                    time.sleep(pause)
                if not pause or number:
                    client.sendall(turn)
                if turn.startswith(b"354"):
                    while lines.readline() not in {b".\r\n", b""}:
                        pass
                elif not turn.startswith((b"421", b"554")) and not lines.readline():
                    return
            if silent:
                over.wait()

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        over.set()


@pytest.mark.parametrize("turns", [[], [b"220 hi\r\n", b"250 hi\r\n"]])
def test_a_silent_server_is_not_waited_for_without_end(turns: list[bytes]) -> None:
    with scripted(turns, silent=True) as port:
        mail = SmtpChannel(f"smtp://127.0.0.1:{port}", SENDER, timeout=timedelta(milliseconds=300))
        (delivery,) = mail.send([letter(1)]).values()

    assert delivery.result is DeliveryResult.LATER


def test_a_server_that_greets_a_byte_at_a_time_is_cut_off() -> None:
    with scripted((*TO_DATA, b"250 ok\r\n"), pause=0.3) as port:
        mail = SmtpChannel(f"smtp://127.0.0.1:{port}", SENDER, timeout=SOON, deadline=MOMENT)
        (delivery,) = mail.send([letter(1)]).values()

    assert delivery.result is DeliveryResult.LATER


@pytest.mark.parametrize("tls", [None, "starttls", "implicit"])
def test_a_server_that_takes_a_letter_a_byte_at_a_time_is_cut_off(tls: str | None, tmp_path: Path) -> None:
    with MailServer(tmp_path, tls=tls) as server:  # type: ignore[arg-type]
        port = free_port()
        url = server.url.replace(str(server.port), str(port))
        mail = SmtpChannel(url, SENDER, server.ca_file, SOON, MOMENT)
        with forwarding(("127.0.0.1", port), ("127.0.0.1", server.port), pause=0.3):
            found = mail.send([letter(1), letter(2)])

    # Of the first answer a 250 may have been heard before the cut, and then it counts.
    assert found[message_id(2)].result is DeliveryResult.LATER


def test_a_name_that_dns_does_not_know_is_tried_again_later() -> None:
    mail = SmtpChannel("smtp://no-such-host.invalid:2525", SENDER, timeout=SOON)
    (delivery,) = mail.send([letter(1)]).values()

    assert delivery.result is DeliveryResult.LATER


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example",
        "http://mail.example",
        "smtp://",
        "smtp://:25",
        "smtp://mail.example:x",
        "smtp://mail.example:99999",
        "smtps://canary@mail.example",
        "smtps://:canary@mail.example",
        "smtps://canary:@mail.example",
        "smtp://canary:canary@mail.example",
        "smtps://canary:canary@mail.example/canary",
        "smtps://mail.example?canary=1",
        "smtps://canary:can%FFary@mail.example",
        "smtps://[canary",
        "smtps://a:canary%00@mail.example",
    ],
)
def test_a_url_that_cannot_be_meant_is_said_without_quoting_it(url: str) -> None:
    with pytest.raises(ChannelError) as raised:
        SmtpChannel(url, SENDER)

    assert "LETHE_SMTP_URL" in raised.value.problem
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "sender",
    ["", "privacy", "ä@lethe.example", "a@b\r\nBcc: eve@people.example", "Name <>", "a b@lethe.example"],
)
def test_a_sender_that_is_no_address_is_said(sender: str) -> None:
    with pytest.raises(ChannelError, match="LETHE_MAIL_FROM"):
        SmtpChannel("smtp://127.0.0.1", sender)


def test_a_file_of_authorities_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    for file in (tmp_path / "ca.crt", tmp_path / "missing"):
        with pytest.raises(ChannelError, match="LETHE_SMTP_CA_FILE"):
            SmtpChannel("smtps://mail.example", SENDER, file)


def test_credentials_show_in_no_repr() -> None:
    mail = SmtpChannel("smtps://canary-user:canary-password@mail.example", SENDER)

    assert "canary" not in repr(mail) + repr(vars(mail))


def test_an_address_shows_in_no_repr_and_no_error() -> None:
    assert "ada" not in repr(parse_mailbox("ada@people.example"))
    with pytest.raises(NotAMailbox) as raised:
        parse_mailbox(PersonalText("ada lovelace@people.example"))
    assert "ada" not in str(raised.value)
