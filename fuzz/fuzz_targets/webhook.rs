//! The headers of a webhook: its id, its time and its signatures, a line each.

#![no_main]

use exchequer::config::WebhookSecret;
use exchequer::standard_webhooks::{Message, sign};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let message = Message {
        id: line(),
        timestamp: line(),
        signatures: line(),
        body: text.as_bytes(),
    };
    let secret = WebhookSecret(vec![7; 24].into());
    if message.has_id()
        && let Some(at) = message.sent_at()
    {
        let ours = sign(&secret, message.id, at, message.body);
        let known = message.timestamp == at.to_string();
        // Among whatever else stands there.
        let signatures = format!("{} {ours}", message.signatures);
        let signed = Message {
            signatures: &signatures,
            ..message
        };
        assert!(!known || signed.has_signature() && signed.is_signed_with(&secret));
    }
    assert!(!message.is_signed_with(&secret) || message.has_signature());
});
