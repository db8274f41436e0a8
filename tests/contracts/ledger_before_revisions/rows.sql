INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('1', 'refusal', 'churn-7', '{"action":"decide","at":"2026-11-21T10:00:00.123456+00:00","by":"ada","channel":"terminal","problem":"who asked may not decide","request_id":"churn-7"}', '0000000000000000000000000000000000000000000000000000000000000000', '6ef58653d03100cd38ec8be14ea9430354c3861325924715b0bc4798f521e899', '', '');
INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('2', 'waiver', '', '{"at":"2026-11-21T10:00:00.123456+00:00","authenticated":false,"channel":"terminal","environment":"production","gates":["auc by plan"],"model":"churn","reason":"a new plan","until":"2026-11-30T10:00:00.123456+00:00","waived_by":"grace"}', '6ef58653d03100cd38ec8be14ea9430354c3861325924715b0bc4798f521e899', '4aa81526b71dab0cec54068c19473c8a729953d8413772448519eb259ea4260b', 'b67d45dc2d72d307', '105df4720323ff3d43c669397cab7bcbf20ac9dd5cbddc6942fdd688cc626730d2140b41ccd20c0c59ad5b1c248210c254832b57f18c7dfce9852f5a7ba7e40c');
INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('3', 'decision', 'churn-7', '{"approved":true,"at":"2026-11-21T10:00:00.123456+00:00","authenticated":false,"by":"grace","channel":"terminal","digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","reason":"it''s fine","request_digest":"abbc9682cda9351eb01640cf67d44288c6bfe3a238db8ded800faee2a0802e24","request_id":"churn-7","roles":[]}', '4aa81526b71dab0cec54068c19473c8a729953d8413772448519eb259ea4260b', '4069966afbdd3a787953164bafe445585f4904b696e78c585a6c4145562047ff', 'b67d45dc2d72d307', 'f39e524746be53936d7e0bb90ad5e6247187e91572d770898103ce5cf65bf05a43d823ca855f961ab2f5686b5fbc57e0ad2587484b76d679a1642d151d97190e');
INSERT INTO ratchet_deliveries ("id", "sender", "event", "repository", "ref", "commit", "digest", "change", "received_at")
VALUES ('github:a', 'github', 'push', 'acme/models', 'main', 'cccccccccccccccccccccccccccccccccccccccc', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', '{"kind":"push"}', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_notes ("about", "kind", "text", "at")
VALUES ('github:', 'forged', 'no signature', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_deployments ("id", "model", "environment", "version", "digest", "action", "status", "by", "reason", "request_id", "at")
VALUES ('dep-1', 'churn', 'production', '7', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', 'deploy', 'serving', 'ada', 'approved', 'churn-7', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_effects ("key", "state", "text", "at")
VALUES ('deploy:churn-7', 'intent', 'golden', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_effects ("key", "state", "text", "at")
VALUES ('deploy:churn-7', 'done', 'serves', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_leases ("name", "holder", "number", "until")
VALUES ('git dispatcher', 'one', '1', '2026-11-21T10:00:15.123456+00:00');
INSERT INTO ratchet_messages ("id", "cause", "occasion", "channel", "severity", "subject", "body", "at")
VALUES ('m1', 'churn/local/drift', 'new', 'team', 'warning', 'subject', 'body', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_requests ("id", "model", "environment", "version", "digest", "evidence", "requested_by", "requested_at", "expires_at", "flow_run_id", "approvers", "four_eyes", "authors", "approvals", "roles")
VALUES ('churn-7', 'churn', 'production', '7', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', '{"auc":0.84,"note":"“ünïcode” 100 %"}', 'ada', '2026-11-21T10:00:00.123456+00:00', '2026-11-28T10:00:00.123456+00:00', 'run-1', '["grace", "linus"]', '1', '["Nia <nia@example.com>"]', '1', '["model-risk"]');
INSERT INTO ratchet_signals ("key", "cause", "event", "state", "model", "environment", "severity", "owner", "sentence", "at", "links", "by")
VALUES ('k1', 'churn/local/drift', 'model.drift.detected', 'raised', 'churn', 'local', 'warning', 'ann', '“tenure” moved by 0.4', '2026-11-21T10:00:00.123456+00:00', '{"run": "http://here/\u00e4"}', '');
INSERT INTO ratchet_attempts ("message_id", "number", "delivered", "said", "at")
VALUES ('m1', '1', '0', 'down', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_turns ("delivery", "number", "asked_by", "at")
VALUES ('github:a', '0', 'the sender', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_ends ("turn", "state", "reason", "at")
VALUES ('1', 'started', '1 run', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_runs ("turn", "run_id", "rule", "deployment")
VALUES ('1', 'run-1', 'churn', 'retrain/retrain');
INSERT INTO ratchet_delivery_reports ("run_id", "said", "text", "final", "at")
VALUES ('run-1', 'success', '# better', '1', '2026-11-21T10:00:00.123456+00:00');
