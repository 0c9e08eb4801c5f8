//! Events as entries of systemd's journal, by its native protocol: a datagram of fields.
//!
//! An entry has the event's fields as fields of the journal (`HALLEY_EVENT=drain`), and all of them again in its
//! message, because that is what `journalctl` shows. Its priority is the event's level.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where the journal takes entries.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether standard error leads to the journal: systemd names the stream it has given (`JOURNAL_STREAM=DEVICE:INODE`).
pub(super) fn has_standard_error(journal_stream: Option<&str>) -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    journal_stream == Some(&format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The layer that sends entries.
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// Entries to the journal that listens at this path.
    pub(super) fn connect(path: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let metadata = event.metadata();
        let priority = match *metadata.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        entry.field("MESSAGE", &entry.message());
        entry.field("PRIORITY", &priority.to_string());
        entry.field("SYSLOG_IDENTIFIER", "halley");
        entry.field("TARGET", metadata.target());
        if let Err(error) = self.socket.send(&entry.bytes) {
            // The journal takes no datagram of this length, or is away: standard error leads to it as well.
            let _ = writeln!(io::stderr(), "{} ({error})", entry.message());
        }
    }
}

/// One entry as it is made.
#[derive(Default)]
struct Entry {
    bytes: Vec<u8>,
    /// The value of the field `event`.
    event: String,
    /// The text of the event.
    text: String,
    /// Its other fields, for people.
    fields: String,
}

impl Entry {
    fn message(&self) -> String {
        let parts = [&self.event, &self.text, &self.fields].into_iter().filter(|part| !part.is_empty());
        parts.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// A value with line breaks is written with its length before it.
    fn field(&mut self, name: &str, value: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.bytes.push(b'\n');
            self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }

    fn note(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.text),
            "event" => value.clone_into(&mut self.event),
            name => {
                let space = if self.fields.is_empty() { "" } else { " " };
                let _ = write!(self.fields, "{space}{name}={value}");
            }
        }
        if field.name() != "message" {
            let name: String = field.name().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            self.field(&format!("HALLEY_{}", name.to_ascii_uppercase()), value);
        }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn an_event_becomes_an_entry_with_fields_priority_and_a_message_for_people() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = UnixDatagram::bind(&path).expect("a socket");
        journal.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let layer = Journal::connect(path.to_str().expect("text")).expect("it listens");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(event = "drain", connections = 7, why = "two\nlines", "clients go");
        });
        let mut bytes = [0; 2048];
        let length = journal.recv(&mut bytes).expect("an entry");
        let entry = String::from_utf8_lossy(&bytes[..length]).into_owned();
        for line in ["HALLEY_EVENT=drain\n", "HALLEY_CONNECTIONS=7\n", "PRIORITY=4\n", "SYSLOG_IDENTIFIER=halley\n"] {
            assert!(entry.contains(line), "{line:?}: {entry:?}");
        }
        assert!(entry.contains("HALLEY_WHY\n\u{9}\0\0\0\0\0\0\0two\nlines\n"), "{entry:?}");
        assert!(entry.contains("drain clients go connections=7 why=two\nlines\n"), "{entry:?}");
    }

    #[test]
    fn standard_error_is_the_journals_only_if_systemd_says_so() {
        assert!(!has_standard_error(None));
        assert!(!has_standard_error(Some("0:0")));
        let stat = rustix::fs::fstat(io::stderr()).expect("it is open");
        assert!(has_standard_error(Some(&format!("{}:{}", stat.st_dev, stat.st_ino))));
    }
}
