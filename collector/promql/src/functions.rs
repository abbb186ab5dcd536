//! The functions of the language, each a plain function of floats, windows or label sets.

pub(crate) mod calendar;
pub(crate) mod histogram;
pub(crate) mod labels;
pub(crate) mod math;
pub(crate) mod rate;
pub(crate) mod window;
