"""E-mail by SMTP (RFC 5321). The id is the Message-ID, by which mail programs detect repeats."""

import smtplib
import ssl
from email.message import EmailMessage
from typing import Literal

from pydantic import Field, SecretStr

from blocks.common.errors import Rejected, Unavailable
from blocks.notifications.base import Notification, RatchetNotificationBlock
from runtime.foreign_text import header_text, one_line, visible

TRANSIENT_REPLY_CODES = range(400, 500)
"""Transient reply codes of SMTP (RFC 5321, section 4.2.1)."""


class SmtpEmail(RatchetNotificationBlock):
    """Sends e-mail over an SMTP server."""

    _block_type_name = "Ratchet e-mail (SMTP)"
    _block_type_slug = "ratchet-smtp-email"

    host: str = Field(description="The SMTP server's name.")
    port: int = Field(587, description="Its port: 587 with STARTTLS, 465 with TLS from the start, 25 for a relay.")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="none only for a relay on this host.")
    sender: str = Field(description="Sender address.")
    recipients: tuple[str, ...] = Field(min_length=1, description="Recipient addresses.")
    user: str = Field("", description="The user to sign in as. Empty: without signing in.")
    password: SecretStr = Field(SecretStr(""), description="The user's password.")
    timeout: float = Field(20.0, gt=0, description="Seconds to wait for the server.")

    def deliver(self, notice: Notification) -> None:
        """Send one e-mail to all recipients. If the server accepts it for some of them, it counts as sent."""
        mail = EmailMessage()
        mail["Subject"], mail["From"], mail["To"] = one_line(notice.subject), self.sender, ", ".join(self.recipients)
        own_id = "".join(c for c in notice.id if c.isascii() and c.isalnum()) or "notice"
        mail["Message-ID"] = f"<{own_id}@ratchet>"
        mail["X-Ratchet-Cause"], mail["X-Ratchet-Severity"] = (
            header_text(notice.cause or "-"),
            header_text(notice.severity),
        )
        mail.set_content(visible(notice.body, keep="\n"))
        try:
            with self._connected() as server:
                if self.user:
                    server.login(self.user, self.password.get_secret_value())
                server.send_message(mail)
        except smtplib.SMTPResponseException as cause:
            error_class = Unavailable if cause.smtp_code in TRANSIENT_REPLY_CODES else Rejected
            raise error_class(f"the SMTP server {self.host}:{self.port} answered {cause.smtp_code}") from cause
        except smtplib.SMTPRecipientsRefused as cause:
            refused = ", ".join(sorted(cause.recipients))
            raise Rejected(f"the SMTP server {self.host}:{self.port} refused every recipient: {refused}") from cause
        except (OSError, smtplib.SMTPException) as cause:
            problem = f"the SMTP server {self.host}:{self.port} cannot be used: {type(cause).__name__}"
            raise Unavailable(problem) from cause

    def _connected(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=ssl.create_default_context())
        server = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        return server
