//! Shared memory mappings of files.
//!
//! Invariant: the bytes are only read and written one by one through volatile accesses, for the
//! file changes beside the mapping.
#![allow(unsafe_code)]

use std::fs::File;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// The beginning of a file.
pub struct Mapping {
    at: NonNull<u8>,
    length: usize,
}

impl Mapping {
    pub fn new(file: &File, length: usize, writable: bool) -> Self {
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let at = unsafe {
            mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0).unwrap()
        };
        Self { at: NonNull::new(at.cast()).unwrap(), length }
    }

    pub fn read(&self, length: usize) -> Vec<u8> {
        assert!(length <= self.length);
        // SAFETY: inside the mapping, which lives as long as self; u8 has no invalid value.
        (0..length).map(|at| unsafe { self.at.add(at).read_volatile() }).collect()
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        for (at, byte) in bytes.iter().enumerate() {
            // SAFETY: inside the mapping, which was made for writing where this is called.
            unsafe { self.at.add(offset + at).write_volatile(*byte) };
        }
    }

    pub fn sync(&self) {
        // SAFETY: exactly the mapping.
        unsafe { msync(self.at.as_ptr().cast(), self.length, MsyncFlags::SYNC).unwrap() };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // munmap(2) writes back what is left while nobody in this process can fault a page in, and
        // the daemon that is to write it is in this process.
        self.sync();
        // SAFETY: exactly the mapping, which nobody can use any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.length) };
    }
}
