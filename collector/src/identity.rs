//! Who is who: the authorities that sign, what a connection's certificate says, what a proof proves, how often
//! strangers may ask, and who may call what.
//!
//! Not here: join tokens, certificates and principals as records (`tocsin-shared`'s `access`), the sockets (`listen`).

pub mod authorise;
pub mod authorities;
pub mod ca;
pub mod peer;
pub mod proof;
pub mod throttle;
