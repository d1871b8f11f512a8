//! How much memory the C library's allocator keeps for threads.
#![allow(unsafe_code)] // `mallopt` is a function of C: see below

/// Lets glibc's allocator have as many arenas as there are cores, unless the environment says how many. By default it has eight a core, one
/// for nearly every thread, and each keeps what its thread has let go of: photos that eight threads decoded on two cores took a fifth
/// more memory than they needed, for no time that could be measured.
pub(super) fn bound() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let tunes = |name: &str, word: &str| {
            std::env::var_os(name).is_some_and(|value| value.to_string_lossy().contains(word))
        };
        if tunes("MALLOC_ARENA_MAX", "") || tunes("GLIBC_TUNABLES", "arena_max") {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: it takes two numbers and locks what it changes; one that it does not like changes nothing.
        let _is_taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, cores.clamp(2, 1024) as libc::c_int) };
    }
}
