//! Texts and what is like them: resource files, graph definitions, test descriptors, the state store's requests.

use processing::state_store::resp::Request;

/// A file of resources: read, or told where it is wrong.
pub fn resources(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = config::load_str("fuzz.yaml", text);
    for finding in &loaded.findings {
        assert!(finding.to_string().starts_with("fuzz.yaml"), "{finding}");
    }
    let _ = loaded.plans();
}

/// A graph definition, or a test descriptor.
pub fn definitions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(findings) = config::graph_definition("fuzz.yaml", text) {
        assert!(!findings.is_empty(), "it is refused without a word");
    }
    if let Err(findings) = config::test_descriptor("fuzz.yaml", text) {
        assert!(!findings.is_empty(), "it is refused without a word");
    }
}

/// A request to the state store.
pub fn state_store(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        assert!(!request.verb().is_empty() && request.key().len() <= data.len());
    }
}
