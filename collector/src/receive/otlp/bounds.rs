//! How much an OTLP request may hold, counted in its bytes before anything is made of them.
//!
//! Two bytes on the wire can be a hundred and fifty in memory: an empty point in a list. So the bytes are walked first,
//! without allocating: every field that may be a message counts.

use crate::receive::wire::{Fields, Malformed, Value};

/// Points, attributes and all else that has fields: fifty thousand points of ten attributes, in some 50 MB.
const ELEMENTS_MAX: usize = 500_000;
/// Messages within messages: a point's attribute is the seventh, a list in it the ninth.
const DEPTH_MAX: u32 = 16;

/// Whether a protobuf request is within bounds.
pub(super) fn check_protobuf(message: &[u8]) -> Result<(), Malformed> {
    Fields::of(message).try_for_each(|field| field.map(drop))?;
    count(message, 0, &mut 0)
}

/// A text that looks like a message counts as one: too many by a few, never too few.
fn count(message: &[u8], depth: u32, elements: &mut usize) -> Result<(), Malformed> {
    for field in Fields::of(message) {
        let Ok((_, value)) = field else { return Ok(()) }; // It was a text.
        let Value::Bytes(inside) = value else { continue };
        *elements += 1;
        if *elements > ELEMENTS_MAX {
            return Err(too_much(&format!(
                "more than {ELEMENTS_MAX} points and attributes: send fewer at once"
            )));
        }
        if depth >= DEPTH_MAX {
            return Err(too_much("its attributes are nested too deep"));
        }
        count(inside, depth + 1, elements)?;
    }
    Ok(())
}

/// Whether a JSON request is within bounds.
pub(super) fn check_json(message: &[u8]) -> Result<(), Malformed> {
    let opened = message.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    match opened > ELEMENTS_MAX {
        true => Err(too_much(&format!("more than {ELEMENTS_MAX} objects: send fewer at once"))),
        false => Ok(()),
    }
}

fn too_much(why: &str) -> Malformed {
    Malformed::Otlp(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes around each inside one.
    fn nested(depth: usize) -> Vec<u8> {
        (0..depth).fold(Vec::new(), |inside, _| {
            let mut out = vec![0x0a];
            prost::encoding::encode_varint(inside.len() as u64, &mut out);
            [out, inside].concat()
        })
    }

    #[test]
    fn what_would_take_much_memory_is_refused_before_it_does() {
        assert_eq!(check_protobuf(&nested(12)), Ok(()));
        assert!(check_protobuf(&nested(40)).unwrap_err().to_string().contains("too deep"));
        let many = [0x0a, 0].repeat(ELEMENTS_MAX + 1);
        assert!(check_protobuf(&many).unwrap_err().to_string().contains("send fewer"));
        assert_eq!(check_protobuf(&many[2..]), Ok(()));
        assert_eq!(check_protobuf(&[0x0a, 5, 1]), Err(Malformed::Short));
        assert!(check_json("{},".repeat(ELEMENTS_MAX + 1).as_bytes()).is_err());
        assert_eq!(check_json(b"{\"resourceMetrics\":[{}]}"), Ok(()));
    }
}
