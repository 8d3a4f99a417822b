"""Both channels keep the port's contract, at a real mail server and at a real receiver of webhooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from devtools.servers import MailServer
from lethe.adapters.notices.smtp import SmtpChannel
from lethe.adapters.notices.webhook import WebhookChannel
from lethe.ports.notices import Channel
from tests.adapters.notices.receiver import Receiver
from tests.contracts.notices import Arrived, ChannelContract, World

SENDER = "Example Privacy <privacy@lethe.example>"
SECRET = "whsec_Y2FuYXJ5LXNlY3JldC1vZi10aGUtd2ViaG9vaw=="


@dataclass
class Mailbox(World):
    server: MailServer

    def arrived(self) -> list[Arrived]:
        found = []
        for one in self.server.messages():
            message = one.message
            text, html = message.get_body(["plain"]), message.get_body(["html"])
            assert text is not None
            assert one.recipients == (message["To"],)
            found.append(
                Arrived(
                    str(message["Message-ID"]).strip("<>"),
                    str(message["To"]),
                    str(message["Subject"]),
                    _lines(text.get_content()),
                    str(message["Content-Language"]),
                    None if html is None else _lines(html.get_content()),
                )
            )
        return found

    def refuse(self, address: str) -> None:
        self.server.refuse(address, 550)

    def postpone(self, address: str) -> None:
        self.server.refuse(address, 451)

    def cut(self, address: str) -> None:
        self.server.cut_after_data(address)

    def mend(self, address: str) -> None:
        self.server.accept(address)

    @contextmanager
    def away(self) -> Iterator[None]:
        self.server.stop()
        yield
        self.server.start()

    def connections(self) -> int:
        return len(self.server.conversations())

    def misconfigured(self) -> Channel:
        return SmtpChannel(self.server.url_for("mailer", "wrong-pass"), SENDER, self.server.ca_file)

    @property
    def secrets(self) -> Sequence[str]:
        return ("mailer", "wrong-pass", "p@ss", "p%40ss")


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")  # as mail ends its lines


@pytest.fixture(scope="module", params=["starttls", "implicit", None])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    folder = tmp_path_factory.mktemp("mail")
    with MailServer(folder, tls=request.param, users={"mailer": "p@ss/wörd:%"}) as running:
        yield running


class TestSmtp(ChannelContract):
    @pytest.fixture
    def world(self, server: MailServer) -> World:
        server.clear()
        return Mailbox(SmtpChannel(server.url, SENDER, server.ca_file, timedelta(seconds=20)), server)


@dataclass
class Inbox(World):
    receiver: Receiver

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(
                one["data"]["messageId"],
                one["data"]["to"],
                " ".join(one["data"]["subject"].split()),
                one["data"]["text"],
                one["data"]["language"],
                one["data"]["html"],
            )
            for one in self.receiver.events
        ]

    def refuse(self, address: str) -> None:
        self.receiver.answer(address, 410)

    def postpone(self, address: str) -> None:
        self.receiver.answer(address, 500)

    def cut(self, address: str) -> None:
        self.receiver.cut.add(address)

    def mend(self, address: str) -> None:
        self.receiver.answers.pop(address, None)
        self.receiver.cut.discard(address)

    @contextmanager
    def away(self) -> Iterator[None]:
        self.channel.close()
        self.receiver.stop()
        yield
        self.receiver.start()

    def connections(self) -> int:
        return self.receiver.connections

    def misconfigured(self) -> Channel:
        self.receiver.answer("person1@people.example", 307, location="/elsewhere")
        return self.channel

    @property
    def secrets(self) -> Sequence[str]:
        return (SECRET, SECRET.removeprefix("whsec_"), "/hooks", "tenant")


class TestWebhook(ChannelContract):
    @pytest.fixture(params=["https", "http"])
    def world(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
        with Receiver(tmp_path, SECRET, tls=request.param == "https") as receiver:
            channel = WebhookChannel(receiver.url, SECRET, ca_file=receiver.ca_file)
            yield Inbox(channel, receiver)
            channel.close()
