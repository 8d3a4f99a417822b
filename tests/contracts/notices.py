"""What every channel to people must do. Subclass `ChannelContract` and give it the fixture `world`.

`World` is the receiving end, seen without the channel's help: what arrived there, and how to make it refuse.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from lethe.domain.identifiers import PersonalText
from lethe.ports.notices import Channel, ChannelError, Delivery, DeliveryResult, Letter

AT = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
# All that mail has ever got wrong: lines of dots, From, long lines, blanks at ends, every script, emoji.
TEXT = "Grüße, 你好, مرحبا 👋\n\n.\n..\n.x\nFrom here\n" + "long " * 400 + "\ntrailing \nbare &lt; = =3D\n"
HTML = (
    f"<!DOCTYPE html>\n<html lang='de'><body><p>Grüße &amp; 你好 👋 {'long ' * 400}</p>\n.\n</body></html>\n"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A letter as it came out at the other end."""

    message_id: str
    to: str
    subject: str
    text: str
    language: str
    html: str | None


@dataclass
class World(ABC):
    """A channel under test, and the other end of it."""

    channel: Channel

    @abstractmethod
    def arrived(self) -> list[Arrived]:
        """Return what arrived, in order, also what arrived twice."""

    @abstractmethod
    def refuse(self, address: str) -> None:
        """Refuse letters to an address for good, quoting it in the answer."""

    @abstractmethod
    def postpone(self, address: str) -> None:
        """Refuse letters to an address for now, quoting it in the answer."""

    @abstractmethod
    def cut(self, address: str) -> None:
        """Take letters to an address, and drop the connection before saying so."""

    @abstractmethod
    def mend(self, address: str) -> None:
        """Take letters to an address again."""

    @abstractmethod
    def away(self) -> AbstractContextManager[None]:
        """Stop listening."""

    @abstractmethod
    def connections(self) -> int:
        """Return how many connections were made."""

    @abstractmethod
    def misconfigured(self) -> Channel:
        """Return a channel that no letter could ever pass, because of a setting."""

    @property
    @abstractmethod
    def secrets(self) -> Sequence[str]:
        """Return the texts of settings that no error may hold."""


def letter(number: int, to: str = "", **changed: str | None) -> Letter:
    """Return a letter to somebody; its Message-ID is of that number."""
    return Letter(
        message_id=message_id(number),
        to=PersonalText(to or f"person{number}@people.example"),
        subject=changed.get("subject")
        or "Eine behördliche Anfrage zu Ihrem Konto, schon wieder, und noch eine",
        text=changed.get("text") or TEXT,
        at=AT,
        language="de",
        html=changed.get("html", HTML),
    )


def message_id(number: int) -> str:
    return f"n{number}.0123456789abcdef@lethe.example"


def results(found: dict[str, Delivery]) -> list[DeliveryResult]:
    return [delivery.result for delivery in found.values()]


