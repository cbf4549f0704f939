//! What the edge does not refuse yet, or refuses in another way than it should.

const DROPPED: &str = "the URI drops a fragment before anyone sees it; what is matched is what is forwarded";
const VERSION: &str = "the codec answers 505 instead of 400 to a line that it can't read";

/// Class, case, and why it is so today. A gap that is closed fails its test until it is taken out.
pub const GAPS: &[(&str, &str, &str)] = &[
    ("line", "a fragment", DROPPED),
    ("line", "a bare CR", VERSION),
    ("line", "NUL in the target", VERSION),
    ("line", "a control character in the target", VERSION),
    ("line", "no version", VERSION),
    ("line", "HTTP/0.9", VERSION),
    ("line", "an odd method", VERSION),
    ("line", "a method with NUL", VERSION),
    ("line", "no method", VERSION),
    ("hop", "h2 preface later", "closed without an answer, or with another one than 400"),
    ("response", "TE in HTTP/1.0", "the codec ignores the coding instead of refusing the answer"),
    ("h2", "a path with a fragment", DROPPED),
    ("h2", "a pseudo field as trailer", "the h2 crate drops it instead of the stream"),
];
