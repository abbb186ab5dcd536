//! What a template computes with: texts, numbers, truths, label sets, and the data of the rule itself.
//!
//! Decides what counts as true, what compares with what, and how each prints.

use std::borrow::Cow;
use std::cmp::Ordering;

use tocsin_shared::labels::Labels;

use super::ExpandError;
use super::expand::Data;
use super::number;

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Nothing,
    Bool(bool),
    Whole(i64),
    Fraction(f64),
    Text(Cow<'a, str>),
    Labels(&'a Labels),
    Data(&'a Data<'a>),
}

impl<'a> Value<'a> {
    pub(super) fn owned(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }

    /// The name of its kind, as Go names the type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nil",
            Self::Bool(_) => "bool",
            Self::Whole(_) => "int",
            Self::Fraction(_) => "float64",
            Self::Text(_) => "string",
            Self::Labels(_) => "labels",
            Self::Data(_) => "data",
        }
    }

    /// Whether `if` takes it: not zero, not empty, not nothing.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bool(truth) => *truth,
            Self::Whole(number) => *number != 0,
            Self::Fraction(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Labels(labels) => !labels.is_empty(),
            Self::Data(_) => true,
        }
    }

    /// A field: a label of a set, or a part of the rule's data. A label that is not there is empty.
    pub(super) fn field(&self, name: &str) -> Result<Self, ExpandError> {
        match self {
            Self::Labels(labels) => Ok(Self::Text(Cow::Borrowed(labels.get(name).unwrap_or("")))),
            Self::Data(data) => match name {
                "Labels" => Ok(Self::Labels(data.labels)),
                "ExternalLabels" => Ok(Self::Labels(data.external)),
                "Value" => Ok(Self::Fraction(data.value)),
                _ => Err(ExpandError::Value(no_such_field(name))),
            },
            other => Err(ExpandError::Value(format!("a {} has no field .{name}", other.kind()))),
        }
    }

    pub(super) fn index(&self, key: &Self) -> Result<Self, ExpandError> {
        match self {
            Self::Labels(_) => self.field(key.text("index")?),
            other => Err(ExpandError::Value(format!("index looks into labels, not into a {}", other.kind()))),
        }
    }

    pub(super) fn len(&self) -> Result<Self, ExpandError> {
        let len = match self {
            Self::Text(text) => text.len(),
            Self::Labels(labels) => labels.len(),
            other => return Err(ExpandError::Value(format!("a {} has no length", other.kind()))),
        };
        Ok(Self::Whole(i64::try_from(len).unwrap_or(i64::MAX)))
    }

    /// The text for a function that takes one.
    pub(super) fn text(&self, function: &str) -> Result<&str, ExpandError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(ExpandError::Value(format!("{function} takes a string, not a {}", other.kind()))),
        }
    }

    /// The number for a function that takes one; a text that reads as a number is one.
    pub(super) fn number(&self, function: &str) -> Result<f64, ExpandError> {
        let number = match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Fraction(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        };
        let shown = || self.shown().map_or_else(|_| self.kind().to_owned(), |text| format!("{text:?}"));
        number.ok_or_else(|| ExpandError::Value(format!("{function} takes a number, not {}", shown())))
    }

    /// How two values stand to each other; None when a NaN has no order.
    pub(super) fn compare(&self, other: &Self) -> Result<Option<Ordering>, ExpandError> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Ok(Some(a.cmp(b))),
            (Self::Bool(a), Self::Bool(b)) => Ok(Some(a.cmp(b))),
            (Self::Whole(a), Self::Whole(b)) => Ok(Some(a.cmp(b))),
            (Self::Whole(_) | Self::Fraction(_), Self::Whole(_) | Self::Fraction(_)) => {
                Ok(self.number("")?.partial_cmp(&other.number("")?))
            }
            (a, b) => Err(ExpandError::Value(format!("a {} does not compare with a {}", a.kind(), b.kind()))),
        }
    }

    /// How it stands in the text.
    pub(super) fn shown(&self) -> Result<Cow<'_, str>, ExpandError> {
        Ok(match self {
            Self::Nothing => "<no value>".into(),
            Self::Bool(truth) => truth.to_string().into(),
            Self::Whole(number) => number.to_string().into(),
            Self::Fraction(number) => number::plain(*number).into(),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Labels(labels) => {
                let pairs: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("map[{}]", pairs.join(" ")).into()
            }
            Self::Data(_) => {
                let message = "{{ . }} is the whole data; print $labels or $value";
                return Err(ExpandError::Value(message.to_owned()));
            }
        })
    }
}

/// The fields of the rule's data.
pub(super) const DATA_FIELDS: [&str; 3] = ["Labels", "Value", "ExternalLabels"];

pub(super) fn no_such_field(name: &str) -> String {
    format!("there is no .{name}; there are .Labels, .Value and .ExternalLabels")
}
