//! The log events of this process.

use std::collections::BTreeMap;

use log::kv::{Key, Value, VisitSource};
use parking_lot::Mutex;

/// The log events of this process, for tests that have a process of their own.
pub struct LogCapture {
    records: Mutex<Vec<Event>>,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub name: String,
    pub level: log::Level,
    pub keys: BTreeMap<String, String>,
    pub numbers: BTreeMap<String, f64>,
}

static LOG: LogCapture = LogCapture { records: Mutex::new(Vec::new()) };

impl LogCapture {
    pub fn install() -> &'static LogCapture {
        log::set_logger(&LOG).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        &LOG
    }

    pub fn events(&self) -> Vec<Event> {
        self.records.lock().clone()
    }

    pub fn named(&self, name: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.name == name).collect()
    }
}

impl log::Log for LogCapture {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "highwater"
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        struct Collect(BTreeMap<String, String>, BTreeMap<String, f64>);
        impl<'kvs> VisitSource<'kvs> for Collect {
            fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
                if let Some(number) = value.to_f64().or_else(|| value.to_u64().map(|number| number as f64)) {
                    self.1.insert(key.to_string(), number);
                }
                self.0.insert(key.to_string(), value.to_string());
                Ok(())
            }
        }
        let mut collect = Collect(BTreeMap::new(), BTreeMap::new());
        record.key_values().visit(&mut collect).unwrap();
        let name = collect.0.remove("event").unwrap_or_default();
        let event = Event { name, level: record.level(), keys: collect.0, numbers: collect.1 };
        self.records.lock().push(event);
    }

    fn flush(&self) {}
}
