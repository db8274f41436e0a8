CREATE TABLE ratchet_effects (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "key" TEXT NOT NULL,
    state VARCHAR(6) NOT NULL,
    text TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    UNIQUE ("key", state)
);
CREATE TRIGGER ratchet_effects_UPDATE BEFORE UPDATE ON ratchet_effects
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_effects_DELETE BEFORE DELETE ON ratchet_effects
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_requests (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    environment TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    evidence TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requested_at VARCHAR(32) NOT NULL,
    expires_at VARCHAR(32) NOT NULL,
    flow_run_id TEXT NOT NULL,
    approvers TEXT NOT NULL,
    four_eyes BOOLEAN NOT NULL,
    authors TEXT NOT NULL,
    approvals INTEGER NOT NULL,
    roles TEXT NOT NULL,
    UNIQUE (id)
);
CREATE TRIGGER ratchet_requests_UPDATE BEFORE UPDATE ON ratchet_requests
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_requests_DELETE BEFORE DELETE ON ratchet_requests
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_decision_chain (
    number INTEGER NOT NULL,
    kind VARCHAR(8) NOT NULL,
    request_id TEXT NOT NULL,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    key_id TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (number),
    UNIQUE (previous),
    UNIQUE (hash)
);
CREATE INDEX ix_ratchet_decision_chain_request_id ON ratchet_decision_chain (request_id);
CREATE TRIGGER ratchet_decision_chain_UPDATE BEFORE UPDATE ON ratchet_decision_chain
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_decision_chain_DELETE BEFORE DELETE ON ratchet_decision_chain
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_deployments (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    environment TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    "by" TEXT NOT NULL,
    reason TEXT NOT NULL,
    request_id TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    UNIQUE (id)
);
CREATE TRIGGER ratchet_deployments_UPDATE BEFORE UPDATE ON ratchet_deployments
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_deployments_DELETE BEFORE DELETE ON ratchet_deployments
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_signals (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "key" TEXT NOT NULL,
    cause TEXT NOT NULL,
    event TEXT NOT NULL,
    state TEXT NOT NULL,
    model TEXT NOT NULL,
    environment TEXT NOT NULL,
    severity TEXT NOT NULL,
    owner TEXT NOT NULL,
    sentence TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    links TEXT NOT NULL,
    "by" TEXT NOT NULL,
    UNIQUE ("key")
);
CREATE INDEX ratchet_signals_by_cause ON ratchet_signals (cause);
CREATE TRIGGER ratchet_signals_UPDATE BEFORE UPDATE ON ratchet_signals
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_signals_DELETE BEFORE DELETE ON ratchet_signals
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_messages (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    cause TEXT NOT NULL,
    occasion TEXT NOT NULL,
    channel TEXT NOT NULL,
    severity TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    UNIQUE (id)
);
CREATE TRIGGER ratchet_messages_UPDATE BEFORE UPDATE ON ratchet_messages
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_messages_DELETE BEFORE DELETE ON ratchet_messages
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_deliveries (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    sender TEXT NOT NULL,
    event TEXT NOT NULL,
    repository TEXT NOT NULL,
    ref TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    digest TEXT NOT NULL,
    change TEXT NOT NULL,
    received_at VARCHAR(32) NOT NULL,
    UNIQUE (id)
);
CREATE INDEX ratchet_deliveries_digest ON ratchet_deliveries (sender, digest);
CREATE INDEX ratchet_deliveries_ref ON ratchet_deliveries (repository, ref);
CREATE TRIGGER ratchet_deliveries_UPDATE BEFORE UPDATE ON ratchet_deliveries
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_deliveries_DELETE BEFORE DELETE ON ratchet_deliveries
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_delivery_notes (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    about TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    at VARCHAR(32) NOT NULL
);
CREATE TRIGGER ratchet_delivery_notes_UPDATE BEFORE UPDATE ON ratchet_delivery_notes
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_delivery_notes_DELETE BEFORE DELETE ON ratchet_delivery_notes
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_leases (
    name TEXT NOT NULL,
    holder TEXT NOT NULL,
    number BIGINT NOT NULL,
    until VARCHAR(32) NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE ratchet_attempts (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    delivered BOOLEAN NOT NULL,
    said TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    UNIQUE (message_id, number),
    FOREIGN KEY(message_id) REFERENCES ratchet_messages (id)
);
CREATE TRIGGER ratchet_attempts_UPDATE BEFORE UPDATE ON ratchet_attempts
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_attempts_DELETE BEFORE DELETE ON ratchet_attempts
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_delivery_turns (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    delivery TEXT NOT NULL,
    number INTEGER NOT NULL,
    asked_by TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    UNIQUE (delivery, number),
    FOREIGN KEY(delivery) REFERENCES ratchet_deliveries (id)
);
CREATE TRIGGER ratchet_delivery_turns_UPDATE BEFORE UPDATE ON ratchet_delivery_turns
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_delivery_turns_DELETE BEFORE DELETE ON ratchet_delivery_turns
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_delivery_ends (
    turn INTEGER NOT NULL,
    state VARCHAR(8) NOT NULL,
    reason TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (turn),
    FOREIGN KEY(turn) REFERENCES ratchet_delivery_turns (sequence)
);
CREATE TRIGGER ratchet_delivery_ends_UPDATE BEFORE UPDATE ON ratchet_delivery_ends
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_delivery_ends_DELETE BEFORE DELETE ON ratchet_delivery_ends
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_delivery_runs (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    turn INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    rule TEXT NOT NULL,
    deployment TEXT NOT NULL,
    FOREIGN KEY(turn) REFERENCES ratchet_delivery_turns (sequence),
    UNIQUE (run_id)
);
CREATE INDEX ratchet_delivery_runs_turn ON ratchet_delivery_runs (turn);
CREATE TRIGGER ratchet_delivery_runs_UPDATE BEFORE UPDATE ON ratchet_delivery_runs
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_delivery_runs_DELETE BEFORE DELETE ON ratchet_delivery_runs
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TABLE ratchet_delivery_reports (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    said TEXT NOT NULL,
    text TEXT NOT NULL,
    final BOOLEAN NOT NULL,
    at VARCHAR(32) NOT NULL,
    FOREIGN KEY(run_id) REFERENCES ratchet_delivery_runs (run_id)
);
CREATE INDEX ratchet_delivery_reports_run ON ratchet_delivery_reports (run_id, final);
CREATE TRIGGER ratchet_delivery_reports_UPDATE BEFORE UPDATE ON ratchet_delivery_reports
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER ratchet_delivery_reports_DELETE BEFORE DELETE ON ratchet_delivery_reports
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
