//! Bodies of `POST /v1/push`, compared with a plain reading of the same JSON.

use gateway::control::api::read_push;
use gateway::limits::PAYLOAD_BYTES_MAX;
use serde_json::Value;

/// A body of any bytes: what is dispatched is what it says, and what is refused is the caller's fault.
pub fn bodies(body: &[u8]) {
    match read_push(body) {
        Err(status) => assert!(matches!(status, 400 | 413), "{status}"),
        Ok(pushes) => {
            let Ok(said) = serde_json::from_slice::<Value>(body) else {
                // JSON that is passed on as written may nest deeper than a reader goes, or hold half a surrogate pair.
                assert!(body.windows(6).any(|text| text == b"\"json\""), "what is taken is JSON");
                return;
            };
            let said = said.as_array().cloned().unwrap_or_else(|| vec![said]);
            assert_eq!(said.len(), pushes.len());
            for (said, (operation, payload)) in said.iter().zip(&pushes) {
                assert_eq!(said["operation"].as_i64(), Some(i64::from(*operation)));
                assert!(payload.len() <= PAYLOAD_BYTES_MAX);
                let said = &said["payload"];
                if let Some(text) = said["text"].as_str() {
                    assert_eq!(text.as_bytes(), payload);
                } else if said["base64"].is_null() {
                    assert_eq!(serde_json::from_slice::<Value>(payload).ok().as_ref(), Some(&said["json"]));
                }
            }
        }
    }
}
