//! The queue: a stream of Redis and a group of its consumers, of which this worker is one.
//!
//! An entry that was delivered is *pending*, and its consumer's, until it is acknowledged. It is idle from its delivery on,
//! and its consumer resets that for as long as it works. One that has been idle for the lease is anybody's. Whatever is done
//! to an entry is one script, which Redis runs as a transaction, and only if the entry is still this worker's: so a worker
//! that was taken for dead changes nothing.

use std::time::{Duration, Instant};

use redis::{cmd, Client, Cmd, Connection, ErrorKind, FromRedisValue, RedisError};

/// The consumer that has what was given back. It is no worker, so whatever it has is anybody's at once.
const GIVEN_BACK: &str = "given-back";

/// How long Redis is left alone after it could not be reached: from the first to the last.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

const IS_OWN: &str =
    "if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then return 0 end ";
const KEEP: &str = "redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID') ";
/// The stream holds what is not done yet, and nothing else.
const REMOVE: &str = "redis.call('XACK', KEYS[1], ARGV[1], ARGV[3]) redis.call('XDEL', KEYS[1], ARGV[3]) ";
/// To be idle for the lease, so that it is anybody's, and one of many who want it gets it. Added to the stream again it would
/// be a new entry, of which nobody knows how often it was delivered.
const GIVE_BACK: &str = "redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, ARGV[3], 'IDLE', ARGV[5], 'RETRYCOUNT', \
                         ARGV[6], 'JUSTID') ";
const BURY: &str = "redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4)) ";

pub(crate) struct Queue {
    client: Client,
    stream: String,
    group: String,
    consumer: String,
    pub(crate) lease: Duration,
    began: Instant,
    /// Since when it has been there.
    connection: Option<(Connection, Instant)>,
    /// When to connect again, and how long to wait after that.
    retry: (Instant, Duration),
    is_away_said: bool,
}

#[derive(Debug)]
pub(crate) enum QueueError {
    /// Redis is not there, or cannot answer now. That was logged, and passes.
    Away,
    /// Redis has refused: the key is no stream, or this client is not allowed to use it.
    Refused(RedisError),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// Names and values in turn.
    fields: Vec<Vec<u8>>,
    /// The times that it was delivered, this one included.
    pub(crate) deliveries: u64,
    /// The consumer that had it before.
    pub(crate) taken_from: Option<String>,
}

impl Queue {
    pub(crate) fn new(client: Client, names: [&str; 3], lease: Duration) -> Queue {
        let [stream, group, consumer] = names.map(str::to_owned);
        let began = Instant::now();
        let retry = (began, BACKOFF[0]);
        Queue { client, stream, group, consumer, lease, began, connection: None, retry, is_away_said: false }
    }

    /// Takes an entry: one that nobody keeps any more, or else the next, for which it waits so long at most.
    pub(crate) fn take(&mut self, wait: Duration) -> Result<Option<Entry>, QueueError> {
        if let Some(entry) = self.take_over()? {
            return Ok(Some(entry));
        }
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(1);
        read.arg("BLOCK").arg(millis(wait).max(1)).arg("STREAMS").arg(&self.stream).arg(">");
        type Stream = (String, Vec<(String, Vec<Vec<u8>>)>);
        let streams: Option<Vec<Stream>> = self.ask(&read)?;
        let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
        let entry = |(id, fields)| Entry { id, fields, deliveries: 1, taken_from: None };
        Ok(entries.map(entry).next())
    }

    fn take_over(&mut self) -> Result<Option<Entry>, QueueError> {
        let mut pending = cmd("XPENDING");
        pending.arg(&self.stream).arg(&self.group).arg("IDLE").arg(millis(self.lease)).arg("-").arg("+").arg(1);
        // Where Redis was away for longer than the lease, all look dead. Those who live say so before this one believes it.
        if self.connection()?.1.elapsed() <= self.lease {
            pending.arg(GIVEN_BACK);
        }
        let Some((id, last, _, deliveries)) = self.ask::<Vec<(String, String, u64, u64)>>(&pending)?.pop() else {
            return Ok(None);
        };
        let mut claim = cmd("XCLAIM");
        claim.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(millis(self.lease)).arg(id);
        // Nothing, if another was faster.
        let claimed: Vec<Option<(String, Vec<Vec<u8>>)>> = self.ask(&claim)?;
        let entry = |(id, fields)| Entry { id, fields, deliveries: deliveries + 1, taken_from: Some(last) };
        Ok(claimed.into_iter().flatten().next().map(entry))
    }

