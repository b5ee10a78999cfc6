//! How each kind of property value is read, checked and written.

use crate::packet::QoS;
use crate::packet::error::{DecodeError, EncodeError, ErrorKind};
use crate::packet::wire::{self, Reader};
use crate::topic;

macro_rules! kind {
    ($name:ident $type:ty, |$reader:ident| $read:expr, |$value:ident, $out:ident| $write:expr) => {
        pub mod $name {
            use super::*;

            #[inline]
            #[allow(clippy::extra_unused_lifetimes)] // only values that borrow use it
            pub fn read<'a>($reader: &mut Reader<'a>) -> Result<$type, DecodeError> {
                $read
            }

            #[allow(clippy::extra_unused_lifetimes)] // only values that borrow use it
            pub fn write<'a>($value: $type, $out: &mut Vec<u8>) -> Result<(), EncodeError> {
                $write
            }
        }
    };
}

kind!(
    flag bool,
    |reader| match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol("a property that is 0 or 1 has another value")),
    },
    |value, out| {
        out.push(value.into());
        Ok(())
    }
);
kind!(
    maximum_qos QoS,
    |reader| match reader.u8()? {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        _ => Err(DecodeError::protocol("the maximum QoS is neither 0 nor 1")), // v5 §3.2.2.3.4
    },
    |value, out| {
        if value == QoS::ExactlyOnce {
            return Err(EncodeError::new("a maximum QoS of 2 is said by leaving the property out"));
        }
        out.push(value as u8);
        Ok(())
    }
);
kind!(two u16, |reader| reader.u16(), |value, out| {
    wire::put_u16(value, out);
    Ok(())
});
kind!(
    two_nonzero u16,
    |reader| match reader.u16()? {
        0 => Err(DecodeError::protocol("the receive maximum is 0")), // v5 §3.1.2.11.3
        value => Ok(value),
    },
    |value, out| {
        if value == 0 {
            return Err(EncodeError::new("a receive maximum is not 0"));
        }
        two::write(value, out)
    }
);
kind!(
    alias u16,
    |reader| match reader.u16()? {
        0 => Err(DecodeError::new(ErrorKind::TopicAliasInvalid, "the topic alias is 0")), // [MQTT-3.3.2-8]
        value => Ok(value),
    },
    |value, out| {
        if value == 0 {
            return Err(EncodeError::new("a topic alias is not 0"));
        }
        two::write(value, out)
    }
);
kind!(four u32, |reader| reader.u32(), |value, out| {
    out.extend_from_slice(&value.to_be_bytes());
    Ok(())
});
kind!(
    four_nonzero u32,
    |reader| match reader.u32()? {
        0 => Err(DecodeError::protocol("the maximum packet size is 0")), // v5 §3.1.2.11.4
        value => Ok(value),
    },
    |value, out| {
        if value == 0 {
            return Err(EncodeError::new("a maximum packet size is not 0"));
        }
        four::write(value, out)
    }
);
kind!(
    identifier u32,
    |reader| match reader.varint()? {
        0 => Err(DecodeError::protocol("the subscription identifier is 0")), // v5 §3.8.2.1.2
        value => Ok(value),
    },
    |value, out| {
        if value == 0 {
            return Err(EncodeError::new("a subscription identifier is not 0"));
        }
        wire::put_varint(value as usize, out)
    }
);
// [MQTT-3.3.2-19]
kind!(text &'a str, |reader| reader.text(), |value, out| wire::put_text(value, out));
kind!(
    topic_name &'a str,
    |reader| {
        let name = reader.text()?;
        // [MQTT-3.3.2-13], [MQTT-3.3.2-14], and [MQTT-4.7.3-1] because it is used as a topic name.
        match topic::validate_name(name) {
            Ok(()) => Ok(name),
            Err(_) => Err(DecodeError::protocol("the response topic is no topic name")),
        }
    },
    |value, out| match topic::validate_name(value) {
        Ok(()) => wire::put_text(value, out),
        Err(_) => Err(EncodeError::new("the response topic is no topic name")),
    }
);
kind!(binary &'a [u8], |reader| reader.binary(), |value, out| wire::put_binary(value, out));
// [MQTT-1.5.7-1]
kind!(pair(&'a str, &'a str), |reader| Ok((reader.text()?, reader.text()?)), |value, out| {
    wire::put_text(value.0, out)?;
    wire::put_text(value.1, out)
});
