//! The one system call that no safe crate offers: reading the kernel's clock discipline.
//!
//! The crates that wrap it only set the clock, or give back two of its fields. All of the agent's `unsafe` is here.

use nix::errno::Errno;
use nix::libc;

/// A record of the clock discipline that says nothing and asks for nothing.
#[allow(unsafe_code)] // The record has padding that only its library can name, so no literal can make one.
pub(crate) fn blank_timex() -> libc::timex {
    // SAFETY: `timex` is a C struct of integers only, for which all bits zero is a valid value.
    unsafe { std::mem::zeroed() }
}

/// Reads the clock discipline without changing it. Gives the state (`TIME_OK` … `TIME_ERROR`) and the record.
///
/// # Errors
/// What the kernel answers; `EPERM` under some container filters.
#[allow(unsafe_code)] // A system call that no safe crate offers.
pub(crate) fn read_timex() -> Result<(i32, libc::timex), Errno> {
    let mut record = blank_timex(); // Zero in `modes` asks the kernel to change nothing.
    // SAFETY: the pointer is to a live, exclusively borrowed record of the size this libc's kernel interface has.
    let state = unsafe { libc::adjtimex(&mut record) };
    Errno::result(state).map(|state| (state, record))
}
