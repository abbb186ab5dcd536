//! JSON straight into the body: texts, labels, times and values as Prometheus writes them.
//!
//! Pure. Written by hand because answers have millions of numbers: nothing is built in between.

use tocsin_shared::labels::Labels;

/// A body that is being written.
#[derive(Debug, Default)]
pub(super) struct Json(Vec<u8>);

impl Json {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// As it is.
    pub(super) fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// A text in quotes, escaped.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(b'"');
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
            self.0.extend_from_slice(&rest[..at]);
            match rest[at] {
                b'"' => self.0.extend_from_slice(b"\\\""),
                b'\\' => self.0.extend_from_slice(b"\\\\"),
                b'\n' => self.0.extend_from_slice(b"\\n"),
                b'\r' => self.0.extend_from_slice(b"\\r"),
                b'\t' => self.0.extend_from_slice(b"\\t"),
                control => self.0.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
            }
            rest = &rest[at + 1..];
        }
        self.0.extend_from_slice(rest);
        self.0.push(b'"');
        self
    }

    /// `"name":`.
    pub(super) fn key(&mut self, name: &str) -> &mut Self {
        self.text(name).raw(":")
    }

    /// What a list or a map has between its brackets, comma by comma.
    pub(super) fn each<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        for (at, item) in items.into_iter().enumerate() {
            if 0 < at {
                self.0.push(b',');
            }
            write(self, item);
        }
    }

    /// A list of texts.
    pub(super) fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.raw("[");
        self.each(texts, |json, text| {
            json.text(text);
        });
        self.raw("]")
    }

    /// A map of labels.
    pub(super) fn labels(&mut self, labels: &Labels) -> &mut Self {
        self.raw("{");
        self.each(labels.iter(), |json, (name, value)| {
            json.key(name).text(value);
        });
        self.raw("}")
    }

    /// A whole number.
    pub(super) fn int(&mut self, number: i64) -> &mut Self {
        self.raw(itoa::Buffer::new().format(number))
    }

    /// A number that is no sample, such as a duration in seconds; JSON has no others than finite ones.
    pub(super) fn number(&mut self, number: f64) -> &mut Self {
        if number.is_finite() {
            write_float(&mut self.0, number);
        } else {
            self.0.push(b'0');
        }
        self
    }

    /// Milliseconds as seconds: `1435781451.781`, `1435781451.5` never: three digits or none.
    pub(super) fn time(&mut self, millis: i64) -> &mut Self {
        if millis < 0 {
            self.0.push(b'-');
        }
        let millis = millis.unsigned_abs();
        self.raw(itoa::Buffer::new().format(millis / 1_000));
        let fraction = u32::try_from(millis % 1_000).unwrap_or(0);
        if fraction != 0 {
            let digit = |number: u32| b'0' + u8::try_from(number % 10).unwrap_or(0);
            self.0.extend_from_slice(&[b'.', digit(fraction / 100), digit(fraction / 10), digit(fraction)]);
        }
        self
    }

    /// Milliseconds as a scalar and a text have them: the shortest number of seconds.
    pub(super) fn short_time(&mut self, millis: i64) -> &mut Self {
        self.number(millis as f64 / 1_000.0)
    }

    /// A scalar: `[1435781451.78,"1"]`; its value never has an exponent.
    pub(super) fn scalar(&mut self, millis: i64, value: f64) -> &mut Self {
        self.raw("[").short_time(millis).raw(",\"");
        if value.is_finite() {
            self.raw(&value.to_string());
        } else {
            write_float(&mut self.0, value);
        }
        self.raw("\"]")
    }

    /// A sample: `[1435781451.781,"1"]`.
    pub(super) fn sample(&mut self, millis: i64, value: f64) -> &mut Self {
        self.0.push(b'[');
        self.time(millis);
        self.0.extend_from_slice(b",\"");
        write_float(&mut self.0, value);
        self.0.extend_from_slice(b"\"]");
        self
    }
}

/// A value as Go writes the shortest form of a float: plain digits from 1e-6 up to 1e21, an exponent beyond.
pub(super) fn write_float(out: &mut Vec<u8>, value: f64) {
    const WHOLE: f64 = 9_007_199_254_740_992.0; // Up to here whole numbers are exact.
    if value.abs() < WHOLE && value.fract() == 0.0 && (value != 0.0 || value.is_sign_positive()) {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        out.extend_from_slice(exponent(value).as_bytes());
    } else {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(value);
        match text.contains('e') {
            false => out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes()),
            // Rare: between what both write without an exponent.
            true => out.extend_from_slice(value.to_string().as_bytes()),
        }
    }
}

/// The form with an exponent of at least two digits: `1e+00`, `-2.5e-07`. For finite values and the others.
pub(super) fn exponent(value: f64) -> String {
    if !value.is_finite() {
        let mut out = Vec::new();
        write_float(&mut out, value);
        return String::from_utf8(out).unwrap_or_default();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(digits) => format!("{mantissa}e-{digits:0>2}"),
        None => format!("{mantissa}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_go_writes_them() {
        for (value, plain, with_exponent) in [
            (0.0, "0", "0e+00"),
            (-0.0, "-0", "-0e+00"),
            (1.0, "1", "1e+00"),
            (-1.5, "-1.5", "-1.5e+00"),
            (0.1 + 0.2, "0.30000000000000004", "3.0000000000000004e-01"),
            (1e15, "1000000000000000", "1e+15"),
            (9_007_199_254_740_993.0, "9007199254740992", "9.007199254740992e+15"),
            (1.2345678901234567e19, "12345678901234567000", "1.2345678901234567e+19"),
            (1e20, "100000000000000000000", "1e+20"),
            (1e21, "1e+21", "1e+21"),
            (1.5e300, "1.5e+300", "1.5e+300"),
            (0.000001, "0.000001", "1e-06"),
            (0.0000015, "0.0000015", "1.5e-06"),
            (0.00001, "0.00001", "1e-05"),
            (0.0000001, "1e-07", "1e-07"),
            (-2.5e-7, "-2.5e-07", "-2.5e-07"),
            (5e-324, "5e-324", "5e-324"),
            (f64::MAX, "1.7976931348623157e+308", "1.7976931348623157e+308"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            let mut out = Vec::new();
            write_float(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), plain);
            assert_eq!(exponent(value), with_exponent);
        }
    }

    #[test]
    fn texts_times_and_labels() {
        let mut json = Json::default();
        json.text("a\"\\\n\r\t\u{1}é\u{2028}").raw(" ");
        for millis in [1_435_781_451_781, 1_435_781_451_000, 5, 50, 500, -1_500, 0] {
            json.time(millis).raw(" ");
        }
        json.labels(&Labels::series("up", &[("job", "node"), ("A", "1")])).raw(" ");
        json.sample(1_435_781_451_781, 1.0)
            .raw(" ")
            .scalar(1_500, 1e-7)
            .raw(" ")
            .number(f64::NAN)
            .raw(" ")
            .texts(["a", "b"]);
        let expected = concat!(
            "\"a\\\"\\\\\\n\\r\\t\\u0001é\u{2028}\" ",
            "1435781451.781 1435781451 0.005 0.050 0.500 -1.500 0 ",
            r#"{"A":"1","__name__":"up","job":"node"} [1435781451.781,"1"] [1.5,"0.0000001"] 0 ["a","b"]"#,
        );
        assert_eq!(String::from_utf8(json.into_bytes()).unwrap(), expected);
    }
}
