//! The one system call that no safe crate offers: reading the kernel's clock discipline.

use nix::errno::Errno;
use nix::libc;

/// Reads the clock discipline without changing it. Gives the state (`TIME_OK` … `TIME_ERROR`) and the record.
///
/// # Errors
/// What the kernel answers; `EPERM` under some container filters.
// Safe wrappers exist for setting the clock only; reading needs this one call.
#[allow(unsafe_code)]
pub(crate) fn read_timex() -> Result<(i32, libc::timex), Errno> {
    // SAFETY: `timex` is a C struct of integers, for which all zeroes is a valid value; and zero in `modes` asks the
    // kernel to change nothing.
    let mut record: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, exclusively borrowed `timex` of the size this libc's kernel interface has.
    let state = unsafe { libc::adjtimex(&mut record) };
    Errno::result(state).map(|state| (state, record))
}