class ChannelContract:
    """`world` is a receiving end that nothing has reached yet."""

    def test_a_letter_arrives_word_for_word(self, world: World) -> None:
        sent = letter(1)

        assert world.channel.send([sent]) == {sent.message_id: Delivery(DeliveryResult.SENT)}
        (arrived,) = world.arrived()
        expected = Arrived(message_id(1), "person1@people.example", sent.subject, TEXT, "de", HTML)
        assert arrived == expected

    def test_a_letter_can_be_text_only(self, world: World) -> None:
        world.channel.send([letter(1, html=None)])

        assert [one.html for one in world.arrived()] == [None]

    def test_a_set_takes_one_connection_and_keeps_its_order(self, world: World) -> None:
        letters = [letter(number) for number in range(20)]
        found = world.channel.send(letters)

        assert list(found) == [one.message_id for one in letters]
        assert {one.result for one in found.values()} == {DeliveryResult.SENT}
        assert [one.message_id for one in world.arrived()] == [one.message_id for one in letters]
        assert world.connections() == 1

    def test_no_letters_are_no_connection(self, world: World) -> None:
        assert world.channel.send([]) == {}
        assert world.connections() == 0

    def test_one_that_is_refused_or_postponed_stops_nobody_else(self, world: World) -> None:
        world.refuse("gone@people.example")
        world.postpone("busy@people.example")
        found = world.channel.send(
            [letter(1), letter(2, "gone@people.example"), letter(3, "busy@people.example"), letter(4)]
        )

        assert [one.result.value for one in found.values()] == ["Sent", "Refused", "Later", "Sent"]
        assert [one.message_id for one in world.arrived()] == [message_id(1), message_id(4)]

    def test_what_was_postponed_is_sent_later_under_the_same_message_id(self, world: World) -> None:
        world.postpone("busy@people.example")
        world.channel.send([letter(3, "busy@people.example")])
        world.mend("busy@people.example")

        assert world.channel.send([letter(3, "busy@people.example")])[message_id(3)].result == "Sent"
        assert [one.message_id for one in world.arrived()] == [message_id(3)]

    def test_a_refusal_says_its_code_and_nothing_of_the_receivers_words(self, world: World) -> None:
        world.refuse("gone@people.example")
        (delivery,) = world.channel.send([letter(1, "gone@people.example")]).values()

        assert delivery.answer[:1] in {"4", "5"}
        assert delivery.answer[:3].isdecimal()
        assert "people.example" not in delivery.answer
        assert "not taken" not in delivery.answer

    def test_who_is_away_gets_every_letter_later(self, world: World) -> None:
        with world.away():
            found = world.channel.send([letter(1), letter(2)])

            assert [one.result.value for one in found.values()] == ["Later", "Later"]
            assert all(one.answer for one in found.values())
        assert world.channel.send([letter(1)])[message_id(1)].result is DeliveryResult.SENT

    def test_a_connection_that_breaks_after_a_letter_leaves_it_and_the_rest_for_later(
        self, world: World
    ) -> None:
        world.cut("cut@people.example")
        found = world.channel.send([letter(1), letter(2, "cut@people.example"), letter(3)])

        assert [one.result.value for one in found.values()] == ["Sent", "Later", "Later"]

        world.mend("cut@people.example")
        again = world.channel.send([letter(2, "cut@people.example"), letter(3)])
        assert {one.result.value for one in again.values()} == {"Sent"}
        arrived = [one.message_id for one in world.arrived()]
        assert arrived == [message_id(1), message_id(2), message_id(2), message_id(3)]

    @pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028"])
    def test_no_subject_becomes_a_header(self, world: World, line_break: str) -> None:
        subject = f"Hello{line_break}Bcc: eve@people.example{line_break}{line_break}Body"
        world.channel.send([letter(1, subject=subject)])

        (arrived,) = world.arrived()
        assert (arrived.to, arrived.text) == ("person1@people.example", TEXT)
        assert arrived.subject.split() == ["Hello", "Bcc:", "eve@people.example", "Body"]

    @pytest.mark.parametrize(
        "identifier",
        ["", "no-at", "a@b\r\nBcc: eve@people.example", "a@b\nX", "a b@c", "<a@b>", "a@b\0", "ä@b.example"],
    )
    def test_no_message_id_becomes_a_header(self, world: World, identifier: str) -> None:
        broken = Letter(identifier, PersonalText("a@people.example"), "s", "t", AT, "en")
        found = world.channel.send([broken, letter(2)])

        assert [one.result.value for one in found.values()] == ["Refused", "Sent"]
        assert [one.message_id for one in world.arrived()] == [message_id(2)]

    def test_a_setting_that_no_letter_can_mend_is_an_error_that_names_it(self, world: World) -> None:
        with pytest.raises(ChannelError) as raised:
            world.misconfigured().send([letter(1)])

        assert "LETHE_" in raised.value.remedy
        for secret in world.secrets:
            assert secret not in str(raised.value)
        assert world.arrived() == []

    def test_nothing_of_a_letter_or_a_credential_gets_into_logs_results_or_reprs(
        self, world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        world.refuse("canary-gone@people.example")
        world.postpone("canary-busy@people.example")
        world.cut("canary-cut@people.example")
        names = ("canary-gone", "canary-busy", "canary-cut", "canary-sent")
        letters = [
            letter(number, f"{name}@people.example", text="canary-text", html="<p>canary-html</p>")
            for number, name in enumerate(names)
        ]
        found = [world.channel.send([one]) for one in letters]
        with world.away():
            found.append(world.channel.send(letters))
        out, err = capfd.readouterr()
        # urllib3's own lines at DEBUG name host and path; the operator hears it from WARNING on.
        logged = [record for record in caplog.records if record.levelno > logging.DEBUG]
        shown = "\n".join([*(record.getMessage() for record in logged), out, err, repr(found), repr(letters)])
        shown += repr(world.channel)

        assert "canary" not in shown
        for secret in world.secrets:
            assert secret not in shown
        assert not any("canary" in record.getMessage() for record in caplog.records)

    def test_it_can_be_closed_and_used_again(self, world: World) -> None:
        world.channel.send([letter(1)])
        world.channel.close()

        assert world.channel.send([letter(2)])[message_id(2)].result is DeliveryResult.SENT
