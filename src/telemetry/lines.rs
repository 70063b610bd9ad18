//! A line of the log as JSON: one object with the time, the level, the message, what the event
//! tells, and where in the code it was told.
//!
//! Each exchange writes one, so it goes straight into the line's buffer, with no map in between.

use std::fmt::{self, Debug, Write};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether JSON escapes a byte of a text (RFC 8259 §7).
fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Writes events as JSON, each on a line of its own.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        write!(writer, "{{\"timestamp\":\"{now}\",\"level\":\"")?;
        writer.write_str(metadata.level().as_str())?;
        writer.write_str("\"")?;
        let mut line = Line {
            writer,
            target: false,
            written: Ok(()),
        };
        event.record(&mut line);
        if !line.target {
            line.text("target", metadata.target());
        }
        line.written?;
        line.writer.write_str("}\n")
    }
}

/// A line that is being written.
struct Line<'w> {
    writer: Writer<'w>,
    /// Whether the event itself said where it was told.
    target: bool,
    written: fmt::Result,
}

impl Line<'_> {
    fn member(&mut self, name: &str, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        // How the events of the crate `log` come: only the target says more than ours do.
        let name = match name {
            "log.target" => {
                self.target = true;
                "target"
            }
            _ if name.starts_with("log.") => return,
            _ => name,
        };
        let writer = &mut self.writer;
        self.written = self.written.and_then(|()| {
            writer.write_str(",\"")?;
            Escaped(writer).write_str(name)?;
            writer.write_str("\":")?;
            value(writer)
        });
    }

    fn text(&mut self, name: &str, text: &str) {
        self.member(name, |writer| {
            writer.write_str("\"")?;
            Escaped(writer).write_str(text)?;
            writer.write_str("\"")
        });
    }
}

impl Visit for Line<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither infinities nor what is no number.
        let finite = value.is_finite().then_some(value);
        self.member(field.name(), |writer| match finite {
            Some(value) => write!(writer, "{value:?}"),
            None => writer.write_str("null"),
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field.name(), |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field.name(), |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field.name(), |writer| write!(writer, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.member(field.name(), |writer| {
            writer.write_str("\"")?;
            write!(Escaped(writer), "{value:?}")?;
            writer.write_str("\"")
        });
    }
}

/// What is written to it stands in a JSON text.
struct Escaped<'e, 'w>(&'e mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_escaped) {
            let (clean, from) = rest.split_at(at);
            self.0.write_str(clean)?;
            let mut from = from.chars();
            match from.next() {
                Some(quoted @ ('"' | '\\')) => write!(self.0, "\\{quoted}")?,
                Some('\n') => self.0.write_str("\\n")?,
                Some(control) => write!(self.0, "\\u{:04x}", u32::from(control))?,
                None => {}
            }
            rest = from.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Kept {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    /// The lines that are written meanwhile.
    fn written(told: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines)
            .with_writer(kept.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, told);
        let bytes = kept.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    #[test]
    fn each_kind_of_value_is_a_member_and_what_is_absent_none() {
        let mut lines = written(|| {
            let nothing = None::<&str>;
            tracing::info!(
                nothing,
                text = "a",
                shown = %"b",
                told = ?Some("c"),
                unsigned = u64::MAX,
                signed = i64::MIN,
                fraction = 0.5,
                endless = f64::INFINITY,
                truth = true,
                "type" = "d",
                "the {}",
                "message"
            );
        });
        let time = lines[0]["timestamp"].take();
        let time = time.as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        assert_eq!(time.len(), "2026-11-21T23:26:57.123456Z".len());
        assert_eq!(
            lines,
            [json!({
                "timestamp": null, "level": "INFO", "message": "the message", "text": "a",
                "shown": "b", "told": "Some(\"c\")", "unsigned": u64::MAX, "signed": i64::MIN,
                "fraction": 0.5, "endless": null, "truth": true, "type": "d",
                "target": "exchequer::telemetry::lines::tests",
            })]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_it_was_written_and_on_one_line(text in any::<String>()) {
            let lines = written(|| tracing::warn!(text, shown = %text, "{text}"));
            prop_assert_eq!(lines.len(), 1);
            for member in ["text", "shown", "message"] {
                prop_assert_eq!(&lines[0][member], &text);
            }
        }
    }
}
