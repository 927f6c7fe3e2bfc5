//! Memory that layers and trees have taken goes back to the system.
//!
//! glibc keeps what was freed: up to twice the largest block that it has seen, for each thread that
//! has worked, and what lies between blocks in use. After a few images that are 70 MB, on a node
//! that needs them for containers. With a limit that is set (mallopt(3)) large blocks go at once,
//! and malloc_trim(3) gives the free pages between the others back.
//!
//! Invariant: only free memory is touched. Another C library than glibc does all this by itself.
#![allow(unsafe_code)]

/// From this size on a block has pages of its own, in bytes.
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 1 << 20;

/// Has large blocks go when they are freed. To be called before there are threads.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    for limit in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it takes two numbers, and no other thread is there yet (mallopt(3), "MT-Unsafe
        // init").
        unsafe {
            libc::mallopt(limit, OWN_PAGES);
        }
    }
}

/// Gives free memory back.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, changes nothing that is allocated, and is MT-Safe
    // (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
