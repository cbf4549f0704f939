//! What the edge does not refuse yet, or refuses in another way than it should.

const DROPPED: &str = "the URI drops a fragment before anyone sees it; what is matched is what is forwarded";

/// Class, case, and why it is so today. A gap that is closed fails its test until it is taken out.
pub const GAPS: &[(&str, &str, &str)] = &[
    ("h2", "a path with a fragment", DROPPED),
    ("h2", "a pseudo field as trailer", "the h2 crate drops it instead of the stream"),
];
