//! Buffers that connections read into, kept by the thread: a connection has one only while bytes
//! are on their way, so one serves many, and none is allocated for each request.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a buffer.
pub(super) const SIZE: usize = 16 * 1024;

/// Buffers that a thread keeps.
const KEPT: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A buffer with room for [`SIZE`] bytes.
pub(super) fn take() -> BytesMut {
    // Of one that was given back a moment ago, a part may still be on its way to a client.
    let spare = SPARE.with_borrow_mut(Vec::pop).and_then(|mut spare| spare.try_reclaim(SIZE).then_some(spare));
    spare.unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Gives a buffer back, of which nothing is to be read any more.
pub(super) fn give(buffer: &mut BytesMut) {
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if buffer.capacity() > 0 && spare.len() < KEPT {
            spare.push(buffer);
        }
    });
}
