//! Memory that a file is mapped to: what is written there is with the operating system, whatever
//! becomes of this process, and no call of it is needed.
//!
//! # Invariants
//!
//! * A forked child does not have the memory, and leaves alone what it may have in its place.
//! * Little more than [`KEPT`] of what was written counts as this process's memory, and what is
//!   provided ahead of it.
//! * The kernel provides the pages of a window before they are written to: to another thread ahead of
//!   the writer, or to the writer, which waits. Where it cannot, that is an error and not the end of
//!   the process.
//!
//! # What it must not know
//!
//! What is written, and which files may be mapped.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use super::generation;

/// So much is provided at once: a multiple of every page size.
const WINDOW: usize = 64 << 10;
/// So much of what was written is let go of at once: every processor that this process runs on is told.
const KEPT: usize = 1 << 20;
/// So many bytes at the start of a write are written last.
const LAST: usize = 4;

/// A file's memory, for one thread at a time to write.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: Arc<Memory>,
    /// What was let go of ends here.
    passed: usize,
}

/// What is mapped, for as long as somebody has it.
#[derive(Debug)]
struct Memory {
    start: *mut u8,
    len: usize,
    /// Of the process that mapped it.
    generation: u64,
    /// What was provided ends here.
    provided: AtomicUsize,
}

// SAFETY: the memory belongs to the mapping alone, and no thread is special to it. It is written to
// through the one `Mapping` that has it; all else that is done to it is advice, which changes no byte.
unsafe impl Send for Memory {}
// SAFETY: the same.
unsafe impl Sync for Memory {}

impl Memory {
    fn advise(&self, range: Range<usize>, advice: libc::c_int) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: the callers keep the range within the mapping, and no advice that they give takes
        // away what was written: that is the file's.
        let advised =
            unsafe { libc::madvise(self.start.add(range.start).cast(), range.len(), advice) };
        if advised == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn provided(&self) -> usize {
        self.provided.load(Ordering::Acquire)
    }

    /// Provides what is to be written up to there, in whole windows.
    fn provide(&self, end: usize) -> io::Result<()> {
        let provided = self.provided();
        let end = end.next_multiple_of(WINDOW).min(self.len);
        match self.advise(provided..end.max(provided), libc::MADV_POPULATE_WRITE) {
            // The kernel is older, and provides each page when it is written to.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
        self.provided.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A child may have something else there.
        if self.generation == generation() {
            // SAFETY: this process mapped it with this length, and nothing borrows from it.
            unsafe { libc::munmap(self.start.cast(), self.len) };
        }
    }
}

impl Mapping {
    /// Maps so many bytes of a file that is open for reading and writing. It may be shorter, but has to
    /// be as long as that before it is written to so far, and for as long as this lives.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Self> {
        let generation = generation();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let descriptor = file.as_raw_fd();
        // SAFETY: a new mapping that replaces none.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, descriptor, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let provided = AtomicUsize::new(0);
        let memory = Memory { start: start.cast(), len, generation, provided };
        memory.advise(0..len, libc::MADV_DONTFORK)?;
        Ok(Self { memory: Arc::new(memory), passed: 0 })
    }

    /// What provides the pages that are to be written up to there, on another thread meanwhile: the
    /// writer has to wait for the kernel otherwise. `None` where they are provided.
    pub(crate) fn provider(&self, end: usize) -> Option<impl FnOnce() + Send + use<>> {
        let end = end.min(self.memory.len);
        if end <= self.memory.provided() || self.memory.generation != generation() {
            return None;
        }
        let memory = self.memory.clone();
        Some(move || {
            // One window after the other: whoever maps memory in this process waits for one at most.
            // What cannot be provided is tried again, and its error told, when it is written to.
            while memory.provided() < end && memory.provide(memory.provided() + 1).is_ok() {}
        })
    }

