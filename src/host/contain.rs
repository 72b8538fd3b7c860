//! Calls of the host's code, whose panics end here.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Calls the host's code. A panic of it is returned as an error, which is the panic's message.
///
/// A panic that went further would end a thread of the monitor's, or reach a caller in C. It is inlined into
/// every caller, because out of line it would make the gate a third slower from C.
#[inline(always)]
pub(crate) fn contained<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = panic_message(&*payload);
        // The payload is the host's as well, and its drop may panic in turn. So it is leaked.
        std::mem::forget(payload);
        message
    })
}

/// The message of a panic, as far as it is text.
fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("from the payload");
            }
        }
        assert_eq!(contained(|| std::panic::panic_any(Bomb)), Err("a panic without a message".to_string()));
        assert_eq!(contained(|| panic!("limit {}", 3)), Err("limit 3".to_string()));
        assert_eq!(contained(|| 7), Ok(7));
    }
}
