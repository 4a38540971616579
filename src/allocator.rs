//! Keeps memory small when the C library's allocator would let it grow.
//!
//! The reader of checkpoints allocates on one thread and frees on another. The GNU allocator then keeps
//! a heap for each, and the peak at a million files is twice what one heap needs. The answer's own path
//! allocates nothing for a file, so one heap costs no time.

/// Makes the allocator use one heap for all threads. Call it before threads are started; it does
/// nothing if the C library is another one.
pub fn use_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: `mallopt` only sets a parameter of the allocator, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
