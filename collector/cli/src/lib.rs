//! The operator's command line, in the order in which a command runs: arguments → credential → client → command →
//! view → screen. `top` is a screen of its own.

pub mod arguments;
pub mod client;
pub mod command;
pub mod credential;
pub mod failure;
pub mod figures;
pub mod screen;
pub mod table;
pub mod top;
pub mod view;
