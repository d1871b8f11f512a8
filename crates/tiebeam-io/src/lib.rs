//! File systems, text, csv, json, images, match and read, atomic file sinks.
