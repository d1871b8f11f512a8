//! Every derived transform, through the public API only.