    /// Says that this worker lives and works on it. `false` if it was taken away.
    pub(crate) fn keep(&mut self, id: &str) -> Result<bool, QueueError> {
        self.if_own(id, &[KEEP], &[])
    }

    /// Gives back what was delivered to this worker and has never arrived, as the connection broke meanwhile.
    pub(crate) fn give_back_unknown(&mut self, is_known: impl Fn(&str) -> bool) -> Result<(), QueueError> {
        let mut pending = cmd("XPENDING");
        pending.arg(&self.stream).arg(&self.group).arg("-").arg("+").arg(1000).arg(&self.consumer);
        let own: Vec<(String, String, u64, u64)> = self.ask(&pending)?;
        let age = millis(self.began.elapsed());
        for (id, _, idle, deliveries) in own {
            // An older one is of a worker of the same name, which has died of it perhaps.
            if !is_known(&id) && idle < age {
                self.give_back(&id, deliveries.saturating_sub(1))?;
            }
        }
        Ok(())
    }

    /// Removes an entry that is done.
    pub(crate) fn remove(&mut self, entry: &Entry) -> Result<bool, QueueError> {
        self.if_own(&entry.id, &[REMOVE], &[])
    }

    /// Gives an entry to whoever has room for it, as delivered so many times.
    pub(crate) fn give_back(&mut self, id: &str, deliveries: u64) -> Result<bool, QueueError> {
        let [lease, deliveries] = [millis(self.lease), deliveries].map(|number| number.to_string().into_bytes());
        self.if_own(id, &[GIVE_BACK], &[GIVEN_BACK.as_bytes(), &lease, &deliveries])
    }

    /// Moves an entry to the stream of those that are given up.
    pub(crate) fn bury(&mut self, entry: &Entry, reason: &str) -> Result<bool, QueueError> {
        let mut fields: Vec<&[u8]> = entry.fields.iter().map(Vec::as_slice).collect();
        fields.extend([b"entry".as_slice(), entry.id.as_bytes(), b"reason", reason.as_bytes()]);
        self.if_own(&entry.id, &[BURY, REMOVE], &fields)
    }

    /// The number of entries that are not done.
    pub(crate) fn len(&mut self) -> Result<u64, QueueError> {
        let stream = self.stream.clone();
        self.ask(cmd("XLEN").arg(stream))
    }

    fn if_own(&mut self, id: &str, then: &[&str], more: &[&[u8]]) -> Result<bool, QueueError> {
        let mut script = cmd("EVAL");
        script.arg(format!("{IS_OWN}{} return 1", then.concat())).arg(2);
        script
            .arg(&self.stream)
            .arg(format!("{}:dead", self.stream))
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(id)
            .arg(more);
        self.ask(&script)
    }

    fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, QueueError> {
        let (connection, _) = self.connection()?;
        let answer = command.query(connection).map_err(|error| self.judge(error))?;
        self.retry.1 = BACKOFF[0];
        if std::mem::take(&mut self.is_away_said) {
            log::warn!("Redis is back");
        }
        Ok(answer)
    }

    /// The connection, made anew if it is time to.
    fn connection(&mut self) -> Result<&mut (Connection, Instant), QueueError> {
        if self.connection.is_none() {
            if Instant::now() < self.retry.0 {
                return Err(QueueError::Away);
            }
            let connection = self.connect().map_err(|error| self.judge(error))?;
            self.connection = Some((connection, Instant::now()));
        }
        self.connection.as_mut().ok_or(QueueError::Away)
    }

    /// Connects, and makes the group if it is not there.
    fn connect(&self) -> Result<Connection, RedisError> {
        // Longer than any command waits, and so short that entries are kept in time by the next connection.
        let patience = self.lease / 3;
        let mut connection = self.client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.group).arg(0).arg("MKSTREAM");
        match create.exec(&mut connection) {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => Ok(connection),
        }
    }

    fn judge(&mut self, error: RedisError) -> QueueError {
        let is_refused = matches!(error.code(), Some("WRONGTYPE" | "NOAUTH" | "WRONGPASS" | "NOPERM" | "ERR"))
            || matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::UnexpectedReturnType);
        if is_refused {
            return QueueError::Refused(error);
        }
        if !std::mem::replace(&mut self.is_away_said, true) {
            log::warn!("Redis is away, and is tried again: {error}");
        }
        let (_, wait) = self.retry;
        self.retry = (Instant::now() + wait, (wait * 2).min(BACKOFF[1]).min(self.lease / 4));
        self.connection = None;
        QueueError::Away
    }
}

impl Entry {
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut pairs = self.fields.chunks_exact(2);
        pairs.find_map(|pair| (pair[0] == name.as_bytes()).then_some(pair[1].as_slice()))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
