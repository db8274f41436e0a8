INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('1', 'refusal', 'churn-7', '{"action":"decide","at":"2026-11-21T10:00:00.123456+00:00","by":"ada","channel":"terminal","reason":"who asked may not decide","request_id":"churn-7"}', '0000000000000000000000000000000000000000000000000000000000000000', 'bd7a47ff87941543ce8fc25e16115f520f4d435521fdff93e3d22b1e7532e13a', '', '');
INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('2', 'waiver', '', '{"at":"2026-11-21T10:00:00.123456+00:00","authenticated":false,"channel":"terminal","environment":"production","gates":["auc by plan"],"model":"churn","reason":"a new plan","until":"2026-11-30T10:00:00.123456+00:00","waived_by":"grace"}', 'bd7a47ff87941543ce8fc25e16115f520f4d435521fdff93e3d22b1e7532e13a', 'ab39b44beac92318b33e13df74ee31dea4b254bd7b04b9c988aa789bfaca3ac7', 'b67d45dc2d72d307', '2faa8dade113c67850862ded76a2c851e22418eb3d50fd27bf8ac202b490dc1a46b80d7dd3e01a3ddb25a39baeee18b581e1ad554135987e164c4567c2159d00');
INSERT INTO ratchet_decision_chain ("number", "kind", "request_id", "body", "previous", "hash", "key_id", "signature")
VALUES ('3', 'decision', 'churn-7', '{"approved":true,"at":"2026-11-21T10:00:00.123456+00:00","authenticated":false,"by":"grace","channel":"terminal","digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","reason":"it''s fine","request_digest":"abbc9682cda9351eb01640cf67d44288c6bfe3a238db8ded800faee2a0802e24","request_id":"churn-7","roles":[]}', 'ab39b44beac92318b33e13df74ee31dea4b254bd7b04b9c988aa789bfaca3ac7', 'c823bc365fdbb77b2ebbc445ed6b1f518153545dc8c5f1bf56486505bfd46608', 'b67d45dc2d72d307', '68b53a5b53bf0a0cc3b3d082c85b5320b3254607bc556935249216ba95bfe951b2c0ffb03d9939066330905df462a89c7b93f0f49241d2bca61bea079dd2a80a');
INSERT INTO ratchet_deliveries ("id", "sender", "event", "repository", "ref", "commit", "digest", "change", "received_at")
VALUES ('github:a', 'github', 'push', 'acme/models', 'main', 'cccccccccccccccccccccccccccccccccccccccc', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', '{"kind":"push"}', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_notes ("subject_id", "kind", "text", "at")
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
INSERT INTO ratchet_signals ("key", "cause", "event", "state", "model", "environment", "severity", "owner", "summary", "at", "links", "acknowledged_by")
VALUES ('k1', 'churn/local/drift', 'model.drift.detected', 'raised', 'churn', 'local', 'warning', 'ann', '“tenure” moved by 0.4', '2026-11-21T10:00:00.123456+00:00', '{"run": "http://here/\u00e4"}', '');
INSERT INTO ratchet_attempts ("message_id", "number", "delivered", "error", "at")
VALUES ('m1', '1', '0', 'down', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_turns ("delivery", "number", "requested_by", "at")
VALUES ('github:a', '0', 'the sender', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_ends ("turn", "state", "reason", "at")
VALUES ('1', 'started', '1 run', '2026-11-21T10:00:00.123456+00:00');
INSERT INTO ratchet_delivery_runs ("turn", "run_id", "rule", "deployment")
VALUES ('1', 'run-1', 'churn', 'retrain/retrain');
INSERT INTO ratchet_delivery_reports ("run_id", "status", "text", "final", "at")
VALUES ('run-1', 'success', '# better', '1', '2026-11-21T10:00:00.123456+00:00');
