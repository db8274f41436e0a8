INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('1', 'refusal', 'churn-7', '{"action":"decide","at":"2026-11-21T10:00:00.123456+00:00","by":"ada","channel":"terminal","problem":"who asked may not decide","request_id":"churn-7"}', '0000000000000000000000000000000000000000000000000000000000000000', '6ef58653d03100cd38ec8be14ea9430354c3861325924715b0bc4798f521e899', '', '');
INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('2', 'waiver', '', '{"at":"2026-11-21T10:00:00.123456+00:00","authenticated":false,"by":"grace","channel":"terminal","environment":"production","gates":["auc by plan"],"model":"churn","reason":"a new plan","until":"2026-11-30T10:00:00.123456+00:00"}', '6ef58653d03100cd38ec8be14ea9430354c3861325924715b0bc4798f521e899', '1991edf920921ada0ac4cf9588f4ef6403342192c51b266572c9c5735268d0ea', 'b67d45dc2d72d307', '426d3f42214d8d100fe49135eed168dfed1ba9ed9f33172a7d5c5eac6d7e5dbec0716e849c1ac12b6f842c78de7e1fb96fedde89ca3bdf0d6daeb934f39e370e');
INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('3', 'decision', 'churn-7', '{"approved":true,"at":"2026-11-21T10:00:00.123456+00:00","authenticated":false,"by":"grace","channel":"terminal","digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","reason":"it''s fine","request_digest":"abbc9682cda9351eb01640cf67d44288c6bfe3a238db8ded800faee2a0802e24","request_id":"churn-7","roles":[]}', '1991edf920921ada0ac4cf9588f4ef6403342192c51b266572c9c5735268d0ea', '10a4e6f844c706bcdfafc9401e92b78d35ee229f4cc773e903e597ff138b38ac', 'b67d45dc2d72d307', 'a74967d0637b91b94c662e292840360f2d9b42a4f3d98b6491a4ce5779675314a7db007bcd72152e4605faf31829ff3588c8f8b52084ff98f9001d3147910c0a');
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
