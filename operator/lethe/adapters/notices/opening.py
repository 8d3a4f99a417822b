"""Which channel the settings mean, and the letters for it. Nothing is imported before it is used.

An operator without notices pays no memory for templates (Jinja2, Babel) and mail.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import idna

from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.ports.notices import Channel, ChannelError, NoticeFacts, NoticeRenderer, Recipient, Written

if TYPE_CHECKING:
    from lethe.adapters.notices.letters import TemplateWriter

_NOT_IN_A_MESSAGE_ID = re.compile(r"[^a-z0-9.-]+")


def open_channel(
    *,
    smtp_url: str | None,
    mail_from: str | None,
    smtp_ca_file: Path | None,
    webhook_url: str | None,
    webhook_secret: str | None,
    webhook_ca_file: Path | None,
    resolver: Resolver = ANYWHERE,
) -> Channel | None:
    """Return the channel that the settings mean: SMTP if there is one, else the webhook; `None`: neither.

    Nothing is connected to. Raises `ChannelError`, which names the setting and never what stands in it.
    """
    if smtp_url:
        from lethe.adapters.notices.smtp import SmtpChannel  # noqa: PLC0415 - see above

        return SmtpChannel(smtp_url, mail_from or "", smtp_ca_file, resolver=resolver)
    if webhook_url:
        from lethe.adapters.notices.webhook import WebhookChannel  # noqa: PLC0415

        return WebhookChannel(webhook_url, webhook_secret or "", ca_file=webhook_ca_file, resolver=resolver)
    return None


def open_renderer(folder: Path | None) -> NoticeRenderer:
    """Return who writes the letters; `folder` holds the operator's own templates.

    Without a folder the packaged templates are loaded with the first letter.
    Raises `BrokenTemplate` (of `markup`), which names each broken file, its line and the remedy.
    """
    renderer = _WriterOnDemand(folder)
    if folder is not None:
        renderer.templates.check()
    return renderer


def message_id_domain(*, smtp_url: str | None, mail_from: str | None, webhook_url: str | None) -> str | None:
    """Return what stands behind the @ in a Message-ID, for the channel that `open_channel` returns.

    The sender's domain, or the webhook's host: ASCII, in lower case, and any part that could not stand
    in a Message-ID (`_`, an IPv6 address) with hyphens. `None`: no channel. Raises `ChannelError`.
    """
    if smtp_url:
        from lethe.adapters.notices.smtp import sender_of  # noqa: PLC0415

        return _fit(sender_of(mail_from or "").domain)
    if webhook_url:
        try:
            host = urlsplit(webhook_url.strip()).hostname or ""
            return _fit(host if host.isascii() else idna.encode(host, uts46=True).decode("ascii"))
        except ValueError:  # idna's own errors are some
            raise ChannelError(
                "LETHE_WEBHOOK_URL names no host", "write LETHE_WEBHOOK_URL as https://host/path"
            ) from None
    return None


def _fit(domain: str) -> str:
    return _NOT_IN_A_MESSAGE_ID.sub("-", domain.lower()).strip("-.") or "localhost"


class _WriterOnDemand:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._renderer: TemplateWriter | None = None

    @property
    def templates(self) -> TemplateWriter:
        if self._renderer is None:
            from lethe.adapters.notices.letters import TemplateWriter  # noqa: PLC0415

            self._renderer = TemplateWriter(self._folder)
        return self._renderer

    def to_user(self, facts: NoticeFacts, recipient: Recipient) -> Written:
        return self.templates.to_user(facts, recipient)

    def to_authority(self, facts: NoticeFacts) -> Written:
        return self.templates.to_authority(facts)
