//! Packets put together by hand, without the codec that is tested.

/// A packet out of its first byte and the parts of its body.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    bytes.extend(varint(body.len()));
    bytes.extend(body);
    bytes
}

/// A string or binary field.
pub fn field(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut bytes = (content.len() as u16).to_be_bytes().to_vec();
    bytes.extend(content);
    bytes
}

/// Properties with their length in front.
pub fn properties(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut bytes = varint(content.len());
    bytes.extend(content);
    bytes
}

/// A property whose value is a string or binary field.
pub fn text_property(id: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![id];
    bytes.extend(field(content));
    bytes
}

/// A user property.
pub fn user(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = text_property(0x26, name);
    bytes.extend(field(value));
    bytes
}

pub fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
