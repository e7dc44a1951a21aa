//! Copying past the caches: for large pieces that the CPU will not look at soon.
//!
//! What goes to the disk is copied into memory that is used in turns, much of it, so its lines are in no cache: an ordinary
//! store first reads the line that it then writes over, and drives out what the core does look at, such as the buffers that it
//! receives into. Non-temporal stores do neither (Intel SDM vol. 1, 10.4.6.2). Figures: `kernel-notes/past-cache.md`.

/// From here on it pays. The source should be in cache, as that of a batch is whose CRC was just checked.
const BYTES_MIN: usize = 32 << 10;

/// Copies all of `from` to `to`.
///
/// # Panics
/// When the two are not of one length.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    if from.len() < BYTES_MIN {
        to.copy_from_slice(from);
    } else {
        large(to, from);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn large(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::indexing_slicing)]
fn large(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    /// A line of the cache: stores that fill a whole one leave for memory in one piece.
    const LINE: usize = 64;
    const STEP: usize = size_of::<__m128i>();
    /// The beginning stays in cache: the header of a batch is patched and read next.
    const HEAD: usize = 2 * LINE;

    assert_eq!(to.len(), from.len(), "a copy is as long as what it copies");
    let head = HEAD + to[HEAD..].as_ptr().align_offset(LINE);
    let lines = (to.len() - head) / LINE;
    let tail = head + lines * LINE;
    to[..head].copy_from_slice(&from[..head]);
    let (target, source) = (&mut to[head..tail], &from[head..tail]);
    for (target, source) in target.chunks_exact_mut(LINE).zip(source.chunks_exact(LINE)) {
        for at in (0..LINE).step_by(STEP) {
            // SAFETY: SSE2 is part of x86-64. `at + STEP <= LINE`, the length of both chunks; the target is aligned to a line, as
            // the first of them was aligned above, so `at` in it is aligned to `STEP`; the source needs no alignment.
            unsafe {
                let bytes = _mm_loadu_si128(source.as_ptr().add(at).cast());
                _mm_stream_si128(target.as_mut_ptr().add(at).cast(), bytes);
            }
        }
    }
    // SAFETY: SSE2 is part of x86-64. Before anybody else may be told of the bytes: these stores are not ordered with others.
    unsafe { _mm_sfence() };
    to[tail..].copy_from_slice(&from[tail..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_and_none_beside_it_changes_wherever_the_two_lie() {
        let from: Vec<u8> = (0..BYTES_MIN + 4096).map(|i| (i * 7 + i / 251) as u8).collect();
        for start in [0, 1, 15, 16, 63, 64, 65] {
            for len in [0, 1, 127, BYTES_MIN - 1, BYTES_MIN, BYTES_MIN + 1, BYTES_MIN + 63, BYTES_MIN + 200] {
                for skew in [0, 3] {
                    let mut to = vec![0xEE; start + len + 100];
                    copy(&mut to[start..start + len], &from[skew..skew + len]);
                    assert_eq!(to[start..start + len], from[skew..skew + len], "start {start}, {len} bytes");
                    assert!(to[..start].iter().chain(&to[start + len..]).all(|b| *b == 0xEE));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "as long as")]
    fn two_lengths_are_refused() {
        copy(&mut vec![0; BYTES_MIN + 1], &vec![0; BYTES_MIN]);
    }
}
