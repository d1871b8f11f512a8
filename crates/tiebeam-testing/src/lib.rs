//! TestPipeline, assert_that and the three modes.
