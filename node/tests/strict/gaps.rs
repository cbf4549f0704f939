//! What the edge does not refuse yet, or refuses in another way than it should.

const LF: &str = "hyper takes a bare LF for the end of a line";
const DROPPED: &str = "hyper's URI drops a fragment before anyone sees it; what is matched is what is forwarded";
const SILENT: &str = "hyper closes without an answer";
const CHUNK: &str = "hyper is lenient here; the backend gets chunks of our own";

/// Class, case, and why it is so today. A gap that is closed fails its test until it is taken out.
pub const GAPS: &[(&str, &str, &str)] = &[
    (
        "smuggle",
        "CL.TE behind another request",
        "hyper ignores the length of a request that was sent ahead, and closes behind it",
    ),
    ("smuggle", "TE behind a bare LF", LF),
    ("smuggle", "CLs 5 and 05", "hyper compares lengths as numbers and keeps the first"),
    ("chunk", "a space behind", CHUNK),
    ("chunk", "a tab behind", CHUNK),
    ("chunk", "40 zeros", CHUNK),
    ("chunk", "an extension with NUL", CHUNK),
    ("chunk", "an end of a bare LF", "hyper reads a request behind it as trailers"),
    ("field", "a bare LF", LF),
    ("field", "a head of bare LFs", LF),
    ("field", "an end of a bare LF", LF),
    ("line", "a bare LF behind", LF),
    ("line", "a fragment", DROPPED),
    ("line", "a target of 128 KiB", "hyper answers 431 before it looks at the target"),
    ("hop", "an interrupted head", SILENT),
    ("hop", "h2 preface later", SILENT),
    ("response", "bare LFs", LF),
    ("response", "a bare LF between fields", LF),
    ("response", "10000 times 100", "hyper reads interim answers without an end"),
    ("h2", "a path with a fragment", DROPPED),
    ("h2", "a pseudo field as trailer", "the h2 crate drops it instead of the stream"),
];
