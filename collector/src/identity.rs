//! Who is who: the authority that signs, what a connection's certificate says, what a proof proves, how often
//! strangers may ask, and who may call what.
//!
//! Not here: join tokens, certificates and principals as records (`tocsin-shared`'s `access`), the sockets (`listen`).

pub mod authorise;
pub mod ca;
pub mod peer;
pub mod proof;
pub mod throttle;
