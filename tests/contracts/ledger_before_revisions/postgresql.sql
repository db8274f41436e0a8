CREATE OR REPLACE FUNCTION ratchet_only_added_to() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is only added to'; END $$;
CREATE TABLE ratchet_effects (
    sequence BIGSERIAL NOT NULL,
    key TEXT NOT NULL,
    state VARCHAR(6) NOT NULL,
    text TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (key, state)
);
CREATE TRIGGER ratchet_effects_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_effects
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_requests (
    sequence BIGSERIAL NOT NULL,
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
    PRIMARY KEY (sequence),
    UNIQUE (id)
);
CREATE TRIGGER ratchet_requests_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_requests
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_decision_chain (
    number BIGINT NOT NULL,
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
CREATE TRIGGER ratchet_decision_chain_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_decision_chain
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_deployments (
    sequence BIGSERIAL NOT NULL,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    environment TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    by TEXT NOT NULL,
    reason TEXT NOT NULL,
    request_id TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (id)
);
CREATE TRIGGER ratchet_deployments_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_deployments
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_signals (
    sequence BIGSERIAL NOT NULL,
    key TEXT NOT NULL,
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
    by TEXT NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (key)
);
CREATE INDEX ratchet_signals_by_cause ON ratchet_signals (cause);
CREATE TRIGGER ratchet_signals_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_signals
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_messages (
    sequence BIGSERIAL NOT NULL,
    id TEXT NOT NULL,
    cause TEXT NOT NULL,
    occasion TEXT NOT NULL,
    channel TEXT NOT NULL,
    severity TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (id)
);
CREATE TRIGGER ratchet_messages_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_messages
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_deliveries (
    sequence BIGSERIAL NOT NULL,
    id TEXT NOT NULL,
    sender TEXT NOT NULL,
    event TEXT NOT NULL,
    repository TEXT NOT NULL,
    ref TEXT NOT NULL,
    commit TEXT NOT NULL,
    digest TEXT NOT NULL,
    change TEXT NOT NULL,
    received_at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (id)
);
CREATE INDEX ratchet_deliveries_digest ON ratchet_deliveries (sender, digest);
CREATE INDEX ratchet_deliveries_ref ON ratchet_deliveries (repository, ref);
CREATE TRIGGER ratchet_deliveries_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_deliveries
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_delivery_notes (
    sequence BIGSERIAL NOT NULL,
    about TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence)
);
CREATE TRIGGER ratchet_delivery_notes_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_delivery_notes
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_leases (
    name TEXT NOT NULL,
    holder TEXT NOT NULL,
    number BIGINT NOT NULL,
    until VARCHAR(32) NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE ratchet_attempts (
    sequence BIGSERIAL NOT NULL,
    message_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    delivered BOOLEAN NOT NULL,
    said TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (message_id, number),
    FOREIGN KEY(message_id) REFERENCES ratchet_messages (id)
);
CREATE TRIGGER ratchet_attempts_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_attempts
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_delivery_turns (
    sequence BIGSERIAL NOT NULL,
    delivery TEXT NOT NULL,
    number INTEGER NOT NULL,
    asked_by TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence),
    UNIQUE (delivery, number),
    FOREIGN KEY(delivery) REFERENCES ratchet_deliveries (id)
);
CREATE TRIGGER ratchet_delivery_turns_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_delivery_turns
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_delivery_ends (
    turn BIGINT NOT NULL,
    state VARCHAR(8) NOT NULL,
    reason TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (turn),
    FOREIGN KEY(turn) REFERENCES ratchet_delivery_turns (sequence)
);
CREATE TRIGGER ratchet_delivery_ends_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_delivery_ends
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_delivery_runs (
    sequence BIGSERIAL NOT NULL,
    turn BIGINT NOT NULL,
    run_id TEXT NOT NULL,
    rule TEXT NOT NULL,
    deployment TEXT NOT NULL,
    PRIMARY KEY (sequence),
    FOREIGN KEY(turn) REFERENCES ratchet_delivery_turns (sequence),
    UNIQUE (run_id)
);
CREATE INDEX ratchet_delivery_runs_turn ON ratchet_delivery_runs (turn);
CREATE TRIGGER ratchet_delivery_runs_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_delivery_runs
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
CREATE TABLE ratchet_delivery_reports (
    sequence BIGSERIAL NOT NULL,
    run_id TEXT NOT NULL,
    said TEXT NOT NULL,
    text TEXT NOT NULL,
    final BOOLEAN NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (sequence),
    FOREIGN KEY(run_id) REFERENCES ratchet_delivery_runs (run_id)
);
CREATE INDEX ratchet_delivery_reports_run ON ratchet_delivery_reports (run_id, final);
CREATE TRIGGER ratchet_delivery_reports_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON ratchet_delivery_reports
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to();
