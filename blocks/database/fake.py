"""The fake ledger block for tests: the four fake ports, in memory."""

from pydantic import PrivateAttr

from blocks.approvals.fake import FakeApprovals
from blocks.common.trust import ChainTrust
from blocks.database.ledger import Ledger
from blocks.effects.fake import FakeEffects
from blocks.inbox.fake import FakeInbox
from blocks.outbox.fake import FakeOutbox


class FakeLedger(Ledger):
    """A ledger in memory, for tests, as long as the object exists. Nothing else changes its rows: none is sealed."""

    _block_type_name = "Ratchet ledger (fake, in memory)"
    _block_type_slug = "ratchet-ledger-fake"

    _approvals: FakeApprovals = PrivateAttr(default_factory=FakeApprovals)
    _effects: FakeEffects = PrivateAttr(default_factory=FakeEffects)
    _inbox: FakeInbox = PrivateAttr(default_factory=FakeInbox)
    _outbox: FakeOutbox = PrivateAttr(default_factory=FakeOutbox)

    def approvals(self, trust: ChainTrust | None = None) -> FakeApprovals:
        """Return the approvals of this ledger."""
        return self._approvals

    def effects(self, trust: ChainTrust | None = None) -> FakeEffects:
        """Return the effects of this ledger."""
        return self._effects

    def inbox(self) -> FakeInbox:
        """Return the inbox of this ledger."""
        return self._inbox

    def outbox(self) -> FakeOutbox:
        """Return the outbox of this ledger."""
        return self._outbox
