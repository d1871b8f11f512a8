//! The embedded runner: threads, shuffle, bundles and their retries.
