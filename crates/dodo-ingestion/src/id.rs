//! Event ids: the idempotency keys that make a resend harmless.
//!
//! An id is 29 characters that sort by time: nine of the millisecond, thirteen of a nonce from the
//! kernel, seven of a counter. The counter never repeats within a process; the nonce tells
//! processes apart, and is drawn again at every tick of the engine, so that two machines restored
//! from one snapshot part ways.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::WallMs;

/// Crockford's base 32 in lower case: digits sort before letters, and none reads like another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TIME_CHARS: usize = 9;
const NONCE_CHARS: usize = 13;
const COUNTER_CHARS: usize = 7;
const ID_CHARS: usize = TIME_CHARS + NONCE_CHARS + COUNTER_CHARS;

/// Draws ids that no other source draws.
#[derive(Debug)]
pub(crate) struct IdSource {
    draw: Draw,
    nonce: AtomicU64,
    counter: AtomicU64,
}

/// Where nonces come from.
type Draw = fn() -> Result<u64, getrandom::Error>;

impl IdSource {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        Self::with(getrandom::u64)
    }

    pub(crate) fn with(draw: Draw) -> Result<Self, getrandom::Error> {
        Ok(Self { draw, nonce: AtomicU64::new(draw()?), counter: AtomicU64::new(0) })
    }

    /// Takes a new nonce from the kernel. Where the kernel has none to give the old one stays:
    /// the counter still tells this process's ids apart.
    pub(crate) fn redraw(&self) {
        if let Ok(nonce) = (self.draw)() {
            self.nonce.store(nonce, Ordering::Relaxed);
        }
    }

    pub(crate) fn next(&self, now: WallMs) -> String {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let nonce = self.nonce.load(Ordering::Relaxed);
        let mut id = String::with_capacity(ID_CHARS);
        push_base32(&mut id, now.max(0) as u64, TIME_CHARS);
        push_base32(&mut id, nonce, NONCE_CHARS);
        push_base32(&mut id, counter, COUNTER_CHARS);
        id
    }
}

/// Appends the low `5 * chars` bits of a number, most significant first.
fn push_base32(text: &mut String, number: u64, chars: usize) {
    for place in (0..chars).rev() {
        let digit = number.checked_shr(5 * place as u32).unwrap_or(0) & 31;
        text.push(ALPHABET[digit as usize] as char);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_differ_across_threads_and_redraws_and_sort_by_time() {
        let source = IdSource::new().unwrap();
        let mut all = HashSet::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..10_000)
                            .map(|i| {
                                if i % 100 == 0 {
                                    source.redraw();
                                }
                                source.next(1_767_323_045_678)
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in threads {
                all.extend(thread.join().unwrap());
            }
        });
        assert_eq!(all.len(), 40_000);
        assert!(all.iter().all(|id| id.len() == ID_CHARS));
        assert!(source.next(1_000) < source.next(2_000));
        assert!(source.next(1_767_323_045_678) < source.next(1_767_323_045_679));
    }
}
