//! Collects what is wrong with one object.

use meshgate_core::intent::{Finding, ObjectRef, Severity};

use super::{code, pattern};

/// Findings about one object, and whether it has to be refused.
pub(super) struct Checker {
    /// The object, once it has a name.
    pub(super) object: Option<ObjectRef>,
    /// An API server would refuse it.
    pub(super) refused: bool,
    origin: String,
    findings: Vec<Finding>,
}

impl Checker {
    pub(super) fn new(origin: &str) -> Self {
        Checker { object: None, refused: false, origin: origin.to_owned(), findings: Vec::new() }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    fn report(&mut self, code: &'static str, severity: Severity, field: &str, message: String) {
        let object = self.object.clone();
        let origin = self.origin.clone();
        self.findings.push(Finding { code, severity, object, field: field.to_owned(), message, origin });
    }

    /// The object can't be accepted.
    pub(super) fn refuse(&mut self, code: &'static str, field: &str, message: impl Into<String>) {
        self.refused = true;
        self.report(code, Severity::Error, field, message.into());
    }

    /// A part of the object won't be served; the rest will.
    pub(super) fn error(&mut self, code: &'static str, field: &str, message: impl Into<String>) {
        self.report(code, Severity::Error, field, message.into());
    }

    /// Served, but probably not as meant.
    pub(super) fn warn(&mut self, code: &'static str, field: &str, message: impl Into<String>) {
        self.report(code, Severity::Warning, field, message.into());
    }

    /// A required text that must follow a pattern.
    pub(super) fn text(&mut self, field: &str, value: &str, rule: &pattern::Rule) {
        if value.is_empty() {
            self.refuse(code::REQUIRED, field, format!("is required: {}", rule.allowed));
        } else {
            self.optional(field, Some(value), rule);
        }
    }

    /// A text that, where present, must follow a pattern.
    pub(super) fn optional(&mut self, field: &str, value: Option<&str>, rule: &pattern::Rule) {
        let Some(value) = value else { return };
        if value.chars().count() > rule.max {
            self.refuse(code::VALUE, field, format!("is too long: at most {} characters are allowed", rule.max));
        } else if !(rule.test)(value) {
            self.refuse(code::VALUE, field, format!("{} is not allowed: {}", quote(value), rule.allowed));
        }
    }

    /// A list within its bounds.
    pub(super) fn count(&mut self, field: &str, count: usize, min: usize, max: usize) {
        if count < min || count > max {
            let range = if min == 0 { format!("at most {max}") } else { format!("{min} to {max}") };
            self.refuse(code::COUNT, field, format!("has {count} entries; {range} are allowed"));
        }
    }

    /// A port, 1 to 65535; 1 stands for what was refused.
    pub(super) fn port(&mut self, field: &str, value: i64) -> u16 {
        match u16::try_from(value) {
            Ok(port) if port > 0 => port,
            _ => {
                self.refuse(code::VALUE, field, format!("{value} is not a port: 1 to 65535 are allowed"));
                1
            }
        }
    }

    /// A required port: 0 is what a missing one decodes as.
    pub(super) fn required_port(&mut self, field: &str, value: i64) -> u16 {
        if value == 0 {
            self.refuse(code::REQUIRED, field, "is required: 1 to 65535");
            return 1;
        }
        self.port(field, value)
    }

    /// An enum value that this version does not know.
    pub(super) fn unknown_value(&mut self, field: &str, value: &str, known: &[&str]) {
        let known = known.join(", ");
        self.refuse(code::VALUE, field, format!("{} is not allowed: one of {known}", quote(value)));
    }
}

/// A value in quotes, short enough for a line.
pub(super) fn quote(value: &str) -> String {
    if value.chars().count() <= 80 {
        return format!("{value:?}");
    }
    let start: String = value.chars().take(77).collect();
    format!("{:?}", start + "...")
}