    /// Writes bytes of which the first four come last: who reads the file meanwhile, or after the
    /// process was killed, sees those only when the others are there.
    pub(crate) fn commit(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.memory.len);
        let (Some(end), Some((last, first))) = (end, bytes.split_first_chunk::<LAST>()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if self.memory.generation != generation() {
            return Err(io::Error::other("the memory was the parent's"));
        }
        if end > self.memory.provided() {
            self.memory.provide(end)?;
        }
        if offset.saturating_sub(self.passed) >= KEPT {
            self.let_go(offset);
        }
        // SAFETY: `offset..end` is within the mapping, which this process has, and which nobody else
        // writes to: `self` is borrowed for writing, and the bytes cannot lie in it. The fence keeps
        // the last bytes behind the others.
        unsafe {
            let to = self.memory.start.add(offset);
            ptr::copy_nonoverlapping(first.as_ptr(), to.add(LAST), first.len());
            fence(Ordering::Release);
            to.cast::<[u8; LAST]>().write(*last);
        }
        Ok(())
    }

    /// Lets go of what was written before.
    fn let_go(&mut self, offset: usize) {
        let passed = offset - offset % WINDOW;
        // What is not let go of counts for longer, and does no other harm.
        _ = self.memory.advise(self.passed..passed, libc::MADV_DONTNEED);
        self.passed = passed;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::in_child;
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn mapped(len: usize) -> (File, Mapping) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        let mapping = Mapping::new(&file, len).unwrap();
        (file, mapping)
    }

    #[test]
    fn what_is_committed_is_in_the_file_across_windows_and_after_the_mapping() {
        let (file, mut mapping) = mapped(3 * KEPT + 100);
        let lens = [4, 44, 1000, 3 * WINDOW, WINDOW, 300, KEPT, KEPT, 4, WINDOW, WINDOW, 50];
        let mut offset = 1;
        let mut expected = vec![0];
        for (byte, len) in (1_u8..).zip(lens) {
            let bytes = vec![byte; len];
            mapping.commit(&bytes, offset).unwrap();
            expected.extend(bytes);
            offset += len;
            let mut read = vec![0; expected.len()];
            file.read_exact_at(&mut read, 0).unwrap();
            assert!(read == expected, "{len} bytes");
        }
        let held = mapping.memory.provided() - mapping.passed;
        assert!(held <= 2 * KEPT + 2 * WINDOW, "{held}");
        drop(mapping);
        let mut read = vec![0; expected.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == expected);
    }

    #[test]
    fn another_thread_provides_what_is_written_next() {
        let (file, mut mapping) = mapped(4 * WINDOW);
        mapping.commit(&[1; 8], 0).unwrap();
        assert!(mapping.provider(WINDOW).is_none());
        let provide = mapping.provider(2 * WINDOW + 1).unwrap();
        std::thread::spawn(provide).join().unwrap();
        assert_eq!(mapping.memory.provided(), 3 * WINDOW);
        mapping.commit(&[2; 16], WINDOW - 8).unwrap();
        let mut read = [0; 32];
        file.read_exact_at(&mut read, WINDOW as u64 - 16).unwrap();
        assert_eq!(read, *[[0; 8], [2; 8], [2; 8], [0; 8]].as_flattened());

        // The writer may be done with the file before that thread is.
        let late = mapping.provider(4 * WINDOW).unwrap();
        drop(mapping);
        file.set_len(0).unwrap();
        late();
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn nothing_is_written_beyond_the_mapping() {
        let (file, mut mapping) = mapped(100);
        for (len, offset) in [(101, 0), (4, 97), (4, usize::MAX), (3, 0), (0, 0)] {
            let refused = mapping.commit(&vec![1; len], offset).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{len} at {offset}");
        }
        let mut read = [0; 100];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, [0; 100]);
    }

    #[test]
    fn a_forked_child_has_no_part_in_it() {
        let (file, mapping) = mapped(2 * WINDOW);
        let mut mapping = Some(mapping);
        let commit =
            |mapping: &mut Option<Mapping>, bytes| mapping.as_mut().unwrap().commit(&[bytes; 8], 0);
        commit(&mut mapping, 1).unwrap();
        let refused = in_child(|| {
            let refused = commit(&mut mapping, 2).is_err()
                && mapping.as_ref().unwrap().provider(WINDOW + 1).is_none();
            mapping.take();
            i32::from(refused)
        });
        assert_eq!(refused, 1);
        let mut read = [0; 8];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, [1; 8]);
        mapping.unwrap().commit(&[3; 8], 8).unwrap();
    }
}
