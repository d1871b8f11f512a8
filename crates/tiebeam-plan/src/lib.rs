//! From a graph to stages: flatten unzip, combiner lifting, fusion, and a sanity check.
