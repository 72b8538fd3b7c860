//! `hw_set_log`: the log of a host that is not written in Rust.

use std::ffi::{c_char, c_int, c_void};
use std::fmt::Write;
use std::sync::OnceLock;

use log::kv::{self, Key, Value};
use log::{LevelFilter, Metadata, Record};

use super::border::{self, Failure};
use crate::sys::cancel::as_the_caller;

pub(super) type Callback = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    write: Callback,
    user: *mut c_void,
}

// SAFETY: the header tells the host that its function is called from other threads, and `user` is its alone.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl log::Log for Log {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // What the message names, such as a job, is the host's, and may not look like another line.
        let mut line = record.args().to_string().replace(char::is_control, " ");
        // Nothing that is written to a string fails.
        let _ = record.key_values().visit(&mut Pairs(&mut line));
        let line = border::c_text(&line);
        // SAFETY: the host has said that this may be called so; the line outlives the call.
        as_the_caller(|| unsafe { (self.write)(self.user, record.level() as c_int, line.as_ptr()) });
    }

    fn flush(&self) {}
}

/// Writes ` key=value`, quoted where it would not end at the next space.
struct Pairs<'a>(&'a mut String);

impl<'kvs> kv::VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = value.to_string();
        let needs_quotes = value.is_empty() || value.contains(|c: char| c.is_whitespace() || c == '"');
        if needs_quotes {
            write!(self.0, " {key}={value:?}")?;
        } else {
            write!(self.0, " {key}={value}")?;
        }
        Ok(())
    }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_set_log(write: Option<Callback>, user: *mut c_void, level: c_int) -> c_int {
    border::status(|| {
        let write = write.ok_or("there is no function to log with: it is NULL")?;
        let level = LevelFilter::iter().skip(1).find(|known| *known as c_int == level);
        let level = level.ok_or("the level is none of HW_LOG_ERROR to HW_LOG_TRACE")?;
        let mut is_news = false;
        let log = LOG.get_or_init(|| {
            is_news = true;
            Log { write, user }
        });
        if !is_news || log::set_logger(log).is_err() {
            return Err(Failure::Failed("the log of this process is set already".to_owned()));
        }
        log::set_max_level(level);
        Ok(0)
    })
}
