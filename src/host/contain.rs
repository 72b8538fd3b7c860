//! How code that is not ours is called without letting its panics out.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Calls code that is not ours and turns its panic into the panic's message. Inlined for the border of C, where a call
/// of it would cost a third as much again as the gate.
#[inline(always)]
pub(crate) fn contained<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = panic_message(&*payload);
        // A payload is the host's too, and its drop may panic in turn: better lost than let loose.
        std::mem::forget(payload);
        message
    })
}

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
