//! Protobuf as it lies in a request: fields in place, nothing copied, nothing allocated.
//!
//! A request of 2,000 samples has some ten thousand texts, nearly all of them known. Reading never panics and says
//! where it failed; unknown fields are passed over, groups are refused.

/// Bytes that are no message of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the message ends early")]
    Short,
    #[error("a number has more than ten bytes")]
    Varint,
    #[error("field {0} has another type than it should")]
    Type(u32),
    #[error("a field has the unknown wire type {0}")]
    WireType(u8),
    #[error("a field has the number 0")]
    FieldZero,
    #[error("a label names symbol {0}, there are {1}")]
    Symbol(u64, usize),
    #[error("a series has an odd number of label references")]
    OddReferences,
    #[error("there are more than {0} series in the request: send fewer at once")]
    Series(usize),
    #[error("there are more than {0} symbols in the request: send fewer series at once")]
    Symbols(usize),
    #[error("it is no snappy block")]
    Snappy,
    #[error("it is no OTLP metrics request: {0}")]
    Otlp(String),
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        varint(&mut self.0)
    }

    fn read(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Malformed::Varint)?;
        if field == 0 {
            return Err(Malformed::FieldZero);
        }
        let value = match (key & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Short)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(Malformed::WireType(other)),
        };
        Ok((field, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = &[]; // Nothing after it can be trusted.
        }
        Some(read)
    }
}

/// A number at the front of `bytes`.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed::Short)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::Varint)
}

impl<'a> Value<'a> {
    /// A nested message, a text, or packed numbers.
    pub(super) fn bytes(self, field: u32) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed::Type(field)) }
    }

    pub(super) fn double(self, field: u32) -> Result<f64, Malformed> {
        if let Self::Fixed64(bits) = self { Ok(f64::from_bits(bits)) } else { Err(Malformed::Type(field)) }
    }

    pub(super) fn number(self, field: u32) -> Result<u64, Malformed> {
        if let Self::Varint(number) = self { Ok(number) } else { Err(Malformed::Type(field)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_place_and_damage_is_told() {
        let message = [
            0x0a, 3, b'a', b'b', b'c', 0x10, 0xac, 0x02, 0x19, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x25, 1, 0, 0, 0,
        ];
        let read: Vec<_> = Fields::of(&message).collect::<Result<_, _>>().unwrap();
        let want = [
            (1, Value::Bytes(b"abc")),
            (2, Value::Varint(300)),
            (3, Value::Fixed64(1.0f64.to_bits())),
            (4, Value::Fixed32(1)),
        ];
        assert_eq!(read, want);
        for (bytes, why) in [
            (&[0x0a, 9, b'a'][..], Malformed::Short),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Malformed::Short),
            (&[0xff; 11], Malformed::Varint),
            (&[0x02, 0], Malformed::FieldZero),
            (&[0x0b, 0], Malformed::WireType(3)),
            (&[0x19, 0], Malformed::Short),
        ] {
            assert_eq!(Fields::of(bytes).collect::<Result<Vec<_>, _>>(), Err(why), "{bytes:?}");
        }
    }
}
